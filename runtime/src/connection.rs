//! The daemon's end of a shim's socket.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use tokio::{io::Interest, net::UnixStream};

use crate::{
    RuntimeError,
    plan::file,
    process::shim,
    syscall,
    wire::{self, Kind},
};

/// A connection. Shared by the two directions of an attachment.
#[derive(Clone)]
pub(crate) struct Connection {
    stream: Arc<UnixStream>,
}

impl Connection {
    /// Connects to the shim of the container in `directory`. None: there is none any more.
    pub async fn open(directory: &Path) -> Result<Option<Self>, RuntimeError> {
        let failed =
            |error: io::Error| RuntimeError::Failed(format!("connect to the shim in {}: {error}", directory.display()));
        // The directory's path could be longer than a socket's address may be; that of a descriptor is short.
        let opened: OwnedFd = match syscall::open(directory, libc::O_PATH | libc::O_DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let address = format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), file::SOCKET);
        match UnixStream::connect(address).await {
            Ok(stream) => Ok(Some(Self {
                stream: Arc::new(stream),
            })),
            Err(error) => match error.kind() {
                // Never there, gone, or just going.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Ok(None),
                _ => Err(failed(error)),
            },
        }
    }

    /// Asks and waits for the answer. None: the shim went away instead.
    pub async fn ask(&self, kind: Kind, payload: &[u8]) -> Result<Option<(Kind, Vec<u8>)>, RuntimeError> {
        if self.send(kind, payload).await.is_err() {
            return Ok(None);
        }
        match self.receive().await {
            Ok(Some((Kind::Failed, payload))) => Err(RuntimeError::decode(&payload)),
            Ok(answer) => Ok(answer),
            Err(_) => Ok(None),
        }
    }

    pub async fn send(&self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(wire::HEADER + payload.len());
        wire::push(&mut bytes, kind, payload);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next frame; none at the end.
    pub async fn receive(&self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let mut header = [0; wire::HEADER];
        if !self.read_exactly(&mut header).await? {
            return Ok(None);
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the shim sent what is no frame");
        let (kind, length) = wire::peek(&header).ok_or_else(invalid)?;
        let kind = Kind::from_byte(kind).ok_or_else(invalid)?;
        if length > wire::LONGEST {
            return Err(invalid());
        }
        let mut payload = vec![0; length];
        if !self.read_exactly(&mut payload).await? {
            return Ok(None);
        }
        Ok(Some((kind, payload)))
    }

    /// False: the connection ended before all was there.
    async fn read_exactly(&self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.ready(Interest::READABLE).await?;
            match self.stream.try_read(&mut buffer[filled..]) {
                Ok(0) => return Ok(false),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// For writers that are polled.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// The pids in a container's directory: (shim, first process), each only while it means the process it meant.
pub(crate) fn live_pids(directory: &Path) -> (Option<i32>, Option<i32>) {
    let text = fs::read_to_string(directory.join(file::PIDS)).unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse::<u64>().ok());
    let mut next = || {
        let (pid, started) = (numbers.next()??, numbers.next()??);
        let pid = i32::try_from(pid).ok()?;
        (shim::start_time(pid) == Some(started)).then_some(pid)
    };
    (next(), next())
}
