//! The driver of volumes: a directory of ours, on which something else may be mounted while it is used.
//!
//! `<data-root>/volumes/<name>/_data` is what containers see. Beside it: `_filling` while what the image has there is being copied, `_filled` when that
//! is whole and waits to be moved in. A daemon that is killed leaves one of them, and the next one knows what to do.

use std::{
    collections::BTreeMap,
    fs, io,
    net::ToSocketAddrs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sluice_model::Volume;

use crate::{Config, EngineError, container::owners, error};

/// What a volume may be told.
const OPTIONS: [&str; 4] = ["type", "device", "o", "size"];

/// Refuses options that mean nothing, and those that need another.
pub(super) fn check(options: &BTreeMap<String, String>) -> Result<(), EngineError> {
    if let Some(unknown) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(EngineError::invalid(format!("invalid option: {unknown:?}")));
    }
    if options.contains_key("size") {
        return Err(EngineError::invalid("quota size requested but no quota support"));
    }
    for (given, needed) in [("o", "device"), ("device", "type"), ("type", "device")] {
        if options.contains_key(given) && !options.contains_key(needed) {
            return Err(EngineError::invalid(format!("missing required option: {needed:?}")));
        }
    }
    Ok(())
}

/// A volume's own directory.
pub(crate) fn directory(config: &Config, name: &str) -> PathBuf {
    config.volumes().join(name)
}

/// What containers see of it.
pub(crate) fn data(config: &Config, name: &str) -> PathBuf {
    data_in(&config.volumes(), name)
}

/// The same, where all volumes have their directories in `volumes`.
pub(crate) fn data_in(volumes: &Path, name: &str) -> PathBuf {
    volumes.join(name).join("_data")
}

/// Makes the directories. Fine when they are there.
pub(crate) fn make(config: &Config, name: &str) -> Result<(), EngineError> {
    // containers of any user come by on their way to the data, but nobody else looks around
    for (path, mode) in [
        (config.volumes(), 0o701),
        (directory(config, name), 0o701),
        (data(config, name), 0o755),
    ] {
        let made = fs::DirBuilder::new().mode(mode).create(&path);
        match made {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            other => {
                other.map_err(|why| error::io("make", &path, &why))?;
                if path.ends_with("_data") {
                    owners::give(config.id_map.as_ref(), &path)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes it with all that is in it; what is mounted on it is only unmounted. Fine when it is gone.
pub(crate) fn remove(directory: &Path) -> Result<(), EngineError> {
    unmount(&directory.join("_data"))?;
    // under a name that no volume has: what a killed daemon leaves is not taken for one
    let mut name = std::ffi::OsString::from(".");
    name.push(directory.file_name().unwrap_or_default());
    let away = directory.with_file_name(name);
    match fs::rename(directory, &away) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(|why| error::io("remove", directory, &why))?,
    }
    Ok(sluice_image::remove_tree(&away)?)
}

/// Directories that no record is of: empty ones and half-removed ones go, the others hold somebody's data and are told.
pub(super) fn strays(config: &Config, is_known: impl Fn(&str) -> bool) -> Result<Vec<String>, EngineError> {
    let mut strays = Vec::new();
    for entry in fs::read_dir(config.volumes()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            sluice_image::remove_tree(&entry.path())?;
        } else if !is_known(&name) && sluice_model::volume::is_valid_name(&name) {
            recover(&entry.path())?;
            match is_empty(&data(config, &name)) {
                Ok(false) => strays.push(name),
                _ => remove(&entry.path())?,
            }
        }
    }
    Ok(strays)
}

/// Mounts what the options say. Fine when that is done.
pub(super) fn mount_options(config: &Config, volume: &Volume) -> Result<(), EngineError> {
    let target = data(config, &volume.name);
    if is_mounted(&target)? {
        return Ok(());
    }
    let option = |name: &str| volume.options.get(name).map(String::as_str).unwrap_or_default();
    let (device, kind) = (option("device"), option("type"));
    let (flags, data) = parse(&resolve_address(kind, option("o"))?);
    let failed = |why: nix::Error| {
        EngineError::failed(format!(
            "error while mounting volume '{0}': failed to mount local volume: mount {device}:{0}, flags: {1:#x}{2}: {3}",
            target.display(),
            flags.bits(),
            if data.is_empty() {
                String::new()
            } else {
                format!(", data: {data}")
            },
            why.desc().to_lowercase()
        ))
    };
    mount(Some(device), &target, Some(kind), flags, Some(data.as_str())).map_err(failed)?;
    // the kernel ignores further flags when it makes a bind: they are a second step
    let more = flags & (MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    if flags.contains(MsFlags::MS_BIND) && !more.is_empty() {
        let again = more | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        let remounted = mount(None::<&str>, &target, None::<&str>, again, None::<&str>).map_err(failed);
        if remounted.is_err() {
            unmount(&target)?;
        }
        remounted?;
    }
    Ok(())
}

/// Takes away what is mounted on a volume's data. Fine when nothing is.
pub(crate) fn unmount(target: &Path) -> Result<(), EngineError> {
    loop {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => return Ok(()),
            // somebody of the host stands in it: out of sight now, gone when he goes
            Err(nix::Error::EBUSY) => {
                umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
                    .map_err(|why| error::io("unmount", target, &why.into()))?;
            }
            Err(why) => return Err(error::io("unmount", target, &why.into())),
        }
    }
}

/// Is something mounted on it? A bind of the same file system has the same device, so the kernel's own list is asked.
fn is_mounted(target: &Path) -> Result<bool, EngineError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(|why| error::io("read", table, &why))?;
    let target = target.to_string_lossy();
    Ok(text
        .lines()
        .any(|line| line.split(' ').nth(4).map(unescape).as_deref() == Some(&*target)))
}

/// The kernel writes blanks and backslashes in octal.
pub(crate) fn unescape(field: &str) -> String {
    let mut text = field.to_owned();
    for (escaped, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(escaped, plain);
    }
    text
}

/// `addr=` of NFS takes no names: the kernel asks nobody.
fn resolve_address(kind: &str, options: &str) -> Result<String, EngineError> {
    if !matches!(kind, "nfs" | "nfs4" | "cifs") {
        return Ok(options.to_owned());
    }
    let mut resolved = Vec::new();
    for option in options.split(',') {
        match option.strip_prefix("addr=") {
            Some(name) if name.parse::<std::net::IpAddr>().is_err() => {
                let address = (name, 0)
                    .to_socket_addrs()
                    .ok()
                    .and_then(|mut all| all.next())
                    .ok_or_else(|| {
                        EngineError::failed(format!("error resolving passed in network volume address {name:?}"))
                    })?;
                resolved.push(format!("addr={}", address.ip()));
            }
            _ => resolved.push(option.to_owned()),
        }
    }
    Ok(resolved.join(","))
}

/// `o=` as mount(2) takes it: flags, and what only the file system understands.
fn parse(options: &str) -> (MsFlags, String) {
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (flag, set) = match option {
            "defaults" | "rw" => (MsFlags::MS_RDONLY, false),
            "ro" => (MsFlags::MS_RDONLY, true),
            "bind" => (MsFlags::MS_BIND, true),
            "rbind" => (MsFlags::MS_BIND | MsFlags::MS_REC, true),
            "nosuid" => (MsFlags::MS_NOSUID, true),
            "suid" => (MsFlags::MS_NOSUID, false),
            "nodev" => (MsFlags::MS_NODEV, true),
            "dev" => (MsFlags::MS_NODEV, false),
            "noexec" => (MsFlags::MS_NOEXEC, true),
            "exec" => (MsFlags::MS_NOEXEC, false),
            "sync" => (MsFlags::MS_SYNCHRONOUS, true),
            "async" => (MsFlags::MS_SYNCHRONOUS, false),
            "dirsync" => (MsFlags::MS_DIRSYNC, true),
            "noatime" => (MsFlags::MS_NOATIME, true),
            "atime" => (MsFlags::MS_NOATIME, false),
            "nodiratime" => (MsFlags::MS_NODIRATIME, true),
            "relatime" => (MsFlags::MS_RELATIME, true),
            "strictatime" => (MsFlags::MS_STRICTATIME, true),
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, set);
    }
    (flags, data.join(","))
}

/// What an earlier daemon left half done in a volume's directory is finished or undone.
pub(crate) fn recover(directory: &Path) -> Result<(), EngineError> {
    sluice_image::remove_tree(&directory.join("_filling"))?;
    let filled = directory.join("_filled");
    if filled.symlink_metadata().is_ok() {
        move_in(&filled, &directory.join("_data"))?;
    }
    Ok(())
}

/// Moves all that is in `filled` to `data`, with the attributes of the directory itself, and removes `filled`. Can be begun again.
pub(super) fn move_in(filled: &Path, data: &Path) -> Result<(), EngineError> {
    let failed = |why: io::Error| error::io("fill", data, &why);
    let entries = fs::read_dir(filled).map_err(failed)?;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        fs::rename(entry.path(), data.join(entry.file_name())).map_err(failed)?;
    }
    let (from, to) = (
        fs::File::open(filled).map_err(failed)?,
        fs::File::open(data).map_err(failed)?,
    );
    sluice_image::files::copy_attributes(std::os::fd::AsFd::as_fd(&from), std::os::fd::AsFd::as_fd(&to))?;
    fs::remove_dir(filled).map_err(failed)
}

/// Is nothing in it?
pub(super) fn is_empty(directory: &Path) -> Result<bool, EngineError> {
    let failed = |why: io::Error| error::io("read", directory, &why);
    Ok(fs::read_dir(directory).map_err(failed)?.next().is_none())
}

/// Are both on one file system, so that a rename is enough?
pub(super) fn is_same_file_system(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.symlink_metadata().map(|metadata| metadata.dev()).ok();
    device(one).is_some_and(|one| device(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        let refusal = |pairs: &[(&str, &str)]| check(&options(pairs)).unwrap_err().message;
        assert_eq!(refusal(&[("foo", "bar")]), "invalid option: \"foo\"");
        assert_eq!(refusal(&[("type", "tmpfs")]), "missing required option: \"device\"");
        assert_eq!(refusal(&[("device", "x")]), "missing required option: \"type\"");
        assert_eq!(refusal(&[("o", "bind")]), "missing required option: \"device\"");
        assert_eq!(refusal(&[("size", "1m")]), "quota size requested but no quota support");
        assert!(check(&options(&[("type", "none"), ("device", "/x"), ("o", "bind")])).is_ok());
    }

    #[test]
    fn words_become_flags_and_the_rest_is_the_file_systems() {
        assert_eq!(
            parse("bind,ro,uid=1000,nosuid,suid"),
            (MsFlags::MS_BIND | MsFlags::MS_RDONLY, "uid=1000".to_owned())
        );
        assert_eq!(parse(""), (MsFlags::empty(), String::new()));
    }

    #[test]
    fn an_address_of_numbers_is_left_alone() {
        assert_eq!(resolve_address("nfs", "addr=10.0.0.1,rw").unwrap(), "addr=10.0.0.1,rw");
        assert_eq!(resolve_address("tmpfs", "addr=nobody").unwrap(), "addr=nobody");
    }
}
