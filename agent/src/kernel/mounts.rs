//! What is mounted where: bpffs, cgroup2.

use std::{
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{FsType, statfs},
};

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS: FsType = FsType(0xcafe_4a11);
/// The source our own mount names, by which it is known again when it is time to tidy up.
const OUR_SOURCE: &str = "sluice";

/// Mounts bpffs at `directory` unless it is there.
pub fn ensure_bpffs(directory: &Path) -> io::Result<()> {
    if is_bpffs(directory) {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(OUR_SOURCE), directory, Some("bpf"), flags, Some("mode=0700"))?;
    Ok(())
}

/// Is bpffs mounted at this very directory (or above it)?
pub fn is_bpffs(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|status| status.filesystem_type() == BPFFS)
}

/// Takes the bpffs away that [`ensure_bpffs`] mounted, when nothing is pinned there any more.
pub fn remove_bpffs(directory: &Path) -> io::Result<()> {
    let ours = mounts()?
        .iter()
        .any(|mount| mount.kind == "bpf" && mount.source == OUR_SOURCE && mount.point == directory);
    if ours
        && !fs::read_dir(directory)?
            .flatten()
            .any(|entry| is_pinned_by_somebody(&entry.file_name()))
    {
        umount2(directory, MntFlags::empty())?;
    }
    Ok(())
}

/// The kernel itself puts `maps.debug` and `progs.debug` into every bpffs. (No other name there has a dot.)
fn is_pinned_by_somebody(name: &std::ffi::OsStr) -> bool {
    !name.as_encoded_bytes().contains(&b'.')
}

/// Where the cgroup2 hierarchy is mounted; of several mounts the one that shows most of it.
pub fn cgroup2() -> io::Result<PathBuf> {
    mounts()?
        .into_iter()
        .filter(|mount| mount.kind == "cgroup2")
        .min_by_key(|mount| mount.root.components().count())
        .map(|mount| mount.point)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no cgroup2 hierarchy is mounted (/proc/self/mountinfo)",
            )
        })
}

#[derive(PartialEq, Eq, Debug)]
struct Mount {
    root: PathBuf,
    point: PathBuf,
    kind: String,
    source: String,
}

fn mounts() -> io::Result<Vec<Mount>> {
    // That of the thread: in tests (and nowhere else) threads have mounts of their own.
    Ok(fs::read_to_string("/proc/thread-self/mountinfo")?
        .lines()
        .filter_map(parse)
        .collect())
}

/// A line of mountinfo, see proc(5): `36 35 98:0 /root /point options tag:… - type source options`.
fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(Mount {
        root: unescape(before.next()?),
        point: unescape(before.next()?),
        kind: after.next()?.to_owned(),
        source: after.next()?.to_owned(),
    })
}

/// Blanks, tabs, line feeds and backslashes are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
            .filter(|_| byte == b'\\')
        {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_and_without_optional_fields() {
        let plain = parse("36 25 0:31 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup rw").unwrap();
        assert_eq!(plain.point, Path::new("/sys/fs/cgroup/unified"));
        let tagged = parse("36 25 0:31 /rig/1 /mnt/a\\040b rw shared:4 master:1 - cgroup2 none rw").unwrap();
        assert_eq!(
            (tagged.root.as_path(), tagged.point.as_path()),
            (Path::new("/rig/1"), Path::new("/mnt/a b"))
        );
        assert_eq!((tagged.kind.as_str(), tagged.source.as_str()), ("cgroup2", "none"));
    }

    #[test]
    fn this_machine_has_a_cgroup2_hierarchy() {
        assert!(cgroup2().unwrap().join("cgroup.procs").exists());
    }
}
