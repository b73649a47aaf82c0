//! What stands in an archive beside the layers: Docker's `manifest.json`, OCI's index and manifests, and the choice of a platform.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::ImageError;

/// An image in Docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerManifest {
    /// The name of its configuration in the archive.
    pub config: String,
    pub repo_tags: Option<Vec<String>>,
    /// Names of its layers in the archive, lowest first.
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

/// OCI's `index.json`, and any index below it.
#[derive(Debug, Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// OCI's image manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

/// A blob, by digest.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    /// Bytes; archives do not have to say.
    #[serde(default)]
    pub size: Option<u64>,
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What an image runs on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Reads one of them.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|why| ImageError::BadArchive(format!("invalid {name} in archive: {why}")))
}

impl Descriptor {
    pub fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json") || self.media_type.ends_with("manifest.list.v2+json")
    }

    /// Of this machine, or of none in particular. Attestations say `unknown/unknown`.
    pub fn runs_here(&self) -> bool {
        self.platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
    }

    /// The name the image had where it was saved.
    pub fn name(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        let full = annotations.get("io.containerd.image.name").map(String::as_str);
        // by the specification only a tag, but many write the whole name
        let reference = annotations.get("org.opencontainers.image.ref.name").map(String::as_str);
        full.or_else(|| reference.filter(|name| name.contains([':', '/'])))
    }
}

/// This machine, in Go's words.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "riscv64" => "riscv64",
        "loongarch64" => "loong64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(json: &str) -> Descriptor {
        parse("descriptor", json.as_bytes()).unwrap()
    }

    #[test]
    fn an_attestation_does_not_run_here() {
        let here = format!(
            r#"{{"digest":"d","platform":{{"os":"linux","architecture":"{}"}}}}"#,
            architecture()
        );
        assert!(descriptor(&here).runs_here());
        assert!(descriptor(r#"{"digest":"d"}"#).runs_here());
        let unknown = r#"{"digest":"d","platform":{"os":"unknown","architecture":"unknown"}}"#;
        assert!(!descriptor(unknown).runs_here());
    }

    #[test]
    fn a_bare_tag_is_not_a_name() {
        let bare = r#"{"digest":"d","annotations":{"org.opencontainers.image.ref.name":"latest"}}"#;
        assert_eq!(descriptor(bare).name(), None);
        let full = r#"{"digest":"d","annotations":{"org.opencontainers.image.ref.name":"1.0","io.containerd.image.name":"docker.io/library/a:1.0"}}"#;
        assert_eq!(descriptor(full).name(), Some("docker.io/library/a:1.0"));
    }
}
