//! Live connections to a process's standard streams.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, sync::mpsc};

use crate::{
    Runtime, RuntimeError,
    connection::Connection,
    wire::{self, Kind},
};

/// Pieces of at most 32 KiB that wait for a reader, before the process has to.
const WAITING_PIECES: usize = 8;

/// Which output a chunk came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; all of it with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A live connection to a process's standard streams.
pub struct Attachment {
    /// Towards its stdin; shutting it down is the end of stdin. None: it has none.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it says from now on, in order; the channel ends when both outputs have ended. A slow reader slows the process down, never
    /// loses data, and can't take more memory than the channel holds.
    pub output: mpsc::Receiver<(Stream, Vec<u8>)>,
}

impl Runtime {
    /// Connects to the streams of the container's first process. May be called between `create` and `start`, so that nothing is missed.
    /// A container that has ended has streams that have ended.
    pub async fn attach(&self, id: &str) -> Result<Attachment, RuntimeError> {
        let directory = self.directory(id)?;
        let Some(connection) = Connection::open(&directory).await? else {
            return Ok(ended());
        };
        Ok(match connection.ask(Kind::Attach, &[]).await? {
            Some((_, payload)) => attachment(connection, payload.get(4) == Some(&1)),
            None => ended(),
        })
    }
}

fn ended() -> Attachment {
    Attachment {
        stdin: None,
        output: mpsc::channel(1).1,
    }
}

/// The streams behind a connection that the shim has answered.
pub(crate) fn attachment(connection: Connection, has_stdin: bool) -> Attachment {
    let (sender, output) = mpsc::channel(WAITING_PIECES);
    let stdin = has_stdin.then(|| {
        let stdin = Stdin {
            connection: connection.clone(),
            frame: Vec::new(),
            sent: 0,
            ended: false,
        };
        Box::new(stdin) as Box<dyn AsyncWrite + Send + Unpin>
    });
    tokio::spawn(pass_on(connection, sender));
    Attachment { stdin, output }
}

async fn pass_on(connection: Connection, sender: mpsc::Sender<(Stream, Vec<u8>)>) {
    loop {
        // Whoever listens no more must not hold the process up.
        let frame = tokio::select! {
            frame = connection.receive() => frame,
            () = sender.closed() => return,
        };
        let piece = match frame {
            Ok(Some((Kind::Stdout, piece))) => (Stream::Stdout, piece),
            Ok(Some((Kind::Stderr, piece))) => (Stream::Stderr, piece),
            _ => return,
        };
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

/// Cuts what is written into frames. One frame at a time is on its way.
struct Stdin {
    connection: Connection,
    frame: Vec<u8>,
    /// How much of the frame is sent.
    sent: usize,
    ended: bool,
}

impl Stdin {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.frame.len() {
            ready!(self.connection.stream().poll_write_ready(context))?;
            match self.connection.stream().try_write(&self.frame[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.frame.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // A frame accepted earlier goes first; then this one is taken whole and sent as far as possible.
        ready!(self.poll_send(context))?;
        let accepted = bytes.len().min(wire::PIECE);
        if accepted == 0 {
            return Poll::Ready(Ok(0));
        }
        wire::push(&mut self.frame, Kind::Stdin, &bytes[..accepted]);
        match self.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(accepted)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        if !self.ended {
            self.ended = true;
            wire::push(&mut self.frame, Kind::StdinEnd, &[]);
        }
        self.poll_send(context)
    }
}

impl Drop for Stdin {
    /// What was accepted and is not sent yet would be lost with the last poll: finish it behind the caller's back.
    fn drop(&mut self) {
        if self.sent >= self.frame.len() {
            return;
        }
        let (connection, frame, sent) = (self.connection.clone(), std::mem::take(&mut self.frame), self.sent);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(finish(connection, frame, sent));
        }
    }
}

async fn finish(connection: Connection, frame: Vec<u8>, mut sent: usize) {
    {
        while sent < frame.len() && connection.stream().writable().await.is_ok() {
            match connection.stream().try_write(&frame[sent..]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
