//! SHA-256 digests: their written form, and hashing a stream on a thread beside the one that uses it.

use std::{
    fmt,
    io::{self, Read},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use sha2::{Digest as _, Sha256};

use crate::error::ImageError;

/// Bytes read and hashed at a time: large enough that handing a chunk over costs nothing beside hashing it.
const CHUNK: usize = 256 * 1024;
/// Chunks on their way to the hashing thread; bounds the memory of a stream to about a megabyte.
const IN_FLIGHT: usize = 4;

/// `sha256:<64 lower-case hex digits>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest(String);

impl Digest {
    /// Reads `sha256:<hex>`; anything else is refused, so that a digest is always safe as a file name.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ImageError::Invalid(format!("invalid digest: {text:?}")))
        }
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::finished(Sha256::new_with_prefix(bytes))
    }

    /// The 64 digits.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// With the algorithm before it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn finished(hash: Sha256) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash.finalize() {
            let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
        }
        Self(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The digest of a stack of layers, as OCI defines a chain id.
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The thread, and the way to it.
struct Hasher {
    chunks: SyncSender<Arc<Vec<u8>>>,
    thread: JoinHandle<Sha256>,
}

/// Hashes what is read through it, on a thread of its own.
pub(crate) struct DigestReader<R> {
    inner: R,
    chunk: Arc<Vec<u8>>,
    position: usize,
    hasher: Option<Hasher>,
    read: u64,
    limit: u64,
}

impl<R: Read> DigestReader<R> {
    /// More than `limit` bytes are an error: what expands without end (a deflate bomb) ends here.
    pub fn new(inner: R, limit: u64) -> io::Result<Self> {
        let (chunks, receiver) = sync_channel::<Arc<Vec<u8>>>(IN_FLIGHT);
        let thread = std::thread::Builder::new().name("layer-digest".into()).spawn(move || {
            let mut hash = Sha256::new();
            for chunk in receiver {
                hash.update(chunk.as_slice());
            }
            hash
        })?;
        Ok(Self {
            inner,
            chunk: Arc::default(),
            position: 0,
            hasher: Some(Hasher { chunks, thread }),
            read: 0,
            limit,
        })
    }

    /// Reads what is left, and tells the digest and length in bytes of the whole stream.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        while self.fill()? {}
        let Some(Hasher { chunks, thread }) = self.hasher.take() else {
            return Err(io::Error::other("stream was finished before"));
        };
        drop(chunks);
        let hash = thread.join().map_err(|_| io::Error::other("hashing thread died"))?;
        Ok((Digest::finished(hash), self.read))
    }

    /// Takes the next chunk; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = Vec::with_capacity(CHUNK);
        (&mut self.inner).take(CHUNK as u64).read_to_end(&mut chunk)?;
        self.read += chunk.len() as u64;
        if self.read > self.limit {
            return Err(io::Error::other(format!(
                "unpacks to more than the limit of {} bytes",
                self.limit
            )));
        }
        self.chunk = Arc::new(chunk);
        self.position = 0;
        if self.chunk.is_empty() {
            return Ok(false);
        }
        if let Some(hasher) = &self.hasher {
            hasher
                .chunks
                .send(Arc::clone(&self.chunk))
                .map_err(|_| io::Error::other("hashing thread died"))?;
        }
        Ok(true)
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() && !self.fill()? {
            return Ok(0);
        }
        let rest = &self.chunk[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

/// Hashes what is written through it.
pub(crate) struct DigestWriter<W> {
    inner: W,
    hash: Sha256,
}

impl<W: io::Write> DigestWriter<W> {
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    /// The digest of all that was written.
    pub fn finish(self) -> Digest {
        Digest::finished(self.hash)
    }
}

impl<W: io::Write> io::Write for DigestWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_a_stream_covers_also_what_nobody_read() {
        let bytes: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
        let mut reader = DigestReader::new(bytes.as_slice(), u64::MAX).unwrap();
        reader.read_exact(&mut [0; 10]).unwrap();
        assert_eq!(reader.finish().unwrap(), (Digest::of(&bytes), 1_000_000));
    }

    #[test]
    fn an_empty_stream_has_the_well_known_digest() {
        assert_eq!(
            DigestReader::new(io::empty(), 0).unwrap().finish().unwrap().0.as_str(),
            EMPTY
        );
    }

    #[test]
    fn a_stream_over_its_limit_is_an_error() {
        let error = DigestReader::new(io::repeat(0), 1 << 20).unwrap().finish().unwrap_err();
        assert!(error.to_string().contains("limit of 1048576 bytes"), "{error}");
    }

    #[test]
    fn only_lower_case_sha256_is_a_digest() {
        assert!(Digest::parse(EMPTY).is_ok());
        for wrong in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            &EMPTY.to_uppercase(),
            &EMPTY[..70],
            "sha512:00",
        ] {
            assert!(Digest::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_chain_of_one_layer_is_its_diff_id() {
        let layer = Digest::parse(EMPTY).unwrap();
        let chain = chain_ids(&[layer.clone(), layer.clone()]);
        assert_eq!(chain[0], layer);
        assert_eq!(chain[1], Digest::of(format!("{EMPTY} {EMPTY}").as_bytes()));
    }
}
