//! A connection of the daemon to the shim.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use crate::{
    RuntimeError, syscall,
    wire::{self, Kind},
};

/// Most read ahead of a client whose frames have to wait.
const MOST_READ_AHEAD: usize = 64 << 10;
/// How much is read at first, and of a client that has much to say, bytes.
const READ: usize = 4 << 10;
const READ_MUCH: usize = 64 << 10;
/// How long a client that hears the container's first process may take nothing at all of what that said.
const STALL: Duration = Duration::from_secs(60);

/// The connection.
pub(crate) struct Client {
    pub socket: OwnedFd,
    /// What it said and has not been dealt with.
    pub inbox: Vec<u8>,
    /// How much is read of it next.
    read: usize,
    /// Answers on their way to it.
    outbox: Vec<u8>,
    /// Gets the output of this process.
    pub attached: Option<String>,
    /// How much of that process's present piece it has.
    pub has_of_piece: usize,
    /// Since when it takes nothing of that piece.
    stuck: Option<Instant>,
    /// It has been told that the output has ended.
    pub told_end: bool,
    /// Wants to know of the end of this process.
    pub waits_for: Option<String>,
    /// Wants to know when this process's own program runs.
    pub awaits_start: Option<String>,
    /// It has closed its end, or broken the rules.
    pub gone: bool,
}

impl Client {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            inbox: Vec::new(),
            read: READ,
            outbox: Vec::new(),
            attached: None,
            has_of_piece: 0,
            stuck: None,
            told_end: false,
            waits_for: None,
            awaits_start: None,
            gone: false,
        }
    }

    pub fn answer(&mut self, kind: Kind, payload: &[u8]) {
        wire::push(&mut self.outbox, kind, payload);
        self.flush();
    }

    pub fn refuse(&mut self, error: &RuntimeError) {
        self.answer(Kind::Failed, &error.encode());
    }

    pub fn has_answers_waiting(&self) -> bool {
        !self.gone && !self.outbox.is_empty()
    }

    /// May more be read from it? Not while it has much to say that has to wait; a frame begun may be completed.
    pub fn may_speak(&self) -> bool {
        let wanted = wire::peek(&self.inbox).map_or(0, |(_, length)| wire::HEADER + length);
        !self.gone && self.inbox.len() < wanted.max(MOST_READ_AHEAD)
    }

    /// Reads what it has said. False: there is nothing more now.
    pub fn listen(&mut self) -> bool {
        let before = self.inbox.len();
        self.inbox.resize(before + self.read, 0);
        let read = syscall::read(self.socket.as_fd(), &mut self.inbox[before..]);
        self.inbox.truncate(before + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => {
                self.gone = true;
                false
            }
            Ok(length) => {
                if length == self.read {
                    self.read = READ_MUCH;
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.gone = true;
                false
            }
        }
    }

    /// Sends answers that wait.
    pub fn flush(&mut self) {
        while !self.outbox.is_empty() && !self.gone {
            match send(&self.socket, &self.outbox) {
                Ok(sent) => {
                    self.outbox.drain(..sent);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.gone = true,
            }
        }
        self.outbox.shrink_to(0);
    }

    /// Gives back memory that was needed while it had much to say.
    pub fn shrink(&mut self) {
        self.inbox.shrink_to(0);
        self.read = READ;
    }

    /// Sends what it lacks of a piece. Answers go first: they were given first.
    pub fn send_piece(&mut self, piece: &[u8]) {
        self.flush();
        while self.outbox.is_empty() && self.has_of_piece < piece.len() && !self.gone {
            match send(&self.socket, &piece[self.has_of_piece..]) {
                Ok(sent) => {
                    self.has_of_piece += sent;
                    self.stuck = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck.get_or_insert_with(Instant::now);
                    return;
                }
                Err(_) => self.gone = true,
            }
        }
    }

    /// How much longer it may take nothing; none: it takes what it is given. A client that is slow slows its process, as a pipe would; one that takes
    /// nothing any more would keep the process, and with it the log, waiting for ever.
    pub fn patience(&self) -> Option<Duration> {
        self.stuck.map(|since| STALL.saturating_sub(since.elapsed()))
    }
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the bytes are ours and of the length given.
        let sent = unsafe {
            libc::send(
                socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        };
        match syscall::result(sent as i32) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => return other.map(|sent| sent as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn patience_is_with_who_takes_nothing_and_begins_anew_with_each_byte_taken() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut client = Client::new(ours.into());
        let piece = vec![7; 4 << 20];
        assert_eq!(client.patience(), None);
        client.send_piece(&piece);
        assert!(client.patience().is_some_and(|left| !left.is_zero()));
        client.stuck = Instant::now().checked_sub(STALL);
        assert_eq!(client.patience(), Some(Duration::ZERO));
        // All that a socket holds, however little this host lets it hold.
        theirs.set_nonblocking(true).unwrap();
        while io::Read::read(&mut theirs, &mut [0; 64 << 10]).is_ok_and(|taken| taken > 0) {}
        client.send_piece(&piece);
        assert!(
            client.patience().is_some_and(|left| !left.is_zero()),
            "it goes on listening"
        );
        assert!(!client.gone);
    }
}
