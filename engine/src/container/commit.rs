//! Makes an image of a container.

use std::sync::Arc;

use sluice_image::{Commit, RunConfig};
use sluice_model::{Container, ContainerConfig, container::Phase};

use crate::{
    Engine, EngineError,
    blocking::blocking,
    container::{changes::SCAFFOLD, held::Held},
};

/// A request to make an image of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitContainer {
    /// Its name; none: an image without a name.
    pub reference: Option<String>,
    /// Who made it.
    pub author: String,
    /// A word on it.
    pub comment: String,
    /// Dockerfile instructions that change its configuration.
    pub changes: Vec<String>,
    /// What stands in here goes before what the container has.
    pub config: RunConfig,
    /// Freeze the container meanwhile, so that no file is caught in the middle of a change.
    pub pause: bool,
}

impl Engine {
    /// Makes an image of a container's file system and configuration; tells its id.
    pub async fn commit_container(&self, name: &str, request: CommitContainer) -> Result<String, EngineError> {
        let held = self.containers.find(name)?;
        self.carry_out(|engine| async move {
            let _story = held.story.lock().await;
            if matches!(
                held.look(|container| container.state.phase),
                Phase::Removing | Phase::Dead
            ) {
                return Err(EngineError::conflict(format!(
                    "You cannot commit container {} which is being removed",
                    held.id
                )));
            }
            let freezes = request.pause && held.look(|container| container.state.phase) == Phase::Running;
            if freezes {
                engine.runtime.pause(held.id.as_str()).await?;
                engine.tell(&held, "pause", &[]);
            }
            let made = engine.commit_files(&held, request).await;
            if freezes {
                match engine.runtime.resume(held.id.as_str()).await {
                    Ok(()) => engine.tell(&held, "unpause", &[]),
                    Err(error) => tracing::warn!("cannot thaw container {} after a commit: {error}", held.id),
                }
            }
            made
        })
        .await
    }

    async fn commit_files(self: &Arc<Self>, held: &Held, request: CommitContainer) -> Result<String, EngineError> {
        let container = held.record();
        let (images, directory) = (self.images.clone(), self.config.container(&held.id));
        let reference = request.reference.clone().unwrap_or_default();
        let comment = request.comment.clone();
        let image = blocking(move || {
            Ok(images.commit(Commit {
                directory: &directory,
                image: &container.image_id,
                scaffold: &SCAFFOLD,
                container: container.id.as_str(),
                command: &command_of(&container),
                config: merged(request.config, &container.config),
                changes: &request.changes,
                reference: request.reference.as_deref(),
                author: &request.author,
                comment: &request.comment,
            })?)
        })
        .await?;
        let mut more = vec![("comment", comment), ("imageID", image.id.clone())];
        if !reference.is_empty() {
            more.push(("imageRef", reference));
        }
        self.tell(held, "commit", &more);
        Ok(image.id)
    }
}

/// What the container runs, as one line of an image's history.
fn command_of(container: &Container) -> String {
    let config = &container.config;
    let words = config.entrypoint.iter().flatten().chain(&config.cmd);
    words.map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// The request's word, completed by the container's.
fn merged(mut wish: RunConfig, own: &ContainerConfig) -> RunConfig {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let set: Vec<String> = wish.env.iter().map(|variable| name(variable)).collect();
    let inherited = own.env.iter().filter(|variable| !set.contains(&name(variable)));
    wish.env.extend(inherited.cloned());
    if wish.user.is_empty() {
        wish.user.clone_from(&own.user);
    }
    if wish.working_dir.is_empty() {
        wish.working_dir.clone_from(&own.working_dir);
    }
    if wish.stop_signal.is_empty() {
        wish.stop_signal = own.stop_signal.clone().unwrap_or_default();
    }
    if wish.entrypoint.is_none() {
        if wish.cmd.is_none() && !own.cmd.is_empty() {
            wish.cmd = Some(own.cmd.clone());
        }
        wish.entrypoint.clone_from(&own.entrypoint);
    }
    if !own.labels.is_empty() {
        let labels = wish.labels.get_or_insert_default();
        for (label, value) in &own.labels {
            labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
    }
    if !own.exposed_ports.is_empty() {
        let ports = wish.exposed_ports.get_or_insert_default();
        ports.extend(
            own.exposed_ports
                .iter()
                .map(|port| (port.to_string(), Default::default())),
        );
    }
    if !own.volumes.is_empty() {
        let volumes = wish.volumes.get_or_insert_default();
        volumes.extend(own.volumes.iter().map(|volume| (volume.clone(), Default::default())));
    }
    wish
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_word_goes_before_the_containers() {
        let own = ContainerConfig {
            env: vec!["A=own".into(), "B=own".into()],
            cmd: vec!["own".into()],
            user: "ada".into(),
            labels: [("l".to_owned(), "own".to_owned())].into(),
            ..Default::default()
        };
        let wish = RunConfig {
            env: vec!["A=wish".into()],
            cmd: Some(vec!["wish".into()]),
            ..RunConfig::default()
        };
        let merged = merged(wish, &own);
        assert_eq!(merged.env, ["A=wish", "B=own"]);
        assert_eq!(
            (merged.cmd, merged.user.as_str()),
            (Some(vec!["wish".to_owned()]), "ada")
        );
        assert_eq!(merged.labels.unwrap()["l"], "own");
    }
}
