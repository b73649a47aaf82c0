//! Live connections to a process's standard streams.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, sync::oneshot};

use crate::{
    Runtime, RuntimeError,
    connection::{Connection, Frames},
    wire::{self, Kind},
};

/// Longest piece for stdin in one frame, bytes: what a pipe holds.
const LONGEST_INPUT: usize = 64 << 10;

/// Which output a chunk came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output; all of it with a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Towards a process's stdin.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// A live connection to a process's standard streams.
pub struct Attachment {
    /// Towards its stdin; shutting it down is the end of stdin. None: it has none.
    pub stdin: Option<Input>,
    /// What it says from now on.
    pub output: Output,
}

/// What a process says, in order. Nobody reads ahead of who asks here, so a slow reader slows the process down, never loses data, and takes no memory.
pub struct Output {
    source: Source,
    /// The end is not told before this has come, or can't come any more.
    end: Option<oneshot::Receiver<()>>,
}

enum Source {
    Shim(Frames),
    Later(oneshot::Receiver<Output>),
    Ended,
}

/// The other end of an attachment that was made before there was a process; dropping it is the end of the streams.
pub struct Promise {
    stdin: Option<oneshot::Sender<Option<Input>>>,
    output: oneshot::Sender<Output>,
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

impl Attachment {
    /// Streams of a process that will be there later. What is said to it meanwhile waits with who says it.
    pub fn later(stdin: bool) -> (Self, Promise) {
        let (output, source) = oneshot::channel();
        let (sender, stdin) = match stdin {
            true => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(Box::new(LateInput::Waits(receiver)) as Input))
            }
            false => (None, None),
        };
        let attachment = Self {
            stdin,
            output: Output::of(Source::Later(source)),
        };
        (attachment, Promise { stdin: sender, output })
    }
}

// === impl Promise ===

impl Promise {
    /// There is the process.
    pub fn keep(self, attachment: Attachment) {
        // Who has gone meanwhile needs neither.
        if let Some(stdin) = self.stdin {
            let _ = stdin.send(attachment.stdin);
        }
        let _ = self.output.send(attachment.output);
    }
}

// === impl Output ===

impl Output {
    fn of(source: Source) -> Self {
        Self { source, end: None }
    }

    /// The next piece, of at most 32 KiB; none when both outputs have ended. Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<(Stream, Vec<u8>)> {
        loop {
            match &mut self.source {
                Source::Shim(frames) => match frames.next().await {
                    Ok(Some((Kind::Stdout, piece))) => return Some((Stream::Stdout, piece)),
                    Ok(Some((Kind::Stderr, piece))) => return Some((Stream::Stderr, piece)),
                    _ => self.source = Source::Ended,
                },
                Source::Later(output) => match output.await {
                    Ok(output) => {
                        self.source = output.source;
                        self.end = output.end.or(self.end.take());
                    }
                    Err(_) => self.source = Source::Ended,
                },
                Source::Ended => {
                    if let Some(end) = &mut self.end {
                        let _ = end.await;
                        self.end = None;
                    }
                    return None;
                }
            }
        }
    }

    /// The same, but its end is told only when what comes by the other end of `end` has come, or that is dropped.
    pub fn ending_with(mut self, end: oneshot::Receiver<()>) -> Self {
        self.end = Some(end);
        self
    }
}

fn ended() -> Attachment {
    Attachment {
        stdin: None,
        output: Output::of(Source::Ended),
    }
}

/// The streams behind a connection that the shim has answered.
pub(crate) fn attachment(connection: Connection, has_stdin: bool) -> Attachment {
    let stdin = has_stdin.then(|| {
        let stdin = Stdin {
            connection: connection.clone(),
            frame: Vec::new(),
            sent: 0,
            ended: false,
        };
        Box::new(stdin) as Input
    });
    Attachment {
        stdin,
        output: Output::of(Source::Shim(connection.frames())),
    }
}

/// The stdin of a process that will be there later.
enum LateInput {
    Waits(oneshot::Receiver<Option<Input>>),
    Is(Input),
    Gone,
}

impl LateInput {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Input>>> {
        if let Self::Waits(receiver) = self {
            *self = match ready!(Pin::new(receiver).poll(context)) {
                Ok(Some(input)) => Self::Is(input),
                _ => Self::Gone,
            };
        }
        Poll::Ready(match self {
            Self::Is(input) => Ok(Pin::new(input)),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        })
    }
}

impl AsyncWrite for LateInput {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll(context))?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll(context))?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll(context))?.poll_shutdown(context)
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
        let accepted = bytes.len().min(LONGEST_INPUT);
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
    while sent < frame.len() && connection.stream().writable().await.is_ok() {
        match connection.stream().try_write(&frame[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    /// An attachment, and the shim's end of it.
    fn attached(stdin: bool) -> (Attachment, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (attachment(Connection::of(ours), stdin), theirs)
    }

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::push(&mut bytes, kind, payload);
        bytes
    }

    #[tokio::test]
    async fn pieces_are_whole_wherever_the_reads_cut_them() {
        let (mut attachment, mut shim) = attached(false);
        let said = [
            frame(Kind::Stdout, b"one"),
            frame(Kind::Stderr, b""),
            frame(Kind::Stderr, &[7; 9000]),
            frame(Kind::OutputEnd, b""),
        ]
        .concat();
        let saying = tokio::spawn(async move {
            for (at, byte) in said.iter().enumerate() {
                shim.write_all(&[*byte]).await.unwrap();
                if at % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            shim
        });
        assert_eq!(attachment.output.recv().await, Some((Stream::Stdout, b"one".to_vec())));
        assert_eq!(attachment.output.recv().await, Some((Stream::Stderr, Vec::new())));
        assert_eq!(attachment.output.recv().await, Some((Stream::Stderr, vec![7; 9000])));
        assert_eq!(attachment.output.recv().await, None);
        assert_eq!(attachment.output.recv().await, None, "the end stays the end");
        drop(saying.await.unwrap());
    }

    #[tokio::test]
    async fn a_piece_survives_that_nobody_waited_for_its_rest() {
        let (mut attachment, mut shim) = attached(false);
        let said = frame(Kind::Stdout, b"patience");
        for part in said.chunks(3) {
            let hearing = tokio::time::timeout(std::time::Duration::from_millis(1), attachment.output.recv());
            assert!(hearing.await.is_err());
            shim.write_all(part).await.unwrap();
        }
        assert_eq!(
            attachment.output.recv().await,
            Some((Stream::Stdout, b"patience".to_vec()))
        );
    }

    #[tokio::test]
    async fn who_came_before_the_process_is_joined_to_it() {
        let (mut early, promise) = Attachment::later(true);
        let (process, mut shim) = attached(true);
        let typing = tokio::spawn(async move {
            let mut stdin = early.stdin.take().unwrap();
            stdin.write_all(b"typed early").await.unwrap();
            stdin.shutdown().await.unwrap();
            early
        });
        promise.keep(process);
        let expected = [frame(Kind::Stdin, b"typed early"), frame(Kind::StdinEnd, b"")].concat();
        let mut read = vec![0; expected.len()];
        shim.read_exact(&mut read).await.unwrap();
        assert_eq!(read, expected);
        shim.write_all(&frame(Kind::Stdout, b"hello")).await.unwrap();
        drop(shim);
        let mut early = typing.await.unwrap();
        assert_eq!(early.output.recv().await.unwrap().1, b"hello");
        assert!(early.output.recv().await.is_none());
    }

    #[tokio::test]
    async fn who_came_before_a_process_that_never_was_sees_the_end() {
        let (mut early, promise) = Attachment::later(true);
        drop(promise);
        assert!(early.output.recv().await.is_none());
        let error = early.stdin.unwrap().write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn an_end_can_wait_for_something_else() {
        let (known, end) = oneshot::channel();
        let (process, shim) = attached(false);
        let mut output = process.output.ending_with(end);
        drop(shim);
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), output.recv());
        assert!(early.await.is_err());
        known.send(()).unwrap();
        assert!(output.recv().await.is_none());
    }
}
