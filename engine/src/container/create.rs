//! Makes a container: checks everything, then takes a name, a writable layer and a record.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use sluice_model::{
    Container, ContainerConfig, HostConfig, Id,
    container::{NetworkMode, NetworkWish},
};
use sluice_store::{Condition, Transaction, Write, key, record};
use tracing::{Instrument, debug_span};

use crate::{
    Engine, EngineError, Kind,
    blocking::blocking,
    container::{directory, held::Held, limits, merge, owners, sharing, validate},
    names,
    network::{connect, defaults::BRIDGE, sharing as network_sharing, sources},
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
    /// The wish as to each network, by name or id.
    pub networks: BTreeMap<String, NetworkWish>,
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
            let result = engine
                .create(request, &mut undo)
                .instrument(debug_span!("create"))
                .await;
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
        let mut host_config = request.host_config;
        let mut warnings = limits::discard(&mut host_config, self.runtime.features());
        warnings.extend(validate::validate(&request.config, &host_config)?);
        limits::check_availability(&host_config, self.runtime.features())?;
        limits::complete(&mut host_config);
        sharing::complete(&mut host_config, self.runtime.features());
        if self.config.id_map.is_some() {
            owners::check(&host_config)?;
        }
        warnings.extend(network_sharing::check(&request.config, &host_config)?);
        self.resolve_links(&mut host_config)?;
        sources::of(&request.config.labels, &[])?;
        self.check_networks(&request.networks)?;
        self.settle_mode(&mut host_config);
        let image = self.find_image(&request.config.image).await?;
        let config = merge::merge(request.config, &image.config, &image.extras)?;
        for warning in validate::validate(&config, &host_config)? {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }

        let id = Id::from_bytes(rand::random());
        let name = self.take_name(name, &id)?;
        undo.by("give the name back", {
            let (engine, name) = (self.clone(), name.clone());
            async move {
                engine.containers.release(&name);
                Ok(())
            }
        });

        let id_map = self.config.id_map.clone().filter(|_| owners::is_private(&host_config));
        let mounts = self.take_mounts(&id, &config, &host_config, undo).await?;
        let container = Container {
            id: id.clone(),
            name,
            created: Timestamp::now(),
            config,
            networks: self.networks_of(request.networks, &host_config),
            host_config,
            image_id: image.id,
            mounts,
            id_map,
            state: Default::default(),
        };
        undo.by("remove the directory of the container", {
            let (images, directory) = (self.images.clone(), self.config.container(&id));
            async move { blocking(move || directory::remove(&images, &directory)).await }
        });
        // the record goes to disk while the layer is made: a container without a layer gets one when it is mounted
        let first = first_record(&container)?;
        let layer = async {
            self.prepare_layer(&container).await?;
            self.fill_volumes(&container).await
        };
        let (made, committed) = tokio::join!(
            layer.instrument(debug_span!("layer")),
            self.commit(first).instrument(debug_span!("record"))
        );
        if committed.is_ok() {
            undo.by("take the record away", {
                let (engine, writes) = (self.clone(), last_record(&container));
                async move {
                    let transaction = Transaction {
                        writes,
                        ..Default::default()
                    };
                    engine.commit(transaction).await.map(drop)
                }
            });
        }
        made?;
        committed?;
        let held = Arc::new(Held::new(container));
        self.containers.enter(held.clone());
        self.tell(&held, "create", &[]);
        Ok(Created {
            id: id.to_string(),
            warnings,
        })
    }

    /// Refuses what can never be. A network (or a container to share one with) that is not there is told when the container starts, as by Docker: it may be made by then.
    fn check_networks(&self, wishes: &BTreeMap<String, NetworkWish>) -> Result<(), EngineError> {
        for (name, wish) in wishes {
            let name = if name == "default" { BRIDGE } else { name };
            if let Ok(network) = self.networks.find(name) {
                connect::check_wish(&network, wish)?;
            }
        }
        Ok(())
    }

    /// A container that another shares its network with is known by its id from here on: it may be renamed.
    fn settle_mode(&self, host: &mut HostConfig) {
        let id_of = |name: &str| self.containers.find(name).ok().map(|other| other.id.to_string());
        if let NetworkMode::Container(name) = &mut host.network_mode
            && let Some(id) = id_of(name)
        {
            *name = id;
        }
        for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(id) = mode.strip_prefix("container:").and_then(id_of) {
                *mode = format!("container:{id}");
            }
        }
    }

    /// Wishes by the names of networks; that of the mode is always among them.
    fn networks_of(&self, wishes: BTreeMap<String, NetworkWish>, host: &HostConfig) -> BTreeMap<String, NetworkWish> {
        let Some(of_mode) = Self::network_name_of_mode(&host.network_mode) else {
            return BTreeMap::new();
        };
        let name_of = |name: &str| match self.networks.find(if name == "default" { BRIDGE } else { name }) {
            Ok(network) => network.name,
            Err(_) => name.to_owned(),
        };
        let mut networks: BTreeMap<String, NetworkWish> =
            wishes.into_iter().map(|(name, wish)| (name_of(&name), wish)).collect();
        let name = name_of(of_mode);
        let is_default = name == BRIDGE;
        let first = networks.entry(name).or_default();
        // older clients say it here alone
        if first.links.is_empty() && !is_default {
            first.links.clone_from(&host.links);
        }
        networks
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
        let owners = container.id_map.as_ref().map(owners::of_files);
        let path = self.config.container(&container.id);
        let further: Vec<_> = directory::images_of(container, &path)
            .map(|(image, place)| (image.to_owned(), place))
            .collect();
        blocking(move || {
            std::fs::create_dir_all(&path).map_err(|why| crate::error::io("make", &path, &why))?;
            images.prepare(&image, &path, owners.as_ref())?;
            for (image, place) in further {
                images.prepare(&image, &place, owners.as_ref())?;
            }
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

/// Takes back what [`first_record`] wrote.
fn last_record(container: &Container) -> Vec<Write> {
    vec![
        Write::Delete(key::name(&container.name)),
        Write::Delete(key::container(&container.id)),
    ]
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
