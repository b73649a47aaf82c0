//! Takes over what an earlier daemon left: running containers are watched again, ended ones get their end, what belongs to nobody is removed.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use sluice_model::{Container, Endpoint, Id, container::Phase};
use sluice_runtime::{Exit, RuntimeError, Status};
use sluice_store::{Entry, Transaction, Write, key, record};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    boot,
    container::{
        directory,
        held::Held,
        watch::{Afterwards, unseen},
    },
};

/// What the store knew of places in networks when the daemon started.
pub(crate) struct Places {
    endpoints: Vec<Endpoint>,
    sandboxes: Vec<String>,
    addresses: Vec<Entry>,
}

/// What the runtime says of a container.
enum Found {
    Alive(Phase, u32),
    Ended(Exit),
    Nothing,
}

impl Engine {
    /// Reads the networks. One that can't be read is told and left alone.
    pub(crate) fn read_networks(&self, entries: Vec<Entry>) {
        for network in readable(entries) {
            self.networks.enter(network);
        }
    }

    /// Reads who stands where, so that no place is given twice.
    pub(crate) async fn read_places(&self) -> Result<Places, EngineError> {
        let (endpoints, _) = self.store.list(key::ENDPOINTS).await?;
        let (sandboxes, _) = self.store.list(key::SANDBOXES).await?;
        let (addresses, _) = self.store.list(key::ADDRESSES).await?;
        let endpoints: Vec<Endpoint> = readable(endpoints);
        for endpoint in &endpoints {
            self.networks.places().enter(endpoint.clone());
        }
        Ok(Places {
            endpoints,
            sandboxes: sandboxes.into_iter().map(|entry| entry.key).collect(),
            addresses,
        })
    }

    /// Takes the containers over.
    pub(crate) async fn adopt_containers(self: &Arc<Self>, places: Places) -> Result<(), EngineError> {
        let (entries, _) = self.store.list(key::CONTAINERS).await?;
        let unreadable: BTreeSet<String> = entries
            .iter()
            .filter(|entry| record::decode::<Container>(&entry.key, &entry.value).is_err())
            .map(|entry| entry.key.clone())
            .collect();
        for mut container in readable::<Container>(entries) {
            // a record of the days when binds were all there was
            if container.mounts.is_empty() {
                container.mounts.clone_from(&container.host_config.binds);
            }
            self.containers.enter(Arc::new(Held::new(container)));
        }
        self.remove_orphans(places, &unreadable).await?;
        let rebooted = boot::is_new(&self.config.data_root);
        let all = futures_util::future::join_all(self.containers.all().into_iter().map(|held| {
            let engine = self.clone();
            async move { engine.adopt(held, rebooted).await }
        }));
        // before the first of them ends or starts again
        self.adopt_volumes().await;
        all.await;
        boot::remember(&self.config.data_root)
    }

    async fn adopt(self: &Arc<Self>, held: Arc<Held>, rebooted: bool) {
        let _story = held.story.lock().await;
        let was = held.record();
        let found = match self.look_for(&was, rebooted).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!("cannot find out how container {} is: {error}", held.id);
                return;
            }
        };
        match (was.state.phase, found) {
            (Phase::Removing | Phase::Dead, _) => {
                if let Err(error) = self.remove_whole(&held).await {
                    tracing::warn!("cannot finish the removal of container {}: {error}", held.id);
                }
            }
            (_, Found::Alive(phase, pid)) => {
                held.change(|container| (container.state.phase, container.state.pid) = (phase, pid));
                held.began();
                self.watch(&held);
                self.look_after(&held, false);
            }
            (_, Found::Ended(exit)) => self.end(&held, exit, Afterwards::AsThePolicySays).await,
            (Phase::Running | Phase::Paused, Found::Nothing) => {
                // it went with its host, or with all that the host remembered of it
                self.end(&held, unseen(), Afterwards::ItRests).await;
                self.start_with_daemon(held.clone()).await;
            }
            (Phase::Restarting, Found::Nothing) if !rebooted => {
                self.restart_later(&held, was.state.started_at, Timestamp::now());
            }
            (Phase::Created | Phase::Exited | Phase::Restarting, Found::Nothing) => {
                self.unmount_again(&held).await;
                self.recall_health(&held);
                self.start_with_daemon(held.clone()).await;
            }
        }
    }

    /// What is done with a container that does not run as the daemon starts; the caller holds its lock. `always` is taken at its word, as by Docker: it
    /// starts even what the user had stopped. What was to go at its end goes now.
    async fn start_with_daemon(self: &Arc<Self>, held: Arc<Held>) {
        let was = held.record();
        if held.life().borrow().removed {
            return;
        }
        if was.host_config.auto_remove {
            if let Err(error) = self.remove_whole(&held).await {
                tracing::warn!("cannot remove container {}: {error}", held.id);
            }
            return;
        }
        let starts = match was.host_config.restart_policy.name.as_str() {
            _ if was.state.phase == Phase::Created => false,
            "always" => true,
            "unless-stopped" => !was.state.stopped_by_user,
            _ => false,
        };
        if !starts {
            if was.state.phase == Phase::Restarting {
                held.change(|container| container.state.phase = Phase::Exited);
                held.rests();
                if let Err(error) = self.save(&held).await {
                    tracing::warn!("cannot record that container {} has ended: {error}", held.id);
                }
            }
            return;
        }
        let engine = self.clone();
        tokio::spawn(async move {
            let _story = held.story.lock().await;
            if let Err(error) = engine.begin_anew(&held).await {
                tracing::warn!("the restart policy cannot start container {}: {error}", held.id);
            }
        });
    }

    async fn look_for(&self, was: &Container, rebooted: bool) -> Result<Found, EngineError> {
        let id = &was.id;
        if rebooted {
            // its directory may have outlived the host, its process has not
            match self.runtime.delete(id.as_str()).await {
                Ok(()) | Err(RuntimeError::NoSuchContainer(_)) => return Ok(Found::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
        let state = match self.runtime.state(id.as_str()).await {
            Ok(state) => state,
            Err(RuntimeError::NoSuchContainer(_)) => return Ok(Found::Nothing),
            // it may come to itself; then it tells of the end that is waited for
            Err(RuntimeError::Unanswered(_)) if was.state.is_alive() => {
                tracing::warn!("the shim of container {id} does not answer: the container is taken for what it was");
                let pid = self.runtime.recorded_pid(id.as_str())?.unwrap_or_default();
                return Ok(Found::Alive(was.state.phase, pid));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(match (state.status, state.pid) {
            (Status::Running, Some(pid)) => Found::Alive(Phase::Running, pid),
            (Status::Paused, Some(pid)) => Found::Alive(Phase::Paused, pid),
            // the daemon died between create and start: the process has run nothing yet
            (Status::Created, _) => Found::Ended(unseen()),
            _ => Found::Ended(state.exit.unwrap_or_else(unseen)),
        })
    }

    /// An end is told before its root is unmounted: the daemon may have died in between.
    async fn unmount_again(&self, held: &Held) {
        if let Err(error) = self.unmount_root(held).await {
            tracing::warn!("cannot unmount what container {} had mounted: {error}", held.id);
        }
    }

    /// Removes processes, directories and places without a record. What belongs to a record that can't be read is left alone.
    async fn remove_orphans(&self, places: Places, unreadable: &BTreeSet<String>) -> Result<(), EngineError> {
        let is_known = |id: &Id| self.containers.by_id(id).is_some() || unreadable.contains(&key::container(id));
        for id in self.runtime.list()? {
            if Id::parse(&id).is_some_and(|id| !is_known(&id)) {
                tracing::info!("removing the process of container {id}, of which there is no record");
                if let Err(error) = self.runtime.delete(&id).await {
                    tracing::warn!("cannot remove the process of container {id}: {error}");
                }
            }
        }
        self.remove_orphaned_directories(&is_known).await?;

        let (gone, kept): (Vec<Endpoint>, Vec<Endpoint>) = places
            .endpoints
            .into_iter()
            .partition(|endpoint| !is_known(&endpoint.container));
        let mut writes: Vec<Write> = gone
            .iter()
            .map(|endpoint| Write::Delete(key::endpoint(&endpoint.id)))
            .collect();
        let kept: BTreeSet<&[u8]> = kept.iter().map(|endpoint| endpoint.id.as_str().as_bytes()).collect();
        let lost = places
            .addresses
            .into_iter()
            .filter(|address| !kept.contains(address.value.as_slice()));
        writes.extend(lost.map(|address| Write::Delete(address.key)));
        let of_nobody = |place: &String| {
            place
                .strip_prefix(key::SANDBOXES)
                .and_then(Id::parse)
                .is_some_and(|id| !is_known(&id))
        };
        writes.extend(places.sandboxes.into_iter().filter(of_nobody).map(Write::Delete));
        self.release(&gone);
        if writes.is_empty() {
            return Ok(());
        }
        self.commit_release(Transaction {
            writes,
            ..Default::default()
        })
        .await
    }

    async fn remove_orphaned_directories(&self, is_known: &(impl Fn(&Id) -> bool + Sync)) -> Result<(), EngineError> {
        let root = self.config.containers();
        let entries = std::fs::read_dir(&root).map_err(|why| crate::error::io("read", &root, &why))?;
        let orphans: Vec<_> = entries
            .flatten()
            .filter(|entry| {
                entry
                    .file_name()
                    .to_str()
                    .and_then(Id::parse)
                    .is_some_and(|id| !is_known(&id))
            })
            .map(|entry| entry.path())
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        let images = self.images.clone();
        blocking(move || {
            for orphan in orphans {
                if let Err(error) = directory::remove(&images, &orphan) {
                    tracing::warn!(
                        "cannot remove {}, which belongs to no container: {error}",
                        orphan.display()
                    );
                }
            }
            Ok(())
        })
        .await
    }
}

/// Records that can be read; the others are told and left where they are.
fn readable<T: serde::de::DeserializeOwned>(entries: Vec<Entry>) -> Vec<T> {
    let read = |entry: Entry| match record::decode(&entry.key, &entry.value) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!("{error}");
            None
        }
    };
    entries.into_iter().filter_map(read).collect()
}
