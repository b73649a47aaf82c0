//! Images as an honest registry has them.

use std::{collections::BTreeMap, io::Write};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::fake::{Answer, Asked};
use crate::Digest;

/// An image in a registry: its blobs and manifests by digest or tag.
#[derive(Clone, Default)]
pub(crate) struct Stored {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifests: BTreeMap<String, (String, Vec<u8>)>,
}

pub(crate) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Data that does not shrink.
pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise
}

impl Stored {
    /// An image of these layers, compressed, by a tag and its digest. Returns the digest of the manifest.
    pub(crate) fn image(&mut self, tag: &str, layers: &[Vec<u8>], architecture: &str) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": [tag]}, "history": [],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let layers = layers.iter().map(|layer| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(layer).unwrap();
            self.blob(
                gzip.finish().unwrap(),
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
        });
        let layers: Vec<Value> = layers.collect();
        let config = self.blob(config, "application/vnd.docker.container.image.v1+json");
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.manifest(tag, MANIFEST, &manifest)
    }

    pub(crate) fn blob(&mut self, bytes: Vec<u8>, kind: &str) -> Value {
        let digest = Digest::of(&bytes).to_string();
        let described = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        described
    }

    pub(crate) fn manifest(&mut self, tag: &str, kind: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes).to_string();
        self.manifests.insert(tag.into(), (kind.into(), bytes.clone()));
        self.manifests.insert(digest.clone(), (kind.into(), bytes));
        digest
    }

    /// What an honest registry answers.
    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        let path = asked.path.split('?').next().unwrap();
        if path == "/v2/" {
            return Answer::of(200, "{}");
        }
        if let Some(digest) = path.split("/blobs/").nth(1) {
            let Some(bytes) = self.blobs.get(digest) else {
                return Answer::of(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#);
            };
            let range = asked
                .headers
                .get("range")
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
            return match range {
                Some(start) => {
                    let start: usize = start.parse().unwrap();
                    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                    Answer::of(206, &bytes[start..]).header("content-range", &range)
                }
                None => Answer::of(200, bytes.clone()),
            };
        }
        match path.split("/manifests/").nth(1).and_then(|tag| self.manifests.get(tag)) {
            Some((kind, bytes)) => Answer::of(200, bytes.clone())
                .header("content-type", kind)
                .header("docker-content-digest", Digest::of(bytes).as_str()),
            None => Answer::of(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            ),
        }
    }
}
