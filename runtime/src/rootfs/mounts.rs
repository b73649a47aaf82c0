//! The mounts of a spec: each made detached, with all its attributes, and only then put in place.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{
    options::Options,
    resolve::{self, Wanted},
};
use crate::{
    RuntimeError,
    plan::{Mount, Plan},
    syscall::{self, FsContext, MountAttr, mount_attr},
};

/// Where the unified tree is where there is no other.
const UNIFIED: &str = "/sys/fs/cgroup";

/// Sources of shared binds, by the place of their mount in the plan.
pub(crate) type Shared = HashMap<usize, OwnedFd>;

/// Takes the sources of binds that are to propagate both ways. Only while the namespace's mounts are still peers of the host's: a copy made later is
/// a slave, from which nothing reaches the host.
pub(crate) fn take_shared(plan: &Plan) -> Result<Shared, RuntimeError> {
    let mut shared = Shared::new();
    for (place, mount) in plan.mounts.iter().enumerate() {
        let options = Options::parse(mount.options.iter().map(String::as_str));
        let is_shared = matches!(options.propagation, Some((libc::MS_SHARED, _)));
        if is_shared && (options.bind.is_some() || mount.kind == "bind") {
            let source = source(mount, &options).map_err(|error| failed(mount, &error))?;
            shared.insert(place, source);
        }
    }
    Ok(shared)
}

/// Takes the sources of all binds, for a process that will not reach them. Those that are not to propagate both ways are slaves of the host's from
/// here on.
pub(crate) fn take_all(plan: &Plan) -> Result<Shared, RuntimeError> {
    let mut taken = take_shared(plan)?;
    for (place, mount) in plan.mounts.iter().enumerate() {
        let options = Options::parse(mount.options.iter().map(String::as_str));
        if taken.contains_key(&place) || (options.bind.is_none() && mount.kind != "bind") {
            continue;
        }
        let source = source(mount, &options)
            .and_then(enslave)
            .map_err(|error| failed(mount, &error))?;
        taken.insert(place, source);
    }
    Ok(taken)
}

/// The same for the root file system.
pub(crate) fn take_root(root: &Path) -> Result<OwnedFd, RuntimeError> {
    syscall::open(root, libc::O_PATH | libc::O_DIRECTORY)
        .and_then(|at| syscall::clone_tree(at.as_fd(), c"", true))
        .and_then(enslave)
        .map_err(|error| RuntimeError::Failed(format!("take the tree at {}: {error}", root.display())))
}

fn enslave(tree: OwnedFd) -> io::Result<OwnedFd> {
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    syscall::mount_setattr(tree.as_fd(), true, &slave)?;
    Ok(tree)
}

/// Puts every mount of the plan below `root`.
pub(crate) fn all(root: BorrowedFd<'_>, plan: &Plan, mut shared: Shared) -> Result<(), RuntimeError> {
    for (place, mount) in plan.mounts.iter().enumerate() {
        one(root, mount, plan, shared.remove(&place)).map_err(|error| failed(mount, &error))?;
    }
    Ok(())
}

/// Puts binds below `root`.
pub(crate) fn binds(root: BorrowedFd<'_>, mounts: &[Mount]) -> Result<(), RuntimeError> {
    for mount in mounts {
        let options = Options::parse(mount.options.iter().map(String::as_str));
        let put = source(mount, &options).and_then(|source| bind(root, mount, &options, source));
        put.map_err(|error| failed(mount, &error))?;
    }
    Ok(())
}

fn failed(mount: &Mount, error: &io::Error) -> RuntimeError {
    let kind = &mount.kind;
    RuntimeError::Failed(match &mount.source {
        Some(source) => {
            format!(
                "mount {} ({kind}) at {}: {error}",
                source.display(),
                mount.destination.display()
            )
        }
        None => format!("mount {kind} at {}: {error}", mount.destination.display()),
    })
}

fn one(root: BorrowedFd<'_>, mount: &Mount, plan: &Plan, shared: Option<OwnedFd>) -> io::Result<()> {
    let options = Options::parse(mount.options.iter().map(String::as_str));
    let kind = mount.kind.as_str();
    let destination = &mount.destination;
    if destination.components().count() < 2 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the root itself can't be mounted over",
        ));
    }
    if options.bind.is_some() || kind == "bind" {
        let source = shared.map_or_else(|| source(mount, &options), Ok)?;
        return bind(root, mount, &options, source);
    }
    match kind {
        "cgroup" if plan.cgroup1.is_empty() && needs_bind(plan) => bound_cgroup2(root, destination, &options),
        "cgroup" if plan.cgroup1.is_empty() => cgroup2(root, destination, &options),
        "cgroup" => cgroup1(root, destination, &options, plan),
        _ => {
            // A link in place of /proc or /sys would let the image choose where they end up.
            let onto = if matches!(kind, "proc" | "sysfs") {
                plain_directory(root, destination)?
            } else {
                resolve::ensure(root, destination, Wanted::Directory)?
            };
            let detached = fresh(kind, mount.source.as_deref(), &options)?;
            attach(detached, onto, &options)
        }
    }
}

/// A new instance of a file system, not yet anywhere.
fn fresh(kind: &str, source: Option<&Path>, options: &Options) -> io::Result<OwnedFd> {
    let context = FsContext::open(kind)?;
    if let Some(source) = source.and_then(Path::to_str) {
        context.set("source", Some(source))?;
    }
    for (key, value) in &options.data {
        context.set(key, value.as_deref())?;
    }
    let attributes = options.attributes.set | options.recursive_attributes.set;
    if attributes & mount_attr::RDONLY != 0 {
        // The instance too, not only this view of it.
        context.set("ro", None)?;
    }
    context.mount(attributes)
}

fn attach(detached: OwnedFd, onto: OwnedFd, options: &Options) -> io::Result<()> {
    syscall::attach_mount(detached.as_fd(), onto.as_fd())?;
    propagate(detached.as_fd(), options)
}

fn propagate(mount: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    let Some((propagation, recursive)) = options.propagation else {
        return Ok(());
    };
    syscall::mount_setattr(
        mount,
        recursive,
        &MountAttr {
            propagation,
            ..MountAttr::default()
        },
    )
}

/// The source of a bind, as a mount that is nowhere yet.
fn source(mount: &Mount, options: &Options) -> io::Result<OwnedFd> {
    let source = mount
        .source
        .as_ref()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a bind mount needs a source"))?;
    let here = syscall::open(Path::new("/"), libc::O_PATH)?;
    let recursive = options.bind.unwrap_or(true);
    let Some(beneath) = &options.beneath else {
        return syscall::clone_tree(here.as_fd(), &syscall::c_path(source)?, recursive);
    };
    // what lies in the source belongs to containers: no link of theirs leads out of it
    let whole = syscall::open(source, libc::O_PATH | libc::O_DIRECTORY)?;
    let inside = syscall::openat2(
        whole.as_fd(),
        Path::new(beneath),
        libc::O_PATH,
        0,
        libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS,
    )?;
    syscall::clone_tree(inside.as_fd(), c"", recursive)
}

fn bind(root: BorrowedFd<'_>, mount: &Mount, options: &Options, detached: OwnedFd) -> io::Result<()> {
    let is_directory = syscall::fstat(detached.as_fd())?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let onto = resolve::ensure(
        root,
        &mount.destination,
        if is_directory { Wanted::Directory } else { Wanted::File },
    )?;
    if options.attributes != MountAttr::default() {
        syscall::mount_setattr(detached.as_fd(), false, &options.attributes)?;
    }
    if options.recursive_attributes != MountAttr::default() {
        syscall::mount_setattr(detached.as_fd(), true, &options.recursive_attributes)?;
    }
    propagate(detached.as_fd(), options)?;
    syscall::attach_mount(detached.as_fd(), onto.as_fd())
}

/// A directory with no symbolic link on the way to it.
fn plain_directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let made = resolve::ensure(root, path, Wanted::Directory)?;
    drop(made);
    resolve::open_plain(root, path, libc::O_PATH | libc::O_DIRECTORY)
        .map_err(|error| io::Error::new(error.kind(), format!("it must be an ordinary directory: {error}")))
}

/// The unified tree. The process is in its cgroup and cgroup namespace by now, so this shows the container's own part.
fn cgroup2(root: BorrowedFd<'_>, destination: &Path, options: &Options) -> io::Result<()> {
    let onto = resolve::ensure(root, destination, Wanted::Directory)?;
    let context = FsContext::open("cgroup2")?;
    context.set("source", Some("cgroup"))?;
    attach(context.mount(options.attributes.set)?, onto, options)
}

/// Who is in a user namespace can mount a unified tree only in a cgroup namespace of that.
fn needs_bind(plan: &Plan) -> bool {
    plan.ids.is_some() && plan.namespace(libc::CLONE_NEWCGROUP) != Some(None)
}

/// The host's unified tree, for who may not mount one.
fn bound_cgroup2(root: BorrowedFd<'_>, destination: &Path, options: &Options) -> io::Result<()> {
    let onto = resolve::ensure(root, destination, Wanted::Directory)?;
    let host = syscall::open(Path::new(UNIFIED), libc::O_PATH | libc::O_DIRECTORY)?;
    let detached = syscall::clone_tree(host.as_fd(), c"", true)?;
    syscall::mount_setattr(detached.as_fd(), false, &options.attributes)?;
    attach(detached, onto, options)
}

/// A tmpfs with the container's own cgroup of every v1 hierarchy in it.
fn cgroup1(root: BorrowedFd<'_>, destination: &Path, options: &Options, plan: &Plan) -> io::Result<()> {
    let onto = resolve::ensure(root, destination, Wanted::Directory)?;
    let hardened = mount_attr::NOSUID | mount_attr::NODEV | mount_attr::NOEXEC;
    let context = FsContext::open("tmpfs")?;
    context.set("source", Some("tmpfs"))?;
    context.set("mode", Some("755"))?;
    let directory = context.mount(hardened)?;
    syscall::attach_mount(directory.as_fd(), onto.as_fd())?;
    let host = syscall::open(Path::new("/"), libc::O_PATH)?;
    for cgroup in &plan.cgroup1 {
        let detached = syscall::clone_tree(host.as_fd(), &syscall::c_path(&cgroup.path)?, false)?;
        let attributes = MountAttr {
            set: hardened | options.attributes.set,
            ..MountAttr::default()
        };
        syscall::mount_setattr(detached.as_fd(), false, &attributes)?;
        let onto = resolve::ensure(directory.as_fd(), Path::new(&cgroup.hierarchy), Wanted::Directory)?;
        syscall::attach_mount(detached.as_fd(), onto.as_fd())?;
        propagate(detached.as_fd(), options)?;
        if cgroup.hierarchy.contains(',') {
            for controller in cgroup.hierarchy.split(',') {
                super::devices::symlink(directory.as_fd(), &cgroup.hierarchy, controller)?;
            }
        }
    }
    // Read-only last: the mount points had to be made in it.
    syscall::mount_setattr(directory.as_fd(), false, &options.attributes)?;
    propagate(directory.as_fd(), options)
}
