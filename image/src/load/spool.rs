//! The files of an archive, put on disk under numbers.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use crate::{
    archive::{Archive, Kind},
    budget::{Budget, Limits},
    compression,
    error::ImageError,
    holes,
};

/// Files in one archive of images, at most: three for each layer and room to spare.
const MOST_FILES: u64 = 20_000;
/// The longest JSON document, bytes. The largest configurations in the wild have some hundred kilobytes.
const LONGEST_JSON: u64 = 8 << 20;
/// Links that lead to links, at most.
const LONGEST_CHAIN: usize = 16;

/// An archive whose files are at hand in any order.
pub(super) struct Spool {
    directory: PathBuf,
    files: HashMap<Vec<u8>, Spooled>,
}

enum Spooled {
    /// Number and length in bytes.
    File(u64, u64),
    /// The name it stands for.
    Link(Vec<u8>),
}

impl Spool {
    /// Puts the files of `archive` (gzip, zstd or plain) into `directory`.
    pub fn read(archive: &mut dyn Read, directory: &Path, limits: Limits) -> Result<Self, ImageError> {
        let (input, mut budget) = Budget::of(archive, limits);
        // several layers; where it ends early, the archive is truncated
        let longest = limits.stream.saturating_mul(4);
        let mut archive = Archive::new(compression::decompress(input)?.take(longest));
        let mut spool = Self {
            directory: directory.to_owned(),
            files: HashMap::new(),
        };
        let mut number = 0;
        while let Some(entry) = archive.next()? {
            number += 1;
            Limits {
                entries: MOST_FILES,
                ..limits
            }
            .check_entries(number)?;
            let name = clean(b"", &entry.name);
            match entry.kind {
                Kind::File => {
                    let path = spool.path(number);
                    let failed = |why: std::io::Error| ImageError::failed("cannot write", &path, why);
                    let file = File::create_new(&path).map_err(failed)?;
                    archive.copy(|offset, data| budget.spend(holes::write(&file, offset, data).map_err(failed)?))?;
                    file.set_len(entry.size).map_err(failed)?;
                    spool.files.insert(name, Spooled::File(number, entry.size));
                }
                Kind::HardLink(target) => _ = spool.files.insert(name, Spooled::Link(clean(b"", &target))),
                Kind::Symlink(target) => {
                    let target = clean(parent(&name), &target);
                    spool.files.insert(name, Spooled::Link(target));
                }
                _ => {} // directories; devices mean nothing here
            }
        }
        // a bad checksum or a cut behind the last entry is damage too
        let rest = std::io::copy(&mut archive.into_inner(), &mut std::io::sink());
        rest.map_err(|why| ImageError::reading(&why))?;
        Ok(spool)
    }

    /// The file of this name.
    pub fn open(&self, name: &[u8]) -> Result<File, ImageError> {
        match self.follow(name)? {
            Some((number, _)) => {
                let path = self.path(number);
                File::open(&path).map_err(|why| ImageError::failed("cannot open", &path, why))
            }
            None => {
                let name = String::from_utf8_lossy(name);
                Err(ImageError::BadArchive(format!(
                    "archive lacks {name:?}, which its manifest names"
                )))
            }
        }
    }

    /// A document, whole; `None` when there is none of this name.
    pub fn json(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some((number, size)) = self.follow(name.as_bytes())? else {
            return Ok(None);
        };
        if size > LONGEST_JSON {
            return Err(ImageError::BadArchive(format!(
                "{name:?} of the archive is longer than {LONGEST_JSON} bytes"
            )));
        }
        let path = self.path(number);
        fs::read(&path)
            .map(Some)
            .map_err(|why| ImageError::failed("cannot read", &path, why))
    }

    fn follow(&self, name: &[u8]) -> Result<Option<(u64, u64)>, ImageError> {
        let mut name = clean(b"", name);
        for _ in 0..LONGEST_CHAIN {
            match self.files.get(&name) {
                None => return Ok(None),
                Some(Spooled::File(number, size)) => return Ok(Some((*number, *size))),
                Some(Spooled::Link(target)) => name.clone_from(target),
            }
        }
        Err(ImageError::BadArchive("archive has links that lead in a circle".into()))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("file-{number}"))
    }
}

fn parent(name: &[u8]) -> &[u8] {
    name.iter()
        .rposition(|byte| *byte == b'/')
        .map_or(b"", |slash| &name[..slash])
}

/// `name`, seen from `base`, without `.`, `..` and slashes too many. It is only a key of a table: what leads out of the root ends at the root.
fn clean(base: &[u8], name: &[u8]) -> Vec<u8> {
    let base = if name.starts_with(b"/") { b"" } else { base };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in base.split(|byte| *byte == b'/').chain(name.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}
