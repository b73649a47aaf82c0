//! Stories of images between here and registries. A transfer ends when nobody listens to it any more.

use std::sync::Arc;

use sluice_image::{Credentials, Distribution, ImageError, Listener, News, Pull, Push};
use tokio::sync::mpsc;

use crate::{Engine, EngineError, blocking::blocking};

/// News that may wait for a slow listener.
const WAITING: usize = 256;

/// A request to bring an image.
#[derive(Clone, Debug, Default)]
pub struct PullImage {
    /// `name`, `name:tag`, `name@sha256:…`.
    pub reference: String,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// `os/architecture[/variant]`; none: this machine's.
    pub platform: Option<String>,
    /// Who asks.
    pub credentials: Option<Credentials>,
}

/// A request to send an image.
#[derive(Clone, Debug, Default)]
pub struct PushImage {
    /// `name` or `name:tag`.
    pub reference: String,
    /// Every tag of the repository.
    pub all_tags: bool,
    /// Who asks.
    pub credentials: Option<Credentials>,
}

/// What happens in something that takes long, until it ends; its last word may be an error.
pub struct Transfer<T = News> {
    first: Option<Result<T, EngineError>>,
    rest: mpsc::Receiver<Result<T, EngineError>>,
}

impl<T> Transfer<T> {
    pub(crate) fn of(first: Option<Result<T, EngineError>>, rest: mpsc::Receiver<Result<T, EngineError>>) -> Self {
        Self { first, rest }
    }

    /// What happens next.
    pub async fn next(&mut self) -> Option<Result<T, EngineError>> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.rest.recv().await,
        }
    }

    /// Hears no more.
    pub fn end(&mut self) {
        self.rest.close();
        while self.rest.try_recv().is_ok() {}
    }
}

/// Hands news on from threads that block.
pub(crate) struct Teller(mpsc::Sender<Result<News, EngineError>>);

impl Listener for Teller {
    fn hear(&self, news: News) {
        match news {
            // the next one says more
            News::Progress { .. } => _ = self.0.try_send(Ok(news)),
            // who is gone need not be told
            news => _ = self.0.blocking_send(Ok(news)),
        }
    }

    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

impl Engine {
    /// Brings an image from its registry. What fails before anything happened is the answer's error.
    pub async fn pull_image(&self, request: PullImage) -> Result<Transfer, EngineError> {
        self.transfer(move |engine, teller| {
            let pulled = engine.images.pull(
                Pull {
                    reference: &request.reference,
                    all_tags: request.all_tags,
                    platform: request.platform.as_deref(),
                    credentials: request.credentials.as_ref(),
                },
                teller,
            );
            for image in pulled.map_err(of_transfer)? {
                engine.tell_image("pull", &image.id, Some(&request.reference));
            }
            Ok(())
        })
        .await
    }

    /// Sends an image to its registry.
    pub async fn push_image(&self, request: PushImage) -> Result<Transfer, EngineError> {
        self.transfer(move |engine, teller| {
            let push = Push {
                reference: &request.reference,
                all_tags: request.all_tags,
                credentials: request.credentials.as_ref(),
            };
            for (id, name) in engine.images.push(push, teller).map_err(of_transfer)? {
                engine.tell_image("push", &id, Some(&name));
            }
            Ok(())
        })
        .await
    }

    /// Asks a registry about an image.
    pub async fn distribution(
        &self,
        name: &str,
        credentials: Option<Credentials>,
    ) -> Result<Distribution, EngineError> {
        let (images, name) = (self.images.clone(), name.to_owned());
        blocking(move || images.distribution(&name, credentials.as_ref()).map_err(of_transfer)).await
    }

    /// Asks a registry whether it takes the credentials; some give a token to keep instead of the password.
    pub async fn login(&self, server: &str, credentials: Credentials) -> Result<Option<String>, EngineError> {
        let (images, server) = (self.images.clone(), server.to_owned());
        blocking(move || Ok(images.login(&server, &credentials)?)).await
    }

    /// Does `work` on a thread of its own, and waits for the first that happens.
    async fn transfer(
        &self,
        work: impl FnOnce(&Arc<Engine>, &Teller) -> Result<(), EngineError> + Send + 'static,
    ) -> Result<Transfer, EngineError> {
        let engine = self.me.upgrade();
        let engine = engine.ok_or_else(|| EngineError::failed("the engine has ended"))?;
        let (sender, mut rest) = mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            let teller = Teller(sender);
            if let Err(why) = work(&engine, &teller) {
                tracing::info!(error = %why, "a transfer of an image failed");
                let _ = teller.0.blocking_send(Err(why)); // who is gone need not be told
            }
        });
        match rest.recv().await {
            Some(Err(why)) => Err(why),
            first => Ok(Transfer::of(first, rest)),
        }
    }
}

/// Docker answers 500 when a registry does not believe us: at 401 the client would ask its user for a password, in the middle of a script.
fn of_transfer(error: ImageError) -> EngineError {
    match error {
        ImageError::Unauthorized(why) => EngineError::failed(why),
        other => other.into(),
    }
}
