//! Images from registries: layers come several at a time and are unpacked while they come; only what is whole and has the digests it was promised by
//! becomes part of the store.

use std::{
    collections::BTreeSet,
    io::Read,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use ureq::http::StatusCode;

use crate::{
    Digest, Image, Images, Listener, NewImage, News, Pin, Staging,
    configuration::Configuration,
    digest::DigestReader,
    error::ImageError,
    layer::Layer,
    manifest::{Descriptor, Platform},
    origins::Known,
    parallel::Together,
    reference::{self, Named, Reference},
    registry::{
        Credentials,
        blob::Blob,
        document::{self, Document, Fetched, Wanted, verified},
        session::Session,
        trouble::Refusal,
    },
    staging,
    turns::Next,
};

/// Tags of one repository that are pulled at once, at most.
const MOST_TAGS: usize = 10_000;
/// The longest list of tags, bytes.
const LONGEST_LIST: u64 = 4 << 20;

/// What to pull.
#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    /// `name`, `name:tag`, `name@sha256:…`.
    pub reference: &'a str,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// `os/architecture[/variant]`; none: this machine's.
    pub platform: Option<&'a str>,
    /// Who asks.
    pub credentials: Option<&'a Credentials>,
}

/// What a registry says of a name.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Type of the manifest or list.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its length, bytes.
    pub size: u64,
    /// Operating system, architecture and variant of each image.
    pub platforms: Vec<(String, String, Option<String>)>,
}

/// A name in a registry.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Normalised, with its domain.
    pub repository: String,
    /// A tag or a digest.
    pub reference: String,
}

impl Remote {
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        match reference::parse(text)? {
            Named::Tagged(Reference { repository, tag }) => Ok(Self {
                repository,
                reference: tag,
            }),
            Named::Digested(repository, digest) => Ok(Self {
                repository,
                reference: digest.to_string(),
            }),
            Named::Id(_) => Err(ImageError::Invalid(format!(
                "{text} is an image's id, which registries do not know"
            ))),
        }
    }

    /// Domain and path.
    pub fn parts(&self) -> (&str, &str) {
        self.repository.split_once('/').unwrap_or(("", &self.repository))
    }

    pub fn familiar_repository(&self) -> &str {
        reference::familiar_repository(&self.repository)
    }

    /// As people write it.
    pub fn familiar(&self) -> String {
        let separator = if self.is_digest() { '@' } else { ':' };
        format!("{}{separator}{}", self.familiar_repository(), self.reference)
    }

    pub fn is_digest(&self) -> bool {
        self.reference.contains(':')
    }
}

/// A layer to come.
struct Coming<'a> {
    digest: Digest,
    size: u64,
    diff_id: &'a Digest,
    short: String,
}

/// Layers that came and are not part of the store yet; other pulls may wait for the same ones.
type Staged = Vec<Arc<Staging>>;

impl Images {
    /// Brings an image, or all of a repository, from its registry.
    pub fn pull(&self, pull: Pull<'_>, listener: &dyn Listener) -> Result<Vec<Image>, ImageError> {
        let remote = Remote::parse(pull.reference)?;
        let wanted = pull
            .platform
            .filter(|platform| !platform.is_empty())
            .map(Wanted::parse)
            .transpose()?;
        let (domain, path) = remote.parts();
        let mut last = ImageError::Failed(format!("there is no way to the registry {domain}"));
        for session in self.registries.sessions(domain, path, "pull", pull.credentials)? {
            let session = match session {
                Ok(session) => session,
                Err(why @ ImageError::Unreachable(_)) => {
                    tracing::debug!(%why, "a registry cannot be reached");
                    last = why;
                    continue;
                }
                Err(why) => return Err(why),
            };
            let from_here = || match pull.all_tags {
                true => self.pull_all(&session, &remote, wanted.as_ref(), listener),
                false => self
                    .pull_one(&session, &remote, wanted.as_ref(), listener)
                    .map(|image| vec![image]),
            };
            match from_here() {
                // a mirror need not have everything, nor be well
                Err(why) if session.endpoint.is_mirror && !listener.is_gone() => {
                    tracing::info!(%why, mirror = session.endpoint.base, "a mirror could not help");
                    last = why;
                }
                other => return other,
            }
        }
        Err(last)
    }

    fn pull_all(
        &self,
        session: &Session,
        remote: &Remote,
        wanted: Option<&Wanted>,
        listener: &dyn Listener,
    ) -> Result<Vec<Image>, ImageError> {
        let mut images = Vec::new();
        for reference in tags(session, remote)? {
            let one = Remote {
                reference,
                ..remote.clone()
            };
            images.push(self.pull_one(session, &one, wanted, listener)?);
        }
        Ok(images)
    }

    fn pull_one(
        &self,
        session: &Session,
        remote: &Remote,
        wanted: Option<&Wanted>,
        listener: &dyn Listener,
    ) -> Result<Image, ImageError> {
        let familiar = remote.familiar();
        let names = (remote.familiar_repository(), familiar.as_str());
        let fetched = Fetched::get(session, &remote.reference, names)?;
        let digest = fetched.digest.clone();
        let platform = wanted.cloned().unwrap_or_else(Wanted::here);
        let (_, config, layers) = fetched.image(session, &platform, names)?;
        listener.hear(News::of(
            &remote.reference,
            format!("Pulling from {}", session.repository),
        ));
        let config = document::configuration(session, &config)?;
        let configuration = Configuration::parse(&config)?;
        check_platform(&configuration, wanted, &familiar)?;

        let mut pin = Pin::new(self);
        let (known, staged) = self.fetch_layers(session, &configuration, &layers, &mut pin, listener)?;

        let id = Digest::of(&config);
        let tag = (!remote.is_digest()).then(|| Reference {
            repository: remote.repository.clone(),
            tag: remote.reference.clone(),
        });
        let had = match &tag {
            Some(tag) => self.state().repositories.get(tag) == Some(&id),
            None => self.state().images.contains_key(&id),
        };
        let image = NewImage {
            bytes: config,
            configuration,
            names: tag.into_iter().collect(),
        };
        self.publish(&staged, &[image])?;
        let learned = self
            .state()
            .origins
            .learn(&remote.repository, &known, Some((&digest, &id)));
        if let Err(why) = learned {
            tracing::warn!(%why, "where an image is from is not kept");
        }
        listener.hear(News::word(format!("Digest: {digest}")));
        listener.hear(News::word(match had {
            true => format!("Status: Image is up to date for {familiar}"),
            false => format!("Status: Downloaded newer image for {familiar}"),
        }));
        self.find(id.as_str())
    }

    /// Brings the layers that are not here. Tells what the registry calls each, and where those are that came.
    fn fetch_layers(
        &self,
        session: &Session,
        configuration: &Configuration,
        layers: &[Descriptor],
        pin: &mut Pin<'_>,
        listener: &dyn Listener,
    ) -> Result<(Vec<(Digest, Known)>, Staged), ImageError> {
        let diff_ids = &configuration.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(ImageError::BadArchive(format!(
                "invalid manifest, layers length mismatch: expected {}, got {}",
                diff_ids.len(),
                layers.len()
            )));
        }
        let (mut coming, mut known, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (diff_id, descriptor) in diff_ids.iter().zip(layers) {
            let digest = Digest::parse(&descriptor.digest)?;
            let size = check_layer(descriptor)?;
            let short = digest.hex()[..12].to_owned();
            if !seen.insert(diff_id) {
                continue;
            }
            known.push((
                diff_id.clone(),
                Known {
                    digest: digest.to_string(),
                    size,
                    media_type: descriptor.media_type.clone(),
                    repositories: BTreeSet::new(),
                },
            ));
            match pin.hold(diff_id) {
                true => listener.hear(News::of(&short, "Already exists")),
                false => {
                    listener.hear(News::of(&short, "Pulling fs layer"));
                    coming.push(Coming {
                        digest,
                        size,
                        diff_id,
                        short,
                    });
                }
            }
        }
        for layer in coming.iter().skip(self.registries.downloads) {
            listener.hear(News::of(&layer.short, "Waiting"));
        }
        let (together, pin) = (Together::new(listener), Mutex::new(pin));
        let came = together.each(coming, self.registries.downloads, |layer| {
            let staged = self.bring(session, &layer, &pin, &together)?;
            listener.hear(News::of(&layer.short, "Download complete"));
            listener.hear(News::of(&layer.short, "Pull complete"));
            Ok(staged)
        });
        Ok((known, came?.into_iter().flatten().collect()))
    }

    /// Brings a layer, or has it of another pull that does. None: it is in the store by now.
    fn bring(
        &self,
        session: &Session,
        layer: &Coming<'_>,
        pin: &Mutex<&mut Pin<'_>>,
        listener: &dyn Listener,
    ) -> Result<Option<Arc<Staging>>, ImageError> {
        let mut told = 0;
        loop {
            let next = self.turns.next(layer.diff_id);
            // whoever brought it may have made it part of the store a moment ago; from here on it is not swept
            if pin.lock().unwrap_or_else(PoisonError::into_inner).keep(layer.diff_id) {
                return Ok(None);
            }
            match next {
                Next::Have(staged) => return Ok(Some(staged)),
                Next::Bring(turn) => {
                    let mut staging = self.stage()?;
                    let place = staging.place()?;
                    let unpacked = self.fetch(session, layer, &place, &turn.told_by(listener))?;
                    staging.take(layer.diff_id.clone(), unpacked, place);
                    let staged = Arc::new(staging);
                    turn.done(&staged);
                    return Ok(Some(staged));
                }
                Next::Wait(done) => {
                    if done > told {
                        told = done;
                        listener.hear(News::Progress {
                            id: layer.short.clone(),
                            doing: "Downloading",
                            done,
                            total: layer.size,
                        });
                    }
                    if listener.is_gone() {
                        return Err(ImageError::Failed("context canceled".into()));
                    }
                    self.turns.wait();
                }
            }
        }
    }

    /// One layer: unpacked while it comes, verified at its end.
    fn fetch(
        &self,
        session: &Session,
        layer: &Coming<'_>,
        place: &Path,
        listener: &dyn Listener,
    ) -> Result<Layer, ImageError> {
        let (blob, trouble) = Blob::new(session, listener, &layer.digest, layer.size, layer.short.clone());
        let mut blob = DigestReader::new(blob, u64::MAX).map_err(|why| ImageError::reading(&why))?;
        // what broke the stream is the reason, not that the archive ended in its middle
        let reason = |why: ImageError| trouble.take().unwrap_or(why);
        let unpacked = staging::unpack_at(&mut blob, Some(layer.diff_id), place, self.limits);
        let unpacked = match unpacked {
            Ok((_, unpacked)) => unpacked,
            Err(why) => {
                if let Some(reason) = trouble.take() {
                    return Err(reason);
                }
                // damage may be the registry's or the way's: its digest tells
                let (found, _) = blob.finish().map_err(|why| reason(ImageError::reading(&why)))?;
                verified("filesystem layer", Some(&layer.digest), &found)?;
                return Err(why);
            }
        };
        let (found, _) = blob.finish().map_err(|why| reason(ImageError::reading(&why)))?;
        listener.hear(News::of(&layer.short, "Verifying Checksum"));
        verified("filesystem layer", Some(&layer.digest), &found)?;
        Ok(unpacked)
    }

    /// Asks a registry about a name.
    pub fn distribution(&self, name: &str, credentials: Option<&Credentials>) -> Result<Distribution, ImageError> {
        let remote = Remote::parse(name)?;
        let (domain, path) = remote.parts();
        let session = self.registries.session(domain, path, "pull", credentials)?;
        let familiar = remote.familiar();
        let fetched = Fetched::get(&session, &remote.reference, (remote.familiar_repository(), &familiar))?;
        let platforms = match fetched.document()? {
            Document::List(manifests) => manifests
                .into_iter()
                .filter_map(|entry| entry.platform)
                .map(
                    |Platform {
                         os,
                         architecture,
                         variant,
                     }| (os, architecture, variant),
                )
                .collect(),
            Document::Image { config, .. } => {
                let configuration = Configuration::parse(&document::configuration(&session, &config)?)?;
                let variant = Some(configuration.extras.variant).filter(|variant| !variant.is_empty());
                let oci = configuration.oci;
                vec![(oci.os().to_string(), oci.architecture().to_string(), variant)]
            }
        };
        Ok(Distribution {
            media_type: fetched.kind()?,
            digest: fetched.digest.to_string(),
            size: fetched.bytes.len() as u64,
            platforms,
        })
    }

    /// Asks a registry whether it takes the credentials. `Some` is a token to keep instead of the password.
    pub fn login(&self, server: &str, credentials: &Credentials) -> Result<Option<String>, ImageError> {
        let domain = server.trim_start_matches("https://").trim_start_matches("http://");
        let domain = match domain.split('/').next().unwrap_or_default() {
            "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
            domain => domain,
        };
        self.registries.login(domain, credentials)
    }
}

/// Size of a layer we can take.
fn check_layer(descriptor: &Descriptor) -> Result<u64, ImageError> {
    let kind = descriptor.media_type.as_str();
    if kind.contains("foreign") || kind.contains("nondistributable") {
        return Err(ImageError::Invalid(format!(
            "layer {} is of the type {kind:?}, which is not in the registry: such layers are not supported",
            descriptor.digest
        )));
    }
    if !(kind.is_empty() || kind.contains("tar")) || kind.ends_with("+encrypted") {
        return Err(ImageError::Invalid(format!(
            "layer {} is of the type {kind:?}, which is no layer of a file system",
            descriptor.digest
        )));
    }
    let missing = || {
        ImageError::BadArchive(format!(
            "the manifest does not say how long layer {} is",
            descriptor.digest
        ))
    };
    descriptor.size.ok_or_else(missing)
}

fn check_platform(configuration: &Configuration, wanted: Option<&Wanted>, name: &str) -> Result<(), ImageError> {
    let (os, architecture) = (
        configuration.oci.os().to_string(),
        configuration.oci.architecture().to_string(),
    );
    if let Some(wanted) = wanted {
        let found = Platform {
            os: os.clone(),
            architecture: architecture.clone(),
            variant: Some(configuration.extras.variant.clone()),
        };
        if !wanted.fits(&found) {
            return Err(ImageError::Missing(format!(
                "image with reference {name} was found but does not match the specified platform: \
                 wanted {wanted}, actual: {os}/{architecture}"
            )));
        }
    }
    match os == "linux" {
        true => Ok(()),
        false => Err(ImageError::Invalid(format!(
            "image operating system {os:?} cannot be used on this platform: operating system is not supported"
        ))),
    }
}

/// All tags of a repository, page by page.
fn tags(session: &Session, remote: &Remote) -> Result<Vec<String>, ImageError> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let mut tags = Vec::new();
    let mut url = session.url("tags/list");
    loop {
        let response = session.get(&url, &[])?;
        if response.status() != StatusCode::OK {
            return Err(Refusal::read(response).of_image(remote.familiar_repository(), &remote.familiar()));
        }
        let link = response.headers().get("link").and_then(|link| link.to_str().ok());
        let next = link
            .and_then(|link| link.split_once('<')?.1.split_once('>'))
            .map(|(next, _)| next.to_owned());
        let mut text = Vec::new();
        let read = response
            .into_body()
            .into_reader()
            .take(LONGEST_LIST)
            .read_to_end(&mut text);
        read.map_err(|why| ImageError::Unreachable(format!("cannot read the list of tags: {why}")))?;
        let page: Page = serde_json::from_slice(&text)
            .map_err(|why| ImageError::BadArchive(format!("the registry's list of tags cannot be read: {why}")))?;
        let before = tags.len();
        tags.extend(page.tags.unwrap_or_default());
        match next {
            // a list that leads in a circle ends
            Some(next) if tags.len() > before && tags.len() < MOST_TAGS => {
                url = match next.starts_with('/') {
                    true => format!("{}{next}", session.endpoint.base),
                    false => next,
                };
            }
            _ => break,
        }
    }
    // each becomes a name here
    for tag in &tags {
        reference::parse_tag(&format!("{}:{tag}", remote.repository))?;
    }
    match tags.is_empty() {
        true => Err(ImageError::Missing(format!(
            "repository {} has no tags",
            remote.familiar_repository()
        ))),
        false => Ok(tags),
    }
}
