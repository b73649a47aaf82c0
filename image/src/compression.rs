//! Tells by the first bytes how a stream is compressed, and undoes it.
//!
//! Layers of registries are gzip, zstd or plain; xz and bzip2 are for `ADD`, `import` and contexts, where people have archives of all kinds.

use std::io::{self, BufReader, Cursor, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::error::ImageError;

/// The largest window a zstd stream may ask for, as a power of two: 128 MiB, what `zstd --ultra -22` uses, and a bound on our memory.
const ZSTD_WINDOW: u32 = 27;
/// The most memory an xz stream may ask for, KiB: four times what `xz -9` uses.
const XZ_MEMORY: u32 = 256 * 1024;
/// Bytes that tell the kind.
const START: usize = 10;

/// The uncompressed bytes of `input`: gzip (also several members), zstd or plain.
pub(crate) fn decompress<'a>(mut input: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    let mut start = Vec::with_capacity(START);
    input
        .by_ref()
        .take(START as u64)
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
        Kind::Xz => Ok(Box::new(XzReader::new_mem_limit(whole, true, XZ_MEMORY))),
        Kind::Bzip2 => Ok(Box::new(MultiBzDecoder::new(whole))),
        Kind::Zip => Err(ImageError::BadArchive(
            "zip archives are not supported: make a tar of it".into(),
        )),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    Zip,
}

impl Kind {
    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // a skippable frame may open a zstd stream (zstd:chunked ends with one)
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // with the mark of a block, or of the end: a tar may begin with a file of the name `BZh9`
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y'] => Self::Bzip2,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90] => Self::Bzip2,
            [b'P', b'K', 3, 4, ..] => Self::Zip,
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
    fn xz_and_bzip2_are_undone_as_their_own_programs_make_them() {
        let text = b"the same in every dress".repeat(1000);
        for (program, cut) in [("xz", "archive is truncated"), ("bzip2", "")] {
            let Some(packed) = packed_by(program, &text) else {
                eprintln!("passed over: there is no {program}");
                continue;
            };
            assert!(packed.len() < text.len() / 2);
            assert_eq!(read(&packed).unwrap(), text, "{program}");
            assert_eq!(
                read(&[packed.as_slice(), &packed].concat()).unwrap(),
                text.repeat(2),
                "{program}"
            );
            let error = read(&packed[..packed.len() - 30]).unwrap_err();
            assert!(error.to_string().contains(cut), "{program}: {error}");
            let mut damaged = packed.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0xff;
            assert!(read(&damaged).is_err(), "{program}");
        }
    }

    fn packed_by(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        use std::process::{Command, Stdio};
        let mut child = Command::new(program)
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(bytes).unwrap();
        Some(child.wait_with_output().unwrap().stdout)
    }

    #[test]
    fn a_name_is_no_compression() {
        assert_eq!(Kind::of(b"BZh9.txt\0\0"), Kind::Plain);
        assert_eq!(Kind::of(b"BZh91AY&SY"), Kind::Bzip2);
    }

    #[test]
    fn zip_is_refused_with_a_sentence() {
        let error = read(b"PK\x03\x04 and the rest").unwrap_err();
        assert!(
            error.to_string().starts_with("zip archives are not supported"),
            "{error}"
        );
    }
}
