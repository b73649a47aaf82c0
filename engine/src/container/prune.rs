//! Removes all containers that do not run.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{Engine, EngineError, Kind, container::held::Held};

/// Which of the containers that do not run go.
#[derive(Clone, Debug, Default)]
pub struct PruneFilter {
    /// Only those made before.
    pub until: Option<Timestamp>,
    /// Only those with all of these labels (`name` or `name=value`).
    pub labels: Vec<String>,
    /// Not those with one of these.
    pub without_labels: Vec<String>,
}

/// What went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PrunedContainers {
    /// Ids of the containers.
    pub containers: Vec<String>,
    /// Bytes that their layers held.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes them, one after another; one that can't be removed is told in the log and stays.
    pub async fn prune_containers(&self, filter: PruneFilter) -> Result<PrunedContainers, EngineError> {
        self.carry_out(|engine| async move {
            let Ok(_alone) = engine.pruning.try_lock() else {
                return Err(EngineError::conflict("a prune operation is already running"));
            };
            let mut pruned = PrunedContainers::default();
            for held in engine.containers.all() {
                if !held.look(|container| !container.state.is_up() && filter.wants(container)) {
                    continue;
                }
                match engine.prune_one(&held).await {
                    Ok(bytes) => {
                        pruned.containers.push(held.id.to_string());
                        pruned.reclaimed += bytes;
                    }
                    // it was started or removed meanwhile
                    Err(error) if matches!(error.kind, Kind::Conflict | Kind::NotFound) => {}
                    Err(error) => tracing::warn!("cannot prune container {}: {error}", held.id),
                }
            }
            let reclaimed = ("reclaimed".to_owned(), pruned.reclaimed.to_string());
            engine.events.tell("container", "prune", "", vec![reclaimed]);
            Ok(pruned)
        })
        .await
    }

    async fn prune_one(self: &Arc<Self>, held: &Arc<Held>) -> Result<u64, EngineError> {
        let (bytes, _) = self.sizes(held, 0).await?;
        self.remove_container(held.id.as_str(), false, false).await?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }
}

impl PruneFilter {
    fn wants(&self, container: &sluice_model::Container) -> bool {
        let labels = &container.config.labels;
        let bears = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|given| given == value),
            None => labels.contains_key(wanted),
        };
        self.until.is_none_or(|until| container.created < until)
            && self.labels.iter().all(bears)
            && !self.without_labels.iter().any(bears)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::held::tests::record;

    #[test]
    fn age_and_labels_choose() {
        let mut container = record("web", 1);
        container.config.labels = [("tier".to_owned(), "front".to_owned())].into();
        let wants = |filter: PruneFilter| filter.wants(&container);
        assert!(wants(PruneFilter::default()));
        let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
        assert!(wants(PruneFilter {
            labels: labels(&["tier", "tier=front"]),
            ..Default::default()
        }));
        assert!(!wants(PruneFilter {
            labels: labels(&["tier", "keep"]),
            ..Default::default()
        }));
        assert!(!wants(PruneFilter {
            without_labels: labels(&["tier=front"]),
            ..Default::default()
        }));
        assert!(!wants(PruneFilter {
            until: Some(Timestamp::UNIX_EPOCH),
            ..Default::default()
        }));
    }
}
