//! Makes a container: checks everything, then takes a name, a writable layer and a record.

use std::sync::Arc;

use jiff::Timestamp;
use sluice_model::{Container, ContainerConfig, HostConfig, Id};
use sluice_store::{Condition, Transaction, Write, key, record};

use crate::{
    Engine, EngineError, Kind,
    blocking::blocking,
    container::{directory, held::Held, merge, validate},
    names,
    undo::Undo,
};

/// A request to make a container.
#[derive(Clone, Debug, Default)]
pub struct CreateContainer {
    /// `--name`; none: a made-up one (adjective_surname).
    pub name: Option<String>,
    /// The wish.
    pub config: ContainerConfig,
    /// The wish as to this host.
    pub host_config: HostConfig,
}

/// What `create` answers.
#[derive(Clone, Debug)]
pub struct Created {
    /// The new container's id.
    pub id: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container. Nothing half-made is left behind by a failure.
    pub async fn create_container(&self, request: CreateContainer) -> Result<Created, EngineError> {
        self.carry_out(|engine| async move {
            let mut undo = Undo::default();
            let result = engine.create(request, &mut undo).await;
            if result.is_err() {
                undo.go_back().await;
            }
            result
        })
        .await
    }

    async fn create(self: &Arc<Self>, request: CreateContainer, undo: &mut Undo) -> Result<Created, EngineError> {
        let name = request
            .name
            .map(|name| name.strip_prefix('/').map(str::to_owned).unwrap_or(name));
        if let Some(name) = name.as_deref().filter(|name| !names::is_valid(name)) {
            return Err(EngineError::invalid(format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        let mut warnings = validate::validate(&request.config, &request.host_config)?;
        self.network_of_mode(&request.host_config.network_mode)?;
        let image = self.find_image(&request.config.image).await?;
        let config = merge::merge(request.config, &image.config, &image.extras)?;
        warnings.extend(validate::validate(&config, &request.host_config)?);
        warnings.dedup();

        let id = Id::from_bytes(rand::random());
        let name = self.take_name(name, &id)?;
        undo.by("give the name back", {
            let (engine, name) = (self.clone(), name.clone());
            async move {
                engine.containers.release(&name);
                Ok(())
            }
        });

        let container = Container {
            id: id.clone(),
            name,
            created: Timestamp::now(),
            config,
            host_config: request.host_config,
            image_id: image.id,
            state: Default::default(),
        };
        undo.by("remove the directory of the container", {
            let (images, directory) = (self.images.clone(), self.config.container(&id));
            async move { blocking(move || directory::remove(&images, &directory)).await }
        });
        self.prepare_layer(&container).await?;
        self.commit(first_record(&container)?).await?;
        let held = Arc::new(Held::new(container));
        self.containers.enter(held.clone());
        self.tell(&held, "create", &[]);
        Ok(Created {
            id: id.to_string(),
            warnings,
        })
    }

    fn take_name(&self, wish: Option<String>, id: &Id) -> Result<String, EngineError> {
        if let Some(name) = wish {
            self.containers.reserve(&name, id)?;
            return Ok(name);
        }
        let mut tries = 0;
        loop {
            let name = names::make_up(tries);
            match self.containers.reserve(&name, id) {
                Ok(()) => return Ok(name),
                Err(error) if error.kind == Kind::Conflict && tries < 100 => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn prepare_layer(&self, container: &Container) -> Result<(), EngineError> {
        let (images, image) = (self.images.clone(), container.image_id.clone());
        let path = self.config.container(&container.id);
        blocking(move || {
            std::fs::create_dir_all(&path).map_err(|why| crate::error::io("make", &path, &why))?;
            images.prepare(&image, &path)?;
            Ok(())
        })
        .await
    }

    /// Tells that something happened to a container.
    pub(crate) fn tell(&self, held: &Held, action: &str, more: &[(&str, String)]) {
        let mut attributes = held.look(|container| {
            let mut attributes: Vec<_> = container
                .config
                .labels
                .iter()
                .map(|(label, value)| (label.clone(), value.clone()))
                .collect();
            attributes.push(("image".to_owned(), container.config.image.clone()));
            attributes.push(("name".to_owned(), container.name.clone()));
            attributes
        });
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.events.tell("container", action, held.id.as_str(), attributes);
    }
}

fn first_record(container: &Container) -> Result<Transaction, EngineError> {
    let (name, place) = (key::name(&container.name), key::container(&container.id));
    Ok(Transaction {
        conditions: vec![Condition::Absent(name.clone())],
        writes: vec![
            Write::Put(name, container.id.as_str().as_bytes().to_vec()),
            Write::Put(place, record::encode(container)?),
        ],
    })
}
