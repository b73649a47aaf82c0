//! Writes pcapng, the format of Wireshark and tcpdump (draft-ietf-opsawg-pcapng).
//!
//! By hand: it takes four kinds of blocks, and the crates there are read whole captures and bring a dozen others along.
//!
//! All numbers are little-endian, as the byte order mark of the section's header says.

use std::{
    collections::HashMap,
    io::{self, Write},
};

/// The header of a section.
const SECTION: u32 = 0x0a0d_0d0a;
/// By which a reader knows the byte order.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// The description of an interface.
const INTERFACE: u32 = 1;
/// A packet.
const PACKET: u32 = 6;
/// LINKTYPE_ETHERNET
const ETHERNET: u16 = 1;

/// Options: the end of the list, a comment, the name of the program, the name and clock of an interface.
const END: u16 = 0;
const COMMENT: u16 = 1;
const USER_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const RESOLUTION: u16 = 9;
/// 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// A file that is being written.
pub struct Capture<W> {
    out: W,
    snap_length: u32,
    /// The numbers of devices that were described.
    devices: HashMap<String, u32>,
}

/// A packet, or how it begins.
pub struct Packet<'a> {
    /// Since 1970, ns.
    pub time: u64,
    /// The device that it was seen at.
    pub device: &'a str,
    /// Its bytes, from the Ethernet header on.
    pub bytes: &'a [u8],
    /// How long it was.
    pub length: u32,
    /// What is to be said of it.
    pub comment: &'a str,
}

impl<W: Write> Capture<W> {
    /// Begins a file whose packets are cut off behind so many bytes.
    pub fn begin(mut out: W, program: &str, snap_length: u32) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // The section's length is not known.
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, USER_APPLICATION, program.as_bytes());
        option(&mut body, END, &[]);
        block(&mut out, SECTION, &body)?;
        out.flush()?;
        Ok(Self {
            out,
            snap_length,
            devices: HashMap::new(),
        })
    }

    /// Writes a packet through, so that whoever reads along sees it now.
    pub fn write(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let device = self.device(packet.device)?;
        let mut body = Vec::new();
        body.extend(device.to_le_bytes());
        body.extend(((packet.time >> 32) as u32).to_le_bytes());
        body.extend((packet.time as u32).to_le_bytes());
        body.extend((packet.bytes.len() as u32).to_le_bytes());
        body.extend(packet.length.to_le_bytes());
        body.extend(packet.bytes);
        pad(&mut body);
        option(&mut body, COMMENT, packet.comment.as_bytes());
        option(&mut body, END, &[]);
        block(&mut self.out, PACKET, &body)?;
        self.out.flush()
    }

    /// The number of a device, which is described before its first packet.
    fn device(&mut self, name: &str) -> io::Result<u32> {
        if let Some(number) = self.devices.get(name) {
            return Ok(*number);
        }
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(self.snap_length.to_le_bytes());
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, RESOLUTION, &[NANOSECONDS]);
        option(&mut body, END, &[]);
        block(&mut self.out, INTERFACE, &body)?;
        let number = self.devices.len() as u32;
        self.devices.insert(name.to_owned(), number);
        Ok(number)
    }
}

/// A block stands between two copies of its length.
fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    let mut bytes = Vec::with_capacity(body.len() + 12);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(length);
    bytes.extend(body);
    bytes.extend(length);
    out.write_all(&bytes)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks by their kind and body; all lengths must agree.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let length = word(bytes, 4) as usize;
            assert_eq!((length % 4, word(bytes, length - 4) as usize), (0, length));
            blocks.push((word(bytes, 0), bytes[8..length - 4].to_vec()));
            bytes = &bytes[length..];
        }
        blocks
    }

    #[test]
    fn a_device_is_described_before_its_first_packet_and_once() {
        let mut file = Vec::new();
        let mut capture = Capture::begin(&mut file, "sluice", 192).unwrap();
        for device in ["slc1", "slc2", "slc1"] {
            let packet = Packet {
                time: 0x1_0000_0002,
                device,
                bytes: &[1, 2, 3, 4, 5],
                length: 60,
                comment: "icc_disabled",
            };
            capture.write(&packet).unwrap();
        }
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET]);
        let body = &blocks[4].1;
        let words: Vec<u32> = body[..20]
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert_eq!(words, [1, 1, 2, 5, 60], "device, time, captured, length");
        assert_eq!(&body[20..28], [1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(&body[28..32], [1, 0, 12, 0], "a comment of twelve bytes");
        assert_eq!(&body[32..44], b"icc_disabled");
    }
}
