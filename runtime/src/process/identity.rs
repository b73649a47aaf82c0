//! The last steps of every process of a container: streams, limits, user, capabilities, filter, and the program itself.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{channel, reaper, stdio, tty};
use crate::{
    RuntimeError,
    plan::Process,
    rootfs::resolve::{self, Wanted},
    security::apparmor,
    syscall,
};

/// What a process will be.
pub(crate) struct Identity<'a> {
    /// Program, arguments, environment, directory, user, capabilities.
    pub process: &'a Process,
    /// no_new_privs and limits: those of the container, whoever asks for the process.
    pub container: &'a Process,
    /// Its pipes belong to it already.
    pub owns_streams: bool,
    /// The program that shall be its parent, and that is executed in its place.
    pub init: Option<OwnedFd>,
    /// The compiled seccomp filter and the flags to load it with.
    pub filter: Option<(Vec<u8>, u64)>,
}

/// Where its streams go.
pub(crate) enum Streams {
    Pipes(stdio::Ends),
    Terminal { master: OwnedFd, slave: OwnedFd },
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |error| RuntimeError::Failed(format!("{what}: {error}"))
}

/// Becomes the process. Waits for the shim's word just before the program is looked for.
pub(crate) fn become_process(
    identity: &Identity<'_>,
    streams: Streams,
    channel: BorrowedFd<'_>,
) -> Result<Infallible, RuntimeError> {
    let master = take_streams(streams, identity)?;
    if let Some(profile) = &identity.process.apparmor {
        apparmor::apply_at_exec(profile)?;
    }
    let entered = enter_directory(&identity.process.cwd);
    set_limits(identity.container)?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }).map_err(failed("keep capabilities"))?;
    let capabilities = &identity.process.capabilities;
    capabilities.limit()?;
    become_user(identity.process.uid, identity.process.gid, &identity.process.groups)?;
    capabilities.apply_but_keep_admin()?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) })
        .map_err(failed("unkeep capabilities"))?;
    // A directory that only the user may enter (a network file system, say) is tried again as that user.
    if entered.is_err() {
        enter_directory(&identity.process.cwd)?;
    }
    // SAFETY: takes no pointers.
    unsafe { libc::umask(identity.process.umask.unwrap_or(0o022)) };
    channel::send_ready(channel, master.as_ref().map(AsFd::as_fd)).map_err(failed("report to the shim"))?;
    drop(master);

    channel::wait_for_go(channel)?;
    let arguments = &identity.process.args[..];
    let environment = &identity.process.env[..];
    let program = find_program(arguments, environment)?;
    let arguments = match identity.init {
        Some(_) => c_strings(&[&[reaper::NAME.to_owned(), "--".to_owned()], arguments].concat())?,
        None => c_strings(arguments)?,
    };
    let environment = c_strings(environment)?;
    let c_program = syscall::c_path(&program).map_err(failed("name the program"))?;
    let arguments = pointers(&arguments);
    let environment = pointers(&environment);
    syscall::close_from_on_exec(3).map_err(failed("mark descriptors close-on-exec"))?;
    let load = |filter: &Option<(Vec<u8>, u64)>| match filter {
        Some((filter, flags)) => syscall::load_seccomp(filter, *flags).map_err(failed("load the seccomp filter")),
        None => Ok(()),
    };
    if identity.container.no_new_privileges {
        capabilities.apply()?;
        // SAFETY: takes no pointers.
        syscall::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })
            .map_err(failed("set no_new_privs"))?;
        load(&identity.filter)?;
    } else {
        // Without no_new_privs the kernel takes a filter from SYS_ADMIN only, so that goes after it.
        load(&identity.filter)?;
        capabilities.apply()?;
    }
    if let Some(init) = &identity.init {
        // SAFETY: the empty path is static, both arrays end with a null pointer, all outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                init.as_raw_fd(),
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        let error = io::Error::last_os_error();
        return Err(RuntimeError::Failed(format!(
            "execute the init of the container (the shim must be a static program for that): {error}"
        )));
    }
    // SAFETY: program and both arrays are NUL-terminated, the arrays end with a null pointer, all outlive the call.
    unsafe { libc::execve(c_program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Err(exec_error(&program, &io::Error::last_os_error()))
}

/// Puts the streams at 0, 1, 2. Gives the terminal's master, for the shim.
fn take_streams(streams: Streams, identity: &Identity<'_>) -> Result<Option<OwnedFd>, RuntimeError> {
    let process = identity.process;
    let uid = process.uid;
    match streams {
        Streams::Pipes(ends) => {
            let uid = if identity.owns_streams { 0 } else { uid };
            stdio::take([&ends.stdin, &ends.stdout, &ends.stderr], uid).map_err(failed("take the standard streams"))?;
            Ok(None)
        }
        Streams::Terminal { master, slave } => {
            stdio::take([&slave, &slave, &slave], uid).map_err(failed("take the terminal as standard streams"))?;
            tty::control().map_err(failed("make the terminal the session's"))?;
            if let Some((rows, columns)) = process.terminal_size {
                tty::resize(master.as_fd(), rows, columns).map_err(failed("size the terminal"))?;
            }
            Ok(Some(master))
        }
    }
}

/// Goes to the working directory, made if it is missing, and makes sure it is within the root.
fn enter_directory(cwd: &Path) -> Result<(), RuntimeError> {
    let cwd = if cwd.as_os_str().is_empty() {
        Path::new("/")
    } else {
        cwd
    };
    let failed =
        |error: io::Error| RuntimeError::Failed(format!("enter the working directory {}: {error}", cwd.display()));
    let path = syscall::c_path(cwd).map_err(failed)?;
    // SAFETY: path is NUL-terminated and outlives the call.
    let entered = syscall::result(unsafe { libc::chdir(path.as_ptr()) });
    if let Err(error) = entered {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(failed(error));
        }
        let root = syscall::open(Path::new("/"), libc::O_PATH).map_err(failed)?;
        resolve::ensure(root.as_fd(), cwd, Wanted::Directory).map_err(failed)?;
        // SAFETY: as above.
        syscall::result(unsafe { libc::chdir(path.as_ptr()) }).map_err(failed)?;
    }
    // A directory reached through a leaked descriptor lies outside the root; the kernel then says "(unreachable)".
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is ours and of the length given. The system call itself, as the library would hide the answer.
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    syscall::result(length as i32).map_err(failed)?;
    if buffer[0] != b'/' {
        return Err(RuntimeError::Failed(format!(
            "the working directory {} is outside the root",
            cwd.display()
        )));
    }
    Ok(())
}

fn set_limits(process: &Process) -> Result<(), RuntimeError> {
    for (resource, soft, hard) in &process.limits {
        let value = libc::rlimit {
            rlim_cur: *soft,
            rlim_max: *hard,
        };
        // SAFETY: the struct outlives the call.
        syscall::result(unsafe { libc::setrlimit(*resource, &value) }).map_err(|error| {
            RuntimeError::Failed(format!("set resource limit {resource} to {soft}/{hard}: {error}"))
        })?;
    }
    Ok(())
}

fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), RuntimeError> {
    // SAFETY: the pointer and the length belong together.
    syscall::result(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map_err(failed("set the groups"))?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::setresgid(gid, gid, gid) }).map_err(failed("become the group"))?;
    // SAFETY: takes no pointers.
    syscall::result(unsafe { libc::setresuid(uid, uid, uid) }).map_err(failed("become the user"))?;
    Ok(())
}

/// Finds the program as a shell would; the words are those Docker's users know.
fn find_program(arguments: &[String], environment: &[String]) -> Result<PathBuf, RuntimeError> {
    let Some(name) = arguments.first().filter(|name| !name.is_empty()) else {
        return Err(RuntimeError::CommandNotFound("no command specified".to_owned()));
    };
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => Err(RuntimeError::CommandNotFound(format!(
                    "exec: {name:?}: stat {name}: {}",
                    if error.raw_os_error() == Some(libc::ENOENT) {
                        "no such file or directory"
                    } else {
                        "not a directory"
                    }
                ))),
                Some(libc::EISDIR) => Err(RuntimeError::CommandNotExecutable(format!(
                    "exec: {name:?}: is a directory"
                ))),
                _ => Err(RuntimeError::CommandNotExecutable(format!(
                    "exec: {name:?}: permission denied"
                ))),
            },
        };
    }
    let path = environment
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="))
        .unwrap_or_default();
    path.split(':')
        .filter(|directory| !directory.is_empty())
        .map(|directory| Path::new(OsStr::from_bytes(directory.as_bytes())).join(name))
        .find(|candidate| executable(candidate).is_ok())
        .ok_or_else(|| RuntimeError::CommandNotFound(format!("exec: {name:?}: executable file not found in $PATH")))
}

fn executable(path: &Path) -> io::Result<()> {
    let status = std::fs::metadata(path)?;
    if status.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    let path = syscall::c_path(path)?;
    // SAFETY: path is NUL-terminated and outlives the call.
    syscall::result(unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) })?;
    // Somebody with DAC_OVERRIDE passes the check if any execute bit is set, which is right.
    Ok(())
}

fn exec_error(program: &Path, error: &io::Error) -> RuntimeError {
    let program = program.display();
    match error.raw_os_error() {
        // The file is there: it is its interpreter or loader that is not.
        Some(libc::ENOENT) => RuntimeError::CommandNotFound(format!("exec {program}: no such file or directory")),
        Some(libc::ENOEXEC) => RuntimeError::CommandNotExecutable(format!("exec {program}: exec format error")),
        Some(libc::EACCES) => RuntimeError::CommandNotExecutable(format!("exec {program}: permission denied")),
        _ => RuntimeError::CommandNotExecutable(format!("exec {program}: {error}")),
    }
}

fn c_strings(strings: &[String]) -> Result<Vec<CString>, RuntimeError> {
    strings
        .iter()
        .map(|string| syscall::c_string(string).map_err(failed("pass arguments and environment")))
        .collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain(std::iter::once(std::ptr::null()))
        .collect()
}
