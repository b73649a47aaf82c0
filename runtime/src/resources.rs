//! What a container may use, changed while it runs, and what it has used.

use oci_spec::runtime::LinuxResources;

use crate::{
    Runtime, RuntimeError,
    cgroup::{Features, Stats},
    off_the_loop,
};

impl Runtime {
    /// Which limits the kernel can set here.
    pub fn features(&self) -> &Features {
        self.features
            .get_or_init(|| self.hierarchies.features(&self.config.cgroup_parent))
    }

    /// Sets new limits on a container, running or not. What `resources` does not speak of stays.
    pub async fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), RuntimeError> {
        self.directory(id)?;
        let (hierarchies, place, resources) = (self.hierarchies.clone(), self.place(id), resources.clone());
        off_the_loop(move || hierarchies.limit(&place, &resources)).await
    }

    /// What the container has used so far, and its limits as they are now.
    pub async fn stats(&self, id: &str) -> Result<Stats, RuntimeError> {
        self.directory(id)?;
        let (hierarchies, place) = (self.hierarchies.clone(), self.place(id));
        off_the_loop(move || Ok(hierarchies.stats(&place))).await
    }
}
