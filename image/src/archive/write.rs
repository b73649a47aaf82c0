//! Writes a tar stream: ustar, with a pax header for what does not fit or has no place there. The reverse of [`Archive`](super::Archive).

use std::io::{self, Write};

use super::{Entry, Kind, Segment, header::BLOCK};

/// The largest numbers of twelve and of eight octal digits with a NUL.
const MOST_IN_12: u64 = 0o777_7777_7777;
const MOST_IN_8: u64 = 0o777_7777;
/// The longest text of a name field, bytes.
const LONGEST_FIELD: usize = 100;

/// A tar stream being written.
pub(crate) struct Writer<W> {
    out: W,
    /// Data of the current entry that is still to come, and the zeros after it.
    remaining: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Self {
        Self {
            out,
            remaining: 0,
            padding: 0,
        }
    }

    /// Begins an entry. `segments` of a file with holes: what of it will follow as data; else `entry.size` bytes follow.
    pub fn begin(&mut self, entry: &Entry, segments: Option<&[Segment]>) -> io::Result<()> {
        self.end_data()?;
        let map = segments.map(map_of);
        let stored = match (&entry.kind, segments, &map) {
            (Kind::File, Some(segments), Some(map)) => {
                map.len() as u64 + segments.iter().map(|segment| segment.length).sum::<u64>()
            }
            (Kind::File, ..) => entry.size,
            _ => 0,
        };
        let link: &[u8] = match &entry.kind {
            Kind::HardLink(target) | Kind::Symlink(target) => target,
            _ => b"",
        };
        let records = records(entry, link, stored, segments.is_some());
        if !records.is_empty() {
            let mut header = Header::new(b"PaxHeaders.0/entry", b'x');
            header.number(124, 12, records.len() as u64);
            header.number(100, 8, 0o644);
            self.out.write_all(&header.finish())?;
            self.out.write_all(&records)?;
            self.zeros(padding(records.len() as u64))?;
        }
        let (kind, major, minor) = match &entry.kind {
            Kind::File => (b'0', 0, 0),
            Kind::HardLink(_) => (b'1', 0, 0),
            Kind::Symlink(_) => (b'2', 0, 0),
            Kind::Character(major, minor) => (b'3', *major, *minor),
            Kind::Block(major, minor) => (b'4', *major, *minor),
            Kind::Directory => (b'5', 0, 0),
            Kind::Fifo => (b'6', 0, 0),
        };
        let mut header = Header::new(&entry.name, kind);
        header.text(157, link);
        header.number(100, 8, u64::from(entry.mode & 0o7777));
        header.number(108, 8, u64::from(entry.uid));
        header.number(116, 8, u64::from(entry.gid));
        header.number(124, 12, stored);
        header.number(136, 12, u64::try_from(entry.modified.0).unwrap_or(0));
        header.number(329, 8, u64::from(major));
        header.number(337, 8, u64::from(minor));
        self.out.write_all(&header.finish())?;
        (self.remaining, self.padding) = (stored, padding(stored));
        match map {
            Some(map) => self.data(&map),
            None => Ok(()),
        }
    }

    /// Data of the current entry. What would be more than was announced is left out.
    pub fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
        self.out.write_all(&bytes[..length])?;
        self.remaining -= length as u64;
        Ok(())
    }

    /// The end-of-archive mark.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_data()?;
        self.zeros(2 * BLOCK)?;
        Ok(self.out)
    }

    /// A file that became shorter while it was read is filled up with zeros: the archive must stay one.
    fn end_data(&mut self) -> io::Result<()> {
        while self.remaining > 0 {
            let length = self.remaining.min(64 * 1024);
            self.zeros(length as usize)?;
            self.remaining -= length;
        }
        let padding = std::mem::take(&mut self.padding);
        self.zeros(padding)
    }

    fn zeros(&mut self, mut count: usize) -> io::Result<()> {
        static ZEROS: [u8; 4096] = [0; 4096];
        while count > 0 {
            let length = count.min(ZEROS.len());
            self.out.write_all(&ZEROS[..length])?;
            count -= length;
        }
        Ok(())
    }
}

/// What has no place in the block: `length key=value` records.
fn records(entry: &Entry, link: &[u8], stored: u64, is_sparse: bool) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| records.extend(record(key, value));
    let name = &entry.name;
    if is_sparse {
        add(b"GNU.sparse.major", b"1");
        add(b"GNU.sparse.minor", b"0");
        add(b"GNU.sparse.name", name);
        add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
    }
    if name.len() > LONGEST_FIELD || !name.is_ascii() {
        add(b"path", name);
    }
    if link.len() > LONGEST_FIELD || !link.is_ascii() {
        add(b"linkpath", link);
    }
    if stored > MOST_IN_12 {
        add(b"size", stored.to_string().as_bytes());
    }
    for (key, number) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if u64::from(number) > MOST_IN_8 {
            add(key, number.to_string().as_bytes());
        }
    }
    let seconds = entry.modified.0;
    if u64::try_from(seconds).map_or(true, |seconds| seconds > MOST_IN_12) {
        add(b"mtime", seconds.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// The length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3; // blank, equals, newline
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// The map of a sparse file as it opens its data: decimal lines, filled up to whole blocks.
fn map_of(segments: &[Segment]) -> Vec<u8> {
    let mut map = format!("{}\n", segments.len());
    for Segment { offset, length } in segments {
        map += &format!("{offset}\n{length}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// A block being filled in.
struct Header([u8; BLOCK]);

impl Header {
    fn new(name: &[u8], kind: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.text(0, name);
        header.0[156] = kind;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    /// As much of a text as fits; the whole is in the extended header then.
    fn text(&mut self, offset: usize, text: &[u8]) {
        let length = text.len().min(LONGEST_FIELD);
        self.0[offset..offset + length].copy_from_slice(&text[..length]);
    }

    /// Octal digits and a NUL; a number too large is in the extended header.
    fn number(&mut self, offset: usize, width: usize, number: u64) {
        let most = if width == 12 { MOST_IN_12 } else { MOST_IN_8 };
        let number = if number > most { 0 } else { number };
        let text = format!("{number:0digits$o}", digits = width - 1);
        self.0[offset..offset + width - 1].copy_from_slice(text.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archive;

    fn there_and_back(entry: &Entry, segments: Option<&[Segment]>, data: &[u8]) -> (Entry, Vec<u8>) {
        let mut writer = Writer::new(Vec::new());
        writer.begin(entry, segments).unwrap();
        writer.data(data).unwrap();
        let bytes = writer.finish().unwrap();
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut archive = Archive::new(bytes.as_slice());
        let read = archive.next().unwrap().unwrap();
        let content = archive.read_to_vec(1 << 20).unwrap();
        assert!(archive.next().unwrap().is_none());
        (read, content)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let entry = Entry {
            name: b"a/file".to_vec(),
            size: 3,
            mode: 0o4755,
            uid: 1000,
            gid: 3_000_000,
            modified: (1_700_000_000, 0),
            xattrs: vec![(b"security.capability".to_vec(), vec![1, 0, b'\n', b'=', 255])],
            ..Entry::default()
        };
        let (read, content) = there_and_back(&entry, None, b"abc");
        assert_eq!((&read.name, read.size, read.mode), (&entry.name, 3, 0o4755));
        assert_eq!(
            (read.uid, read.gid, read.modified),
            (1000, 3_000_000, (1_700_000_000, 0))
        );
        assert_eq!(read.xattrs, entry.xattrs);
        assert_eq!(content, b"abc");
    }

    #[test]
    fn long_names_links_and_times_before_1970_fit() {
        let entry = Entry {
            name: "ä/".repeat(200).into_bytes(),
            kind: Kind::Symlink(vec![b'x'; 300]),
            modified: (-5, 0),
            ..Entry::default()
        };
        let (read, _) = there_and_back(&entry, None, b"");
        assert_eq!((read.name, read.kind, read.modified), (entry.name, entry.kind, (-5, 0)));
    }

    #[test]
    fn holes_stay_holes() {
        let entry = Entry {
            name: b"sparse".to_vec(),
            size: 10_000,
            ..Entry::default()
        };
        let segments = [
            Segment { offset: 0, length: 2 },
            Segment {
                offset: 9_000,
                length: 3,
            },
        ];
        let (read, content) = there_and_back(&entry, Some(&segments), b"abxyz");
        assert_eq!((read.name.as_slice(), read.size), (&b"sparse"[..], 10_000));
        assert_eq!((&content[..3], &content[8_999..9_004]), (&b"ab\0"[..], &b"\0xyz\0"[..]));
    }

    #[test]
    fn a_file_that_became_shorter_is_filled_up() {
        let entry = Entry {
            name: b"short".to_vec(),
            size: 5,
            ..Entry::default()
        };
        let (_, content) = there_and_back(&entry, None, b"ab");
        assert_eq!(content, b"ab\0\0\0");
    }

    #[test]
    fn the_length_of_a_record_counts_itself_also_where_that_makes_it_longer() {
        for length in [1, 90, 91, 92, 93, 94, 95, 96, 985, 990, 995] {
            let made = record(b"k", &vec![b'v'; length]);
            let said: usize = str::from_utf8(&made)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, made.len());
        }
    }
}
