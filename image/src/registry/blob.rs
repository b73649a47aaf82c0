//! A blob as a stream: it goes on where it broke off, tells how far it is, and ends where its manifest says.

use std::{
    cell::RefCell,
    io::{self, Read},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use ureq::{BodyReader, http::StatusCode};

use crate::{
    digest::Digest,
    error::ImageError,
    registry::{Listener, News, session::Session, trouble::Refusal},
};

/// Attempts in a row that bring nothing.
const MOST_FAILURES: u32 = 5;
/// Progress is told so often.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// A blob on its way here.
pub(crate) struct Blob<'a> {
    session: &'a Session,
    listener: &'a dyn Listener,
    digest: &'a Digest,
    size: u64,
    /// How a progress line calls it.
    id: String,
    at: u64,
    body: Option<BodyReader<'static>>,
    failures: u32,
    told: Option<Instant>,
    trouble: Trouble,
}

/// Why a blob did not come, in full; the stream can only say that it broke.
#[derive(Clone, Default)]
pub(crate) struct Trouble(Rc<RefCell<Option<ImageError>>>);

impl Trouble {
    pub fn take(&self) -> Option<ImageError> {
        self.0.borrow_mut().take()
    }
}

impl<'a> Blob<'a> {
    /// A blob of `size` bytes; what goes wrong is in what is returned with it.
    pub fn new(
        session: &'a Session,
        listener: &'a dyn Listener,
        digest: &'a Digest,
        size: u64,
        id: String,
    ) -> (Self, Trouble) {
        let trouble = Trouble::default();
        let blob = Self {
            session,
            listener,
            digest,
            size,
            id,
            at: 0,
            body: None,
            failures: 0,
            told: None,
            trouble: trouble.clone(),
        };
        (blob, trouble)
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        loop {
            if self.listener.is_gone() {
                return Err(ImageError::Failed("context canceled".into()));
            }
            match self.attempt(buffer) {
                Ok(0) if self.at < self.size => self.failed(ImageError::Unreachable(format!(
                    "the registry ended blob {} after {} of {} bytes: unexpected EOF",
                    self.digest, self.at, self.size
                )))?,
                Ok(count) => {
                    self.at += count as u64;
                    if self.at > self.size {
                        return Err(ImageError::BadArchive(format!(
                            "blob {} is longer than the {} bytes its manifest promises",
                            self.digest, self.size
                        )));
                    }
                    self.failures = 0;
                    self.tell();
                    return Ok(count);
                }
                Err(why @ ImageError::Unreachable(_)) => self.failed(why)?,
                Err(why) => return Err(why),
            }
        }
    }

    fn attempt(&mut self, buffer: &mut [u8]) -> Result<usize, ImageError> {
        let body = match &mut self.body {
            Some(body) => body,
            none => none.insert(open(self.session, self.digest, self.at)?),
        };
        body.read(buffer)
            .map_err(|why| ImageError::Unreachable(format!("blob {} broke off: {why}", self.digest)))
    }

    /// Another attempt, after a while, unless there were enough.
    fn failed(&mut self, why: ImageError) -> Result<(), ImageError> {
        self.body = None;
        self.failures += 1;
        if self.failures >= MOST_FAILURES {
            return Err(why);
        }
        tracing::info!(digest = %self.digest, at = self.at, %why, "a blob broke off; going on there");
        // the first time at once: a connection that idled may have been closed
        for left in (1..self.failures).rev() {
            let seconds = if left == 1 { "second" } else { "seconds" };
            self.listener
                .hear(News::of(&self.id, format!("Retrying in {left} {seconds}")));
            thread::sleep(Duration::from_secs(1));
            if self.listener.is_gone() {
                break;
            }
        }
        Ok(())
    }

    fn tell(&mut self) {
        let now = Instant::now();
        if self.at < self.size && self.told.is_some_and(|told| now < told + TOLD_EVERY) {
            return;
        }
        self.told = Some(now);
        self.listener.hear(News::Progress {
            id: self.id.clone(),
            doing: "Downloading",
            done: self.at,
            total: self.size,
        });
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(|why| {
            let sentence = why.to_string();
            *self.trouble.0.borrow_mut() = Some(why);
            io::Error::other(sentence)
        })
    }
}

/// The blob from `at` on.
fn open(session: &Session, digest: &Digest, at: u64) -> Result<BodyReader<'static>, ImageError> {
    let url = session.url(&format!("blobs/{digest}"));
    let range = format!("bytes={at}-");
    let headers: &[(&str, &str)] = if at == 0 { &[] } else { &[("range", &range)] };
    let response = session.get(&url, headers)?;
    let status = response.status();
    let begins = response
        .headers()
        .get("content-range")
        .and_then(|value| value.to_str().ok());
    let begins = begins
        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next())
        .and_then(|start| start.parse::<u64>().ok());
    let skip = match status {
        StatusCode::PARTIAL_CONTENT if begins == Some(at) => 0,
        // it does not know ranges: what came already comes again, and is held against the digest like everything
        StatusCode::OK => at,
        StatusCode::PARTIAL_CONTENT => {
            return Err(ImageError::Failed(format!(
                "the registry sent another part of blob {digest} than was asked for"
            )));
        }
        _ => return Err(Refusal::read(response).plain(&format!("cannot get blob {digest}"))),
    };
    let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader();
    let skipped = io::copy(&mut (&mut reader).take(skip), &mut io::sink());
    match skipped {
        Ok(skipped) if skipped == skip => Ok(reader),
        Ok(_) => Err(ImageError::Unreachable(format!("blob {digest} ended before byte {at}"))),
        Err(why) => Err(ImageError::Unreachable(format!("blob {digest} broke off: {why}"))),
    }
}
