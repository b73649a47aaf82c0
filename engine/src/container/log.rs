//! What a log driver and its options mean: where a log is, how it is rotated, what each line bears.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sluice_model::{Container, HostConfig};
use sluice_runtime::Log;

use crate::EngineError;

/// Docker's defaults of the driver `local`: 20 MB (decimal), five files.
const LOCAL_BYTES: u64 = 20_000_000;
const LOCAL_FILES: u32 = 5;

/// A driver that keeps a log here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Driver {
    /// One JSON object a line, for everybody to read.
    JsonFile,
    /// The same on disk, but that is nobody's business.
    Local,
}

/// The log of a container in its directory; none: it keeps none.
pub(crate) fn path(directory: &Path, container: &Container) -> Option<PathBuf> {
    Some(match driver(&container.host_config)? {
        Driver::JsonFile => directory.join(format!("{}-json.log", container.id)),
        Driver::Local => directory.join("local-logs").join("container.log"),
    })
}

/// The same, if others may know it: the files of `local` are no interface.
pub(crate) fn public_path(directory: &Path, container: &Container) -> Option<PathBuf> {
    path(directory, container).filter(|_| driver(&container.host_config) == Some(Driver::JsonFile))
}

/// How it is written.
pub(crate) fn plan(directory: &Path, container: &Container) -> Result<Option<Log>, EngineError> {
    let Some(path) = path(directory, container) else {
        return Ok(None);
    };
    let mut log = rules(&container.host_config)?;
    log.path = path;
    log.attrs = attributes(container)?;
    Ok(Some(log))
}

/// Refuses drivers and options that are not there, in Docker's words.
pub(crate) fn check(host: &HostConfig) -> Result<(), EngineError> {
    match host.log_driver.as_str() {
        "none" => Ok(()),
        "" | "json-file" | "local" => rules(host).map(drop),
        other => Err(EngineError::invalid(format!(
            "logger: no log driver named '{other}' is registered"
        ))),
    }
}

fn driver(host: &HostConfig) -> Option<Driver> {
    match host.log_driver.as_str() {
        "none" => None,
        "local" => Some(Driver::Local),
        _ => Some(Driver::JsonFile),
    }
}

/// Sizes and numbers of files.
fn rules(host: &HostConfig) -> Result<Log, EngineError> {
    let driver = driver(host).unwrap_or(Driver::JsonFile);
    let options = &host.log_options;
    for (name, value) in options {
        known(driver, name, value)?;
    }
    let (mut log, compresses) = match driver {
        Driver::JsonFile => (
            Log {
                files: 1,
                ..Log::default()
            },
            false,
        ),
        Driver::Local => (
            Log {
                max_bytes: LOCAL_BYTES,
                files: LOCAL_FILES,
                ..Log::default()
            },
            true,
        ),
    };
    if let Some(size) = options.get("max-size") {
        log.max_bytes = bytes(size)?;
    }
    if let Some(number) = options.get("max-file") {
        let invalid = || {
            EngineError::invalid(format!(
                "invalid value {number:?} for max-file: a whole number is wanted"
            ))
        };
        let number: i64 = number.parse().map_err(|_| invalid())?;
        if number < 1 {
            return Err(EngineError::invalid("max-file cannot be less than 1"));
        }
        log.files = u32::try_from(number).map_err(|_| invalid())?;
    }
    let compress = options.get("compress").map(|value| flag(value)).transpose()?;
    let can = log.files > 1 && log.max_bytes > 0;
    if compress == Some(true) && !can {
        return Err(EngineError::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    log.compress = compress.unwrap_or(compresses && can);
    Ok(log)
}

fn known(driver: Driver, name: &str, value: &str) -> Result<(), EngineError> {
    match (driver, name) {
        (_, "max-size" | "max-file" | "compress") | (Driver::JsonFile, "labels" | "env" | "tag") => Ok(()),
        (_, "mode") if matches!(value, "" | "blocking") => Ok(()),
        (_, "mode") if value == "non-blocking" => Err(EngineError::not_offered(
            "log mode non-blocking is not offered by this version: a program waits for its log",
        )),
        (_, "mode") => Err(EngineError::invalid(format!(
            "logger: logging mode not supported: {value}"
        ))),
        (_, "max-buffer-size") => Err(EngineError::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        )),
        (Driver::JsonFile, "labels-regex" | "env-regex") => Err(EngineError::not_offered(format!(
            "log option {name} is not offered by this version: name the labels or variables"
        ))),
        (Driver::JsonFile, _) => Err(EngineError::invalid(format!(
            "unknown log opt '{name}' for json-file log driver"
        ))),
        (Driver::Local, _) => Err(EngineError::invalid(format!(
            "unknown log opt '{name}' for log-driver local"
        ))),
    }
}

fn flag(text: &str) -> Result<bool, EngineError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(EngineError::invalid(format!(
            "invalid value {text:?} for compress: true or false is wanted"
        ))),
    }
}

/// `10m`, `1.5g`, `100k`, `500`: decimal units, as Docker reads sizes of logs.
fn bytes(text: &str) -> Result<u64, EngineError> {
    let invalid = || EngineError::invalid(format!("invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let unit = match lower[digits.len()..].trim().trim_end_matches('b') {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "p" => 1e15,
        _ => return Err(invalid()),
    };
    let number: f64 = digits.parse().map_err(|_| invalid())?;
    let bytes = number * unit;
    if !(1.0..=1e18).contains(&bytes) {
        return Err(invalid());
    }
    Ok(bytes as u64)
}

/// What each line bears: labels and variables that were named, and a tag. Empty: nothing.
fn attributes(container: &Container) -> Result<String, EngineError> {
    let options = &container.host_config.log_options;
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    let named = |option: &str| {
        let names = options.get(option).map(String::as_str).unwrap_or_default();
        names.split(',').filter(|name| !name.is_empty())
    };
    for name in named("labels") {
        if let Some(value) = container.config.labels.get(name) {
            all.insert(name, value.clone());
        }
    }
    for name in named("env") {
        let value = container
            .config
            .env
            .iter()
            .filter_map(|variable| variable.split_once('='));
        if let Some((_, value)) = value.into_iter().find(|(given, _)| *given == name) {
            all.insert(name, value.to_owned());
        }
    }
    if let Some(template) = options.get("tag").filter(|template| !template.is_empty()) {
        all.insert("tag", tag(template, container)?);
    }
    if all.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(&all).map_err(|why| EngineError::failed(format!("cannot write attributes of a log: {why}")))
}

/// Docker's template of a tag, as far as people write it.
fn tag(template: &str, container: &Container) -> Result<String, EngineError> {
    let image = container.image_id.trim_start_matches("sha256:");
    let mut tag = template.to_owned();
    for (field, value) in [
        ("{{.ID}}", container.id.short()),
        ("{{.FullID}}", container.id.as_str()),
        ("{{.Name}}", container.name.as_str()),
        ("{{.ImageName}}", container.config.image.as_str()),
        ("{{.ImageID}}", image.get(..12).unwrap_or(image)),
        ("{{.ImageFullID}}", container.image_id.as_str()),
        ("{{.DaemonName}}", "docker"),
    ] {
        tag = tag.replace(field, value);
    }
    if template.contains("{{") && tag.contains("{{") {
        return Err(EngineError::not_offered(format!(
            "log tag {template:?} is not offered by this version: use {{{{.ID}}}}, {{{{.Name}}}}, {{{{.ImageName}}}} and the like"
        )));
    }
    Ok(tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::held::tests::record;

    fn host(driver: &str, options: &[(&str, &str)]) -> HostConfig {
        HostConfig {
            log_driver: driver.into(),
            log_options: options
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn each_driver_has_its_defaults() {
        let plain = rules(&host("", &[])).unwrap();
        assert_eq!((plain.max_bytes, plain.files, plain.compress), (0, 1, false));
        let local = rules(&host("local", &[])).unwrap();
        assert_eq!((local.max_bytes, local.files, local.compress), (20_000_000, 5, true));
        let asked = rules(&host(
            "json-file",
            &[("max-size", "1.5k"), ("max-file", "3"), ("compress", "true")],
        ))
        .unwrap();
        assert_eq!((asked.max_bytes, asked.files, asked.compress), (1500, 3, true));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        for (driver, options, words) in [
            ("syslog", &[][..], "logger: no log driver named 'syslog' is registered"),
            (
                "json-file",
                &[("colour", "red")],
                "unknown log opt 'colour' for json-file log driver",
            ),
            (
                "local",
                &[("labels", "a")],
                "unknown log opt 'labels' for log-driver local",
            ),
            ("json-file", &[("max-size", "much")], "invalid size: 'much'"),
            ("json-file", &[("max-file", "0")], "max-file cannot be less than 1"),
            (
                "json-file",
                &[("mode", "often")],
                "logger: logging mode not supported: often",
            ),
            (
                "json-file",
                &[("compress", "true")],
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ),
        ] {
            assert_eq!(check(&host(driver, options)).unwrap_err().message, words);
        }
        assert!(check(&host("none", &[])).is_ok());
    }

    #[test]
    fn lines_bear_what_was_named() {
        let mut container = record("web", 0xab);
        container.config.labels = [("tier".to_owned(), "front".to_owned())].into();
        container.config.env = vec!["COLOUR=blue".into()];
        container.host_config = host(
            "",
            &[("labels", "tier,zone"), ("env", "COLOUR"), ("tag", "{{.Name}}/{{.ID}}")],
        );
        assert_eq!(
            attributes(&container).unwrap(),
            r#"{"COLOUR":"blue","tag":"web/abababababab","tier":"front"}"#
        );
        container.host_config = host("", &[("tag", "{{.Nonsense}}")]);
        assert!(attributes(&container).is_err());
    }
}
