//! Dockerfile instructions that change a configuration: what `docker import -c` takes.

pub(crate) mod words;

use std::collections::BTreeMap;

use words::{expand, name_values, split};

use crate::{
    configuration::{Empty, Healthcheck, RunConfig},
    error::ImageError,
};

/// What runs the shell form of a command.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// Instructions of a Dockerfile that make no sense without a build.
const OF_A_BUILD: [&str; 8] = ["ADD", "ARG", "COPY", "FROM", "MAINTAINER", "RUN", "SHELL", "WITH"];

/// `config` after all of `changes`.
pub(crate) fn apply(mut config: RunConfig, changes: &[String]) -> Result<RunConfig, ImageError> {
    for change in changes {
        for line in instructions(change) {
            instruction(&mut config, &line)?;
        }
    }
    Ok(config)
}

/// Lines without comments, continued ones joined.
fn instructions(text: &str) -> Vec<String> {
    let (mut all, mut current) = (Vec::new(), String::new());
    for line in text.lines() {
        if line.trim_start().starts_with('#') || (current.is_empty() && line.trim().is_empty()) {
            continue;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(part) => current.push_str(part),
            None => {
                current.push_str(line);
                all.push(std::mem::take(&mut current).trim().to_owned());
            }
        }
    }
    if !current.trim().is_empty() {
        all.push(current.trim().to_owned());
    }
    all
}

fn instruction(config: &mut RunConfig, line: &str) -> Result<(), ImageError> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let variables = config.env.clone();
    change(config, &word.to_ascii_uppercase(), rest.trim(), &variables)
}

/// One instruction; `variables` (`NAME=value`) are put into what it says.
pub(crate) fn change(config: &mut RunConfig, word: &str, rest: &str, variables: &[String]) -> Result<(), ImageError> {
    if rest.is_empty() && !matches!(word, "CMD" | "ENTRYPOINT") && is_known(word) {
        return Err(invalid(format!("{word} requires at least one argument")));
    }
    match word {
        "CMD" => config.cmd = Some(command(rest, &config.shell)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest, &config.shell)),
        "ENV" => {
            for (name, value) in name_values(word, rest)? {
                let (name, value) = (expand(&name, variables)?, expand(&value, variables)?);
                set_variable(&mut config.env, &name, &value)?;
            }
        }
        "LABEL" => {
            for (name, value) in name_values(word, rest)? {
                let (name, value) = (expand(&name, variables)?, expand(&value, variables)?);
                config.labels.get_or_insert_default().insert(name, value);
            }
        }
        "EXPOSE" => {
            for port in split(rest) {
                let port = expand(&port, variables)?;
                config.exposed_ports.get_or_insert_default().extend(ports(&port)?);
            }
        }
        "VOLUME" => {
            for path in list(rest).unwrap_or_else(|| split(rest)) {
                let path = expand(&path, variables)?;
                if path.trim().is_empty() {
                    return Err(invalid("VOLUME specified can not be an empty string".into()));
                }
                config.volumes.get_or_insert_default().insert(path, Empty {});
            }
        }
        "USER" => config.user = expand(rest, variables)?,
        "WORKDIR" => config.working_dir = absolute(&config.working_dir, &expand(rest, variables)?),
        "STOPSIGNAL" => config.stop_signal = signal(&expand(rest, variables)?)?,
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "ONBUILD" => config.on_build.push(trigger(rest)?),
        word if is_known(word) => {
            return Err(invalid(format!(
                "{} is not a valid change command",
                word.to_lowercase()
            )));
        }
        word => return Err(invalid(format!("dockerfile parse error: unknown instruction: {word}"))),
    }
    Ok(())
}

fn is_known(word: &str) -> bool {
    let of_a_change = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    of_a_change.contains(&word) || OF_A_BUILD.contains(&word)
}

/// A JSON list is a command as it is; all else goes to the shell.
pub(crate) fn command(text: &str, shell: &[String]) -> Vec<String> {
    match list(text) {
        Some(words) => words,
        None if text.is_empty() => Vec::new(),
        None if shell.is_empty() => SHELL
            .iter()
            .map(|word| word.to_string())
            .chain([text.to_owned()])
            .collect(),
        None => shell.iter().cloned().chain([text.to_owned()]).collect(),
    }
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn set_variable(env: &mut Vec<String>, name: &str, value: &str) -> Result<(), ImageError> {
    if name.is_empty() {
        return Err(invalid("ENV names can not be blank".into()));
    }
    let new = format!("{name}={value}");
    match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = new,
        None => env.push(new),
    }
    Ok(())
}

/// `80`, `80/udp`, `8000-8010/tcp`: each port by itself.
fn ports(text: &str) -> Result<BTreeMap<String, Empty>, ImageError> {
    let wrong = || invalid(format!("invalid containerPort: {text}"));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid(format!("invalid proto: {protocol}")));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first > last {
        return Err(wrong());
    }
    Ok((first..=last)
        .map(|port| (format!("{port}/{protocol}"), Empty {}))
        .collect())
}

/// A relative directory is seen from the one before.
fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn signal(text: &str) -> Result<String, ImageError> {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") {
        name
    } else {
        format!("SIG{name}")
    };
    let is_number = text.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    let is_realtime = name.starts_with("SIGRTMIN") || name.starts_with("SIGRTMAX");
    match is_number || is_realtime || name.parse::<nix::sys::signal::Signal>().is_ok() {
        true => Ok(text.to_owned()),
        false => Err(invalid(format!("invalid signal: {text}"))),
    }
}

fn healthcheck(text: &str) -> Result<Healthcheck, ImageError> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        rest = after.trim_start();
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let wrong = || invalid(format!("HEALTHCHECK: invalid value {value:?} for --{name}"));
        match name {
            "interval" => check.interval = words::duration(value).ok_or_else(wrong)?,
            "timeout" => check.timeout = words::duration(value).ok_or_else(wrong)?,
            "start-period" => check.start_period = words::duration(value).ok_or_else(wrong)?,
            "start-interval" => check.start_interval = words::duration(value).ok_or_else(wrong)?,
            "retries" => check.retries = value.parse::<u32>().map_err(|_| wrong())?.into(),
            _ => return Err(invalid(format!("unknown flag: {name}"))),
        }
    }
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match word.to_ascii_uppercase().as_str() {
        "NONE" => check.test = vec!["NONE".into()],
        "CMD" if rest.trim().is_empty() => return Err(invalid("missing command after HEALTHCHECK CMD".into())),
        "CMD" => {
            check.test = match list(rest.trim()) {
                Some(words) => ["CMD".to_owned()].into_iter().chain(words).collect(),
                None => vec!["CMD-SHELL".into(), rest.trim().into()],
            }
        }
        other => return Err(invalid(format!("unknown type {other:?} in HEALTHCHECK (try CMD)"))),
    }
    Ok(check)
}

fn trigger(text: &str) -> Result<String, ImageError> {
    let word = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match word.as_str() {
        "ONBUILD" => Err(invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into())),
        "FROM" | "MAINTAINER" => Err(invalid(format!("{word} isn't allowed as an ONBUILD trigger"))),
        word if is_known(word) => Ok(text.to_owned()),
        word => Err(invalid(format!("dockerfile parse error: unknown instruction: {word}"))),
    }
}

fn invalid(sentence: String) -> ImageError {
    ImageError::Invalid(sentence)
}

#[cfg(test)]
mod tests;
