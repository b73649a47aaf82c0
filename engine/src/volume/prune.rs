//! Removes all volumes that nobody has.

use sluice_model::Volume;

use crate::{Engine, EngineError, Kind, volume::local};

/// What a prune took away.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Names or ids.
    pub removed: Vec<String>,
    /// Bytes that are free now.
    pub bytes: u64,
}

impl Engine {
    /// Removes those that nobody has and that are `wanted` gone.
    pub async fn prune_volumes(
        &self,
        wanted: impl Fn(&Volume) -> bool + Send + 'static,
    ) -> Result<Pruned, EngineError> {
        self.carry_out(|engine| async move {
            let _story = engine.volumes.story.lock().await;
            let mut pruned = Pruned::default();
            let all = engine.volumes.all().into_iter();
            let candidates: Vec<Volume> = all
                .filter(|volume| engine.volumes.users(&volume.name).is_empty() && wanted(volume))
                .collect();
            for volume in candidates {
                // what is mounted on it stays where it is
                let bytes = match volume.is_mounted() {
                    true => 0,
                    false => engine.sizes.of_quiet(local::data(&engine.config, &volume.name)).await?,
                };
                match engine.drop_volume(&volume.name).await {
                    Ok(()) => {
                        pruned.removed.push(volume.name);
                        pruned.bytes = pruned.bytes.saturating_add(bytes);
                    }
                    Err(error) if error.kind == Kind::Conflict => {}
                    Err(error) => tracing::warn!("cannot prune volume {}: {error}", volume.name),
                }
            }
            let reclaimed = vec![("reclaimed".to_owned(), pruned.bytes.to_string())];
            engine.events.tell("volume", "prune", "", reclaimed);
            Ok(pruned)
        })
        .await
    }
}
