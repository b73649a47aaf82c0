//! `COPY`, `ADD`, `WORKDIR`: files laid into a container that never runs.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
};

use sluice_image::{
    dockerfile::{self, Instruction},
    files::{self, Laying},
};

use crate::{
    EngineError,
    blocking::blocking,
    build::{
        builder::{Builder, Here, open_directory},
        stage::Stage,
    },
    container::{archive, owners},
    error,
};

/// Something to be copied.
struct Source {
    /// In which of the roots.
    root: usize,
    path: String,
    /// What a file is called where it goes.
    name: String,
    is_archive: bool,
}

/// All that is to be copied, and what tells it from others.
struct Sources {
    roots: Vec<OwnedFd>,
    all: Vec<Source>,
    fingerprint: String,
}

impl Builder {
    pub(super) async fn copy(&mut self, one: &Instruction, stage: &mut Stage) -> Result<(), EngineError> {
        let variables = stage.variables();
        let expanded = |word: &String| Ok(dockerfile::expand(word, &variables)?);
        let words: Vec<String> = dockerfile::words(&one.rest)
            .iter()
            .map(expanded)
            .collect::<Result<_, EngineError>>()?;
        let Some((to, from)) = words.split_last().filter(|(_, from)| !from.is_empty()) else {
            return Err(EngineError::invalid(format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined.",
                one.name
            )));
        };
        let flag = |name: &str| {
            one.flags
                .iter()
                .find(|(flag, _)| flag == name)
                .map(|(_, value)| dockerfile::expand(value, &variables))
        };
        let (of, owner, mode) = (
            flag("from").transpose()?,
            flag("chown").transpose()?,
            flag("chmod").transpose()?,
        );
        let mode = mode.map(|mode| {
            u32::from_str_radix(&mode, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .ok_or_else(|| {
                    EngineError::invalid(format!(
                        "invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"
                    ))
                })
        });
        let mode = mode.transpose()?;
        let to = absolute(&stage.config.working_dir, to);
        if from.len() > 1 && !to.ends_with('/') {
            return Err(EngineError::invalid(format!(
                "When using {} with more than one source file, the destination must be a directory and end with a /",
                one.name
            )));
        }
        let (sources, view) = self.sources(one, from, of, &variables).await?;
        let chown = owner
            .as_ref()
            .map(|owner| format!("--chown={owner} "))
            .unwrap_or_default();
        let chmod = mode.map(|mode| format!("--chmod={mode:o} ")).unwrap_or_default();
        let step = stage.nothing(&format!("{} {chown}{chmod}{} in {to} ", one.name, sources.fingerprint));
        if self.known(&step, stage).await? {
            if let Some(view) = view {
                view.close().await;
            }
            return Ok(());
        }
        let laid = self.lay(sources, &to, owner, mode, stage).await;
        if let Some(view) = view {
            view.close().await;
        }
        self.commit(&laid?, &step, stage).await
    }

    /// Finds what is to be copied: in the context, in another image, in the web, in the Dockerfile itself.
    async fn sources(
        &mut self,
        one: &Instruction,
        from: &[String],
        of: Option<String>,
        variables: &[String],
    ) -> Result<(Sources, Option<crate::container::view::View>), EngineError> {
        let is_add = one.name == "ADD";
        let mut view = None;
        let first = match &of {
            None => self.context()?,
            Some(name) => {
                let opened = self.other(name).await?;
                let root = opened
                    .root
                    .try_clone()
                    .map_err(|why| EngineError::failed(format!("cannot keep a directory open: {why}")))?;
                view = Some(opened);
                root
            }
        };
        let mut roots = vec![first];
        let (mut all, mut heredocs) = (Vec::new(), one.heredocs.iter());
        for word in from {
            if word.starts_with("<<")
                && let Some(heredoc) = heredocs.next()
            {
                let place = self.place()?;
                let content = match heredoc.expands {
                    // quotes are the text's own there; only variables are put in
                    true => text(&heredoc.content, variables)?,
                    false => heredoc.content.clone(),
                };
                write(&place.join("file"), content.as_bytes())?;
                roots.push(open_directory(&place)?);
                all.push(Source {
                    root: roots.len() - 1,
                    path: "file".into(),
                    name: heredoc.name.clone(),
                    is_archive: false,
                });
            } else if is_add && (word.starts_with("http://") || word.starts_with("https://")) {
                let place = self.place()?;
                let (url, file, here) = (word.clone(), place.join("file"), Here::default());
                let gone = here.gone();
                self.say("Downloading\n").await;
                self.engine
                    .of_images(move |images| {
                        images.download(&url, &file, &gone)?;
                        let private = fs::Permissions::from_mode(0o600);
                        fs::set_permissions(&file, private).map_err(|why| error::io("set the mode of", &file, &why))
                    })
                    .await
                    .map_err(|why| why.within("ADD failed"))?;
                let path = word.split(['?', '#']).next().unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                roots.push(open_directory(&place)?);
                all.push(Source {
                    root: roots.len() - 1,
                    path: "file".into(),
                    name,
                    is_archive: false,
                });
            } else {
                let (root, pattern) = (roots[0].try_clone(), clean(word));
                let root = root.map_err(|why| EngineError::failed(format!("cannot keep a directory open: {why}")))?;
                let name = one.name.clone();
                let found = blocking(move || {
                    let mut found = Vec::new();
                    for path in files::matching(root.as_fd(), &pattern)? {
                        let seen = files::look(root.as_fd(), path.as_bytes())?;
                        if seen.is_none() {
                            return Err(EngineError::failed(format!(
                                "{name} failed: file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
                            )));
                        }
                        let is_archive = is_add && files::is_archive(root.as_fd(), path.as_bytes())?;
                        found.push((path, is_archive));
                    }
                    Ok(found)
                });
                for (path, is_archive) in found.await? {
                    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                    all.push(Source {
                        root: 0,
                        path,
                        name,
                        is_archive,
                    });
                }
            }
        }
        if all.is_empty() {
            return Err(EngineError::failed(format!(
                "{} failed: no source files were specified",
                one.name
            )));
        }
        let sources = blocking(move || {
            let mut prints = Vec::new();
            for source in &all {
                let root = roots[source.root].as_fd();
                let followed = files::look(root, source.path.as_bytes())?.and_then(|found| found.target);
                let path = followed.unwrap_or_else(|| source.path.clone().into_bytes());
                let is_directory = files::find(root, &path).is_ok();
                let kind = if is_directory { "dir" } else { "file" };
                prints.push((kind, format!("{} {}", source.name, files::fingerprint(root, &path)?)));
            }
            let fingerprint = match prints.as_slice() {
                [(kind, one)] => format!("{kind}:{}", files::fingerprint_of(one)),
                several => {
                    let lines: Vec<&str> = several.iter().map(|(_, print)| print.as_str()).collect();
                    format!("multi:{}", files::fingerprint_of(&lines.join("\n")))
                }
            };
            Ok(Sources {
                roots,
                all,
                fingerprint,
            })
        });
        Ok((sources.await?, view))
    }

    /// The files of a stage or of another image.
    async fn other(&mut self, name: &str) -> Result<crate::container::view::View, EngineError> {
        let numbered = name
            .parse::<usize>()
            .ok()
            .and_then(|number| self.done.get(number))
            .map(|stage| stage.image.clone());
        let image = match numbered {
            Some(image) => image,
            None => self.image(name, None).await?.id,
        };
        let stage = Stage {
            image,
            ..Stage::default()
        };
        let container = self.container(&stage, vec!["#(nop)".into()], Vec::new()).await?;
        let held = self.engine.containers.find(&container)?;
        self.engine.open_root(&held).await
    }

    /// A container with the files in it.
    async fn lay(
        &mut self,
        sources: Sources,
        to: &str,
        owner: Option<String>,
        mode: Option<u32>,
        stage: &Stage,
    ) -> Result<String, EngineError> {
        let container = self.container(stage, vec!["#(nop)".into()], Vec::new()).await?;
        let held = self.engine.containers.find(&container)?;
        let id_map = held.look(|container| container.id_map.as_ref().map(owners::of_files));
        let view = self.engine.open_layer(&held).await?;
        let to = to.to_owned();
        let (view, laid) = archive::in_view(view, move |view| {
            let root = view.root.as_fd();
            let named = owner.map(|owner| archive::owner(view, &owner)).transpose()?;
            let laying = Laying {
                owner: Some(named.unwrap_or((0, 0))),
                mode,
                owners: id_map,
                ..Laying::default()
            };
            let is_directory = to.ends_with('/') || files::find(root, to.as_bytes()).is_ok();
            for source in &sources.all {
                let from = sources.roots[source.root].as_fd();
                if source.is_archive {
                    let file = files::open_file(from, source.path.as_bytes())?;
                    let mut file = file.ok_or_else(|| EngineError::failed(format!("{} is gone", source.path)))?;
                    // an archive says itself whose its files are
                    let laying = Laying {
                        owner: named,
                        ..laying.clone()
                    };
                    files::lay_down(root, to.as_bytes(), &mut file, laying)?;
                    continue;
                }
                let (at, name) = match (is_directory, to.rsplit_once('/')) {
                    (false, Some((parent, name))) if files::find(from, source.path.as_bytes()).is_err() => {
                        (parent, name)
                    }
                    _ => (to.as_str(), source.name.as_str()),
                };
                if name.is_empty() && files::find(from, source.path.as_bytes()).is_err() {
                    return Err(EngineError::failed(format!(
                        "cannot determine filename for {}: the destination has to name it",
                        source.path
                    )));
                }
                files::take(
                    from,
                    source.path.as_bytes(),
                    root,
                    at.as_bytes(),
                    name.as_bytes(),
                    laying.clone(),
                )?;
            }
            Ok(())
        })
        .await?;
        view.close().await;
        laid?;
        Ok(container)
    }

    /// WORKDIR makes the directory where there is none.
    pub(super) async fn make_working_directory(&mut self, stage: &mut Stage) -> Result<(), EngineError> {
        let path = stage.config.working_dir.clone();
        let step = stage.nothing(&format!("WORKDIR {path}"));
        if self.known(&step, stage).await? {
            return Ok(());
        }
        let container = self.container(stage, vec!["#(nop)".into()], Vec::new()).await?;
        self.announce(&container).await;
        let held = self.engine.containers.find(&container)?;
        let id_map = held.look(|container| container.id_map.as_ref().map(owners::of_files));
        let view = self.engine.open_layer(&held).await?;
        let (view, made) = archive::in_view(view, move |view| {
            let laying = Laying {
                owners: id_map,
                ..Laying::default()
            };
            Ok(files::make_directory(view.root.as_fd(), path.as_bytes(), &laying)?)
        })
        .await?;
        view.close().await;
        made?;
        self.commit(&container, &step, stage).await
    }
}

/// The text of a heredoc with its variables put in; quotes are the text's own there.
fn text(content: &str, variables: &[String]) -> Result<String, EngineError> {
    let protected = content.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "\\'");
    Ok(dockerfile::expand(&protected, variables)?)
}

/// A destination, seen from the working directory; what it ends with is kept.
fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let clean = clean(&whole);
    let is_directory = path.ends_with('/') || path.ends_with("/.") || path == ".";
    match is_directory && !clean.is_empty() {
        true => format!("/{clean}/"),
        false => format!("/{clean}"),
    }
}

/// Without `.`, `..` and slashes too many; nothing leads out of the root.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let failed = |why: io::Error| error::io("write", path, &why);
    fs::write(path, bytes).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(failed)
}
