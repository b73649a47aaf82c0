//! Extended headers: `length key=value` records that overrule the fields of the entry that follows.

use super::{
    Segment, damaged,
    header::owner,
    sparse::{self, MOST_SEGMENTS},
};
use crate::error::ImageError;

/// What the extended header of an entry says.
#[derive(Default, Debug)]
pub(super) struct Extensions {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub modified: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Sparse,
    records: usize,
}

/// GNU tar's three ways (0.0, 0.1, 1.0) to say in an extended header where the holes are.
#[derive(Default, Debug)]
pub(super) struct Sparse {
    /// The real name; in `path` stands an invented one.
    pub name: Option<Vec<u8>>,
    /// Version 1.0: the map opens the data; the size of the file, bytes.
    pub in_data: Option<u64>,
    size: Option<u64>,
    /// Offsets and lengths, one after the other.
    numbers: Vec<u64>,
}

impl Sparse {
    /// Version 0.0 and 0.1: size of the file in bytes and the map.
    pub fn map(&self) -> Result<Option<(u64, Vec<Segment>)>, ImageError> {
        match self.size {
            Some(size) => Ok(Some((size, sparse::pairs(&self.numbers)?))),
            None if self.numbers.is_empty() => Ok(None),
            None => Err(damaged("a sparse file without its size")),
        }
    }
}

impl Extensions {
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub fn parse(mut data: &[u8]) -> Result<Self, ImageError> {
        let mut extensions = Self::default();
        let (mut major, mut real_size) = (None, None);
        while !data.is_empty() && data[0] != 0 {
            let Record { key, value, rest } = record(data)?;
            data = rest;
            extensions.records += 1;
            // an empty value takes back what a global header said; we follow none
            if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
                continue;
            }
            match key {
                b"path" => extensions.path = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => extensions.size = Some(decimal(value)?),
                b"uid" => extensions.uid = Some(owner(decimal(value)? as i64)?),
                b"gid" => extensions.gid = Some(owner(decimal(value)? as i64)?),
                b"mtime" => extensions.modified = Some(time(value)?),
                b"GNU.sparse.name" => extensions.sparse.name = Some(value.to_vec()),
                b"GNU.sparse.major" => major = Some(decimal(value)?),
                b"GNU.sparse.realsize" => real_size = Some(decimal(value)?),
                b"GNU.sparse.size" => extensions.sparse.size = Some(decimal(value)?),
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => extensions.add_number(value)?,
                b"GNU.sparse.map" => {
                    for number in value.split(|byte| *byte == b',') {
                        extensions.add_number(number)?;
                    }
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        extensions.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        extensions.sparse.in_data = match (major, real_size) {
            (None | Some(0), _) => None,
            (Some(1), Some(size)) => Some(size),
            _ => return Err(damaged("a sparse file of an unknown format")),
        };
        if extensions
            .sparse
            .name
            .as_ref()
            .is_some_and(|name| name.contains(&0) || name.len() > super::LONGEST_NAME)
        {
            return Err(damaged("a name with a NUL, or longer than 4096 bytes"));
        }
        Ok(extensions)
    }

    fn add_number(&mut self, text: &[u8]) -> Result<(), ImageError> {
        if self.sparse.numbers.len() >= 2 * MOST_SEGMENTS {
            return Err(damaged("a sparse file of too many pieces"));
        }
        self.sparse.numbers.push(decimal(text)?);
        Ok(())
    }
}

/// A record, and what follows it.
struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rest: &'a [u8],
}

/// Splits the first record off: its length counts itself, the blank, key, value and the final newline.
fn record(data: &[u8]) -> Result<Record<'_>, ImageError> {
    let wrong = || damaged("a malformed extended header");
    let blank = data.iter().take(20).position(|byte| *byte == b' ').ok_or_else(wrong)?;
    let length = usize::try_from(decimal(&data[..blank])?).map_err(|_| wrong())?;
    if length > data.len() || length < blank + 3 || data[length - 1] != b'\n' {
        return Err(wrong());
    }
    let body = &data[blank + 1..length - 1];
    let equals = body.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
    Ok(Record {
        key: &body[..equals],
        value: &body[equals + 1..],
        rest: &data[length..],
    })
}

pub(super) fn decimal(text: &[u8]) -> Result<u64, ImageError> {
    let text = str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    let number = text
        .and_then(|text| text.parse().ok())
        .filter(|number| *number <= i64::MAX as u64);
    number.ok_or_else(|| damaged("a malformed number in an extended header"))
}

/// Seconds with a fraction, maybe negative.
fn time(text: &[u8]) -> Result<(i64, u32), ImageError> {
    let (seconds, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let (negative, seconds) = match seconds.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, seconds),
    };
    let seconds = if seconds.is_empty() {
        0
    } else {
        decimal(seconds)? as i64
    };
    let mut nanoseconds = 0u32;
    for place in 0..9 {
        let digit = *fraction.get(place).unwrap_or(&b'0');
        if !digit.is_ascii_digit() {
            return Err(damaged("a malformed time in an extended header"));
        }
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        let extensions = Extensions::parse(b"12 path=a=b\n15 mtime=-1.25\n").unwrap();
        assert_eq!(extensions.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(extensions.modified, Some((-2, 750_000_000)));
    }

    #[test]
    fn malformed_records_are_refused() {
        for wrong in [
            &b"path=a\n"[..],
            b"99 path=a\n",
            b"3 a",
            b"10 patha=\x00",
            b"8 noequ\n",
            b"18446744073709551615 a=b\n",
            b"12 size=-12\n",
            b"12 uid=4294967295\n",
            b"23 GNU.sparse.major=2\n",
        ] {
            assert!(
                Extensions::parse(wrong).is_err(),
                "{:?}",
                String::from_utf8_lossy(wrong)
            );
        }
    }
}
