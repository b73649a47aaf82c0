//! Output of containers on the wire: frames, bodies, hijacked connections.
//!
//! Without a terminal, output is multiplexed: each chunk has a header of eight bytes, the stream (1 stdout, 2 stderr), three zeros, and the
//! length as a big-endian u32. With a terminal it is raw.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{
        Request,
        ws::{Message, WebSocketUpgrade},
    },
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use hyper_util::rt::TokioIo;
use sluice_engine::{EngineError, Output};
use sluice_runtime::{Attachment, Input, Stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use crate::{detach::Keys, serve::Peer, version::Version};

/// Since this version the type of a multiplexed stream says that it is one.
const NAMES_MULTIPLEXED: Version = Version(42);
/// For how long a process's first words wait for a client that does not read the head of the answer.
const HEAD_IS_READ_WITHIN: Duration = Duration::from_secs(1);

/// How much of what a client says is read at first, and while much comes, bytes.
const LITTLE_INPUT: usize = 4 << 10;
const MOST_INPUT: usize = 64 << 10;

/// How chunks stand on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// As they are.
    Raw,
    /// Each with a header.
    Multiplexed,
}

/// What a client who attached wants to hear and say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// A process to be connected with.
pub(crate) type Process = BoxFuture<'static, Result<Attachment, EngineError>>;

/// A client and a process that are to talk: first the client hears `past`, then what comes.
pub(crate) struct Conversation {
    /// Awaited when the client listens, not before: some clients lose what comes along with the headers.
    pub(crate) process: Option<Process>,
    pub(crate) past: Option<Output>,
    pub(crate) wanted: Wanted,
    pub(crate) framing: Framing,
    /// With a terminal: the keys a client leaves with, and what is done then.
    pub(crate) leave: Option<Leave>,
}

/// How a client leaves a terminal.
pub(crate) struct Leave {
    pub(crate) keys: Keys,
    pub(crate) tell: Box<dyn FnOnce() + Send>,
}

// === impl Framing ===

impl Framing {
    /// A terminal has one stream only.
    pub(crate) fn of_terminal(tty: bool) -> Self {
        if tty { Self::Raw } else { Self::Multiplexed }
    }

    /// The media type of a stream framed so.
    pub(crate) fn media_type(self, version: Version) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Multiplexed if version >= NAMES_MULTIPLEXED => "application/vnd.docker.multiplexed-stream",
            _ => "application/vnd.docker.raw-stream",
        })
    }

    /// Writes a chunk as it stands on the wire.
    fn frame(self, stream: Stream, chunk: &[u8], wire: &mut BytesMut) {
        if self == Self::Multiplexed {
            let number = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            // Chunks are what a pipe gives in one read, far below 4 GiB.
            wire.put_slice(&[number, 0, 0, 0]);
            wire.put_u32(chunk.len() as u32);
        }
        wire.put_slice(chunk);
    }

    fn framed(self, stream: Stream, chunk: &[u8]) -> Bytes {
        let mut wire = BytesMut::with_capacity(chunk.len() + 8);
        self.frame(stream, chunk, &mut wire);
        wire.freeze()
    }
}

// === impl Wanted ===

impl Wanted {
    fn hears(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// A log as the body of an answer.
pub(crate) fn log(output: Output, framing: Framing, version: Version) -> Response {
    let body = Body::from_stream(chunks(output).map_ok(move |(stream, chunk)| framing.framed(stream, &chunk)));
    ([(header::CONTENT_TYPE, framing.media_type(version))], body).into_response()
}

/// JSON documents, a line each, as they come.
pub(crate) fn lines<T: Send + 'static>(
    items: mpsc::Receiver<T>,
    line: impl Fn(T) -> Bytes + Send + 'static,
) -> Response {
    let items = stream::unfold(items, |mut items| async move {
        items.recv().await.map(|item| (item, items))
    });
    lines_of(items.map(line))
}

/// Lines as they come.
pub(crate) fn lines_of(lines: impl futures_util::Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn chunks(output: Output) -> impl futures_util::Stream<Item = Result<(Stream, Bytes), EngineError>> {
    stream::unfold(output, |mut output| async move {
        output.recv().await.map(|item| (item, output))
    })
}

// === impl Conversation ===

impl Conversation {
    /// Begins it. The connection stops being HTTP (101); a client that does not ask for that gets a plain answer (200) that goes on until the
    /// process ends, and what it sends as its body is stdin.
    ///
    /// The request's JSON, if it has one, must have been read before.
    pub(crate) fn begin(self, mut request: Request, version: Version) -> Response {
        let media_type = self.framing.media_type(version);
        if !request.headers().contains_key(header::UPGRADE) {
            return self.begin_plain(request);
        }
        let peer = Peer::of(&request);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => {
                    let (reader, writer) = tokio::io::split(TokioIo::new(connection));
                    let head_is_read = {
                        let peer = peer.clone();
                        async move {
                            // Longer waits nobody who reads at all.
                            let _ = timeout(HEAD_IS_READ_WITHIN, peer.has_read_all()).await;
                        }
                    };
                    self.hold(reader, writer, head_is_read, peer.hung_up()).await;
                }
                Err(error) => tracing::debug!(%error, "a client went away before its connection was taken over"),
            }
        });
        let headers = [
            (header::CONTENT_TYPE, media_type),
            (header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (header::UPGRADE, HeaderValue::from_static("tcp")),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }

    /// Answers within HTTP. Version 1.0 has no chunks: what follows the headers is the stream itself, as such clients expect.
    fn begin_plain(self, request: Request) -> Response {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let body = request.into_body().into_data_stream().map_err(std::io::Error::other);
        tokio::spawn(async move {
            let reader = BodyReader {
                body: Box::pin(body),
                rest: Bytes::new(),
            };
            // A client that hangs up drops the body, and with it the other end of the pipe.
            self.hold(reader, ours, std::future::ready(()), std::future::pending())
                .await;
        });
        let output = stream::unfold(theirs, |mut theirs| async move {
            let mut buffer = BytesMut::with_capacity(16 << 10);
            match theirs.read_buf(&mut buffer).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(buffer.freeze()), theirs)),
                Err(error) => Some((Err(error), theirs)),
            }
        });
        let media_type = HeaderValue::from_static("application/vnd.docker.raw-stream");
        let mut response = ([(header::CONTENT_TYPE, media_type)], Body::from_stream(output)).into_response();
        *response.version_mut() = axum::http::Version::HTTP_10;
        response
    }

    /// Begins it on a WebSocket: each message is a piece of a stream, as it is.
    pub(crate) fn begin_socket(mut self, upgrade: WebSocketUpgrade) -> Response {
        self.framing = Framing::Raw;
        upgrade.on_upgrade(async move |socket| {
            let (mut to_client, mut from_client) = socket.split();
            let (near, far) = tokio::io::duplex(64 << 10);
            let (reader, writer) = tokio::io::split(near);
            let (mut output, mut input) = tokio::io::split(far);
            let hearing = async {
                let mut buffer = BytesMut::new();
                loop {
                    buffer.reserve(16 << 10);
                    match output.read_buf(&mut buffer).await {
                        Ok(count) if count > 0 => {}
                        _ => break,
                    }
                    if to_client.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                        return;
                    }
                }
                // A client that is gone already needs no good-bye.
                let _ = to_client.close().await;
            };
            let (hang_up, hung_up) = tokio::sync::oneshot::channel::<()>();
            let saying = async move {
                let _hang_up = hang_up;
                while let Some(Ok(message)) = from_client.next().await {
                    let piece = match message {
                        Message::Text(text) => Bytes::from(text),
                        Message::Binary(bytes) => bytes,
                        Message::Close(_) => return,
                        _ => continue,
                    };
                    if input.write_all(&piece).await.is_err() {
                        return;
                    }
                }
            };
            let held = self.hold(reader, writer, std::future::ready(()), async {
                let _ = hung_up.await;
            });
            tokio::join!(held, hearing, async {
                saying.await;
            });
        })
    }

    /// Both directions until the process has said all, or the client is gone. The process is begun at once, its first words wait for `head_is_read`:
    /// docker-py takes what comes in one piece with the answer's head for a part of that, and loses it.
    async fn hold(
        self,
        reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
        head_is_read: impl Future<Output = ()>,
        hung_up: impl Future<Output = ()>,
    ) {
        let Self {
            process,
            past,
            wanted,
            framing,
            leave,
        } = self;
        let (stdin, output, past) = match process {
            None => (None, None, past),
            Some(process) => match process.await {
                Ok(process) => (process.stdin, Some(process.output), past),
                Err(error) => (None, None, Some(last_words(&error))),
            },
        };
        let hearing = async {
            head_is_read.await;
            if let Some(past) = past {
                replay(past, &mut writer, framing).await?;
            }
            if let Some(output) = output {
                hear(output, &mut writer, wanted, framing).await?;
            }
            writer.shutdown().await
        };
        let saying = async {
            match stdin {
                Some(stdin) if wanted.stdin => match leave {
                    None => say(reader, stdin).await,
                    Some(leave) => {
                        if type_in(reader, stdin, leave.keys).await {
                            (leave.tell)();
                            return;
                        }
                    }
                },
                // Kept, not closed: another client may be the one who speaks.
                other => {
                    let _kept = other;
                    std::future::pending::<()>().await;
                }
            }
            // The end of what the client says is not the end of what it hears.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = hearing => if let Err(error) = ended {
                tracing::debug!(%error, "an attached client is gone");
            },
            () = saying => {}
            () = hung_up => tracing::debug!("an attached client has hung up"),
        }
    }
}

/// A process that cannot be started is told of as if it had said so itself.
fn last_words(error: &EngineError) -> Output {
    let (sender, output) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Ok((Stream::Stdout, format!("{error}\r\n").into())));
    output
}

async fn replay(mut past: Output, writer: &mut (impl AsyncWrite + Unpin), framing: Framing) -> std::io::Result<()> {
    while let Some(Ok((stream, chunk))) = past.recv().await {
        writer.write_all(&framing.framed(stream, &chunk)).await?;
    }
    Ok(())
}

async fn hear(
    mut output: sluice_runtime::Output,
    writer: &mut (impl AsyncWrite + Unpin),
    wanted: Wanted,
    framing: Framing,
) -> std::io::Result<()> {
    let mut wire = BytesMut::new();
    while let Some((stream, chunk)) = output.recv().await {
        if wanted.hears(stream) {
            wire.clear();
            framing.frame(stream, &chunk, &mut wire);
            writer.write_all(&wire).await?;
        }
    }
    Ok(())
}

/// The end of what the client says is the end of stdin.
async fn say(mut reader: impl AsyncRead + Unpin, mut stdin: Input) {
    if let Err(error) = copy(&mut reader, &mut stdin).await {
        tracing::debug!(%error, "stdin of a process or its client is gone");
    }
    let _ = stdin.shutdown().await;
}

/// In larger pieces than the library's own: each one wakes three processes on its way. The memory for them is taken while much comes.
async fn copy(reader: &mut (impl AsyncRead + Unpin), stdin: &mut Input) -> std::io::Result<()> {
    let mut piece = vec![0; LITTLE_INPUT];
    loop {
        let read = reader.read(&mut piece).await?;
        if read == 0 {
            return Ok(());
        }
        stdin.write_all(&piece[..read]).await?;
        stdin.flush().await?;
        if read == piece.len() {
            piece.resize(MOST_INPUT, 0);
        } else if read < LITTLE_INPUT {
            piece.truncate(LITTLE_INPUT);
            piece.shrink_to_fit();
        }
    }
}

/// The end of what is typed is not the end of a terminal: others may type too. True: the client has left by its keys.
async fn type_in(mut reader: impl AsyncRead + Unpin, mut stdin: Input, keys: Keys) -> bool {
    let mut watch = keys.watch();
    let (mut typed, mut input) = (vec![0; 4 << 10], Vec::new());
    let left = loop {
        let count = match reader.read(&mut typed).await {
            Ok(0) | Err(_) => break false,
            Ok(count) => count,
        };
        input.clear();
        let left = watch.take(&typed[..count], &mut input);
        let written = async {
            stdin.write_all(&input).await?;
            stdin.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "the terminal of a process is gone");
            break false;
        }
        if left {
            break true;
        }
    };
    if !left {
        // Kept, not closed, until the process ends or the client is gone.
        let _kept = stdin;
        std::future::pending::<()>().await;
    }
    left
}

/// A request's body as something to read from.
struct BodyReader<S> {
    body: std::pin::Pin<Box<S>>,
    rest: Bytes,
}

impl<S: futures_util::Stream<Item = std::io::Result<Bytes>>> AsyncRead for BodyReader<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        while self.rest.is_empty() {
            match std::task::ready!(self.body.as_mut().poll_next(context)) {
                Some(chunk) => self.rest = chunk?,
                None => return std::task::Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        std::task::Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_without_terminal_bears_its_stream_and_length() {
        let frame = Framing::Multiplexed.framed(Stream::Stderr, b"oops\n");
        assert_eq!(&frame[..], b"\x02\0\0\0\0\0\0\x05oops\n");
        assert_eq!(&Framing::Raw.framed(Stream::Stdout, b"\x1b[1m")[..], b"\x1b[1m");
    }

    #[test]
    fn the_media_type_says_multiplexed_since_1_42() {
        assert_eq!(
            Framing::Multiplexed.media_type(Version(41)),
            "application/vnd.docker.raw-stream"
        );
        assert_eq!(
            Framing::Multiplexed.media_type(Version(42)),
            "application/vnd.docker.multiplexed-stream"
        );
        assert_eq!(
            Framing::Raw.media_type(Version(50)),
            "application/vnd.docker.raw-stream"
        );
    }
}
