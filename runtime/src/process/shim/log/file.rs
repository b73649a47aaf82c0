//! The file of a log, which is written to its end and rotated between two entries.
//!
//! Whoever follows it holds the file open it is in, reads that to its end, and finds the next by this order: the newest is called as the log
//! itself, the one before `.1`, and so on. There is no moment in which the log's own name is missing.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::syscall::{self, Cloned};

/// The file, and when it gives way to a new one.
pub(crate) struct LogFile {
    rules: crate::Log,
    file: File,
    /// Bytes in the file.
    size: u64,
    /// Entries that were made and are not written yet.
    text: Vec<u8>,
    /// The child that compresses what was rotated last.
    compressing: Option<OwnedFd>,
}

impl LogFile {
    pub fn open(rules: &crate::Log) -> io::Result<Self> {
        let file = open(&rules.path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            file,
            rules: rules.clone(),
            text: Vec::new(),
            compressing: None,
        })
    }

    pub fn descriptor(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }

    /// Adds an entry, made by `entry` of the attributes each one bears.
    pub fn append(&mut self, entry: impl FnOnce(&mut Vec<u8>, &str)) {
        if self.rules.max_bytes > 0 && self.size + self.text.len() as u64 >= self.rules.max_bytes {
            self.flush();
            // What can't be rotated (a full disk, say) grows on: to say nothing would be worse.
            if !self.is_compressing() && self.rotate().is_err() {
                self.reopen();
            }
        }
        entry(&mut self.text, &self.rules.attrs);
    }

    /// Writes what has been added. A full disk must not end the container: what can't be written is lost, but never half an entry kept.
    pub fn flush(&mut self) {
        if !self.text.is_empty() {
            match self.file.write_all(&self.text) {
                Ok(()) => self.size += self.text.len() as u64,
                Err(_) => {
                    let _ = self.file.set_len(self.size);
                }
            }
        }
        self.text.clear();
    }

    /// Gives back what was needed for entries: the escaped form can be six times as long as what was said.
    pub fn shrink(&mut self) {
        self.text.shrink_to(0);
    }

    fn rotate(&mut self) -> io::Result<()> {
        let path = self.rules.path.clone();
        let fresh = beside(&path, ".new");
        let _ = fs::remove_file(&fresh);
        let file = open(&fresh)?;
        if self.rules.files > 1 {
            for number in (1..self.rules.files).rev() {
                make_way(&path, number);
            }
            let first = numbered(&path, 1, "");
            // Not every file system has hard links.
            fs::hard_link(&path, &first).or_else(|_| fs::rename(&path, &first))?;
        }
        fs::rename(&fresh, &path)?;
        (self.file, self.size) = (file, 0);
        if self.rules.compress && self.rules.files > 1 {
            self.compress();
        }
        Ok(())
    }

    /// Goes on wherever the log's name leads, after a rotation that came half way.
    fn reopen(&mut self) {
        if let Ok(file) = open(&self.rules.path) {
            self.size = file.metadata().map_or(0, |status| status.len());
            self.file = file;
        }
    }

    fn is_compressing(&mut self) -> bool {
        let Some(child) = &self.compressing else { return false };
        let mut polled = libc::pollfd {
            fd: child.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, as said.
        let has_ended = unsafe { libc::poll(&mut polled, 1, 0) } != 0;
        if has_ended {
            self.compressing = None;
        }
        !has_ended
    }

    /// Compresses the newest rotated file, in a child: it takes time and memory. Should that fail, the file stays as it is.
    fn compress(&mut self) {
        // SAFETY: nothing in this binary starts a thread.
        match unsafe { syscall::clone3(0, libc::SIGCHLD, None) } {
            Ok(Cloned::Child) => {
                // The container's streams and the shim's socket must not stay open for us.
                // SAFETY: takes no pointers; nothing of what is closed is used again, as this process ends below.
                unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
                let code = i32::from(compress(&self.rules.path).is_err());
                // SAFETY: ends the fork without running what the shim registered for its own end.
                unsafe { libc::_exit(code) }
            }
            // Reaped by the shim's loop like every child nobody waits for.
            Ok(Cloned::Parent(pid)) => self.compressing = syscall::pidfd_open(pid).ok(),
            Err(_) => {}
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn numbered(path: &Path, number: u32, suffix: &str) -> PathBuf {
    beside(path, &format!(".{number}{suffix}"))
}

/// Empties the place with a number, by taking what is there one further. What is in the last place is gone by then.
fn make_way(path: &Path, number: u32) {
    for suffix in ["", ".gz"] {
        let _ = fs::remove_file(numbered(path, number, suffix));
        if number > 1 {
            let _ = fs::rename(numbered(path, number - 1, suffix), numbered(path, number, suffix));
        }
    }
}

/// Makes `.1.gz` of `.1`. The header keeps the inode of the file it was, so that who was reading there can go on with the one after it.
fn compress(path: &Path) -> io::Result<()> {
    let (plain, unfinished) = (numbered(path, 1, ""), numbered(path, 1, ".gz.new"));
    let mut from = File::open(&plain)?;
    let to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&unfinished)?;
    let header = flate2::GzBuilder::new().extra(from.metadata()?.ino().to_le_bytes());
    let mut to = header.write(to, flate2::Compression::fast());
    io::copy(&mut from, &mut to)?;
    to.finish()?;
    fs::rename(unfinished, numbered(path, 1, ".gz"))?;
    fs::remove_file(plain)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::{super::super::lines::Lines, super::Log, *};

    static NEXT: AtomicU32 = AtomicU32::new(0);

    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("sluice-rotation-{}-{number}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn log(&self) -> PathBuf {
            self.0.join("log")
        }

        fn rules(&self, max_bytes: u64, files: u32) -> crate::Log {
            crate::Log {
                path: self.log(),
                max_bytes,
                files,
                ..crate::Log::default()
            }
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort_unstable();
            names
        }

        /// The numbers said, oldest first.
        fn kept(&self, files: u32) -> Vec<u32> {
            let mut all = String::new();
            for number in (1..files).rev() {
                let (plain, compressed) = (numbered(&self.log(), number, ""), numbered(&self.log(), number, ".gz"));
                if let Ok(text) = fs::read_to_string(plain) {
                    all.push_str(&text);
                } else if let Ok(file) = File::open(compressed) {
                    flate2::read::GzDecoder::new(file).read_to_string(&mut all).unwrap();
                }
            }
            all.push_str(&fs::read_to_string(self.log()).unwrap());
            let number = |line: &str| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["log"].as_str().unwrap().trim().parse().unwrap()
            };
            all.lines().map(number).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn count(rules: &crate::Log, numbers: std::ops::Range<u32>) {
        let mut log = Log::open(rules).unwrap();
        let mut lines = Lines::of("stdout");
        for number in numbers {
            lines.take(&mut log, format!("{number}\n").as_bytes());
            while let Log::Here(file) = &mut log
                && rules.compress
                && file.is_compressing()
            {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn nothing_is_lost_nor_torn_by_rotation() {
        let place = Place::new();
        count(&place.rules(1000, 100), 0..500);
        assert!(place.names().len() > 20, "{:?}", place.names());
        assert_eq!(place.kept(100), (0..500).collect::<Vec<_>>());
        for name in place.names() {
            let length = fs::metadata(place.0.join(name)).unwrap().len();
            assert!(length < 1000 + 100, "{length}");
        }
    }

    #[test]
    fn only_so_many_files_are_kept_and_the_count_goes_on_in_the_next_life() {
        let place = Place::new();
        count(&place.rules(1000, 3), 0..300);
        count(&place.rules(1000, 3), 300..305);
        assert_eq!(place.names(), ["log", "log.1", "log.2"]);
        let kept = place.kept(3);
        assert_eq!(kept, (kept[0]..305).collect::<Vec<_>>());
        assert!(kept.len() > 20);
    }

    #[test]
    fn with_one_file_a_reader_of_the_old_one_can_still_read_its_end() {
        let place = Place::new();
        let rules = place.rules(200, 1);
        count(&rules, 0..1);
        let mut reader = File::open(place.log()).unwrap();
        count(&rules, 1..50);
        assert_eq!(place.names(), ["log"]);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("{\"log\":\"0\\n\"") && text.lines().count() > 2,
            "{text}"
        );
    }

    #[test]
    fn rotated_files_are_compressed_and_tell_which_file_they_were() {
        let place = Place::new();
        let mut rules = place.rules(1000, 4);
        rules.compress = true;
        count(&rules, 0..100);
        assert_eq!(place.names(), ["log", "log.1.gz", "log.2.gz", "log.3.gz"]);
        let kept = place.kept(4);
        assert_eq!(kept, (kept[0]..100).collect::<Vec<_>>());
        let file = File::open(place.0.join("log.1.gz")).unwrap();
        let reader = flate2::bufread::GzDecoder::new(io::BufReader::new(file));
        assert_eq!(reader.header().unwrap().extra().unwrap().len(), 8);
    }

    #[test]
    fn attributes_stand_in_every_line() {
        let place = Place::new();
        let mut rules = place.rules(0, 1);
        rules.attrs = "{\"tag\":\"x\"}".to_owned();
        count(&rules, 0..1);
        let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(place.log()).unwrap()).unwrap();
        assert_eq!(line["attrs"]["tag"], "x");
    }
}
