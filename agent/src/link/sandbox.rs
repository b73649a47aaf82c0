//! Sandboxes: the network namespaces of containers, each kept by a file that it is mounted on.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rtnetlink::{LinkUnspec, packet_route::RouteNetlinkMessage};

use crate::kernel::{
    netlink::Netlink,
    netns::{self, ifindex},
};

/// Network namespaces that others made for sandboxes to come, by the sandbox's file: those that belong to a user namespace are made together with it.
#[derive(Debug, Default)]
pub struct Offers(Mutex<HashMap<PathBuf, OwnedFd>>);

impl Offers {
    /// The sandbox of this file, once it is to be made, shall be this one.
    pub fn make(&self, path: &Path, namespace: OwnedFd) {
        self.all().insert(path.to_owned(), namespace);
    }

    /// Takes an offer, so that it is no longer there.
    pub fn take(&self, path: &Path) -> Option<OwnedFd> {
        self.all().remove(path)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a sandbox with its loopback up, of the namespace that is offered for it or a new one, and answers its cookie; fine when it is there.
///
/// The mount is a plain bind in the mount namespace of the daemon, as dockerd's: a shim that the daemon starts sees it.
pub fn make(path: &Path, offers: &Offers) -> io::Result<u64> {
    if netns::exists(path) {
        return cookie(path);
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut cookie = 0;
    netns::make(path, offers.take(path), || {
        let up = LinkUnspec::new_with_index(ifindex("lo")?).up().build();
        Netlink::open()?.carry_out_one(RouteNetlinkMessage::SetLink(up), 0)?;
        cookie = netns::cookie()?;
        Ok(())
    })?;
    Ok(cookie)
}

/// The cookie of a sandbox, by which the socket hooks know what is in it.
pub fn cookie(path: &Path) -> io::Result<u64> {
    netns::within(&netns::open(path)?, netns::cookie)
}

/// Removes a sandbox; fine when there is none. The namespace lives on for as long as a process is in it.
pub fn remove(path: &Path) -> io::Result<()> {
    netns::remove(path)
}

/// All files of the directory, and whether a namespace is mounted on each.
pub fn list(directory: &Path) -> io::Result<BTreeSet<(PathBuf, bool)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error),
    };
    Ok(entries
        .flatten()
        .map(|entry| entry.path())
        .map(|path| (path.clone(), netns::exists(&path)))
        .collect())
}
