//! Tells by the first bytes how a stream is compressed, and undoes it.

use std::io::{self, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

use crate::error::ImageError;

/// The largest window a zstd stream may ask for, as a power of two: 128 MiB, what `zstd --ultra -22` uses, and a bound on our memory.
const ZSTD_WINDOW: u32 = 27;

/// The uncompressed bytes of `input`: gzip (also several members), zstd or plain.
pub(crate) fn decompress<'a>(mut input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut start = Vec::with_capacity(6);
    input
        .by_ref()
        .take(6)
        .read_to_end(&mut start)
        .map_err(|error| ImageError::reading(&error))?;
    let kind = Kind::of(&start);
    let whole = BufReader::with_capacity(64 * 1024, Cursor::new(start).chain(input));
    match kind {
        Kind::Plain => Ok(Box::new(whole)),
        Kind::Gzip => Ok(Box::new(MultiGzDecoder::new(whole))),
        Kind::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(whole).map_err(|error| ImageError::reading(&error))?;
            decoder
                .window_log_max(ZSTD_WINDOW)
                .map_err(|error| ImageError::reading(&error))?;
            Ok(Box::new(Truncation(decoder)))
        }
        Kind::Refused(name) => Err(ImageError::BadArchive(format!(
            "{name} archives are not supported: decompress it, or use gzip or zstd"
        ))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Gzip,
    Zstd,
    Refused(&'static str),
}

impl Kind {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // a skippable frame may open a zstd stream (zstd:chunked ends with one)
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Refused("xz-compressed"),
            [b'B', b'Z', b'h', ..] => Self::Refused("bzip2-compressed"),
            [b'P', b'K', 3, 4, ..] => Self::Refused("zip"),
            _ => Self::Plain,
        }
    }
}

/// zstd says "incomplete frame" in a way of its own; a truncated stream is one kind of error here.
struct Truncation<R>(R);

impl<R: Read> Read for Truncation<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .read(buffer)
            .map_err(|error| match error.to_string().contains("incomplete frame") {
                true => io::ErrorKind::UnexpectedEof.into(),
                false => error,
            })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
        let mut all = Vec::new();
        decompress(bytes)?
            .read_to_end(&mut all)
            .map_err(|error| ImageError::reading(&error))?;
        Ok(all)
    }

    #[test]
    fn gzip_zstd_and_plain_give_the_same_bytes() {
        let text = b"the same in every dress".repeat(1000);
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(&gzip(&text)).unwrap(), text);
        assert_eq!(read(&zstd::encode_all(text.as_slice(), 1).unwrap()).unwrap(), text);
    }

    #[test]
    fn a_gzip_of_several_members_is_read_to_its_end() {
        assert_eq!(read(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(read(b"").unwrap(), b"");
    }

    #[test]
    fn a_cut_stream_says_truncated() {
        let text = b"not quite all of it".repeat(1000);
        for whole in [gzip(&text), zstd::encode_all(text.as_slice(), 1).unwrap()] {
            let error = read(&whole[..whole.len() - 9]).unwrap_err();
            assert_eq!(error.to_string(), "archive is truncated: unexpected EOF");
        }
    }

    #[test]
    fn a_damaged_gzip_is_a_bad_archive() {
        let mut bytes = gzip(&b"some text that is long enough".repeat(100));
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        assert!(matches!(read(&bytes), Err(ImageError::BadArchive(_))));
    }

    #[test]
    fn xz_is_refused_with_a_sentence() {
        let error = read(b"\xfd7zXZ\0rest").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("xz-compressed archives are not supported"),
            "{error}"
        );
    }
}
