//! Builds images from Dockerfiles, as Docker's classic builder does: a step after the other, each an image on the one before.
//!
//! * [`builder`]: the story: stages, steps, what is told;
//! * [`stage`]: what an instruction knows: configuration, variables, arguments;
//! * [`run`]: `RUN`, a container;
//! * [`copy`]: `COPY` and `ADD`, files laid into a container that never runs;
//! * [`running`]: builds under way, how they are stopped, what a daemon that died in one left behind;
//! * [`prune`]: what builds leave in the store goes.

mod builder;
mod copy;
mod prune;
mod run;
mod running;
mod stage;

use std::collections::BTreeMap;

use sluice_image::{Credentials, News};
use sluice_model::HostConfig;
use tokio::sync::mpsc;

use crate::{Chunks, Engine, EngineError, registry::Transfer};
use builder::Builder;
pub(crate) use running::{Running, clear};

/// News that may wait for a slow listener.
const WAITING: usize = 64;

/// A request to build an image.
#[derive(Clone, Debug, Default)]
pub struct BuildImage {
    /// Where the context is, when the client does not send it: a repository of git, an archive or a Dockerfile in the web.
    pub remote: Option<String>,
    /// What `cancel_build` may call it.
    pub build_id: Option<String>,
    /// Images whose steps are taken where they fit; without any, the steps of this daemon's own builds.
    pub cache_from: Vec<String>,
    /// The Dockerfile in the context; none: `Dockerfile`.
    pub dockerfile: Option<String>,
    /// What the image is called.
    pub tags: Vec<String>,
    /// The last stage to build.
    pub target: Option<String>,
    /// `--build-arg`; none: only known, of no value.
    pub arguments: BTreeMap<String, Option<String>>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// Make every step again.
    pub no_cache: bool,
    /// Bring base images also when they are here.
    pub pull: bool,
    /// Tell only the id.
    pub quiet: bool,
    /// Leave the containers of steps behind.
    pub keep: bool,
    /// Not even that of a step that failed.
    pub force_remove: bool,
    /// `os/architecture` of base images.
    pub platform: Option<String>,
    /// Limits, network and the like of the containers of steps.
    pub host_config: HostConfig,
    /// By registry.
    pub credentials: BTreeMap<String, Credentials>,
}

/// What happens in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildNews {
    /// Text.
    Text(String),
    /// A base image on its way here.
    Pull(News),
    /// The image is made.
    Image(String),
    /// A command ended with another code than 0: this, and what to say.
    Failed(i32, String),
}

impl Engine {
    /// Builds an image of a context (a tar). What is wrong with the Dockerfile is the answer's error; later trouble is the last news.
    pub async fn build_image(&self, wish: BuildImage, context: Chunks) -> Result<Transfer<BuildNews>, EngineError> {
        let engine = self.me.upgrade();
        let engine = engine.ok_or_else(|| EngineError::failed("the engine has ended"))?;
        let (sender, mut rest) = mpsc::channel(WAITING);
        let mut entry = engine.builds.enter(wish.build_id.as_deref());
        tokio::spawn(async move {
            let mut builder = Builder::new(engine, wish, sender.clone());
            let ended = tokio::select! {
                ended = builder.build(context) => Some(ended),
                // nobody waits for it any more
                () = sender.closed() => None,
                () = entry.cancelled() => Some(Err(EngineError::failed("context canceled"))),
            };
            builder.clean_up().await;
            drop(entry);
            if let Some(Err(why)) = ended {
                tracing::info!(error = %why, "a build failed");
                builder.tell_held().await;
                let _ = sender.send(Err(why)).await; // who is gone need not be told
            }
        });
        match rest.recv().await {
            Some(Err(why)) => Err(why),
            first => Ok(Transfer::of(first, rest)),
        }
    }
}
