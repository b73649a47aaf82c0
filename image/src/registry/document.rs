//! Manifests, lists of them, configurations: small documents, each held against the digest it was asked for by.

use std::io::Read;

use serde::Deserialize;
use ureq::http::StatusCode;

use crate::{
    digest::Digest,
    error::ImageError,
    manifest::{Descriptor, Platform, architecture},
    registry::{session::Session, trouble::Refusal},
};

pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What we can read.
const ACCEPTED: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                        application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
/// The longest manifest, bytes; Docker's limit.
const LONGEST_MANIFEST: u64 = 4 << 20;
/// The longest configuration, bytes.
const LONGEST_CONFIG: u64 = 8 << 20;
/// How deep a list may stand in lists.
const DEEPEST: usize = 4;

/// A manifest or a list of them, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub bytes: Vec<u8>,
    pub media_type: String,
    pub digest: Digest,
}

/// What a fetched document is.
pub(crate) enum Document {
    List(Vec<Descriptor>),
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Any {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// The platform somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl Wanted {
    /// This machine.
    pub fn here() -> Self {
        Self {
            os: "linux".into(),
            architecture: architecture().into(),
            variant: None,
        }
    }

    /// `os/architecture[/variant]`, or an architecture alone; people also write the kernel's names.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let parts: Vec<String> = text.split('/').map(str::to_ascii_lowercase).collect();
        let is_word = |part: &String| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if parts.len() > 3 || !parts.iter().all(is_word) {
            return Err(ImageError::Invalid(format!(
                "{text:?} is an invalid platform: os/architecture[/variant] is wanted"
            )));
        }
        let (os, machine, variant) = match parts.as_slice() {
            [one] if one == "linux" => return Ok(Self::here()),
            [one] => ("linux", one.as_str(), None),
            [os, machine] => (os.as_str(), machine.as_str(), None),
            [os, machine, variant, ..] => (os.as_str(), machine.as_str(), Some(variant.as_str())),
            [] => ("linux", architecture(), None),
        };
        let (machine, implied) = match machine {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "i386" | "i686" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            other => (other, None),
        };
        Ok(Self {
            os: os.into(),
            architecture: machine.into(),
            variant: variant.or(implied).map(str::to_owned),
        })
    }

    /// Does it run there? `v8` is what every arm64 is, said or not.
    pub fn fits(&self, platform: &Platform) -> bool {
        let plain = |variant: Option<&str>| {
            variant
                .filter(|variant| !variant.is_empty() && *variant != "v8")
                .map(str::to_owned)
        };
        let (wanted, found) = (plain(self.variant.as_deref()), plain(platform.variant.as_deref()));
        self.os == platform.os && self.architecture == platform.architecture && (wanted.is_none() || wanted == found)
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(out, "/{variant}"))
    }
}

impl Fetched {
    /// Gets `reference` (a tag or a digest); `names` are the repository and the whole name, for sentences.
    pub fn get(session: &Session, reference: &str, names: (&str, &str)) -> Result<Self, ImageError> {
        let url = session.url(&format!("manifests/{reference}"));
        let response = session.get(&url, &[("accept", ACCEPTED)])?;
        if response.status() != StatusCode::OK {
            return Err(Refusal::read(response).of_image(names.0, names.1));
        }
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(|value| value.split(';').next().unwrap_or_default().trim().to_owned())
        };
        let (declared, promised) = (header("content-type"), header("docker-content-digest"));
        let bytes = whole(response.into_body().into_reader(), LONGEST_MANIFEST, "manifest")?;
        let digest = Digest::of(&bytes);
        let expected = match Digest::parse(reference) {
            Ok(digest) => Some(digest),
            // what it says of a tag binds it, too; other kinds of digests bind nobody here
            Err(_) => promised.and_then(|promised| Digest::parse(&promised).ok()),
        };
        verified("manifest", expected.as_ref(), &digest)?;
        Ok(Self {
            media_type: declared.unwrap_or_default(),
            bytes,
            digest,
        })
    }

    /// Reads it.
    pub fn document(&self) -> Result<Document, ImageError> {
        let any: Any = serde_json::from_slice(&self.bytes).map_err(|why| {
            ImageError::BadArchive(format!("the registry's manifest {} cannot be read: {why}", self.digest))
        })?;
        if any.schema_version == 1 || self.media_type.contains("distribution.manifest.v1") {
            return Err(ImageError::Invalid(
                "the image has a manifest of schema version 1, which is not supported: push it again with a newer Docker".into(),
            ));
        }
        // a document that says two things of itself is none of them
        let kind = if any.media_type.is_empty() {
            &self.media_type
        } else {
            &any.media_type
        };
        let may_be = |kinds: [&str; 2]| kinds.contains(&kind.as_str()) || kind.is_empty() || kind == "application/json";
        match (any.manifests, any.config) {
            (Some(manifests), None) if may_be([DOCKER_LIST, OCI_INDEX]) => Ok(Document::List(manifests)),
            (None, Some(config)) if may_be([DOCKER_MANIFEST, OCI_MANIFEST]) => Ok(Document::Image {
                config,
                layers: any.layers.unwrap_or_default(),
            }),
            _ => Err(ImageError::BadArchive(format!(
                "the registry's manifest {} of the type {kind:?} is none of an image",
                self.digest
            ))),
        }
    }

    /// The type it is of, also when its registry did not say.
    pub fn kind(&self) -> Result<String, ImageError> {
        let known = [DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX];
        if known.contains(&self.media_type.as_str()) {
            return Ok(self.media_type.clone());
        }
        Ok(match self.document()? {
            Document::List(_) => OCI_INDEX.into(),
            Document::Image { .. } => OCI_MANIFEST.into(),
        })
    }

    /// Follows lists to the image for a platform: its manifest, configuration and layers.
    pub fn image(
        self,
        session: &Session,
        wanted: &Wanted,
        names: (&str, &str),
    ) -> Result<(Self, Descriptor, Vec<Descriptor>), ImageError> {
        let mut fetched = self;
        for _ in 0..DEEPEST {
            let manifests = match fetched.document()? {
                Document::Image { config, layers } => return Ok((fetched, config, layers)),
                Document::List(manifests) => manifests,
            };
            let best = choose(&manifests, wanted).ok_or_else(|| {
                ImageError::Missing(format!(
                    "no matching manifest for {wanted} in the manifest list entries of {}",
                    names.1
                ))
            })?;
            let digest = Digest::parse(&best.digest)?;
            fetched = Self::get(session, digest.as_str(), names)?;
        }
        Err(ImageError::BadArchive(format!(
            "{} has more than {DEEPEST} lists of manifests in one another",
            names.1
        )))
    }
}

/// The entry made for the platform; one without a platform counts when there is no better.
fn choose<'a>(manifests: &'a [Descriptor], wanted: &Wanted) -> Option<&'a Descriptor> {
    let fitting = manifests
        .iter()
        .find(|entry| entry.platform.as_ref().is_some_and(|platform| wanted.fits(platform)));
    fitting.or_else(|| manifests.iter().find(|entry| entry.platform.is_none()))
}

/// The configuration of an image.
pub(crate) fn configuration(session: &Session, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let digest = Digest::parse(&descriptor.digest)?;
    let response = session.get(&session.url(&format!("blobs/{digest}")), &[])?;
    if response.status() != StatusCode::OK {
        return Err(Refusal::read(response).plain(&format!("cannot get the image's configuration {digest}")));
    }
    let bytes = whole(
        response.into_body().into_reader(),
        LONGEST_CONFIG,
        "image configuration",
    )?;
    verified("image config", Some(&digest), &Digest::of(&bytes))?;
    Ok(bytes)
}

fn whole(reader: impl Read, limit: u64, what: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = reader.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|why| ImageError::Unreachable(format!("cannot read the {what}: {why}")))?;
    match bytes.len() as u64 > limit {
        true => Err(ImageError::BadArchive(format!(
            "the registry's {what} is longer than {limit} bytes"
        ))),
        false => Ok(bytes),
    }
}

pub(crate) fn verified(what: &str, expected: Option<&Digest>, found: &Digest) -> Result<(), ImageError> {
    match expected {
        Some(expected) if expected != found => Err(ImageError::BadArchive(format!(
            "{what} verification failed for digest {expected}: the registry sent {found}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(json: &str, media_type: &str) -> Fetched {
        Fetched {
            bytes: json.as_bytes().to_vec(),
            media_type: media_type.into(),
            digest: Digest::of(json.as_bytes()),
        }
    }

    #[test]
    fn platforms_are_read_as_people_write_them() {
        assert_eq!(Wanted::parse("linux/arm64/v8").unwrap().to_string(), "linux/arm64/v8");
        assert_eq!(Wanted::parse("aarch64").unwrap().to_string(), "linux/arm64");
        assert_eq!(Wanted::parse("linux/armhf").unwrap().to_string(), "linux/arm/v7");
        assert_eq!(Wanted::parse("Linux/x86_64").unwrap().to_string(), "linux/amd64");
        for wrong in ["", "a/b/c/d", "linux/", "linux/a b"] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_a_list_the_entry_for_the_platform_is_taken() {
        let entry = |platform: &str| {
            let json = format!(r#"{{"digest":"{platform}","size":1,"platform":{platform}}}"#);
            let json = json.replacen(&format!(r#""{platform}""#), "\"d\"", 1);
            serde_json::from_str::<Descriptor>(&json).unwrap()
        };
        let list = [
            entry(r#"{"os":"unknown","architecture":"unknown"}"#),
            entry(r#"{"os":"linux","architecture":"arm","variant":"v6"}"#),
            entry(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#),
            entry(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#),
        ];
        let chosen = |platform: &str| {
            let chosen = choose(&list, &Wanted::parse(platform).unwrap());
            chosen.map(|entry| list.iter().position(|other| std::ptr::eq(entry, other)).unwrap())
        };
        assert_eq!(chosen("linux/arm/v7"), Some(2));
        assert_eq!(chosen("linux/arm"), Some(1));
        assert_eq!(chosen("linux/arm64"), Some(3));
        assert_eq!(chosen("linux/arm64/v9"), None);
        assert_eq!(chosen("linux/riscv64"), None);
    }

    #[test]
    fn a_document_that_says_two_things_of_itself_is_refused() {
        let descriptor = r#"{"digest":"d","size":1}"#;
        let image =
            format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{descriptor},"layers":[]}}"#);
        assert!(matches!(
            fetched(&image, DOCKER_MANIFEST).document(),
            Ok(Document::Image { .. })
        ));
        let oci = image.replace(DOCKER_MANIFEST, OCI_MANIFEST);
        assert!(matches!(
            fetched(&oci, OCI_MANIFEST).document(),
            Ok(Document::Image { .. })
        ));
        let both = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[],"manifests":[]}}"#);
        assert!(fetched(&both, OCI_MANIFEST).document().is_err());
        let lies = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":{descriptor}}}"#);
        assert!(fetched(&lies, OCI_MANIFEST).document().is_err());
        assert!(
            fetched(&image.replace("\"schemaVersion\":2", "\"schemaVersion\":1"), "")
                .document()
                .is_err()
        );
        for hostile in ["", "[]", "{}", "null", r#"{"schemaVersion":2}"#] {
            assert!(fetched(hostile, OCI_MANIFEST).document().is_err(), "{hostile}");
        }
    }
}
