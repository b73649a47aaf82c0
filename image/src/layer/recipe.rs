//! How a layer's archive is made again, byte for byte, from its unpacked tree: what `docker save` and a push send must have the digest it came with.
//!
//! While a layer is unpacked, everything of the stream that is not the content of a file is recorded as it came (headers, padding, oddities of
//! whoever wrote it), and of each file where its content went. That is some hundred bytes an entry before compression.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    rc::Rc,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

use crate::{archive::Segment, digest::Digest, digest::DigestWriter, error::ImageError};

/// The file beside a layer's tree.
const FILE: &str = "archive.zst";
/// Where what later entries replaced is kept.
pub(super) const REPLACED: &str = "replaced";
/// Recorded bytes that are written at a time.
const PIECE: usize = 64 * 1024;
/// The longest piece or path of a record, bytes.
const LONGEST: u32 = 1 << 20;

const RAW: u8 = b'R';
const CONTENT: u8 = b'F';
const MOVED: u8 = b'M';

/// A recipe being written.
pub(super) struct Recording {
    out: zstd::stream::write::Encoder<'static, File>,
    raw: Vec<u8>,
    /// Content of a file is passing, which is not recorded.
    muted: bool,
    trouble: Option<io::Error>,
    length: u64,
}

/// A recipe in several hands: the stream that is recorded, and who knows what is a file's content.
pub(super) type Shared = Rc<RefCell<Recording>>;

impl Recording {
    /// Begins one in a layer's directory.
    pub fn begin(layer: &Path) -> Result<Shared, ImageError> {
        let path = layer.join(FILE);
        let failed = |why: io::Error| ImageError::failed("cannot write", &path, why);
        let file = File::create(&path).map_err(failed)?;
        Ok(Rc::new(RefCell::new(Self {
            out: zstd::stream::write::Encoder::new(file, 1).map_err(failed)?,
            raw: Vec::new(),
            muted: false,
            trouble: None,
            length: 0,
        })))
    }

    /// The content of the file at `path` follows, in these pieces of it.
    pub fn content(&mut self, path: &[u8], segments: &[Segment]) {
        self.flush();
        let mut record = vec![CONTENT];
        put_text(&mut record, path);
        record.extend_from_slice(&(segments.len() as u32).to_le_bytes());
        for Segment { offset, length } in segments {
            record.extend_from_slice(&offset.to_le_bytes());
            record.extend_from_slice(&length.to_le_bytes());
        }
        self.write(&record);
        self.muted = true;
    }

    /// The content is over.
    pub fn content_ends(&mut self) {
        self.muted = false;
    }

    /// What was at `path` is kept under a number from now on.
    pub fn moved(&mut self, path: &[u8], number: u64) {
        self.flush();
        let mut record = vec![MOVED];
        put_text(&mut record, path);
        record.extend_from_slice(&number.to_le_bytes());
        self.write(&record);
    }

    /// The end; tells the length of the archive in bytes.
    pub fn finish(shared: Shared) -> Result<u64, ImageError> {
        let failed =
            |why: io::Error| ImageError::Failed(format!("cannot write the record of a layer's archive: {why}"));
        let recording = Rc::into_inner(shared).ok_or_else(|| failed(io::ErrorKind::ResourceBusy.into()))?;
        let mut recording = recording.into_inner();
        recording.flush();
        if let Some(why) = recording.trouble {
            return Err(failed(why));
        }
        recording.out.finish().map_err(failed)?;
        Ok(recording.length)
    }

    fn see(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.muted {
            self.raw.extend_from_slice(bytes);
            if self.raw.len() >= PIECE {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        for piece in std::mem::take(&mut self.raw).chunks(LONGEST as usize) {
            let mut record = vec![RAW];
            put_text(&mut record, piece);
            self.write(&record);
        }
    }

    fn write(&mut self, record: &[u8]) {
        if self.trouble.is_none() {
            self.trouble = self.out.write_all(record).err();
        }
    }
}

fn put_text(record: &mut Vec<u8>, text: &[u8]) {
    record.extend_from_slice(&(text.len() as u32).to_le_bytes());
    record.extend_from_slice(text);
}

/// Records what is read through it.
pub(super) struct Recorded<R> {
    pub inner: R,
    pub recording: Option<Shared>,
}

impl<R: Read> Read for Recorded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some(recording) = &self.recording {
            recording.borrow_mut().see(&buffer[..count]);
        }
        Ok(count)
    }
}

/// A step of a recipe.
enum Step {
    Raw(Vec<u8>),
    Content(Vec<u8>, Vec<Segment>),
    Moved(Vec<u8>, u64),
}

/// Writes the archive of the layer in `directory`, whose digest has to be `diff_id`.
pub(crate) fn write_archive(directory: &Path, diff_id: &Digest, out: &mut dyn Write) -> Result<(), ImageError> {
    let moves = moves(directory)?;
    let trees = Trees {
        files: open(&directory.join("fs"))?,
        replaced: open(&directory.join(REPLACED)).ok(),
    };
    let mut out = DigestWriter::new(out);
    let failed = |why: io::Error| ImageError::Failed(format!("cannot write the archive of layer {diff_id}: {why}"));
    let mut steps = Steps::open(directory)?;
    let mut number = 0;
    while let Some(step) = steps.next()? {
        match step {
            Step::Raw(bytes) => out.write_all(&bytes).map_err(failed)?,
            Step::Content(path, segments) => trees.copy(&path, &segments, &moves, number, &mut out).map_err(failed)?,
            Step::Moved(..) => {}
        }
        number += 1;
    }
    let found = out.finish();
    match found == *diff_id {
        true => Ok(()),
        false => Err(ImageError::Failed(format!(
            "layer {diff_id} has changed on this disk: its archive would be {found}"
        ))),
    }
}

/// What was moved away: at which step, from where, under which number.
fn moves(directory: &Path) -> Result<Vec<(u64, Vec<u8>, u64)>, ImageError> {
    let (mut moves, mut number) = (Vec::new(), 0);
    let mut steps = Steps::open(directory)?;
    while let Some(step) = steps.next()? {
        if let Step::Moved(path, place) = step {
            moves.push((number, path, place));
        }
        number += 1;
    }
    Ok(moves)
}

struct Trees {
    files: OwnedFd,
    replaced: Option<OwnedFd>,
}

impl Trees {
    fn copy(
        &self,
        path: &[u8],
        segments: &[Segment],
        moves: &[(u64, Vec<u8>, u64)],
        step: u64,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let is_below = |from: &[u8]| {
            path.strip_prefix(from)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        let moved = moves.iter().find(|(later, from, _)| *later > step && is_below(from));
        let file = match (moved, &self.replaced) {
            (Some((_, from, place)), Some(replaced)) => {
                let rest = &path[from.len()..];
                open_file(replaced, &[place.to_string().as_bytes(), rest].concat())?
            }
            _ => open_file(&self.files, path)?,
        };
        let mut buffer = vec![0; 128 * 1024];
        for Segment { mut offset, mut length } in segments.iter().copied() {
            while length > 0 {
                let want = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
                file.read_exact_at(&mut buffer[..want], offset)?;
                out.write_all(&buffer[..want])?;
                offset += want as u64;
                length -= want as u64;
            }
        }
        Ok(())
    }
}

fn open_file(root: &OwnedFd, path: &[u8]) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV);
    for _ in 0..1000 {
        match openat2(root.as_fd(), path, how) {
            Err(Errno::EAGAIN) => {}
            other => return Ok(File::from(other?)),
        }
    }
    Err(Errno::EAGAIN.into())
}

fn open(path: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::open(path, flags, Mode::empty());
    fd.map_err(|why| ImageError::failed("cannot open", path, why.desc()))
}

/// The steps of a recipe, one after the other.
struct Steps(BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>);

impl Steps {
    fn open(directory: &Path) -> Result<Self, ImageError> {
        let path = directory.join(FILE);
        let file = File::open(&path).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound => ImageError::Failed(
                "a layer was unpacked by an earlier version, which kept no record of its archive: load its image again"
                    .into(),
            ),
            _ => ImageError::failed("cannot open", &path, why),
        })?;
        let decoder = zstd::stream::read::Decoder::new(file);
        let decoder = decoder.map_err(|why| ImageError::failed("cannot read", &path, why))?;
        Ok(Self(BufReader::with_capacity(64 * 1024, decoder)))
    }

    fn next(&mut self) -> Result<Option<Step>, ImageError> {
        let read = self.read();
        read.map_err(|why| ImageError::Failed(format!("cannot read the record of a layer's archive: {why}")))
    }

    fn read(&mut self) -> io::Result<Option<Step>> {
        let mut kind = [0];
        if self.0.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let text = self.text()?;
        Ok(Some(match kind[0] {
            RAW => Step::Raw(text),
            MOVED => Step::Moved(text, self.number()?),
            CONTENT => {
                let count = self.short()?;
                let mut segments = Vec::new();
                for _ in 0..count {
                    segments.push(Segment {
                        offset: self.number()?,
                        length: self.number()?,
                    });
                }
                Step::Content(text, segments)
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }))
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        let length = self.short()?;
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut text = vec![0; length as usize];
        self.0.read_exact(&mut text)?;
        Ok(text)
    }

    fn short(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.0.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}
