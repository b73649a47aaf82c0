//! The story of a build.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use sluice_image::{
    Image,
    dockerfile::{self, Ignore, Instruction},
    files, remove_tree,
};
use sluice_model::Id;
use tokio::sync::mpsc;

use crate::{
    BuildImage, BuildNews, Chunks, Engine, EngineError, PullImage,
    blocking::blocking,
    build::stage::{Arguments, Stage, declaration},
    chunks::ChannelReader,
    error,
};

/// How often a container that starts is removed anew.
const MOST_REFUSALS: u32 = 5;

/// Text that is held back for who wants only the id, at most, bytes.
const MOST_HELD: usize = 4 << 20;

/// A build under way.
pub(super) struct Builder {
    pub engine: Arc<Engine>,
    pub wish: BuildImage,
    out: mpsc::Sender<Result<BuildNews, EngineError>>,
    /// A directory of this build: the context, what was fetched for it.
    pub directory: PathBuf,
    /// Those that are done.
    pub done: Vec<Stage>,
    pub arguments: Arguments,
    /// Containers that go at the end.
    pub containers: Vec<String>,
    /// The one that was said to run.
    pub announced: Option<String>,
    /// Are steps of ONBUILD carried out?
    triggered: bool,
    /// What was not said.
    held: Mutex<String>,
    made: u32,
}

impl Builder {
    pub fn new(engine: Arc<Engine>, wish: BuildImage, out: mpsc::Sender<Result<BuildNews, EngineError>>) -> Self {
        let directory = engine.config.building().join(Id::from_bytes(rand::random()).as_str());
        let arguments = Arguments {
            given: wish.arguments.clone(),
            ..Arguments::default()
        };
        Self {
            engine,
            wish,
            out,
            directory,
            done: Vec::new(),
            arguments,
            containers: Vec::new(),
            announced: None,
            triggered: false,
            held: Mutex::default(),
            made: 0,
        }
    }

    /// From the context to the names of the image.
    pub async fn build(&mut self, context: Chunks) -> Result<(), EngineError> {
        self.receive(context).await?;
        let instructions = self.read().await?;
        let image = self.stages(instructions).await?;
        let unused = self.arguments.unused().join(", ");
        if !unused.is_empty() {
            self.say(&format!(
                "[Warning] One or more build-args [{unused}] were not consumed\n"
            ))
            .await;
        }
        self.tell(BuildNews::Image(image.clone())).await;
        let short = short(&image);
        match self.wish.quiet {
            true => self.tell(BuildNews::Text(format!("{image}\n"))).await,
            false => self.say(&format!("Successfully built {short}\n")).await,
        }
        for tag in self.wish.tags.clone() {
            self.engine.tag_image(&image, &tag).await?;
            let names = self.engine.find_image(&tag).await?.tags;
            let name = names
                .into_iter()
                .find(|name| *name == tag || *name == format!("{tag}:latest"))
                .unwrap_or(tag);
            self.say(&format!("Successfully tagged {name}\n")).await;
        }
        self.engine.tell_image("build", &image, None);
        Ok(())
    }

    /// Takes away what was only there to build with.
    pub async fn clean_up(&mut self) {
        for container in std::mem::take(&mut self.containers) {
            // one that was about to start when the build ended refuses until it has
            let mut removed = self.engine.remove_container(&container, true, true).await;
            for _ in 0..MOST_REFUSALS {
                match &removed {
                    Err(why) if why.kind == crate::Kind::Conflict => {
                        removed = self.engine.remove_container(&container, true, true).await;
                    }
                    _ => break,
                }
            }
            match removed {
                Err(why) if why.kind != crate::Kind::NotFound => {
                    tracing::warn!(%why, container, "a container of a build stays");
                }
                _ => {}
            }
        }
        let directory = self.directory.clone();
        if let Err(why) = blocking(move || Ok(remove_tree(&directory)?)).await {
            tracing::warn!(%why, "the directory of a build stays until the next start");
        }
    }

    /// Text for who watches. Who wants only the id is told when the build fails, as with Docker.
    pub async fn say(&self, text: &str) {
        if !self.wish.quiet {
            self.tell(BuildNews::Text(text.to_owned())).await;
            return;
        }
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push_str(text);
        // what is too much goes by whole lines, the oldest first
        if held.len() > MOST_HELD {
            let middle = held.len() / 2;
            let cut = held.bytes().skip(middle).position(|byte| byte == b'\n');
            let cut = cut.map_or(held.len(), |length| middle + length + 1);
            held.drain(..cut);
        }
    }

    /// What was held back.
    pub async fn tell_held(&self) {
        let text = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        if !text.is_empty() {
            self.tell(BuildNews::Text(text)).await;
        }
    }

    pub async fn tell(&self, news: BuildNews) {
        let _ = self.out.send(Ok(news)).await; // who is gone ends the build by that
    }

    /// A new directory of this build.
    pub fn place(&mut self) -> Result<PathBuf, EngineError> {
        self.made += 1;
        let place = self.directory.join(self.made.to_string());
        fs::create_dir_all(&place).map_err(|why| error::io("make", &place, &why))?;
        Ok(place)
    }

    /// The root of the context.
    pub fn context(&self) -> Result<OwnedFd, EngineError> {
        open_directory(&self.directory.join("context"))
    }

    async fn receive(&mut self, tar: Chunks) -> Result<(), EngineError> {
        let context = self.directory.join("context");
        if let Some(remote) = self.wish.remote.clone() {
            return self.fetch(remote, context).await;
        }
        blocking(move || {
            fs::create_dir_all(&context).map_err(|why| error::io("make", &context, &why))?;
            let root = open_directory(&context)?;
            let laid = files::lay_down(
                root.as_fd(),
                b"",
                &mut ChannelReader::new(tar),
                files::Laying::default(),
            );
            laid.map_err(|why| EngineError::failed(format!("Error processing tar file: {why}")))
        })
        .await
    }

    /// The context from elsewhere.
    async fn fetch(&mut self, remote: String, context: PathBuf) -> Result<(), EngineError> {
        let (directory, here) = (self.directory.clone(), Here::default());
        let gone = here.gone();
        let is_dockerfile = self
            .engine
            .of_images(move |images| {
                fs::create_dir_all(&directory).map_err(|why| error::io("make", &directory, &why))?;
                Ok(images.fetch_context(&remote, &context, &gone)?)
            })
            .await?;
        if is_dockerfile {
            self.wish.dockerfile = None;
        }
        Ok(())
    }

    /// The instructions to be carried out; what is wrong with them is said before anything is done.
    async fn read(&mut self) -> Result<Vec<Instruction>, EngineError> {
        let (context, name) = (self.context()?, self.wish.dockerfile.clone());
        let name = name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "Dockerfile".into());
        let instructions = blocking(move || {
            let root = context.as_fd();
            let text = files::read_text(root, name.as_bytes(), dockerfile::LONGEST)?;
            let text =
                text.ok_or_else(|| EngineError::failed(format!("Cannot locate specified Dockerfile: {name}")))?;
            if text.is_empty() {
                return Err(EngineError::invalid(format!("the Dockerfile ({name}) cannot be empty")));
            }
            let instructions = dockerfile::parse(&text)?;
            // clients leave out what is to be left out, but send these two, which the build needs itself
            if let Some(text) = files::read_text(root, b".dockerignore", dockerfile::LONGEST)? {
                let ignore = Ignore::parse(&text)?;
                for own in [".dockerignore", name.as_str()] {
                    if ignore.leaves_out(own) {
                        files::remove_file(root, own.as_bytes())?;
                    }
                }
            }
            Ok(instructions)
        })
        .await?;
        let first = instructions.iter().find(|one| one.name != "ARG");
        if first.is_none_or(|first| first.name != "FROM") {
            return Err(EngineError::invalid("no build stage in current context"));
        }
        for one in instructions.iter().filter(|one| one.name == "FROM") {
            base_of(one).map_err(|why| EngineError::from(dockerfile::at_line(one.line, &why.message)))?;
        }
        for one in instructions.iter().filter(|one| one.name == "ONBUILD") {
            dockerfile::change(&mut Default::default(), "ONBUILD", &one.rest, &[])
                .map_err(|why| EngineError::from(dockerfile::at_line(one.line, &why.to_string())))?;
        }
        self.up_to_target(instructions)
    }

    fn up_to_target(&self, mut instructions: Vec<Instruction>) -> Result<Vec<Instruction>, EngineError> {
        if let Some(target) = self.wish.target.as_deref().filter(|target| !target.is_empty()) {
            let stages: Vec<usize> = (0..instructions.len())
                .filter(|at| instructions[*at].name == "FROM")
                .collect();
            let named = stages.iter().position(|at| {
                let words: Vec<&str> = instructions[*at].rest.split_whitespace().collect();
                words.get(2).is_some_and(|name| name.eq_ignore_ascii_case(target))
            });
            let numbered = target.parse().ok().filter(|number| *number < stages.len());
            let Some(number) = named.or(numbered) else {
                return Err(EngineError::invalid(format!(
                    "failed to reach build target {target} in Dockerfile"
                )));
            };
            if let Some(next) = stages.get(number + 1) {
                instructions.truncate(*next);
            }
        }
        if let Some(last) = instructions.last().filter(|_| !self.wish.labels.is_empty()) {
            let line = last.line;
            let quoted = |text: &str| {
                format!(
                    "\"{}\"",
                    text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$")
                )
            };
            let labels = self
                .wish
                .labels
                .iter()
                .map(|(name, value)| format!("{}={}", quoted(name), quoted(value)));
            let text = format!("LABEL {}", labels.collect::<Vec<_>>().join(" "));
            instructions.push(dockerfile::instruction(&text, line)?);
        }
        Ok(instructions)
    }

    async fn stages(&mut self, instructions: Vec<Instruction>) -> Result<String, EngineError> {
        let (all, mut stage) = (instructions.len(), Stage::default());
        for (number, one) in instructions.into_iter().enumerate() {
            self.say(&format!("Step {}/{all} : {}\n", number + 1, one.original))
                .await;
            let line = one.line;
            let done = match one.name.as_str() {
                "ARG" if stage.image.is_empty() => self.declare_global(&one),
                "FROM" => {
                    if !stage.image.is_empty() {
                        self.done.push(std::mem::take(&mut stage));
                    }
                    self.begin(&one, &mut stage).await
                }
                _ => self.step(one, &mut stage).await,
            };
            done.map_err(|why| match why.kind {
                crate::Kind::Invalid if !has_its_place(&why.message) => {
                    EngineError::from(dockerfile::at_line(line, &why.message))
                }
                _ => why,
            })?;
        }
        Ok(stage.image)
    }

    fn declare_global(&mut self, one: &Instruction) -> Result<(), EngineError> {
        for word in dockerfile::words(&one.rest) {
            let (name, default) = declaration(&word, &self.arguments.global_variables())?;
            let value = self.arguments.declare(&name, default);
            self.arguments.global.push((name, value));
        }
        Ok(())
    }

    /// FROM.
    async fn begin(&mut self, one: &Instruction, stage: &mut Stage) -> Result<(), EngineError> {
        let (written, name) = base_of(one)?;
        let globals = self.arguments.global_variables();
        let base = dockerfile::expand(written, &globals)?;
        if base.is_empty() {
            return Err(EngineError::invalid(format!(
                "base name ({written}) should not be blank"
            )));
        }
        let platform = one.flags.iter().find(|(flag, _)| flag == "platform");
        let platform = platform
            .map(|(_, platform)| dockerfile::expand(platform, &globals))
            .transpose()?;
        let image = self.image(&base, platform).await?;
        let config = self.engine.of_images({
            let id = image.id.clone();
            move |images| Ok(images.run_config(&id)?)
        });
        *stage = Stage::on(name, image.id.clone(), config.await?);
        let triggers = std::mem::take(&mut stage.config.on_build);
        if triggers.is_empty() && base == "scratch" {
            self.say(" ---> \n").await;
            return Ok(());
        }
        if !triggers.is_empty() {
            let word = if triggers.len() == 1 { "trigger" } else { "triggers" };
            self.say(&format!("# Executing {} build {word}\n", triggers.len()))
                .await;
        }
        // all of them are one step, which tells one image at its end
        self.triggered = true;
        for trigger in triggers {
            let one = dockerfile::instruction(trigger.trim(), one.line)?;
            self.step(one, stage).await?;
        }
        self.triggered = false;
        self.tell_image(&stage.image).await;
        Ok(())
    }

    /// The image of a step that is done.
    async fn tell_image(&self, id: &str) {
        if !self.triggered {
            self.say(&format!(" ---> {}\n", short(id))).await;
        }
    }

    /// An image by the name of a stage, or one that is here, or one of a registry.
    pub async fn image(&mut self, name: &str, platform: Option<String>) -> Result<Image, EngineError> {
        let of_stage = |stage: &&Stage| stage.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name));
        if let Some(stage) = self.done.iter().rev().find(of_stage) {
            return self.engine.find_image(&stage.image).await;
        }
        if name == "scratch" {
            return self.engine.of_images(|images| Ok(images.scratch()?)).await;
        }
        let platform = platform.or_else(|| self.wish.platform.clone());
        if !self.wish.pull && platform.is_none() {
            match self.engine.find_image(name).await {
                Err(why) if why.kind == crate::Kind::NotFound => {}
                found => return found,
            }
        }
        let exact = name.rsplit('/').next().unwrap_or(name).contains([':', '@']);
        let reference = if exact {
            name.to_owned()
        } else {
            format!("{name}:latest")
        };
        let request = PullImage {
            reference: reference.clone(),
            all_tags: false,
            platform,
            credentials: self.credentials_for(name),
        };
        let mut transfer = self.engine.pull_image(request).await?;
        while let Some(news) = transfer.next().await {
            let news = news?;
            if !self.wish.quiet {
                self.tell(BuildNews::Pull(news)).await;
            }
        }
        self.engine.find_image(&reference).await
    }

    fn credentials_for(&self, name: &str) -> Option<sluice_image::Credentials> {
        let domain = match name.split_once('/') {
            Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
            _ => "docker.io",
        };
        let given = self.wish.credentials.iter().find(|(server, _)| {
            let bare = server.trim_start_matches("https://").trim_start_matches("http://");
            let bare = bare.split('/').next().unwrap_or_default();
            bare == domain || (domain == "docker.io" && bare == "index.docker.io")
        });
        given.map(|(_, credentials)| credentials.clone())
    }

    /// Everything but FROM.
    async fn step(&mut self, one: Instruction, stage: &mut Stage) -> Result<(), EngineError> {
        match one.name.as_str() {
            "RUN" => self.run(&one, stage).await,
            "ADD" | "COPY" => self.copy(&one, stage).await,
            "WORKDIR" => {
                stage.change("WORKDIR", &one.rest)?;
                self.make_working_directory(stage).await
            }
            "ARG" => {
                stage.declare(&one.rest, &mut self.arguments)?;
                let words = format!(" ARG {}", one.rest);
                self.only_configuration(&words, stage).await
            }
            name => {
                stage.change(name, &one.rest)?;
                let rest = match name {
                    "CMD" => shown(stage.config.cmd.as_deref()),
                    "ENTRYPOINT" => shown(stage.config.entrypoint.as_deref()),
                    "SHELL" => shown(Some(&stage.config.shell)),
                    "USER" => stage.config.user.clone(),
                    "ENV" | "LABEL" | "EXPOSE" | "STOPSIGNAL" | "VOLUME" => dockerfile_words(&one, stage)?,
                    _ => one.rest.clone(),
                };
                self.only_configuration(&format!(" {name} {rest}"), stage).await
            }
        }
    }

    async fn only_configuration(&mut self, step: &str, stage: &mut Stage) -> Result<(), EngineError> {
        let command = stage.nothing(step);
        if self.known(&command, stage).await? {
            return Ok(());
        }
        let (own, line) = (stage.clone(), command.clone());
        let made = self
            .engine
            .of_images(move |images| Ok(images.derive(own.commit(&line))?));
        let made = made.await?;
        self.made(&command, made.id, stage).await
    }

    /// Has an earlier build made this step of this image? Then that is it.
    pub async fn known(&mut self, step: &str, stage: &mut Stage) -> Result<bool, EngineError> {
        if self.wish.no_cache {
            return Ok(false);
        }
        let (parent, step) = (stage.image.clone(), step.to_owned());
        let (sources, config, author) = (self.wish.cache_from.clone(), stage.config.clone(), stage.author.clone());
        let found = self
            .engine
            .of_images(move |images| match sources.is_empty() {
                true => Ok(images.made_of(&parent, &step)),
                false => {
                    let found = images.made_in(&sources, &parent, &step, &config, &author)?;
                    if let Some(image) = &found {
                        images.remember(&parent, &step, &image.id)?;
                    }
                    Ok(found)
                }
            })
            .await?;
        let Some(image) = found else { return Ok(false) };
        self.say(" ---> Using cache\n").await;
        self.tell_image(&image.id).await;
        stage.image = image.id;
        Ok(true)
    }

    /// A step is done.
    pub async fn made(&mut self, step: &str, id: String, stage: &mut Stage) -> Result<(), EngineError> {
        let (parent, step, child) = (stage.image.clone(), step.to_owned(), id.clone());
        self.engine
            .of_images(move |images| Ok(images.remember(&parent, &step, &child)?))
            .await?;
        self.tell_image(&id).await;
        stage.image = id;
        Ok(())
    }
}

/// Does an error say what it is about without the line?
fn has_its_place(message: &str) -> bool {
    message.starts_with("dockerfile parse error") || message.starts_with("failed to process ")
}

/// What FROM names: the image, and the stage in lower case.
fn base_of(one: &Instruction) -> Result<(&str, Option<String>), EngineError> {
    let words: Vec<&str> = one.rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (*base, Some(name.to_ascii_lowercase())),
        _ => return Err(EngineError::invalid("FROM requires either one or three arguments")),
    };
    if let Some(name) = &name {
        let is_name = name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            return Err(EngineError::invalid(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            )));
        }
    }
    Ok((base, name))
}

/// While this is here, somebody waits for what a thread does.
#[derive(Default)]
pub(super) struct Here(Arc<()>);

impl Here {
    /// Has that gone?
    pub fn gone(&self) -> impl Fn() -> bool + Send + use<> {
        let watched = Arc::downgrade(&self.0);
        move || watched.strong_count() == 0
    }
}

/// What an instruction says when its variables are put in, for the history and the cache.
fn dockerfile_words(one: &Instruction, stage: &Stage) -> Result<String, EngineError> {
    let variables = stage.variables();
    match one.name.as_str() {
        "ENV" | "LABEL" => {
            let pairs = dockerfile::name_values(&one.name, &one.rest)?
                .into_iter()
                .map(|(name, _)| {
                    let name = dockerfile::expand(&name, &variables)?;
                    // the environment is new already: what it says is what was meant
                    let value = match one.name.as_str() {
                        "ENV" => stage
                            .config
                            .env
                            .iter()
                            .find_map(|own| own.strip_prefix(&name)?.strip_prefix('=')),
                        _ => stage
                            .config
                            .labels
                            .as_ref()
                            .and_then(|labels| labels.get(&name))
                            .map(String::as_str),
                    };
                    Ok(format!("{name}={}", value.unwrap_or("")))
                });
            Ok(pairs.collect::<Result<Vec<String>, EngineError>>()?.join(" "))
        }
        "VOLUME" => {
            let words = dockerfile::words(&one.rest);
            let expanded: Result<Vec<String>, _> =
                words.iter().map(|word| dockerfile::expand(word, &variables)).collect();
            Ok(format!("[{}]", expanded?.join(" ")))
        }
        _ => Ok(dockerfile::expand(&one.rest, &variables)?),
    }
}

/// A list as the history has it.
fn shown(words: Option<&[String]>) -> String {
    let words = words.unwrap_or_default().iter().map(|word| format!("{word:?}"));
    format!("[{}]", words.collect::<Vec<_>>().join(" "))
}

/// The first twelve digits of an id.
pub(super) fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

pub(super) fn open_directory(path: &std::path::Path) -> Result<OwnedFd, EngineError> {
    let file = fs::File::open(path).map_err(|why| error::io("open", path, &why))?;
    Ok(file.into())
}
