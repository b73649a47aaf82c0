//! Images from an archive as `docker save` and others write it: the old layout with `manifest.json`, and OCI's.
//!
//! The description of an image stands at the end of most archives, behind its layers, and the layers may be links to one another. So the files of
//! the archive are first put on disk, each under a number: the names of the archive are only ever looked up in a table.

mod spool;

use std::io::{BufReader, Read};

use spool::Spool;

use crate::{
    Digest, Images, NewImage, Pin, Staging,
    configuration::Configuration,
    digest::DigestReader,
    error::ImageError,
    manifest::{self, Descriptor, DockerManifest, Index, Manifest},
    reference,
};

/// How deep an index may stand in indexes.
const DEEPEST_INDEX: usize = 4;
/// Images in one archive.
const MOST_IMAGES: usize = 1000;

/// An image of the archive: where its parts are.
struct Listed {
    config: Vec<u8>,
    /// Lowest first.
    layers: Vec<Blob>,
    names: Vec<String>,
}

/// A file of the archive, and what its digest has to be.
struct Blob {
    name: Vec<u8>,
    digest: Option<Digest>,
}

impl Images {
    /// Reads an archive made by `docker save` (old and OCI layout, gzip or not). Returns a line per loaded image as Docker says it
    /// (`Loaded image: name:tag` / `Loaded image ID: sha256:…`).
    pub fn load(&self, tar: &mut dyn Read) -> Result<Vec<String>, ImageError> {
        let mut staging = self.stage()?;
        let spool = Spool::read(tar, staging.directory(), self.limits)?;
        let listed = match spool.json("manifest.json")? {
            Some(bytes) => docker_images(&spool, &bytes)?,
            None => match spool.json("index.json")? {
                Some(bytes) => oci_images(&spool, &bytes)?,
                None => {
                    let why = "archive holds no image: it has neither manifest.json nor index.json";
                    return Err(ImageError::BadArchive(why.into()));
                }
            },
        };
        let mut pin = Pin::new(self);
        let mut images = Vec::new();
        for image in listed {
            images.push(self.stage_image(&spool, &mut staging, &mut pin, image)?);
        }
        let taken = self.publish(&[staging], &images)?;
        let mut lines = Vec::new();
        for (name, old) in taken {
            lines.push(format!(
                "The image {} already exists, renaming the old one with ID {old} to empty string",
                name.familiar()
            ));
        }
        for image in &images {
            match image.names.is_empty() {
                true => lines.push(format!("Loaded image ID: {}", Digest::of(&image.bytes))),
                false => lines.extend(
                    image
                        .names
                        .iter()
                        .map(|name| format!("Loaded image: {}", name.familiar())),
                ),
            }
        }
        Ok(lines)
    }

    /// Unpacks the layers that are not here yet.
    fn stage_image(
        &self,
        spool: &Spool,
        staging: &mut Staging,
        pin: &mut Pin<'_>,
        image: Listed,
    ) -> Result<NewImage, ImageError> {
        let names = image
            .names
            .iter()
            .map(|name| reference::parse_tag(name))
            .collect::<Result<_, _>>()?;
        let configuration = Configuration::parse(&image.config)?;
        let os = configuration.oci.os().to_string();
        if os != "linux" {
            return Err(ImageError::Invalid(format!("cannot load {os} image on linux")));
        }
        let diff_ids = &configuration.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(ImageError::BadArchive(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                diff_ids.len(),
                image.layers.len()
            )));
        }
        for (diff_id, blob) in diff_ids.iter().zip(&image.layers) {
            let staged = staging.layers().iter().any(|(layer, ..)| layer == diff_id);
            if staged || pin.hold(diff_id) {
                continue;
            }
            let file = BufReader::with_capacity(64 * 1024, spool.open(&blob.name)?);
            // an uncompressed layer is its own blob: one digest says both
            match blob.digest.as_ref().filter(|digest| *digest != diff_id) {
                None => _ = staging.unpack(file, Some(diff_id), self.limits)?,
                Some(digest) => {
                    let mut file = DigestReader::new(file, u64::MAX).map_err(|why| ImageError::reading(&why))?;
                    staging.unpack(&mut file, Some(diff_id), self.limits)?;
                    let (found, _) = file.finish().map_err(|why| ImageError::reading(&why))?;
                    verify(digest, &found)?;
                }
            }
        }
        Ok(NewImage {
            bytes: image.config,
            configuration,
            names,
        })
    }
}

/// The images of a `manifest.json`.
fn docker_images(spool: &Spool, bytes: &[u8]) -> Result<Vec<Listed>, ImageError> {
    let manifests: Vec<DockerManifest> = manifest::parse("manifest.json", bytes)?;
    check_number(manifests.len())?;
    let mut images = Vec::new();
    for DockerManifest {
        config,
        repo_tags,
        layers,
    } in manifests
    {
        let bytes = spool.json(&config)?;
        let layers = layers.unwrap_or_default().into_iter();
        images.push(Listed {
            config: bytes.ok_or_else(|| missing(&config))?,
            layers: layers
                .map(|name| Blob {
                    name: name.into_bytes(),
                    digest: None,
                })
                .collect(),
            names: repo_tags.unwrap_or_default(),
        });
    }
    Ok(images)
}

/// The images of an `index.json`: of each entry the one for this machine.
fn oci_images(spool: &Spool, bytes: &[u8]) -> Result<Vec<Listed>, ImageError> {
    let index: Index = manifest::parse("index.json", bytes)?;
    check_number(index.manifests.len())?;
    let here: Vec<&Descriptor> = index
        .manifests
        .iter()
        .filter(|descriptor| descriptor.runs_here())
        .collect();
    if here.is_empty() {
        return Err(no_platform());
    }
    let mut images = Vec::new();
    for descriptor in here {
        let bytes = choose(spool, descriptor.clone(), 0)?;
        let manifest: Manifest = manifest::parse("image manifest", &bytes)?;
        let layers = manifest.layers.iter().map(|layer| {
            let digest = Digest::parse(&layer.digest)?;
            Ok(Blob {
                name: blob_name(&digest).into_bytes(),
                digest: Some(digest),
            })
        });
        images.push(Listed {
            config: blob(spool, &manifest.config)?,
            layers: layers.collect::<Result<_, ImageError>>()?,
            names: descriptor.name().map(str::to_owned).into_iter().collect(),
        });
    }
    Ok(images)
}

/// Follows indexes down to the manifest for this machine.
fn choose(spool: &Spool, descriptor: Descriptor, depth: usize) -> Result<Vec<u8>, ImageError> {
    let bytes = blob(spool, &descriptor)?;
    if !descriptor.is_index() {
        return Ok(bytes);
    }
    if depth == DEEPEST_INDEX {
        return Err(ImageError::BadArchive(format!(
            "archive has more than {DEEPEST_INDEX} indexes in one another"
        )));
    }
    let index: Index = manifest::parse("index", &bytes)?;
    // one made for a platform before one made for any
    let here = index.manifests.into_iter().filter(Descriptor::runs_here);
    let best = here
        .min_by_key(|descriptor| descriptor.platform.is_none())
        .ok_or_else(no_platform)?;
    choose(spool, best, depth + 1)
}

/// A small blob, verified.
fn blob(spool: &Spool, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let digest = Digest::parse(&descriptor.digest)?;
    let name = blob_name(&digest);
    let bytes = spool.json(&name)?.ok_or_else(|| missing(&name))?;
    verify(&digest, &Digest::of(&bytes))?;
    Ok(bytes)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn missing(name: &str) -> ImageError {
    ImageError::BadArchive(format!("archive lacks {name:?}, which its manifest names"))
}

fn no_platform() -> ImageError {
    ImageError::BadArchive(format!("archive has no image for linux/{}", manifest::architecture()))
}

fn check_number(images: usize) -> Result<(), ImageError> {
    match images > MOST_IMAGES {
        true => Err(ImageError::BadArchive(format!(
            "archive has more than the limit of {MOST_IMAGES} images"
        ))),
        false => Ok(()),
    }
}

fn verify(expected: &Digest, found: &Digest) -> Result<(), ImageError> {
    match expected == found {
        true => Ok(()),
        false => Err(ImageError::BadArchive(format!(
            "blob {expected} of the archive is damaged: it is {found}"
        ))),
    }
}

#[cfg(test)]
mod tests;
