//! The files of a log: the one that is written to, and the older ones that rotation left (`.1` is the newest of them, `.2` the one before it; some are
//! compressed, with `.gz` behind). All of them may be renamed at any moment, so they are known by their inodes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::MultiGzDecoder;

/// How often we look again when files are renamed under our eyes. A rotation takes microseconds.
const TRIES: u32 = 200;
const BETWEEN_TRIES: Duration = Duration::from_millis(1);
/// How much is read at a time, bytes.
const CHUNK: usize = 64 * 1024;

/// A file of the log, open.
pub(super) struct Part {
    pub file: File,
    /// The inode that it had when it was written to.
    inode: u64,
    /// Unpacked by us: the inode is not held, and may be another file's by now.
    is_copy: bool,
}

/// A file of the log, as the directory shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    inode: u64,
    packed: bool,
}

/// What is after a part.
pub(super) enum Next {
    /// Nothing: it is the one that is written to.
    Nothing,
    /// This.
    Part(Part),
}

/// All parts, the oldest first; none when there is no log yet.
pub(super) fn open_all(log: &Path) -> io::Result<Vec<Part>> {
    settled(log, |seen| seen.iter().map(Seen::open).collect())
}

/// What follows a part that was read to its end. Is it gone, then the oldest there is.
pub(super) fn after(log: &Path, part: &Part) -> io::Result<Next> {
    settled(log, |seen| {
        let at = seen.iter().rposition(|seen| part.is(seen));
        match at {
            Some(at) if at + 1 == seen.len() => Ok(Next::Nothing),
            Some(at) => Ok(Next::Part(seen[at + 1].open()?)),
            None => match seen.first() {
                Some(oldest) => Ok(Next::Part(oldest.open()?)),
                None => Ok(Next::Nothing),
            },
        }
    })
}

/// Acts on the files as they are, which they must be still when it is done; else again.
fn settled<T>(log: &Path, act: impl Fn(&[Seen]) -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        let (seen, whole) = look(log)?;
        let done = act(&seen);
        tries += 1;
        if tries == TRIES || (whole && done.is_ok() && look(log)?.0 == seen) {
            return done;
        }
        std::thread::sleep(BETWEEN_TRIES);
    }
}

/// The files, the oldest first, and whether none is missing between them.
fn look(log: &Path) -> io::Result<(Vec<Seen>, bool)> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok((vec![], true));
    };
    let mut numbered: Vec<(u32, Seen)> = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok((vec![], true)),
        entries => entries?,
    };
    for entry in entries {
        let file = entry?.file_name();
        let Some(rest) = file.to_str().and_then(|file| file.strip_prefix(name)) else {
            continue;
        };
        let (number, packed) = rest.strip_suffix(".gz").map_or((rest, false), |number| (number, true));
        let number = match number.strip_prefix('.') {
            None if number.is_empty() && !packed => 0,
            Some(number) => match number.parse::<u32>() {
                Ok(number) if number > 0 => number,
                _ => continue,
            },
            _ => continue,
        };
        let path = directory.join(&file);
        // gone again: the second look tells
        if let Ok(inode) = if packed {
            inode_inside(&path)
        } else {
            path.metadata().map(|it| it.ino())
        } {
            numbered.push((number, Seen { path, inode, packed }));
        }
    }
    // of a file that is being packed both forms are there for an instant
    numbered.sort_by_key(|(number, seen)| (*number, seen.packed));
    numbered.dedup_by_key(|(number, _)| *number);
    let whole = numbered
        .iter()
        .enumerate()
        .all(|(at, (number, _))| *number as usize == at);
    Ok((numbered.into_iter().rev().map(|(_, seen)| seen).collect(), whole))
}

/// The inode of what was packed: the writer notes it in the gzip header's extra field, 8 bytes, little endian (RFC 1952).
fn inode_inside(path: &Path) -> io::Result<u64> {
    let mut header = [0; 20];
    File::open(path)?.read_exact(&mut header)?;
    match header {
        [0x1f, 0x8b, _, flags, _, _, _, _, _, _, 8, 0, inode @ ..] if flags & 4 != 0 => {
            Ok(inode.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)))
        }
        // not packed by us: nobody was ever reading it
        _ => Ok(0),
    }
}

impl Seen {
    fn open(&self) -> io::Result<Part> {
        let file = File::open(&self.path)?;
        let file = if self.packed { unpack(file, &self.path)? } else { file };
        if !self.packed && file.metadata()?.ino() != self.inode {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Part {
            file,
            inode: self.inode,
            is_copy: self.packed,
        })
    }
}

impl Part {
    fn is(&self, seen: &Seen) -> bool {
        seen.inode == self.inode && (seen.packed || !self.is_copy)
    }

    /// Goes to where its last `lines` lines begin; returns how many it has, at most that many.
    pub fn seek_tail(&mut self, lines: usize) -> io::Result<usize> {
        let end = self.file.seek(SeekFrom::End(0))?;
        if lines == 0 {
            return Ok(0);
        }
        let mut chunk = vec![0; CHUNK];
        let (mut position, mut found) = (end, 0);
        while position > 0 {
            let length = usize::try_from(position).unwrap_or(CHUNK).min(CHUNK);
            position -= length as u64;
            self.file.seek(SeekFrom::Start(position))?;
            self.file.read_exact(&mut chunk[..length])?;
            for at in (0..length).rev() {
                let place = position + at as u64;
                // the newline at the very end closes the last line, it does not begin another
                if chunk[at] == b'\n' && place + 1 < end {
                    found += 1;
                    if found == lines {
                        self.file.seek(SeekFrom::Start(place + 1))?;
                        return Ok(lines);
                    }
                }
            }
        }
        self.file.rewind()?;
        Ok(if end == 0 { 0 } else { found + 1 })
    }
}

/// Unpacks into a file without a name.
fn unpack(packed: File, path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap_or(path);
    let mut plain = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)?;
    io::copy(&mut MultiGzDecoder::new(packed), &mut plain)?;
    plain.rewind()?;
    Ok(plain)
}
