//! What a container says, on its way to our own standard output and error.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Stderr, Stdout};

use crate::failure::Failure;

/// A header: stream, three zeros, length (big-endian).
const HEADER: usize = 8;
/// The longest frame that is believed, bytes: daemons send what one read of a pipe gives.
const LONGEST_FRAME: u32 = 64 << 20;

/// Where it goes, and how it came.
pub struct Output {
    stdout: Stdout,
    stderr: Stderr,
    frames: Option<Frames>,
}

/// Frames being read.
#[derive(Default)]
struct Frames {
    pending: BytesMut,
    /// Stream and bytes of the frame we are in.
    current: (u8, u32),
}

impl Output {
    /// With a terminal there are no frames.
    pub fn new(tty: bool) -> Self {
        let frames = (!tty).then(Frames::default);
        Self {
            stdout: tokio::io::stdout(),
            stderr: tokio::io::stderr(),
            frames,
        }
    }

    /// Passes everything on until the container's side ends.
    pub async fn copy(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) => return self.end().await,
                Ok(count) => self.take(&buffer[..count]).await?,
                Err(why) => return Err(Failure::Broken(why.to_string())),
            }
        }
    }

    /// The same for a body.
    pub async fn copy_body(&mut self, mut body: Incoming) -> Result<(), Failure> {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(crate::daemon::broken)?;
            if let Ok(data) = frame.into_data() {
                self.take(&data).await?;
            }
        }
        self.end().await
    }

    async fn take(&mut self, data: &[u8]) -> Result<(), Failure> {
        let Some(frames) = &mut self.frames else {
            return written(
                async {
                    self.stdout.write_all(data).await?;
                    self.stdout.flush().await
                }
                .await,
            );
        };
        frames.pending.extend_from_slice(data);
        let (mut out, mut err) = (false, false);
        while let Some((stream, piece)) = frames.next()? {
            if stream == 2 {
                err = true;
                written(self.stderr.write_all(&piece).await)?;
            } else {
                out = true;
                written(self.stdout.write_all(&piece).await)?;
            }
        }
        if out {
            written(self.stdout.flush().await)?;
        }
        if err {
            written(self.stderr.flush().await)?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Failure> {
        written(self.stdout.flush().await)?;
        written(self.stderr.flush().await)
    }
}

impl Frames {
    /// The next piece of a frame; `None` when more has to come first.
    fn next(&mut self) -> Result<Option<(u8, Bytes)>, Failure> {
        while self.current.1 == 0 {
            if self.pending.len() < HEADER {
                return Ok(None);
            }
            let stream = self.pending[0];
            self.pending.advance(4);
            let length = self.pending.get_u32();
            if stream > 2 || length > LONGEST_FRAME {
                return Err(Failure::Broken(format!("Unrecognized input header: {stream}")));
            }
            self.current = (stream, length);
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let count = self.pending.len().min(self.current.1 as usize);
        self.current.1 -= count as u32;
        Ok(Some((self.current.0, self.pending.split_to(count).freeze())))
    }
}

/// Whoever reads us has gone: there is nobody left to tell.
fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|_| Failure::Code(1))
}

/// Writes a command's own words; ends quietly when nobody reads them.
pub fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(pieces: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, Failure> {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in pieces {
            frames.pending.extend_from_slice(piece);
            while let Some((stream, data)) = frames.next()? {
                found.push((stream, data.to_vec()));
            }
        }
        Ok(found)
    }

    #[test]
    fn frames_are_put_together_however_they_are_cut() {
        let wire = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x03err";
        assert_eq!(frames(&[wire]).unwrap(), [(1, b"out".to_vec()), (2, b"err".to_vec())]);
        let single: Vec<&[u8]> = wire.chunks(1).collect();
        let text = |wanted| {
            frames(&single)
                .unwrap()
                .into_iter()
                .filter(|(stream, _)| *stream == wanted)
                .flat_map(|(_, data)| data)
                .collect::<Vec<u8>>()
        };
        assert_eq!((text(1), text(2)), (b"out".to_vec(), b"err".to_vec()));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(frames(&[b"HTTP/1.1 200 OK"]).is_err());
        assert!(frames(&[b"\x01\0\0\0\xff\0\0\0"]).is_err());
    }
}
