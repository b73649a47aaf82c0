//! An init for containers that ask for one: starts the program as its child, passes signals on to it, reaps what is orphaned.
//!
//! It is the shim's own program in another role, executed from its sealed copy, so nothing has to be mounted in the container. It must be
//! linked statically: there is no loader of ours in a container.

use std::{
    ffi::{CString, OsString},
    io,
    os::unix::ffi::OsStringExt,
};

use crate::syscall;

/// What it is called in the container; who is executed under this name is an init.
pub(crate) const NAME: &str = "/sbin/docker-init";

/// Not passed on: they tell of a fault of our own, or of a terminal we don't use.
const OURS: [libc::c_int; 9] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The whole life of the init. `arguments` are those after its name and `--`; returns what it exits with.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> i32 {
    // The kernel names a program executed by descriptor after that.
    // SAFETY: the name is static and NUL-terminated.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"docker-init".as_ptr()) };
    // With the pid namespace of others orphans would go to those, not to us.
    // SAFETY: takes no pointers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let arguments: Result<Vec<CString>, _> = arguments.map(|argument| CString::new(argument.into_vec())).collect();
    let Ok(arguments) = arguments else { return 125 };
    match live(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("docker-init: {error}");
            125
        }
    }
}

fn live(arguments: &[CString]) -> io::Result<i32> {
    // SAFETY: sigset_t is plain data; sigfillset makes it a valid full set.
    let mut forwarded: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: sigset_t is plain data; sigprocmask fills it.
    let mut inherited: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the sets are ours and the signals valid.
    unsafe {
        libc::sigfillset(&mut forwarded);
        for signal in OURS {
            libc::sigdelset(&mut forwarded, signal);
        }
    }
    // SAFETY: both sets are ours.
    syscall::result(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &forwarded, &mut inherited) })?;
    for signal in [libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: ignoring is no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: there is one thread.
    let child = match syscall::result(unsafe { libc::fork() })? {
        0 => become_program(arguments, &inherited),
        child => child,
    };
    loop {
        // SAFETY: the set is valid; what else is known of the signal is not asked for.
        let signal = unsafe { libc::sigwaitinfo(&forwarded, std::ptr::null_mut()) };
        match signal {
            libc::SIGCHLD => {
                if let Some(code) = reap(child) {
                    return Ok(code);
                }
            }
            signal if signal > 0 => {
                // SAFETY: takes no pointers; the child is not reaped, so the pid is its.
                unsafe { libc::kill(child, signal) };
            }
            _ => {}
        }
    }
}

/// Takes all ended children; the code of ours, if it was among them.
fn reap(child: libc::pid_t) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0;
        // SAFETY: status is ours.
        let ended = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
        if ended <= 0 {
            return code;
        }
        if ended == child {
            code = Some(if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            });
        }
    }
}

/// In the child: a group of its own, in front of the terminal if there is one, and nothing of our ways with signals.
fn become_program(arguments: &[CString], inherited: &libc::sigset_t) -> ! {
    // SAFETY: these take no pointers but the set, which is valid. That the terminal is none is told by an error that means nothing here.
    unsafe {
        libc::setpgid(0, 0);
        libc::tcsetpgrp(0, libc::getpgrp());
        for signal in [libc::SIGTTIN, libc::SIGTTOU, libc::SIGPIPE] {
            libc::signal(signal, libc::SIG_DFL);
        }
        libc::sigprocmask(libc::SIG_SETMASK, inherited, std::ptr::null_mut());
    }
    let pointers: Vec<_> = arguments
        .iter()
        .map(|argument| argument.as_ptr())
        .chain([std::ptr::null()])
        .collect();
    if let Some(program) = arguments.first() {
        // SAFETY: program and array are NUL-terminated, the array ends with a null pointer, all outlive the call.
        unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    }
    let error = io::Error::last_os_error();
    let name = arguments.first().map(|name| name.to_string_lossy());
    eprintln!("docker-init: exec {}: {error}", name.unwrap_or_default());
    let code = match error.raw_os_error() {
        Some(libc::ENOENT) => 127,
        _ => 126,
    };
    // SAFETY: ends the fork without running what its parent registered for its own end.
    unsafe { libc::_exit(code) }
}
