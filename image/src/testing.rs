//! What the tests share: directories that go away, and archives built by hand.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// A directory of one test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // in memory where there is such a place: the store makes every image durable, and a busy disk takes seconds for that
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let path = parent.join(format!("sluice-image-{process}-{number}-{name}"));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = crate::remove_tree(&self.0);
    }
}

/// A tar archive under construction; takes also what no honest program writes.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(name, b'0', "", data.as_ref(), |_| ())
    }

    pub fn directory(self, name: &str) -> Self {
        self.entry(name, b'5', "", b"", |header| header.set_mode(0o755))
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', target, b"", |_| ())
    }

    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', target, b"", |_| ())
    }

    /// A pax header for the entry that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend(
                format!("{length} {key}=")
                    .bytes()
                    .chain(value.iter().copied())
                    .chain([b'\n']),
            );
        }
        self.entry("pax", b'x', "", &data, |_| ())
    }

    pub fn entry(
        mut self,
        name: &str,
        kind: u8,
        link: &str,
        data: &[u8],
        adjust: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        adjust(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// One gzip member.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
