//! Gives a container another name.

use sluice_store::{Condition, Transaction, Write, key, record};

use crate::{Engine, EngineError, names};

impl Engine {
    /// Gives it another name.
    pub async fn rename_container(&self, name: &str, new_name: &str) -> Result<(), EngineError> {
        let held = self.containers.find(name)?;
        let new_name = new_name.strip_prefix('/').unwrap_or(new_name).to_owned();
        if new_name.is_empty() {
            return Err(EngineError::invalid("Neither old nor new names may be empty"));
        }
        if !names::is_valid(&new_name) {
            return Err(EngineError::invalid(format!(
                "Invalid container name ({new_name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            let old_name = held.look(|container| container.name.clone());
            if old_name == new_name {
                return Err(EngineError::invalid(
                    "Renaming a container with the same name as its current name",
                ));
            }
            engine.containers.reserve(&new_name, &held.id)?;
            let mut renamed = held.record();
            renamed.name.clone_from(&new_name);
            let mut transaction = Transaction {
                conditions: vec![Condition::Absent(key::name(&new_name))],
                writes: vec![
                    Write::Delete(key::name(&old_name)),
                    Write::Put(key::name(&new_name), held.id.as_str().as_bytes().to_vec()),
                    Write::Put(key::container(&held.id), record::encode(&renamed)?),
                ],
            };
            // flows and drops show the new name too
            let before = engine.networks.of_container(&held.id);
            if let Err(error) = engine.claim_new_name(&before, &new_name).await {
                engine.containers.release(&new_name);
                return Err(error);
            }
            let mut endpoints = engine.networks.of_container(&held.id);
            for endpoint in &mut endpoints {
                endpoint.name.clone_from(&new_name);
                transaction
                    .writes
                    .push(Write::Put(key::endpoint(&endpoint.id), record::encode(&*endpoint)?));
            }
            match engine.commit(transaction).await {
                Ok(revision) => engine.agent.named(revision).await,
                Err(error) => {
                    engine.containers.release(&new_name);
                    engine.others_are_told();
                    return Err(error);
                }
            }
            held.change(|container| container.name.clone_from(&new_name));
            let mut places = engine.networks.places();
            for endpoint in endpoints {
                places.endpoints.insert(endpoint.id.clone(), endpoint);
            }
            drop(places);
            engine.containers.release(&old_name);
            engine.tell(&held, "rename", &[("oldName", format!("/{old_name}"))]);
            Ok(())
        })
        .await
    }
}
