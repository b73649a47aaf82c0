//! The configuration of an image: OCI's, with what Docker adds to it.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{digest::Digest, error::ImageError};

/// The most layers an image may have: what overlayfs takes.
const MOST_LAYERS: usize = 500;

/// What Docker keeps in a configuration beyond OCI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// How to tell whether a container is well.
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for whoever builds on it.
    pub on_build: Vec<String>,
    /// What runs the shell form of commands.
    pub shell: Vec<String>,
    /// A word of who made it (`docker import -m`).
    pub comment: String,
    /// The Docker that made it.
    pub docker_version: String,
    /// Variant of the architecture (`v8`).
    pub variant: String,
}

/// Docker's health check; times in nanoseconds, zero where the default holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", command]`.
    #[serde(deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// For one check.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// While failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks while starting.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until it is unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The part of a configuration that a Dockerfile can change, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `user[:group]`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub user: String,
    /// `port/protocol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<BTreeMap<String, Empty>>,
    /// `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// The entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The command, or the arguments of the entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// How its health is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Paths that get a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, Empty>>,
    /// The directory it starts in.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub working_dir: String,
    /// Instructions for images built on it.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub on_build: Vec<String>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// The signal that stops it.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "nullable")]
    pub stop_signal: String,
    /// The shell of the shell form.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "nullable")]
    pub shell: Vec<String>,
}

impl RunConfig {
    /// Of an image's configuration as it is written.
    pub(crate) fn of_document(bytes: &[u8]) -> Result<Self, ImageError> {
        let wrong = |why: serde_json::Error| ImageError::BadArchive(format!("invalid image configuration: {why}"));
        let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(wrong)?;
        strip_nulls(&mut value);
        Ok(serde_json::from_value::<Own>(value).map_err(wrong)?.config)
    }
}

/// `{}`, the value of a Go set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A configuration, read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    pub oci: ImageConfiguration,
    pub extras: Extras,
    /// Lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Configuration {
    /// Reads the bytes of a configuration; it is a stranger's.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let wrong = |why: &dyn std::fmt::Display| ImageError::BadArchive(format!("invalid image configuration: {why}"));
        let mut value: serde_json::Value = serde_json::from_slice(bytes).map_err(|why| wrong(&why))?;
        // Go writes null for what is empty, and OCI's types do not expect that everywhere
        strip_nulls(&mut value);
        if let Some(rootfs) = value.get_mut("rootfs").and_then(serde_json::Value::as_object_mut) {
            rootfs.entry("diff_ids").or_insert_with(|| serde_json::json!([])); // no layers at all
        }
        let own: Own = serde_json::from_value(value.clone()).map_err(|why| wrong(&why))?;
        let oci: ImageConfiguration = serde_json::from_value(value).map_err(|why| wrong(&why))?;
        let diff_ids = oci
            .rootfs()
            .diff_ids()
            .iter()
            .map(|text| Digest::parse(text))
            .collect::<Result<Vec<_>, _>>();
        let diff_ids = diff_ids.map_err(|why| wrong(&why))?;
        if diff_ids.len() > MOST_LAYERS {
            return Err(wrong(&format!(
                "{} layers are more than the limit of {MOST_LAYERS}",
                diff_ids.len()
            )));
        }
        let config = own.config;
        let extras = Extras {
            healthcheck: config.healthcheck,
            on_build: config.on_build,
            shell: config.shell,
            comment: own.comment,
            docker_version: own.docker_version,
            variant: own.variant,
        };
        Ok(Self { oci, extras, diff_ids })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Own {
    config: RunConfig,
    comment: String,
    docker_version: String,
    variant: String,
}

fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_as_docker_writes_it_is_read_with_its_nulls() {
        let text = br#"{"architecture":"arm64","variant":"v8","os":"linux","created":"2024-01-02T03:04:05.678Z","docker_version":"20.10.24",
            "config":{"Hostname":"","User":"","AttachStdin":false,"ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin"],"Cmd":["sh"],"Image":"",
            "Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null,"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":5}},
            "container_config":{"Cmd":null},"history":[{"created":"2024-01-02T03:04:05Z","created_by":"x","empty_layer":true}],
            "rootfs":{"type":"layers","diff_ids":null}}"#;
        let configuration = Configuration::parse(text).unwrap();
        assert!(configuration.diff_ids.is_empty());
        let config = configuration.oci.config().as_ref().unwrap();
        assert_eq!(config.exposed_ports().as_deref(), Some(&["80/tcp".to_owned()][..]));
        assert_eq!(configuration.extras.healthcheck.unwrap().interval, 5);
        assert_eq!(configuration.extras.variant, "v8");
    }

    #[test]
    fn a_digest_that_is_a_path_is_refused() {
        let text = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:../../../etc"]},"history":[]}"#;
        assert!(matches!(Configuration::parse(text), Err(ImageError::BadArchive(_))));
    }
}
