//! A container and what belongs to it, for those who look.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sluice_model::{
    Container, Id, PublishedPort,
    container::{EndpointView, Link, NetworkMode},
    health::Health,
};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{held::Held, log, spec},
};

/// A container and what belongs to it, for `inspect` and `ps`.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The record, its state up to date.
    pub container: Container,
    /// What others call it by links on the default network: `other/alias`.
    pub link_names: Vec<String>,
    /// The name of its image as the user gave it, or the image's id when that name is another's now.
    pub image_name: String,
    /// Its place in each network.
    pub endpoints: Vec<EndpointView>,
    /// The network `host` or `none`, while it runs with that one: it has no place in it.
    pub placeless: Option<Id>,
    /// What it calls its host.
    pub host_name: String,
    /// What is published now.
    pub ports: Vec<sluice_model::PublishedPort>,
    /// `<exec-root>/netns/<id>`, when it has a namespace of its own.
    pub sandbox_path: Option<PathBuf>,
    /// The log file, empty: none.
    pub log_path: PathBuf,
    /// `/etc/hosts` and so on, on the host.
    pub resolv_conf_path: PathBuf,
    /// As above.
    pub hostname_path: PathBuf,
    /// As above.
    pub hosts_path: PathBuf,
    /// Mounted root, upper, lower, work directories of overlayfs (`GraphDriver.Data`).
    pub graph: Vec<(String, String)>,
    /// What is mounted in it, and where that is on the host.
    pub mounts: Vec<(sluice_model::container::Mount, PathBuf)>,
    /// Ids of running exec sessions.
    pub exec_ids: Vec<String>,
    /// What is known of its health; none: it has no check.
    pub health: Option<Health>,
    /// Sizes of the writable layer and of all, bytes, when asked for.
    pub size: Option<(i64, i64)>,
}

impl Engine {
    /// By id, unambiguous id prefix, or name (with or without a leading slash).
    pub async fn inspect_container(&self, name: &str, size: bool) -> Result<ContainerView, EngineError> {
        let held = self.containers.find(name)?;
        let mut view = self.view(&held);
        let (images, id) = (self.images.clone(), view.container.image_id.clone());
        let asked = view.container.config.image.clone();
        let directory = self.config.container(&held.id);
        let (name, of_image, below) = blocking(move || {
            let named = images.find(&asked).is_ok_and(|image| image.id == id);
            let of_image = images.find(&id).map_or(0, |image| image.size);
            let below = images.below(&directory).unwrap_or_default();
            Ok((if named { asked } else { id }, of_image, below))
        })
        .await?;
        view.image_name = name;
        let below: Vec<String> = below.iter().map(|path| path.display().to_string()).collect();
        view.graph.push(("LowerDir".to_owned(), below.join(":")));
        let host = &mut view.container.host_config;
        // what nobody asked for is shown too
        if !host.privileged {
            let (masked, readonly) = spec::covered_paths(host)?;
            host.masked_paths.get_or_insert(masked);
            host.readonly_paths.get_or_insert(readonly);
        }
        if size {
            view.size = Some(self.sizes(&held, of_image).await?);
        }
        Ok(view)
    }

    /// A container as it is now; `image_name` is the name the user gave.
    pub(crate) fn view(&self, held: &Held) -> ContainerView {
        let mut container = held.record();
        // as Docker shows them: by the names of both
        if container
            .host_config
            .links
            .iter()
            .any(|link| Id::parse(&link.target).is_some())
        {
            let targets = self.targets(&container);
            let show = |(alias, target): (String, Arc<Held>)| Link {
                target: format!("/{}", target.look(|target| target.name.clone())),
                alias: format!("/{}/{alias}", container.name),
                name: String::new(),
            };
            container.host_config.links = targets.into_iter().map(show).collect();
        }
        let directory = self.config.container(&held.id);
        let etc = self.config.container(&self.owner_of_network(container.clone()).id);
        let endpoints = self.networks.of_container(&held.id);
        let own_namespace = container.state.is_alive()
            && !matches!(
                container.host_config.network_mode,
                NetworkMode::Host | NetworkMode::Container(_)
            );
        ContainerView {
            link_names: self
                .linked_from(held)
                .into_iter()
                .map(|(other, alias)| format!("{}/{alias}", other.look(|container| container.name.clone())))
                .collect(),
            image_name: container.config.image.clone(),
            placeless: self.placeless_in(&container),
            endpoints: endpoints.iter().map(|endpoint| self.networks.view(endpoint)).collect(),
            host_name: spec::host_name(&container),
            ports: endpoints
                .iter()
                .flat_map(|endpoint| endpoint.ports.iter().copied().flat_map(PublishedPort::singles))
                .collect(),
            sandbox_path: own_namespace.then(|| self.config.sandbox(&held.id)),
            log_path: log::public_path(&directory, &container).unwrap_or_default(),
            resolv_conf_path: etc.join("resolv.conf"),
            hostname_path: etc.join("hostname"),
            hosts_path: etc.join("hosts"),
            graph: graph(&directory),
            mounts: self.sources(&container),
            exec_ids: self.execs.running_in(&held.id),
            health: held.health().clone(),
            size: None,
            container,
        }
    }

    /// The network it names but has no place in.
    fn placeless_in(&self, container: &Container) -> Option<Id> {
        let mode = &container.host_config.network_mode;
        let is_placeless = container.state.is_alive() && matches!(mode, NetworkMode::Host | NetworkMode::None);
        let network = is_placeless.then(|| self.networks.find(&mode.to_string()).ok())?;
        network.map(|network| network.id)
    }

    /// Bytes in the writable layer, and with the image's below it.
    pub(crate) async fn sizes(&self, held: &Held, of_image: u64) -> Result<(i64, i64), EngineError> {
        let upper = self.config.container(&held.id).join("upper");
        let own = match held.look(|container| container.state.is_alive()) {
            true => self.sizes.of(upper).await?,
            false => self.sizes.of_quiet(upper).await?,
        };
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok((signed(own), signed(own.saturating_add(of_image))))
    }
}

fn graph(directory: &Path) -> Vec<(String, String)> {
    [("MergedDir", "merged"), ("UpperDir", "upper"), ("WorkDir", "work")]
        .map(|(name, sub)| (name.to_owned(), directory.join(sub).display().to_string()))
        .into()
}
