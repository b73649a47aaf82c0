//! Images to registries: what is there already is not sent again, what another repository there has is taken over from it.

use std::{
    collections::BTreeSet,
    io::{self, BufWriter, Write},
    thread,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use ureq::http::StatusCode;

use crate::{
    Digest, Images, Listener, News, Pin,
    digest::DigestWriter,
    error::ImageError,
    layer,
    origins::Known,
    parallel::Together,
    pull::Remote,
    reference::{self, Reference},
    registry::{
        Credentials,
        document::{DOCKER_MANIFEST, OCI_MANIFEST},
        session::{Session, escape},
        trouble::Refusal,
    },
};

const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Attempts at one layer.
const MOST_ATTEMPTS: u32 = 5;
/// Known blobs of a layer that are asked for before it is sent.
const MOST_ASKED: usize = 5;
/// Progress is told so often.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// What to push.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// `name` or `name:tag`.
    pub reference: &'a str,
    /// Every tag of the repository that is here.
    pub all_tags: bool,
    /// Who asks.
    pub credentials: Option<&'a Credentials>,
}

/// One layer on its way out.
struct Going<'a> {
    diff_id: &'a Digest,
    short: String,
    /// Bytes of its archive.
    size: u64,
}

/// A layer's upload, over all attempts at it.
#[derive(Default)]
struct Upload {
    /// Where the registry may still have what came of it.
    begun: Option<String>,
    /// Does this attempt go on where one before broke?
    goes_on: bool,
}

/// A push of one repository.
struct Road<'a> {
    images: &'a Images,
    session: &'a Session,
    domain: &'a str,
    repository: &'a str,
    together: Together<'a>,
}

impl Images {
    /// Sends an image, or all tags of a repository, to its registry. Tells the ids and names of those sent.
    pub fn push(&self, push: Push<'_>, listener: &dyn Listener) -> Result<Vec<(String, String)>, ImageError> {
        let remote = Remote::parse(push.reference)?;
        if remote.is_digest() {
            return Err(ImageError::Invalid("cannot push a digest reference".into()));
        }
        listener.hear(News::word(format!(
            "The push refers to repository [{}]",
            remote.repository
        )));
        let chosen: Vec<(Reference, Digest)> = {
            let state = self.state();
            let all = state.repositories.all().filter(|(name, id)| {
                name.repository == remote.repository
                    && (push.all_tags || name.tag == remote.reference)
                    && state.images.contains_key(id)
            });
            all.map(|(name, id)| (name.clone(), id.clone())).collect()
        };
        if chosen.is_empty() {
            let name = match push.all_tags {
                true => remote.familiar_repository().to_owned(),
                false => remote.familiar(),
            };
            return Err(ImageError::Missing(format!(
                "An image does not exist locally with the tag: {name}"
            )));
        }
        let (domain, path) = remote.parts();
        let session = self.registries.session(domain, path, "pull,push", push.credentials)?;
        let road = Road {
            images: self,
            session: &session,
            domain,
            repository: &remote.repository,
            together: Together::new(listener),
        };
        let mut sent = Vec::new();
        for (name, id) in chosen {
            road.image(&name, &id)?;
            sent.push((id.to_string(), name.familiar()));
        }
        Ok(sent)
    }
}

impl Road<'_> {
    fn image(&self, name: &Reference, id: &Digest) -> Result<(), ImageError> {
        let mut pin = Pin::new(self.images);
        let (config, diff_ids) = {
            let state = self.images.state();
            let image = state
                .images
                .get(id)
                .ok_or_else(|| ImageError::NotFound(name.familiar()))?;
            (state.content.read(id)?, image.diff_ids.clone())
        };
        let (mut going, mut seen) = (Vec::new(), BTreeSet::new());
        for diff_id in diff_ids.iter().filter(|diff_id| seen.insert(*diff_id)) {
            if !pin.hold(diff_id) {
                return Err(ImageError::Failed(format!("cannot push: layer {diff_id} is gone")));
            }
            let short = diff_id.hex()[..12].to_owned();
            self.together.hear(News::of(&short, "Preparing"));
            let size = self.images.archive_of(diff_id)?;
            going.push(Going { diff_id, short, size });
        }
        let known = self.layers(&going)?;
        let described = |diff_id: &Digest| known.iter().find(|(other, _)| other == diff_id).map(|(_, known)| known);
        let layers: Vec<&Known> = diff_ids.iter().filter_map(described).collect();
        self.small_blob(id, &config)?;
        let (manifest, media_type) = manifest(id, config.len(), &layers)?;
        let digest = Digest::of(&manifest);
        let url = self.session.url(&format!("manifests/{}", name.tag));
        let response = self.session.put(&url, &[("content-type", media_type)], &manifest)?;
        if !response.status().is_success() {
            return Err(self.refused(response));
        }
        let learned = self
            .images
            .state()
            .origins
            .learn(self.repository, &known, Some((&digest, id)));
        if let Err(why) = learned {
            tracing::warn!(%why, "where an image went is not kept");
        }
        let size = manifest.len() as u64;
        self.together
            .hear(News::word(format!("{}: digest: {digest} size: {size}", name.tag)));
        self.together.hear(News::Pushed {
            tag: name.tag.clone(),
            digest: digest.to_string(),
            size,
        });
        Ok(())
    }

    /// Sees to it that all layers are there, several at a time.
    fn layers(&self, going: &[Going<'_>]) -> Result<Vec<(Digest, Known)>, ImageError> {
        let workers = self.images.registries.uploads;
        for layer in going.iter().skip(workers) {
            self.together.hear(News::of(&layer.short, "Waiting"));
        }
        self.together.each(going.iter().collect(), workers, |layer| {
            Ok((layer.diff_id.clone(), self.layer(layer)?))
        })
    }

    fn layer(&self, layer: &Going<'_>) -> Result<Known, ImageError> {
        let known: Vec<Known> = self
            .images
            .state()
            .origins
            .blobs(layer.diff_id)
            .take(MOST_ASKED)
            .cloned()
            .collect();
        for blob in &known {
            if let Some(size) = self.has(&blob.digest)? {
                self.together.hear(News::of(&layer.short, "Layer already exists"));
                return Ok(Known { size, ..blob.clone() });
            }
        }
        for blob in &known {
            if let Some(from) = self.mount(blob)? {
                self.together
                    .hear(News::of(&layer.short, format!("Mounted from {from}")));
                return Ok(blob.clone());
            }
        }
        let mut upload = Upload::default();
        for attempt in 1.. {
            match self.upload(layer, &mut upload) {
                // registries that know no going on find out late: then it is sent from its beginning
                Err(why) if upload.goes_on && attempt < MOST_ATTEMPTS && !self.is_gone() && !is_broken_off(&why) => {
                    tracing::info!(layer = %layer.diff_id, %why, attempt, "a layer could not be sent on; it is sent anew");
                    upload = Upload::default();
                }
                Err(ImageError::Unreachable(why)) if attempt < MOST_ATTEMPTS && !self.is_gone() => {
                    tracing::info!(layer = %layer.diff_id, why, attempt, "a layer was not sent whole; it is sent on");
                    for left in (1..=attempt).rev() {
                        let seconds = if left == 1 { "second" } else { "seconds" };
                        self.together
                            .hear(News::of(&layer.short, format!("Retrying in {left} {seconds}")));
                        thread::sleep(Duration::from_secs(1));
                    }
                }
                Ok(known) => {
                    self.together.hear(News::of(&layer.short, "Pushed"));
                    return Ok(known);
                }
                Err(why) => return Err(why),
            }
        }
        Err(ImageError::Failed("a push ended early".into()))
    }

    /// Length of a blob that is there.
    fn has(&self, digest: &str) -> Result<Option<u64>, ImageError> {
        let response = self.session.head(&self.session.url(&format!("blobs/{digest}")), &[])?;
        match response.status() {
            StatusCode::OK => {
                let length = response
                    .headers()
                    .get("content-length")
                    .and_then(|length| length.to_str().ok());
                Ok(length.and_then(|length| length.parse().ok()))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(response)),
            _ => Ok(None),
        }
    }

    /// Takes a blob over from another repository of the same registry, and tells which.
    fn mount(&self, blob: &Known) -> Result<Option<String>, ImageError> {
        let here = |repository: &&String| {
            let at = repository.split_once('/').filter(|(domain, _)| *domain == self.domain);
            at.is_some() && *repository != self.repository
        };
        let Some(full) = blob.repositories.iter().find(here) else {
            return Ok(None);
        };
        let from = full.split_once('/').map_or(full.as_str(), |(_, path)| path);
        self.session.also_reads(from);
        let url = format!("blobs/uploads/?mount={}&from={}", escape(&blob.digest), escape(from));
        let response = self.session.post(&self.session.url(&url))?;
        match response.status() {
            StatusCode::CREATED => Ok(Some(from.to_owned())),
            StatusCode::ACCEPTED => {
                // it would rather have the blob itself; that is done elsewhere, so this upload ends
                if let Some(location) = self.session.location(response.headers()) {
                    let _ = self.session.delete(&location);
                }
                Ok(None)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(response)),
            _ => Ok(None),
        }
    }

    /// Sends a layer, compressed on the way; its digest is known at its end. What an attempt before has brought there is not sent again: the same layer
    /// is compressed to the same bytes.
    fn upload(&self, layer: &Going<'_>, upload: &mut Upload) -> Result<Known, ImageError> {
        let there = match &upload.begun {
            Some(begun) => self.how_far(begun)?,
            None => None,
        };
        upload.goes_on = there.is_some();
        let (location, there) = match there {
            Some(there) => there,
            None => (self.begin_upload()?, 0),
        };
        upload.begun = Some(location.clone());
        let directory = self.images.state().layers.directory_of(layer.diff_id);
        let (mut reader, writer) =
            io::pipe().map_err(|why| ImageError::Failed(format!("cannot make a pipe: {why}")))?;
        let (sent, packed) = thread::scope(|scope| {
            let packing = scope.spawn(|| {
                let out = Sum::new(Rest {
                    out: BufWriter::with_capacity(64 * 1024, writer),
                    left: there,
                });
                let mut archive = Told {
                    out: GzEncoder::new(out, Compression::default()),
                    road: self,
                    layer,
                    done: 0,
                    told: None,
                };
                layer::write_archive(&directory, layer.diff_id, &mut archive)?;
                archive.tell(true);
                let sum = archive.out.finish().map_err(packing_failed)?;
                sum.finish().map_err(packing_failed)
            });
            let headers = [("content-type", "application/octet-stream")];
            let sent = self.session.patch(&location, &headers, &mut reader);
            // who packs for nobody gives up
            drop(reader);
            let packed = packing.join();
            (
                sent,
                packed.unwrap_or_else(|_| Err(ImageError::Failed("the packing of a layer ended early".into()))),
            )
        });
        let response = match (sent, &packed) {
            // a registry that hangs up breaks the pipe: its word is the reason
            (Err(why), _) => return Err(why),
            (Ok(response), _) if !response.status().is_success() => return Err(self.refused(response)),
            (Ok(response), _) => response,
        };
        let (digest, size) = packed?;
        let location = self.session.location(response.headers()).unwrap_or(location);
        self.end_upload(&location, &digest, b"")?;
        Ok(Known {
            digest: digest.to_string(),
            size,
            media_type: DOCKER_LAYER.into(),
            repositories: BTreeSet::new(),
        })
    }

    /// What the registry has of an upload that broke off: where it goes on, and after how many bytes. None when it does not say, or has nothing.
    fn how_far(&self, begun: &str) -> Result<Option<(String, u64)>, ImageError> {
        let response = self.session.get(begun, &[])?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let range = response.headers().get("range").and_then(|range| range.to_str().ok());
        // `0-0` is one byte, or none
        let last = range
            .map(|range| range.strip_prefix("bytes=").unwrap_or(range))
            .and_then(|range| range.strip_prefix("0-")?.parse().ok())
            .filter(|last: &u64| *last > 0 && *last < u64::MAX);
        let location = self.session.location(response.headers());
        Ok(last.map(|last| (location.unwrap_or_else(|| begun.to_owned()), last + 1)))
    }

    /// A blob that fits into memory.
    fn small_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        if self.has(digest.as_str())?.is_some() {
            return Ok(());
        }
        let location = self.begin_upload()?;
        self.end_upload(&location, digest, bytes)
    }

    fn begin_upload(&self) -> Result<String, ImageError> {
        let response = self.session.post(&self.session.url("blobs/uploads/"))?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.refused(response));
        }
        self.session
            .location(response.headers())
            .ok_or_else(|| ImageError::Failed("the registry does not say where an upload goes".into()))
    }

    fn end_upload(&self, location: &str, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", escape(digest.as_str()));
        let response = self
            .session
            .put(&url, &[("content-type", "application/octet-stream")], bytes)?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(response)),
        }
    }

    fn refused(&self, response: ureq::http::Response<ureq::Body>) -> ImageError {
        Refusal::read(response).plain(&format!(
            "cannot push to {}",
            reference::familiar_repository(self.repository)
        ))
    }

    fn is_gone(&self) -> bool {
        self.together.is_gone()
    }
}

/// Did the way break, rather than the registry refuse?
fn is_broken_off(why: &ImageError) -> bool {
    matches!(why, ImageError::Unreachable(_))
}

fn packing_failed(why: io::Error) -> ImageError {
    ImageError::Failed(format!("cannot pack a layer: {why}"))
}

/// The manifest of an image, in Docker's form unless a layer is of a kind that only OCI's knows.
fn manifest(id: &Digest, config: usize, layers: &[&Known]) -> Result<(Vec<u8>, &'static str), ImageError> {
    let is_gzip = |layer: &&Known| layer.media_type.ends_with("gzip") || layer.media_type.is_empty();
    let is_docker = layers.iter().all(is_gzip);
    let (own, of_config) = match is_docker {
        true => (DOCKER_MANIFEST, DOCKER_CONFIG),
        false => (OCI_MANIFEST, OCI_CONFIG),
    };
    let described = layers.iter().map(|layer| {
        let kind = match is_docker {
            true => DOCKER_LAYER.to_owned(),
            false if layer.media_type.ends_with("zstd") => format!("{OCI_LAYER}+zstd"),
            false if is_gzip(layer) => format!("{OCI_LAYER}+gzip"),
            false => OCI_LAYER.to_owned(),
        };
        json!({ "mediaType": kind, "size": layer.size, "digest": layer.digest })
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": own,
        "config": { "mediaType": of_config, "size": config, "digest": id.as_str() },
        "layers": described.collect::<Vec<_>>(),
    });
    let bytes = serde_json::to_vec_pretty(&manifest);
    let bytes = bytes.map_err(|why| ImageError::Failed(format!("cannot write a manifest: {why}")))?;
    Ok((bytes, own))
}

/// Counts and hashes what is written through it.
struct Sum<W: Write> {
    out: DigestWriter<W>,
    count: u64,
}

impl<W: Write> Sum<W> {
    fn new(out: W) -> Self {
        Self {
            out: DigestWriter::new(out),
            count: 0,
        }
    }

    fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.out.flush()?;
        Ok((self.out.finish(), self.count))
    }
}

impl<W: Write> Write for Sum<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Leaves out what is there already.
struct Rest<W: Write> {
    out: W,
    left: u64,
}

impl<W: Write> Write for Rest<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return self.out.write(bytes);
        }
        let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= skipped as u64;
        Ok(skipped)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Tells how far the archive of a layer is.
struct Told<'a, W: Write> {
    out: W,
    road: &'a Road<'a>,
    layer: &'a Going<'a>,
    done: u64,
    told: Option<Instant>,
}

impl<W: Write> Told<'_, W> {
    fn tell(&mut self, at_last: bool) {
        let now = Instant::now();
        if !at_last && self.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return;
        }
        self.told = Some(now);
        self.road.together.hear(News::Progress {
            id: self.layer.short.clone(),
            doing: "Pushing",
            done: self.done,
            total: self.layer.size,
        });
    }
}

impl<W: Write> Write for Told<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.road.is_gone() {
            return Err(io::Error::other("context canceled"));
        }
        let count = self.out.write(bytes)?;
        self.done += count as u64;
        self.tell(false);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
