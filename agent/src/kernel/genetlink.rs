//! Generic netlink, as little of it as one family of commands needs: attributes are written and read by hand (there are few, and the crates that know them
//! bring a runtime each).

use std::io;

use rtnetlink::sys::{Socket, protocols::NETLINK_GENERIC};

/// `GENL_ID_CTRL`: the family that knows the others.
const CONTROL: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`, and the attributes of its answer and question.
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Of a message, and of the generic one in it, bytes.
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
/// The bits of an attribute's kind that are none of it (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const NESTED: u16 = 0x8000;
const KIND: u16 = 0x3fff;

/// A socket for the commands of one family.
pub struct Generic {
    socket: Socket,
    family: u16,
    sequence: u32,
}

/// Attributes in the making.
#[derive(Default)]
pub struct Attributes(Vec<u8>);

impl Generic {
    /// Finds the family; none: this kernel has none of this name.
    pub fn open(name: &str) -> io::Result<Option<Self>> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        let mut generic = Self {
            socket,
            family: CONTROL,
            sequence: 0,
        };
        let mut question = Attributes::default();
        question.put(FAMILY_NAME, format!("{name}\0").as_bytes());
        let mut family = None;
        let asked = generic.ask(GET_FAMILY, 0, &question, |answer| {
            let id = attributes(answer).find(|(kind, _)| *kind == FAMILY_ID);
            family = id.and_then(|(_, id)| id.try_into().ok()).map(u16::from_ne_bytes);
        });
        match asked {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(family.map(|family| Self { family, ..generic }))
    }

    /// Carries out a command.
    pub fn command(&mut self, command: u8, attributes: &Attributes) -> io::Result<()> {
        self.ask(command, 0, attributes, |_| {})
    }

    /// Everything a command answers, message by message: the attributes of each.
    pub fn dump(&mut self, command: u8, attributes: &Attributes, each: impl FnMut(&[u8])) -> io::Result<()> {
        self.ask(command, NLM_F_DUMP, attributes, each)
    }

    fn ask(&mut self, command: u8, flags: u16, attributes: &Attributes, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + GENERIC_HEADER + attributes.0.len();
        let mut message = Vec::with_capacity(length);
        message.extend((length as u32).to_ne_bytes());
        message.extend(self.family.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        // all families that we know are at their first version
        message.extend([command, 1, 0, 0]);
        message.extend(&attributes.0);
        self.socket.send(&message, 0)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while let Some(message) = next_message(&mut rest) {
                if word(message, 8) != Some(self.sequence) {
                    continue;
                }
                match half(message, 4) {
                    // a dump ends with one, everything else with the other; either says how it went
                    Some(NLMSG_ERROR | NLMSG_DONE) => {
                        let code = word(message, HEADER).unwrap_or(0).cast_signed();
                        return match code {
                            0.. => Ok(()),
                            _ => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    Some(_) => each(message.get(HEADER + GENERIC_HEADER..).unwrap_or_default()),
                    None => {}
                }
            }
        }
    }
}

impl Attributes {
    /// Appends one.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Appends one that holds others. Together they have at most 65,535 bytes.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        inside(&mut inner);
        self.put(kind | NESTED, &inner.0);
    }
}

/// The attributes in these bytes, by kind.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(bytes, 0)?), half(bytes, 2)?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

fn next_message<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = word(rest, 0)? as usize;
    let message = rest.get(..length).filter(|_| length >= HEADER)?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(message)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut written = Attributes::default();
        written.put(3, b"abcde");
        written.nest(8, |inner| {
            inner.put(1, &[7]);
            inner.put(2, &[]);
        });
        let read: Vec<(u16, &[u8])> = attributes(&written.0).collect();
        assert_eq!(read[0], (3, &b"abcde"[..]));
        assert_eq!(read[1].0, 8);
        let inner: Vec<(u16, &[u8])> = attributes(read[1].1).collect();
        assert_eq!(inner, [(1, &[7][..]), (2, &[][..])]);
    }

    #[test]
    fn what_ends_too_early_is_not_read() {
        let mut written = Attributes::default();
        written.put(3, b"abcde");
        assert_eq!(attributes(&written.0[..7]).count(), 0);
        assert_eq!(next_message(&mut &[200, 0, 0, 0][..]), None);
    }

    #[test]
    fn a_family_that_the_kernel_does_not_have_is_none() {
        assert!(Generic::open("sluice-has-none").unwrap().is_none());
        assert!(Generic::open("nlctrl").unwrap().is_some());
    }
}
