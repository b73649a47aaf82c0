//! The daemon's end of a shim's socket.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{io::Interest, net::UnixStream, time::timeout};

use crate::{
    RuntimeError,
    plan::file,
    process::shim,
    syscall,
    wire::{self, Kind},
};

/// How long a shim may take for an answer that it has at hand. It is slow only when it waits for a disk, or was stopped.
const AT_HAND: Duration = Duration::from_secs(5);
/// How long it may take when a program is to be executed for the answer, which may have to be read from a slow disk.
const AT_WORK: Duration = Duration::from_secs(120);

/// A connection. Shared by the two directions of an attachment.
#[derive(Clone)]
pub(crate) struct Connection {
    stream: Arc<UnixStream>,
    /// The container's id.
    id: Arc<str>,
}

/// The frames that come, with what has come of the next one.
pub(crate) struct Frames {
    connection: Connection,
    header: [u8; wire::HEADER],
    /// How much of the header is there.
    begun: usize,
    /// Once the header is whole: what the frame is, its payload with room for the next header, and how much of that is there.
    frame: Option<(Kind, Vec<u8>, usize)>,
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
                id: directory.file_name().unwrap_or_default().to_string_lossy().into(),
            })),
            Err(error) => match error.kind() {
                // Never there, gone, or just going.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Ok(None),
                _ => Err(failed(error)),
            },
        }
    }

    /// Asks and waits for the answer, but not for ever, unless what is asked is when something will happen. None: the shim went away instead.
    pub async fn ask(&self, kind: Kind, payload: &[u8]) -> Result<Option<(Kind, Vec<u8>)>, RuntimeError> {
        let patience = match kind {
            Kind::Wait => return self.hear(kind, payload).await,
            Kind::Start | Kind::Exec => AT_WORK,
            _ => AT_HAND,
        };
        let unanswered = |_| Err(RuntimeError::Unanswered(self.id.to_string()));
        timeout(patience, self.hear(kind, payload))
            .await
            .unwrap_or_else(unanswered)
    }

    async fn hear(&self, kind: Kind, payload: &[u8]) -> Result<Option<(Kind, Vec<u8>)>, RuntimeError> {
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

    #[cfg(test)]
    pub fn of(stream: UnixStream) -> Self {
        Self {
            stream: Arc::new(stream),
            id: "test".into(),
        }
    }

    /// To receive many frames.
    pub fn frames(&self) -> Frames {
        Frames {
            connection: self.clone(),
            header: [0; wire::HEADER],
            begun: 0,
            frame: None,
        }
    }

    /// The next frame; none at the end.
    pub async fn receive(&self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        let mut header = [0; wire::HEADER];
        if !self.read_exactly(&mut header).await? {
            return Ok(None);
        }
        let (kind, length) = parse(&header)?;
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
            match self.read(&mut buffer[filled..]).await? {
                0 => return Ok(false),
                read => filled += read,
            }
        }
        Ok(true)
    }

    /// 0: the connection has ended. Nothing is lost when the future is dropped.
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.ready(Interest::READABLE).await?;
            match self.stream.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
                other => return other,
            }
        }
    }

    /// For writers that are polled.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

impl Frames {
    /// The next frame; none at the end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        loop {
            // The last read may have brought the whole of a short one.
            if let Some(frame) = self.complete()? {
                return Ok(Some(frame));
            }
            let read = match &mut self.frame {
                None => {
                    let read = self.connection.read(&mut self.header[self.begun..]).await?;
                    self.begun += read;
                    read
                }
                // With the next header, so that of many frames each takes one read.
                Some((_, bytes, filled)) => {
                    let read = self.connection.read(&mut bytes[*filled..]).await?;
                    *filled += read;
                    read
                }
            };
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes the frame, if all of it is there.
    fn complete(&mut self) -> io::Result<Option<(Kind, Vec<u8>)>> {
        if self.frame.is_none() && self.begun == wire::HEADER {
            let (kind, length) = parse(&self.header)?;
            self.frame = Some((kind, vec![0; length + wire::HEADER], 0));
        }
        let is_whole = |(_, bytes, filled): &mut (Kind, Vec<u8>, usize)| *filled + wire::HEADER >= bytes.len();
        Ok(self.frame.take_if(is_whole).map(|(kind, mut bytes, filled)| {
            let length = bytes.len() - wire::HEADER;
            self.begun = filled - length;
            self.header[..self.begun].copy_from_slice(&bytes[length..filled]);
            bytes.truncate(length);
            (kind, bytes)
        }))
    }
}

fn parse(header: &[u8; wire::HEADER]) -> io::Result<(Kind, usize)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the shim sent what is no frame");
    let (kind, length) = wire::peek(header).ok_or_else(invalid)?;
    let kind = Kind::from_byte(kind).ok_or_else(invalid)?;
    if length > wire::LONGEST {
        return Err(invalid());
    }
    Ok((kind, length))
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
