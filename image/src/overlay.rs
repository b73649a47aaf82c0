//! Mounts an overlay: by the new mount calls, which take 500 layers one by one and say what they do not like; by mount(2) on kernels before 6.7.
//!
//! The mount is left to propagate as the one it stands on does. Made private, it would stay behind, where nobody finds it, in every mount namespace
//! that systemd had copied it to.

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MsFlags, mount as mount_by_string},
    sched::CloneFlags,
    sys::stat::Mode,
};

use crate::{Images, error::ImageError};

/// fsconfig(2) takes strings up to this many bytes, with the NUL.
const LONGEST_STRING: usize = 256;
/// mount(2) takes one page of options, silently cut; leave room for the NUL.
const LONGEST_OPTIONS: usize = 4095;
/// `OVL_MAX_STACK`, at least from Linux 4.19 on.
const MOST_LAYERS: usize = 500;
/// Redirects, metadata-only copies and an index in the writable layer could not be written out as an OCI layer.
const OPTIONS: [(&CStr, &CStr); 3] = [(c"redirect_dir", c"off"), (c"metacopy", c"off"), (c"index", c"off")];

/// Neither the container's own syncs nor the unmounting sync the writable layer; the latter would else write out all of the host's file system.
const VOLATILE: &CStr = c"volatile";

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// What lies over what.
pub(crate) struct Overlay<'a> {
    /// Topmost first.
    pub lower: &'a [PathBuf],
    pub upper: &'a Path,
    pub work: &'a Path,
    /// Nothing that is written need ever reach the disk (`volatile`).
    pub passing: bool,
}

/// Mounts `overlay` at `target`.
pub(crate) fn mount(overlay: &Overlay<'_>, target: &Path) -> Result<(), ImageError> {
    match mount_by_context(overlay, target)? {
        Outcome::Mounted => Ok(()),
        Outcome::TooOld => mount_by_options(overlay, target),
    }
}

/// Mounts `overlay` at `target` with the owners of all lower layers, which lie below `layers`, translated as the user namespace says.
///
/// Idmapped mounts of layers are only wanted for a moment: the overlay takes copies of them. So they are made where nobody sees them, in a mount
/// namespace of a thread of ours that goes with it, whatever ends the daemon.
pub(crate) fn mount_idmapped(
    overlay: &Overlay<'_>,
    layers: &Path,
    namespace: &OwnedFd,
    target: &Path,
) -> Result<(), ImageError> {
    let hidden = || -> Result<OwnedFd, ImageError> {
        let wrong = |why: Errno| failed(target, why, &[]);
        nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).map_err(wrong)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount_by_string(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(wrong)?;
        let translated = idmapped(layers, namespace)?;
        move_mount(&translated, &open_path(layers)?).map_err(wrong)?;
        mount(overlay, target)?;
        open_tree(target).map_err(wrong)
    };
    let made = std::thread::scope(|scope| scope.spawn(hidden).join());
    let made = made.unwrap_or_else(|_| Err(failed(target, Errno::EIO, &[])))?;
    move_mount(&made, &open_path(target)?).map_err(|why| failed(target, why, &[]))
}

/// A mount of `directory` that is nowhere, with its owners translated.
fn idmapped(directory: &Path, namespace: &OwnedFd) -> Result<OwnedFd, ImageError> {
    let tree = open_tree(directory).map_err(|why| ImageError::failed("cannot take", directory, why.desc()))?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX),
    };
    let (fd, flags) = (tree.as_raw_fd(), libc::AT_EMPTY_PATH as libc::c_uint);
    // SAFETY: the path is an empty C string that lives for ever, the struct has the size given and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match Errno::result(result) {
        Ok(_) => Ok(tree),
        Err(Errno::EINVAL) => Err(ImageError::failed(
            "cannot translate the owners of files in",
            directory,
            "its file system has no idmapped mounts (ext4, xfs and btrfs have them)",
        )),
        Err(why) => Err(ImageError::failed(
            "cannot translate the owners of files in",
            directory,
            why.desc(),
        )),
    }
}

impl Images {
    /// Can the layers be shown with other owners, those of this user namespace? Asked once, before a container needs it.
    pub fn check_idmapped(&self, namespace: &OwnedFd) -> Result<(), ImageError> {
        idmapped(&self.root, namespace).map(drop)
    }
}

enum Outcome {
    Mounted,
    /// The kernel has no new mount calls, or no `lowerdir+`.
    TooOld,
}

fn mount_by_context(overlay: &Overlay<'_>, target: &Path) -> Result<Outcome, ImageError> {
    let context = match fs_open(c"overlay") {
        Err(Errno::ENOSYS | Errno::EPERM) => return Ok(Outcome::TooOld), // EPERM: a seccomp filter that does not know it
        other => other.map_err(|why| failed(target, why, &[]))?,
    };
    // before 6.5 a context took any word and said no at the end: one that takes a layer without a name knows none
    if fs_flag(&context, c"lowerdir+").is_ok() {
        return Ok(Outcome::TooOld);
    }
    log(&context); // of that
    let mut held = Vec::new();
    let set = |key: &CStr, value: &CStr| fs_set(&context, key, value);
    let wrong = |why: Errno| failed(target, why, &log(&context));
    set(c"source", c"overlay").map_err(wrong)?;
    for (number, lower) in overlay.lower.iter().enumerate() {
        match set(c"lowerdir+", &name(lower, &mut held)?) {
            Err(Errno::EINVAL) if number == 0 => return Ok(Outcome::TooOld),
            other => other.map_err(wrong)?,
        }
    }
    set(c"upperdir", &name(overlay.upper, &mut held)?).map_err(wrong)?;
    set(c"workdir", &name(overlay.work, &mut held)?).map_err(wrong)?;
    for (key, value) in OPTIONS {
        set(key, value).map_err(wrong)?;
    }
    if overlay.passing {
        fs_flag(&context, VOLATILE).map_err(wrong)?;
    }
    fs_create(&context).map_err(wrong)?;
    let mounted = fs_mount(&context).map_err(wrong)?;
    // the target by descriptor: nobody makes a link of it in between
    let place = open_path(target)?;
    move_mount(&mounted, &place).map_err(wrong)?;
    Ok(Outcome::Mounted)
}

/// The old way. Where the paths of the layers are longer than a page together, a thread with a working directory of its own goes to
/// `/proc/self/fd`, from where a layer is a number of one to four digits.
fn mount_by_options(overlay: &Overlay<'_>, target: &Path) -> Result<(), ImageError> {
    if overlay.lower.len() > MOST_LAYERS {
        let why = format!("too many lower directories, the kernel takes {MOST_LAYERS}");
        return Err(ImageError::failed("cannot mount overlay at", target, why));
    }
    let lower: Vec<Vec<u8>> = overlay.lower.iter().map(|path| escape(path)).collect();
    let options = options(&lower, &escape(overlay.upper), &escape(overlay.work), overlay.passing);
    if options.len() <= LONGEST_OPTIONS {
        return mount_with(&options, target).map_err(|why| failed(target, why, &[]));
    }
    let mut held = Vec::new();
    let mut number = |path: &Path| -> Result<Vec<u8>, ImageError> {
        let fd = open_path(path)?;
        let number = fd.as_raw_fd().to_string().into_bytes();
        held.push(fd);
        Ok(number)
    };
    let lower = overlay
        .lower
        .iter()
        .map(|path| number(path))
        .collect::<Result<Vec<_>, _>>()?;
    let (upper, work) = (number(overlay.upper)?, number(overlay.work)?);
    let options = self::options(&lower, &upper, &work, overlay.passing);
    if options.len() > LONGEST_OPTIONS {
        return Err(ImageError::failed(
            "cannot mount overlay at",
            target,
            "too many layers for this kernel",
        ));
    }
    let mount = || {
        // SAFETY: takes no pointer; from here on this thread alone has a working directory of its own.
        Errno::result(unsafe { libc::unshare(libc::CLONE_FS) })?;
        nix::unistd::chdir("/proc/self/fd")?;
        mount_with(&options, target)
    };
    let result = std::thread::scope(|scope| scope.spawn(mount).join());
    result
        .unwrap_or(Err(Errno::EIO))
        .map_err(|why| failed(target, why, &[]))
}

fn options(lower: &[Vec<u8>], upper: &[u8], work: &[u8], passing: bool) -> Vec<u8> {
    let mut options = [
        b"lowerdir=",
        lower.join(&b':').as_slice(),
        b",upperdir=",
        upper,
        b",workdir=",
        work,
    ]
    .concat();
    for (key, value) in OPTIONS {
        options.extend([b",", key.to_bytes(), b"=", value.to_bytes()].concat());
    }
    if passing {
        options.extend([b",", VOLATILE.to_bytes()].concat());
    }
    options
}

fn mount_with(options: &[u8], target: &Path) -> Result<(), Errno> {
    mount_by_string(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::empty(),
        Some(options),
    )
}

/// Commas end an option, colons a layer.
fn escape(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

/// The path as the kernel takes it; a long one by way of a descriptor, which `held` keeps open.
fn name(path: &Path, held: &mut Vec<OwnedFd>) -> Result<CString, ImageError> {
    let mut text = path.as_os_str().as_bytes().to_vec();
    if text.len() >= LONGEST_STRING {
        let fd = open_path(path)?;
        text = format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
        held.push(fd);
    }
    CString::new(text).map_err(|why| ImageError::failed("cannot mount", path, why))
}

fn open_path(path: &Path) -> Result<OwnedFd, ImageError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty()).map_err(|why| ImageError::failed("cannot open", path, why.desc()))
}

/// The error with what the kernel told of it.
fn failed(target: &Path, why: Errno, told: &[String]) -> ImageError {
    let mut sentence = why.desc().to_owned();
    for line in told {
        sentence.push_str(": ");
        sentence.push_str(line);
    }
    ImageError::failed("cannot mount overlay at", target, sentence)
}

/// What the kernel wrote into the log of the context, a line a read. It is told once.
fn log(context: &OwnedFd) -> Vec<String> {
    let Ok(mut log) = context.try_clone().map(File::from) else {
        return Vec::new();
    };
    let mut line = [0; 1024];
    let lines = std::iter::from_fn(|| match log.read(&mut line) {
        Ok(length @ 1..) => Some(String::from_utf8_lossy(&line[..length]).trim().to_owned()),
        _ => None,
    });
    lines.collect()
}

/// A copy of the mount at `path` that is nowhere yet.
fn open_tree(path: &Path) -> Result<OwnedFd, Errno> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_SYMLINK_NOFOLLOW as libc::c_uint;
    // SAFETY: the path is a C string that outlives the call.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the call gave us a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn fs_open(kind: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: `kind` is a C string that outlives the call.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: the call gave us a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn fs_set(context: &OwnedFd, key: &CStr, value: &CStr) -> Result<(), Errno> {
    let (fd, command) = (context.as_raw_fd(), FSCONFIG_SET_STRING);
    // SAFETY: both strings are C strings that outlive the call, and the kernel copies them.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value.as_ptr(), 0) };
    Errno::result(result).map(drop)
}

fn fs_flag(context: &OwnedFd, key: &CStr) -> Result<(), Errno> {
    let (fd, command, none) = (context.as_raw_fd(), FSCONFIG_SET_FLAG, std::ptr::null::<libc::c_char>());
    // SAFETY: the key is a C string that outlives the call; the command takes no value, and null is what it wants for one.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), none, 0) }).map(drop)
}

fn fs_create(context: &OwnedFd) -> Result<(), Errno> {
    let (fd, command, none) = (
        context.as_raw_fd(),
        FSCONFIG_CMD_CREATE,
        std::ptr::null::<libc::c_char>(),
    );
    // SAFETY: the command takes neither key nor value, and null is what it wants for them.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, none, none, 0) }).map(drop)
}

fn fs_mount(context: &OwnedFd) -> Result<OwnedFd, Errno> {
    // SAFETY: takes no pointer.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })?;
    // SAFETY: the call gave us a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn move_mount(mounted: &OwnedFd, place: &OwnedFd) -> Result<(), Errno> {
    let (from, to, flags) = (
        mounted.as_raw_fd(),
        place.as_raw_fd(),
        MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
    );
    // SAFETY: both strings are empty C strings that live for ever.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, c"".as_ptr(), flags) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests;
