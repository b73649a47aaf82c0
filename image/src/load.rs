//! Images from an archive as `docker save` and others write it: the old layout with `manifest.json`, and OCI's.
//!
//! The description of an image stands at the end of most archives, behind its layers, and the layers may be links to one another. So the files of
//! the archive are first put on disk, each under a number: the names of the archive are only ever looked up in a table.

mod spool;

use std::{
    collections::BTreeSet,
    io::{BufReader, Read},
    path::Path,
};

use spool::Spool;

use crate::{
    Digest, Images, Listener, NewImage, News, Pin, Staging,
    configuration::Configuration,
    digest::DigestReader,
    error::ImageError,
    layer::Layer,
    manifest::{self, Descriptor, DockerManifest, Index, Manifest},
    parallel::Together,
    reference, staging,
};

/// How deep an index may stand in indexes.
const DEEPEST_INDEX: usize = 4;
/// Images in one archive.
const MOST_IMAGES: usize = 1000;
/// Layers that are unpacked at a time; a pull begins with as many.
const LAYERS_AT_A_TIME: usize = 3;

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

/// A layer that is not here yet.
struct Coming {
    diff_id: Digest,
    blob: Blob,
}

/// Nobody hears how far a load is.
struct Unheard;

impl Listener for Unheard {
    fn hear(&self, _: News) {}

    fn is_gone(&self) -> bool {
        false
    }
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
        let (mut images, mut coming, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for image in listed {
            let (image, layers) = read_image(image)?;
            for layer in layers {
                if seen.insert(layer.diff_id.clone()) && !pin.hold(&layer.diff_id) {
                    coming.push(layer);
                }
            }
            images.push(image);
        }
        self.stage_layers(&spool, &mut staging, coming)?;
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

    /// Unpacks layers, several at a time.
    fn stage_layers(&self, spool: &Spool, staging: &mut Staging, coming: Vec<Coming>) -> Result<(), ImageError> {
        let mut placed = Vec::new();
        for layer in coming {
            placed.push((layer, staging.place()?));
        }
        let unpacked = Together::new(&Unheard).each(placed, LAYERS_AT_A_TIME, |(Coming { diff_id, blob }, place)| {
            let layer = self.unpack_blob(spool, &diff_id, &blob, &place)?;
            Ok((diff_id, layer, place))
        });
        for (diff_id, layer, place) in unpacked? {
            staging.take(diff_id, layer, place);
        }
        Ok(())
    }

    fn unpack_blob(&self, spool: &Spool, diff_id: &Digest, blob: &Blob, place: &Path) -> Result<Layer, ImageError> {
        let file = BufReader::with_capacity(64 * 1024, spool.open(&blob.name)?);
        // an uncompressed layer is its own blob: one digest says both
        let Some(digest) = blob.digest.as_ref().filter(|digest| *digest != diff_id) else {
            return staging::unpack_at(file, Some(diff_id), place, self.limits).map(|(_, layer)| layer);
        };
        let mut file = DigestReader::new(file, u64::MAX).map_err(|why| ImageError::reading(&why))?;
        let (_, layer) = staging::unpack_at(&mut file, Some(diff_id), place, self.limits)?;
        let (found, _) = file.finish().map_err(|why| ImageError::reading(&why))?;
        verify(digest, &found)?;
        Ok(layer)
    }
}

/// What is known of an image before its layers are read.
fn read_image(image: Listed) -> Result<(NewImage, Vec<Coming>), ImageError> {
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
    let layers = diff_ids.iter().cloned().zip(image.layers);
    let coming = layers.map(|(diff_id, blob)| Coming { diff_id, blob }).collect();
    let image = NewImage {
        bytes: image.config,
        configuration,
        names,
    };
    Ok((image, coming))
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
