//! `RUN`: a container, and an image of what it wrote.

use sluice_image::{
    Commit,
    dockerfile::{self, Instruction},
};
use sluice_model::{ContainerConfig, HostConfig, health::Healthcheck};
use sluice_runtime::Stream;

use crate::{
    BuildNews, CreateContainer, EngineError, LogOptions, WaitCondition,
    build::{
        builder::{Builder, short},
        running,
        stage::Stage,
    },
    container::changes::SCAFFOLD,
};

impl Builder {
    pub(super) async fn run(&mut self, one: &Instruction, stage: &mut Stage) -> Result<(), EngineError> {
        let command = command(one, stage)?;
        let (counting, others) = stage.arguments(&self.arguments);
        let prefix = match counting.is_empty() {
            true => String::new(),
            false => format!("|{} {} ", counting.len(), counting.join(" ")),
        };
        let line = format!("{prefix}{}", command.join(" "));
        if self.known(&line, stage).await? {
            return Ok(());
        }
        let mut env = stage.config.env.clone();
        env.extend(counting.into_iter().chain(others));
        let container = self.container(stage, command.clone(), env).await?;
        self.announce(&container).await;
        let code = self.to_its_end(&container).await?;
        if code != 0 {
            if self.wish.force_remove {
                self.engine.remove_container(&container, true, true).await?;
                self.say(&format!("Removing intermediate container {}\n", short(&container)))
                    .await;
            }
            // else left behind to be looked at, as Docker does
            self.leave(&container);
            let message = format!("The command '{}' returned a non-zero code: {code}", command.join(" "));
            self.tell_held().await;
            self.tell(BuildNews::Failed(code, message)).await;
            return Err(EngineError::failed(format!(
                "a step of the build ended with code {code}"
            )));
        }
        self.commit(&container, &line, stage).await
    }

    /// A container on the stage's image that does this. It goes at the end at the latest.
    pub(super) async fn container(
        &mut self,
        stage: &Stage,
        command: Vec<String>,
        env: Vec<String>,
    ) -> Result<String, EngineError> {
        let config = ContainerConfig {
            image: stage.image.clone(),
            cmd: command,
            entrypoint: Some(Vec::new()),
            env,
            user: stage.config.user.clone(),
            working_dir: stage.config.working_dir.clone(),
            shell: stage.config.shell.clone(),
            healthcheck: Some(Healthcheck {
                test: vec!["NONE".into()],
                ..Healthcheck::default()
            }),
            ..ContainerConfig::default()
        };
        let created = self.engine.create_container(CreateContainer {
            config,
            host_config: HostConfig {
                log_driver: "json-file".into(),
                ..self.wish.host_config.clone()
            },
            ..CreateContainer::default()
        });
        let id = created.await?.id;
        self.containers.push(id.clone());
        running::note(&self.directory, &id)?;
        Ok(id)
    }

    /// Starts it, hands on what it says, and tells its code.
    async fn to_its_end(&self, container: &str) -> Result<i32, EngineError> {
        let ended = self.engine.wait_container(container, WaitCondition::NextExit).await?;
        self.engine.start_container(container).await?;
        let options = LogOptions {
            follow: true,
            stdout: true,
            stderr: true,
            ..LogOptions::default()
        };
        let mut output = self.engine.logs(container, options).await?;
        while let Some(piece) = output.recv().await {
            let (stream, bytes) = piece?;
            let text = String::from_utf8_lossy(&bytes);
            // errors are red, as with Docker
            match stream {
                Stream::Stderr => self.say(&format!("\u{1b}[91m{text}\u{1b}[0m")).await,
                _ => self.say(&text).await,
            }
        }
        ended
            .await
            .map_err(|_| EngineError::failed(format!("container {container} is lost")))?
    }

    /// Makes an image of what is in the container, and the stage goes on with it.
    pub(super) async fn commit(&mut self, container: &str, step: &str, stage: &mut Stage) -> Result<(), EngineError> {
        let held = self.engine.containers.find(container)?;
        let directory = self.engine.config.container(&held.id);
        let (own, line, id) = (stage.clone(), step.to_owned(), held.id.to_string());
        let made = self.engine.of_images(move |images| {
            Ok(images.commit(Commit {
                directory: &directory,
                scaffold: &SCAFFOLD,
                container: &id,
                ..own.commit(&line)
            })?)
        });
        let made = made.await?;
        if !self.wish.keep {
            self.engine.remove_container(container, true, true).await?;
            // of one that only took files in nothing is said
            if self.announced.as_deref() == Some(container) {
                self.say(&format!("Removing intermediate container {}\n", short(container)))
                    .await;
            }
        }
        self.leave(container);
        self.made(step, made.id, stage).await
    }

    pub(super) async fn announce(&mut self, container: &str) {
        self.announced = Some(container.to_owned());
        self.say(&format!(" ---> Running in {}\n", short(container))).await;
    }

    /// A container is no longer the build's.
    fn leave(&mut self, container: &str) {
        self.containers.retain(|other| other != container);
        running::forget(&self.directory, container);
    }
}

/// What is run: a list as it is, all else by the shell; a heredoc alone is the shell's script.
fn command(one: &Instruction, stage: &Stage) -> Result<Vec<String>, EngineError> {
    if let Some(words) = dockerfile::list(&one.rest) {
        return match words.is_empty() {
            true => Err(EngineError::invalid("RUN requires at least one argument")),
            false => Ok(words),
        };
    }
    if one.heredocs.is_empty() {
        return Ok(stage.shell(&one.rest));
    }
    let is_alone = one.rest.starts_with("<<") && one.rest.split_whitespace().count() == 1;
    if is_alone {
        let script = &one.heredocs[0].content;
        return match script.starts_with("#!") {
            true => Err(EngineError::invalid(
                "a script with an interpreter of its own (#!) is not supported in RUN <<: name the interpreter, as in RUN python3 <<EOF",
            )),
            false => Ok(stage.shell(script)),
        };
    }
    // the shell knows heredocs itself
    let mut script = format!("{}\n", one.rest);
    for heredoc in &one.heredocs {
        script.push_str(&format!("{}{}\n", heredoc.content, heredoc.name));
    }
    Ok(stage.shell(&script))
}
