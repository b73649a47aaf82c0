//! What a log driver and its options mean: where a log is, how it is rotated, what each line bears.

mod tag;

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
/// What waits at most in mode `non-blocking` when nobody says otherwise, bytes: Docker's default.
const BUFFERED: u64 = 1_000_000;
/// More would be the shim's memory, bytes.
const MOST_BUFFERED: u64 = 1 << 30;

/// Docker's drivers that keep a log elsewhere.
const ELSEWHERE: [&str; 9] = [
    "awslogs",
    "etwlogs",
    "fluentd",
    "gcplogs",
    "gelf",
    "journald",
    "logentries",
    "splunk",
    "syslog",
];

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
        known if ELSEWHERE.contains(&known) => Err(EngineError::not_offered(format!(
            "log driver {known} is not offered by this version: use json-file or local, and a collector that reads it"
        ))),
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
    log.buffer_bytes = buffer(options)?;
    Ok(log)
}

fn known(driver: Driver, name: &str, value: &str) -> Result<(), EngineError> {
    match (driver, name) {
        (_, "max-size" | "max-file" | "compress" | "max-buffer-size") => Ok(()),
        (Driver::JsonFile, "labels" | "env" | "tag") => Ok(()),
        (Driver::JsonFile, "labels-regex" | "env-regex") => expression(value).map(drop),
        (_, "mode") if matches!(value, "" | "blocking" | "non-blocking") => Ok(()),
        (_, "mode") => Err(EngineError::invalid(format!(
            "logger: logging mode not supported: {value}"
        ))),
        (Driver::JsonFile, _) => Err(EngineError::invalid(format!(
            "unknown log opt '{name}' for json-file log driver"
        ))),
        (Driver::Local, _) => Err(EngineError::invalid(format!(
            "unknown log opt '{name}' for log-driver local"
        ))),
    }
}

/// What may wait for the disk, bytes; 0: a program waits for its log.
fn buffer(options: &BTreeMap<String, String>) -> Result<u64, EngineError> {
    let non_blocking = options.get("mode").is_some_and(|mode| mode == "non-blocking");
    match options.get("max-buffer-size") {
        Some(_) if !non_blocking => Err(EngineError::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        )),
        Some(size) => match self::size(size, 1024.0) {
            Some(bytes) if bytes <= MOST_BUFFERED => Ok(bytes),
            Some(_) => Err(EngineError::invalid(format!(
                "invalid value {size:?} for max-buffer-size: at most 1g can be kept in memory"
            ))),
            None => Err(EngineError::invalid(format!("invalid size: '{size}'"))),
        },
        None if non_blocking => Ok(BUFFERED),
        None => Ok(0),
    }
}

fn expression(text: &str) -> Result<regex::Regex, EngineError> {
    let made = regex::RegexBuilder::new(text).size_limit(1 << 20).build();
    made.map_err(|why| EngineError::invalid(format!("error parsing regexp {text:?}: {why}")))
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
    size(text, 1000.0).ok_or_else(|| EngineError::invalid(format!("invalid size: '{text}'")))
}

/// A number with a unit, each of which is `step` times the one before.
fn size(text: &str, step: f64) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    let power = match lower[digits.len()..].trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = digits.parse::<f64>().ok()? * step.powi(power);
    (1.0..=1e18).contains(&bytes).then_some(bytes as u64)
}

/// What each line bears: labels and variables that were named, and a tag. Empty: nothing.
fn attributes(container: &Container) -> Result<String, EngineError> {
    let options = &container.host_config.log_options;
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    let labels = container.config.labels.iter();
    let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
    choose(&mut all, options, "labels", "labels-regex", labels)?;
    let variables = container.config.env.iter();
    let variables = variables.filter_map(|variable| variable.split_once('='));
    choose(&mut all, options, "env", "env-regex", variables)?;
    if let Some(template) = options.get("tag").filter(|template| !template.is_empty()) {
        all.insert("tag", tag::fill(template, container)?);
    }
    if all.is_empty() {
        return Ok(String::new());
    }
    serde_json::to_string(&all).map_err(|why| EngineError::failed(format!("cannot write attributes of a log: {why}")))
}

/// Those that one option names, and those whose names another's expression is found in.
fn choose<'a>(
    all: &mut BTreeMap<&'a str, String>,
    options: &BTreeMap<String, String>,
    by_name: &str,
    by_expression: &str,
    given: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), EngineError> {
    let names: Vec<&str> = options
        .get(by_name)
        .map_or_else(Vec::new, |names| names.split(',').collect());
    let expression = options.get(by_expression).filter(|text| !text.is_empty());
    let expression = expression.map(|text| self::expression(text)).transpose()?;
    for (name, value) in given {
        if names.contains(&name) || expression.as_ref().is_some_and(|expression| expression.is_match(name)) {
            all.insert(name, value.to_owned());
        }
    }
    Ok(())
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
    fn only_a_log_that_nobody_waits_for_has_a_buffer() {
        let room = |options| rules(&host("json-file", options)).unwrap().buffer_bytes;
        assert_eq!(room(&[("mode", "blocking")]), 0);
        assert_eq!(room(&[("mode", "non-blocking")]), 1_000_000);
        assert_eq!(room(&[("mode", "non-blocking"), ("max-buffer-size", "4m")]), 4 << 20);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        for (driver, options, words) in [
            ("nosuch", &[][..], "logger: no log driver named 'nosuch' is registered"),
            (
                "syslog",
                &[],
                "log driver syslog is not offered by this version: use json-file or local, and a collector that reads it",
            ),
            (
                "local",
                &[("max-buffer-size", "1m")],
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            ),
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
        container.host_config = host("", &[("labels-regex", "^t"), ("env-regex", "^(COL|X)")]);
        assert_eq!(attributes(&container).unwrap(), r#"{"COLOUR":"blue","tier":"front"}"#);
        assert!(check(&host("", &[("env-regex", "(")])).is_err());
    }
}
