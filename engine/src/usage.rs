//! What takes how much room: images, containers, volumes.

use std::collections::BTreeMap;

use sluice_image::Image;

use crate::{
    ContainerView, Engine, EngineError, ListFilter,
    blocking::blocking,
    volume::{inspect::VolumeView, local},
};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct UsageOf {
    /// Images and their layers.
    pub images: bool,
    /// Containers.
    pub containers: bool,
    /// Volumes.
    pub volumes: bool,
}

/// What takes how much room; what was not asked for is empty.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// Bytes of all layers, each counted once.
    pub layers: u64,
    /// Images.
    pub images: Vec<ImageUsage>,
    /// Containers, with their sizes.
    pub containers: Vec<ContainerView>,
    /// Volumes, with their sizes.
    pub volumes: Vec<VolumeView>,
}

/// An image, and what it takes.
#[derive(Clone, Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: Image,
    /// Bytes of its layers that other images have too.
    pub shared: u64,
    /// How many containers were made of it.
    pub containers: usize,
}

impl Engine {
    /// What takes how much room. Sizes of what nobody writes to are known since they were counted last; only what runs is walked each time.
    pub async fn disk_usage(&self, of: UsageOf) -> Result<DiskUsage, EngineError> {
        let mut usage = DiskUsage::default();
        if of.images {
            (usage.layers, usage.images) = self.usage_of_images().await?;
        }
        if of.containers {
            let everything = ListFilter {
                all: true,
                size: true,
                ..ListFilter::default()
            };
            usage.containers = self.list_containers(&everything).await?;
        }
        if of.volumes {
            for mut view in self.list_volumes() {
                view.size = self.size_of_volume(&view).await?;
                usage.volumes.push(view);
            }
        }
        Ok(usage)
    }

    async fn usage_of_images(&self) -> Result<(u64, Vec<ImageUsage>), EngineError> {
        let mut users: BTreeMap<String, usize> = BTreeMap::new();
        for held in self.containers.all() {
            *users
                .entry(held.look(|container| container.image_id.clone()))
                .or_default() += 1;
        }
        let images = self.images.clone();
        blocking(move || {
            let (layers, shared) = images.usage();
            let usage = |image: Image| ImageUsage {
                shared: shared.get(&image.id).copied().unwrap_or(0),
                containers: users.get(&image.id).copied().unwrap_or(0),
                image,
            };
            Ok((layers, images.list()?.into_iter().map(usage).collect()))
        })
        .await
    }

    /// What is mounted on a volume is not its own, and may be as far away as another machine.
    async fn size_of_volume(&self, view: &VolumeView) -> Result<i64, EngineError> {
        if view.volume.is_mounted() {
            return Ok(-1);
        }
        let data = local::data(&self.config, &view.volume.name);
        let size = match self.volumes.is_mounted(&view.volume.name) {
            true => self.sizes.of(data).await?,
            false => self.sizes.of_quiet(data).await?,
        };
        Ok(i64::try_from(size).unwrap_or(i64::MAX))
    }
}
