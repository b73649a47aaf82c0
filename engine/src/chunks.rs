//! Streams of chunks between those who serve requests and those who block: read as a file, and written as one.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

use crate::EngineError;

/// A stream that comes piece by piece; an error is its last piece.
pub type Chunks = mpsc::Receiver<io::Result<Bytes>>;

/// Bytes of a piece.
const PIECE: usize = 128 * 1024;
/// Pieces that may wait for a slow reader.
const WAITING: usize = 4;

/// A stream of chunks as something that blocking code reads.
pub(crate) struct ChannelReader {
    chunks: Chunks,
    current: Bytes,
}

impl ChannelReader {
    pub fn new(chunks: Chunks) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// A stream of chunks as something that blocking code writes. Who reads slowly slows the writer; who goes away ends it with an error.
pub(crate) struct ChannelWriter {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    pending: BytesMut,
}

impl ChannelWriter {
    /// The writer, and what it writes.
    pub fn new() -> (Self, Chunks) {
        let (sender, chunks) = mpsc::channel(WAITING);
        let writer = Self {
            chunks: sender,
            pending: BytesMut::new(),
        };
        (writer, chunks)
    }

    /// The reader learns that there is no more, and why.
    pub fn fail(&mut self, why: impl std::fmt::Display) -> EngineError {
        let sentence = why.to_string();
        // who is gone need not be told
        let _ = self.chunks.blocking_send(Err(io::Error::other(sentence.clone())));
        EngineError::failed(sentence)
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = self.pending.split().freeze();
        let sent = self.chunks.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it any more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_as_one_stream_and_errors_come_through() {
        let (sender, receiver) = mpsc::channel(8);
        for chunk in [&b"ab"[..], b"", b"cde"] {
            sender.blocking_send(Ok(Bytes::from_static(chunk))).unwrap();
        }
        sender.blocking_send(Err(io::Error::other("hung up"))).unwrap();
        drop(sender);
        let mut reader = ChannelReader::new(receiver);
        let mut read = [0; 5];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"abcde");
        assert_eq!(reader.read(&mut read).unwrap_err().to_string(), "hung up");
        assert_eq!(reader.read(&mut read).unwrap(), 0);
    }

    #[test]
    fn a_writer_whose_reader_went_away_fails() {
        let (mut writer, chunks) = ChannelWriter::new();
        writer.write_all(b"some").unwrap();
        drop(chunks);
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
