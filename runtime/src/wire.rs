//! What daemon and shim say to each other over the shim's socket: frames of a kind (1 byte), a length (4 bytes, little endian), a payload.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Exit;

/// Bytes before a payload.
pub(crate) const HEADER: usize = 5;
/// The longest payload the shim takes: a process with a very large environment fits.
pub(crate) const LONGEST: usize = 4 << 20;
/// The longest piece of a stream sent in one frame.
pub(crate) const PIECE: usize = 32 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Let the first process run. Answer: `Done` or `Failed`.
    Start = 1,
    /// What is going on? Answer: `StateIs`.
    State = 2,
    /// Tell when the first process (or the exec'd one named in the payload) has ended. Answer: `Ended`, then.
    Wait = 3,
    /// Send the signal (i32) to the first process (or the exec'd one whose id follows). Answer: `Done` or `Failed`.
    Signal = 4,
    /// Rows (u16), columns (u16), id of an exec'd process or nothing. Answer: `Done` or `Failed`.
    Resize = 5,
    /// Connect to the first process's streams. Answer: `Done`, then streams.
    Attach = 6,
    /// Flags (u8: 1 stdin, 2 terminal), length of the id (u8), id, process of a plan as JSON. Answer: `Done` (pid, flags) or `Failed`, then streams.
    Exec = 7,
    /// A piece for stdin. No answer.
    Stdin = 8,
    /// The end of stdin. No answer.
    StdinEnd = 9,
    /// Kill what is there and go away. Answer: the end of the connection.
    Shutdown = 10,

    /// It is done.
    Done = 64,
    /// It failed: an encoded error.
    Failed = 65,
    /// Started? (u8), pid or 0 (i32).
    StateIs = 66,
    /// How the process ended.
    Ended = 67,
    /// A piece of stdout.
    Stdout = 68,
    /// A piece of stderr.
    Stderr = 69,
    /// Both outputs have ended.
    OutputEnd = 70,
}

impl Kind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 17] = [
            Kind::Start,
            Kind::State,
            Kind::Wait,
            Kind::Signal,
            Kind::Resize,
            Kind::Attach,
            Kind::Exec,
            Kind::Stdin,
            Kind::StdinEnd,
            Kind::Shutdown,
            Kind::Done,
            Kind::Failed,
            Kind::StateIs,
            Kind::Ended,
            Kind::Stdout,
            Kind::Stderr,
            Kind::OutputEnd,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The bytes before a payload of `length` bytes.
pub(crate) fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let length = (length as u32).to_le_bytes();
    [kind as u8, length[0], length[1], length[2], length[3]]
}

/// Appends a frame.
pub(crate) fn push(bytes: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    bytes.extend_from_slice(&header(kind, payload.len()));
    bytes.extend_from_slice(payload);
}

/// The first frame in `bytes`: kind byte and payload length, when its header is there.
pub(crate) fn peek(bytes: &[u8]) -> Option<(u8, usize)> {
    let header = bytes.first_chunk::<HEADER>()?;
    Some((
        header[0],
        u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize,
    ))
}

/// An exit as 4 + 1 + 8 + 4 bytes.
pub(crate) fn encode_exit(exit: &Exit) -> [u8; 17] {
    let at = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0; 17];
    bytes[..4].copy_from_slice(&exit.code.to_le_bytes());
    bytes[4] = u8::from(exit.oom_killed);
    bytes[5..13].copy_from_slice(&at.as_secs().to_le_bytes());
    bytes[13..].copy_from_slice(&at.subsec_nanos().to_le_bytes());
    bytes
}

/// The reverse of [`encode_exit`].
pub(crate) fn decode_exit(bytes: &[u8]) -> Option<Exit> {
    let bytes: &[u8; 17] = bytes.try_into().ok()?;
    let seconds = u64::from_le_bytes(*bytes[5..13].first_chunk()?);
    let nanoseconds = u32::from_le_bytes(*bytes[13..].first_chunk()?);
    Some(Exit {
        code: i32::from_le_bytes(*bytes.first_chunk()?),
        oom_killed: bytes[4] != 0,
        at: SystemTime::checked_add(&UNIX_EPOCH, Duration::new(seconds, nanoseconds))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_survives_the_wire() {
        let exit = Exit {
            code: 137,
            oom_killed: true,
            at: UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789),
        };
        assert_eq!(decode_exit(&encode_exit(&exit)), Some(exit));
        assert_eq!(decode_exit(b"short"), None);
    }

    #[test]
    fn a_frame_is_seen_when_its_header_is_there() {
        let mut bytes = Vec::new();
        push(&mut bytes, Kind::Stdin, b"hello");
        assert_eq!(peek(&bytes[..4]), None);
        assert_eq!(peek(&bytes), Some((Kind::Stdin as u8, 5)));
    }
}
