//! Counts and facts for `info`.

use std::path::{Path, PathBuf};

use sluice_model::container::Phase;

use crate::{Engine, EngineError, error};

/// Counts and facts for `info`.
#[derive(Clone, Debug)]
pub struct Info {
    /// This daemon's id.
    pub id: String,
    /// Containers running, paused, stopped.
    pub running: usize,
    /// As above.
    pub paused: usize,
    /// As above.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// The data root.
    pub data_root: PathBuf,
    /// Have containers users of their own?
    pub remaps_users: bool,
    /// `1` or `2`.
    pub cgroup_version: u8,
}

impl Engine {
    /// Counts.
    pub async fn info(&self) -> Result<Info, EngineError> {
        let phases: Vec<Phase> = self
            .containers
            .all()
            .iter()
            .map(|held| held.look(|container| container.state.phase))
            .collect();
        let count = |wanted: Phase| phases.iter().filter(|phase| **phase == wanted).count();
        let (running, paused) = (count(Phase::Running), count(Phase::Paused));
        Ok(Info {
            id: self.identity.clone(),
            running,
            paused,
            stopped: phases.len() - running - paused,
            images: self.list_images().await?.len(),
            data_root: self.config.data_root.clone(),
            remaps_users: self.config.id_map.is_some(),
            cgroup_version: if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
                2
            } else {
                1
            },
        })
    }
}

/// This daemon's id: made once, kept in `<data-root>/engine-id`.
pub(crate) async fn identity(data_root: &Path) -> Result<String, EngineError> {
    let path = data_root.join("engine-id");
    if let Ok(text) = tokio::fs::read_to_string(&path).await
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let [a, b, c, d] = rand::random::<[u32; 4]>();
    let id = format!(
        "{a:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{d:08x}",
        b >> 16,
        b & 0xfff,
        (c >> 16) & 0x3fff | 0x8000,
        c & 0xffff
    );
    tokio::fs::write(&path, format!("{id}\n"))
        .await
        .map_err(|why| error::io("write", &path, &why))?;
    Ok(id)
}
