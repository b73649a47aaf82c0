//! What an instruction knows: the configuration so far, variables, arguments.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use sluice_image::{Commit, RunConfig, dockerfile};

use crate::EngineError;

/// What a base image without a PATH gets.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Arguments that need not be declared, and do not count for the cache.
const ALWAYS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A stage of a build.
#[derive(Clone, Debug, Default)]
pub(super) struct Stage {
    pub name: Option<String>,
    /// The image of its last step.
    pub image: String,
    pub config: RunConfig,
    pub author: String,
    /// Arguments declared in it, and their values.
    pub declared: Vec<(String, Option<String>)>,
    /// Is CMD of this Dockerfile?
    pub own_command: bool,
}

/// Arguments of the whole build.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    /// `--build-arg`.
    pub given: BTreeMap<String, Option<String>>,
    /// Declared before the first FROM.
    pub global: Vec<(String, Option<String>)>,
    pub used: BTreeSet<String>,
}

impl Arguments {
    /// A declaration: what is given goes before the default.
    pub fn declare(&mut self, name: &str, default: Option<String>) -> Option<String> {
        self.used.insert(name.to_owned());
        match self.given.get(name) {
            Some(Some(value)) => Some(value.clone()),
            _ => default.or_else(|| self.global.iter().rev().find(|(global, _)| global == name)?.1.clone()),
        }
    }

    /// `NAME=value` of those declared before the first FROM.
    pub fn global_variables(&self) -> Vec<String> {
        variables(&self.global)
    }

    /// Those given that nobody declared.
    pub fn unused(&self) -> Vec<&str> {
        let given = self.given.keys().map(String::as_str);
        given
            .filter(|name| !self.used.contains(*name) && !ALWAYS.contains(name))
            .collect()
    }
}

impl Stage {
    /// The image that a step makes of the stage's, when it writes no file.
    pub fn commit<'a>(&'a self, step: &'a str) -> Commit<'a> {
        Commit {
            directory: Path::new(""),
            image: &self.image,
            scaffold: &[],
            container: "",
            command: step,
            config: self.config.clone(),
            changes: &[],
            reference: None,
            author: &self.author,
            comment: "",
        }
    }

    /// Begins on an image.
    pub fn on(name: Option<String>, image: String, mut config: RunConfig) -> Self {
        if !config.env.iter().any(|variable| variable.starts_with("PATH=")) {
            config.env.push(PATH.into());
        }
        Self {
            name,
            image,
            config,
            ..Self::default()
        }
    }

    /// What is put into instructions: the environment goes before arguments.
    pub fn variables(&self) -> Vec<String> {
        self.config
            .env
            .iter()
            .cloned()
            .chain(variables(&self.declared))
            .collect()
    }

    /// ARG.
    pub fn declare(&mut self, text: &str, arguments: &mut Arguments) -> Result<(), EngineError> {
        for word in dockerfile::words(text) {
            let (name, default) = declaration(&word, &self.variables())?;
            let value = arguments.declare(&name, default);
            self.declared.retain(|(declared, _)| *declared != name);
            self.declared.push((name, value));
        }
        Ok(())
    }

    /// The environment of a RUN beside the configuration's: what counts for the cache, sorted, and what does not.
    pub fn arguments(&self, arguments: &Arguments) -> (Vec<String>, Vec<String>) {
        let is_set = |name: &str| {
            self.config
                .env
                .iter()
                .any(|variable| variable.split('=').next() == Some(name))
        };
        let mut counting: Vec<String> = variables(&self.declared)
            .into_iter()
            .filter(|variable| {
                let name = variable.split('=').next().unwrap_or_default();
                !is_set(name) && !ALWAYS.contains(&name)
            })
            .collect();
        counting.sort();
        let given = arguments
            .given
            .iter()
            .filter(|(name, _)| ALWAYS.contains(&name.as_str()) && !is_set(name));
        let others = given.filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
        (counting, others.collect())
    }

    /// An instruction that only changes the configuration.
    pub fn change(&mut self, name: &str, rest: &str) -> Result<(), EngineError> {
        let variables = match name {
            // what these say is for the shell of the container
            "CMD" | "ENTRYPOINT" | "HEALTHCHECK" | "ONBUILD" | "SHELL" => Vec::new(),
            _ => self.variables(),
        };
        match name {
            "SHELL" => {
                let shell = dockerfile::list(rest).filter(|shell| !shell.is_empty());
                self.config.shell =
                    shell.ok_or_else(|| EngineError::invalid("SHELL requires the arguments to be in JSON form"))?;
                return Ok(());
            }
            "MAINTAINER" => {
                self.author = rest.to_owned();
                return Ok(());
            }
            "CMD" => self.own_command = true,
            // an inherited command was made for the inherited entrypoint
            "ENTRYPOINT" if !self.own_command => self.config.cmd = None,
            _ => {}
        }
        Ok(dockerfile::change(&mut self.config, name, rest, &variables)?)
    }

    /// The shell form of a command, as a list.
    pub fn shell(&self, command: &str) -> Vec<String> {
        let shell = match self.config.shell.is_empty() {
            true => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            false => self.config.shell.clone(),
        };
        shell.into_iter().chain([command.to_owned()]).collect()
    }

    /// How a step that runs nothing is written in the history.
    pub fn nothing(&self, step: &str) -> String {
        format!("{} #(nop) {step}", self.shell("").join(" ").trim_end())
    }
}

/// `NAME` or `NAME=default`.
pub(super) fn declaration(word: &str, variables: &[String]) -> Result<(String, Option<String>), EngineError> {
    let (name, default) = match word.split_once('=') {
        Some((name, default)) => (name, Some(dockerfile::expand(default, variables)?)),
        None => (word, None),
    };
    if name.is_empty() {
        return Err(EngineError::invalid("ARG names can not be blank"));
    }
    Ok((name.to_owned(), default))
}

fn variables(of: &[(String, Option<String>)]) -> Vec<String> {
    of.iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
        .collect()
}
