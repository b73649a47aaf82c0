//! The file system of a container: the layers of its image below a writable one.
//!
//! Which layers it stands on is written down once, when it is made. From then on the container needs the layers, not the image: Docker lets an image
//! be removed by force under a stopped container, and that container must still start.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
};
use serde::{Deserialize, Serialize};

use crate::{
    Images, atomic,
    digest::Digest,
    error::ImageError,
    layer::{self, Change, remove_tree},
    overlay::{self, Overlay},
    owners::Owners,
};

/// How often a busy mount is tried again, and how long is waited in between.
const TRIES: u32 = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// A container's file system: the image's layers below a writable one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it is mounted (`<data-root>/…/merged`).
    pub merged: PathBuf,
    /// The writable layer.
    pub upper: PathBuf,
}

/// What becomes of a container's writes when the machine fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writes {
    /// What the container syncs is on disk, and all of it once the snapshot is unmounted.
    Lasting,
    /// Nobody will miss them: the container goes with its end, and that of the machine is its end too. So nothing is ever synced, which makes unmounting cheap: else
    /// it writes out the host's whole file system.
    Passing,
}

/// What a snapshot stands on, as it is written.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Where its directories are.
    directory: PathBuf,
    /// Diff ids, lowest first.
    layers: Vec<String>,
    /// Whose its files are on the host; none: whose they are in the container.
    #[serde(default)]
    owners: Option<Owners>,
}

impl Images {
    /// Makes the writable layer of a container under `dir`, for a container whose files have these owners on the host. No mount yet.
    pub fn prepare(&self, image: &str, dir: &Path, owners: Option<&Owners>) -> Result<Snapshot, ImageError> {
        let state = self.state();
        let id = state.find(image)?;
        let Some(image) = state.images.get(&id) else {
            return Err(ImageError::NotFound(image.into()));
        };
        let snapshot = Snapshot {
            merged: dir.join("merged"),
            upper: dir.join("upper"),
        };
        for directory in [dir, &snapshot.merged, &snapshot.upper, &dir.join("work")] {
            fs::create_dir_all(directory).map_err(|why| ImageError::failed("cannot make", directory, why))?;
        }
        // `/` of the container has the attributes of the writable layer: those of the topmost layer that says
        let root = image
            .diff_ids
            .iter()
            .rev()
            .filter_map(|layer| state.layers.get(layer))
            .find_map(|layer| layer.root);
        let (mode, uid, gid) = root.unwrap_or((0o755, 0, 0));
        let (uid, gid) = owners.map_or(Ok((uid, gid)), |owners| owners.on_host(uid, gid))?;
        chown(&snapshot.upper, Some(uid), Some(gid))
            .and_then(|()| fs::set_permissions(&snapshot.upper, fs::Permissions::from_mode(mode)))
            .map_err(|why| ImageError::failed("cannot set attributes of", &snapshot.upper, why))?;
        let record = Record {
            directory: dir.to_owned(),
            layers: image.diff_ids.iter().map(Digest::to_string).collect(),
            owners: owners.cloned(),
        };
        // still under the lock: no sweep comes between finding the layers and writing that they are used
        let text =
            serde_json::to_vec(&record).map_err(|why| ImageError::failed("cannot write snapshot of", dir, why))?;
        // not synced, as the writable layer is not: what a failure of the machine takes away is made again from the image when it is mounted
        atomic::write_soon(&self.snapshots(), &name(dir), &text)?;
        Ok(snapshot)
    }

    /// Mounts it (overlayfs, up to 500 layers). Fine when mounted already. One that was mounted for passing writes is so every time. Where the container's
    /// files have other `owners` on the host, `namespace` makes a user namespace that says which.
    pub fn mount(
        &self,
        image: &str,
        dir: &Path,
        writes: Writes,
        owners: Option<&Owners>,
        namespace: impl FnOnce(&Owners) -> io::Result<OwnedFd>,
    ) -> Result<Snapshot, ImageError> {
        let snapshot = Snapshot {
            merged: dir.join("merged"),
            upper: dir.join("upper"),
        };
        let record = match read(&self.snapshots().join(name(dir)))? {
            Some(record) => record,
            None => {
                self.prepare(image, dir, owners)?;
                read(&self.snapshots().join(name(dir)))?
                    .ok_or_else(|| ImageError::failed("cannot mount", dir, "its snapshot record is gone"))?
            }
        };
        if is_mounted(&snapshot.merged, dir)? {
            return Ok(snapshot);
        }
        let lower = self.lower(&record)?;
        let passing = writes == Writes::Passing;
        if passing {
            // there the kernel leaves a note that a layer may lack what was written before a crash, and refuses to mount it again: here nothing is lacked
            remove_tree(&dir.join("work/work"))?;
        }
        let overlay = Overlay {
            lower: &lower,
            upper: &snapshot.upper,
            work: &dir.join("work"),
            passing,
        };
        match &record.owners {
            None => overlay::mount(&overlay, &snapshot.merged)?,
            Some(owners) => {
                let namespace = namespace(owners).map_err(|why| {
                    ImageError::failed("cannot make a user namespace to mount", &snapshot.merged, why)
                })?;
                overlay::mount_idmapped(&overlay, &self.root, &namespace, &snapshot.merged)?;
            }
        }
        Ok(snapshot)
    }

    /// Unmounts it. Fine when not mounted.
    pub fn unmount(&self, dir: &Path) -> Result<(), ImageError> {
        let merged = dir.join("merged");
        let mut tries = 0;
        loop {
            let flags = match tries < TRIES {
                true => MntFlags::UMOUNT_NOFOLLOW,
                // somebody stands in it and does not leave: out of sight now, gone when they go
                false => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
            };
            match umount2(&merged, flags) {
                Ok(()) => {} // maybe there is another below
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
                Err(Errno::EBUSY) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(why) => return Err(ImageError::failed("cannot unmount", &merged, why.desc())),
            }
        }
    }

    /// Unmounts it and removes it with everything that was written in it. Fine when it is gone.
    pub fn discard(&self, dir: &Path) -> Result<(), ImageError> {
        self.unmount(dir)?;
        for part in ["merged", "upper", "work"] {
            remove_tree(&dir.join(part))?;
        }
        self.forget(dir)
    }

    /// Forgets what it stands on, so that its layers can go; what was written in it stays, and is of no use any more.
    pub fn forget(&self, dir: &Path) -> Result<(), ImageError> {
        let record = self.snapshots().join(name(dir));
        match fs::remove_file(&record) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(ImageError::failed("cannot remove", &record, why)),
            _ => Ok(()),
        }
    }

    /// What was changed in the writable layer of `dir`; empty places of `scaffold`, which were made for mounts, do not count.
    pub fn changes(&self, dir: &Path, scaffold: &[&str]) -> Result<Vec<Change>, ImageError> {
        let record = self.record_of(dir)?;
        layer::changes(
            &dir.join("upper"),
            &self.lower(&record)?,
            scaffold,
            record.owners.as_ref(),
        )
    }

    /// The directories below a container's writable layer, topmost first.
    pub fn below(&self, dir: &Path) -> Result<Vec<PathBuf>, ImageError> {
        self.lower(&self.record_of(dir)?)
    }

    /// The layers a container stands on, lowest first.
    pub(crate) fn layers_of(&self, dir: &Path) -> Result<Vec<Digest>, ImageError> {
        let record = self.record_of(dir)?;
        record.layers.iter().map(|layer| Digest::parse(layer)).collect()
    }

    /// Whose the files of a container are on the host; none: whose they are in it.
    pub(crate) fn owners_of(&self, dir: &Path) -> Result<Option<Owners>, ImageError> {
        Ok(self.record_of(dir)?.owners)
    }

    fn record_of(&self, dir: &Path) -> Result<Record, ImageError> {
        read(&self.snapshots().join(name(dir)))?
            .ok_or_else(|| ImageError::failed("cannot look at", dir, "its snapshot record is gone"))
    }

    /// The directories below the writable layer, topmost first.
    fn lower(&self, record: &Record) -> Result<Vec<PathBuf>, ImageError> {
        let state = self.state();
        let (mut lower, mut seen) = (Vec::new(), BTreeSet::new());
        for layer in record.layers.iter().rev() {
            let layer = Digest::parse(layer)?;
            if state.layers.get(&layer).is_none() {
                return Err(ImageError::failed(
                    "cannot mount",
                    &record.directory,
                    format!("layer {layer} is gone"),
                ));
            }
            // overlayfs takes a directory only once. A layer that comes again higher up says there all it said below, so once is enough.
            if seen.insert(layer.clone()) {
                lower.push(state.layers.path(&layer));
            }
        }
        if lower.is_empty() {
            lower.push(self.root.join("empty"));
        }
        Ok(lower)
    }

    fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }
}

/// The layers that containers stand on. A record whose directory is gone is forgotten.
pub(crate) fn layers_in_use(snapshots: &Path) -> Result<BTreeSet<Digest>, ImageError> {
    let mut used = BTreeSet::new();
    let failed = |why: io::Error| ImageError::failed("cannot read", snapshots, why);
    for entry in fs::read_dir(snapshots).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(record) = read(&path)? else { continue };
        match record.directory.join("upper").symlink_metadata() {
            Err(why) if why.kind() == io::ErrorKind::NotFound => _ = fs::remove_file(&path),
            _ => used.extend(record.layers.iter().filter_map(|layer| Digest::parse(layer).ok())),
        }
    }
    Ok(used)
}

/// None: there is none, or a failure of the machine cut it short.
fn read(path: &Path) -> Result<Option<Record>, ImageError> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(ImageError::failed("cannot read", path, why)),
    }
}

/// A record's file name: directories have names of any length and with slashes.
fn name(directory: &Path) -> String {
    Digest::of(directory.as_os_str().as_encoded_bytes()).hex().to_owned()
}

fn is_mounted(merged: &Path, parent: &Path) -> Result<bool, ImageError> {
    let device = |path: &Path| {
        let metadata = path.symlink_metadata();
        metadata
            .map(|metadata| metadata.dev())
            .map_err(|why| ImageError::failed("cannot look at", path, why))
    };
    Ok(device(merged)? != device(parent)?)
}
