//! AppArmor: a process takes a profile on when it next executes something.

use std::{fs, os::fd::AsFd, path::Path};

use crate::{
    RuntimeError,
    syscall::{self, FsContext},
};

/// Says if the kernel has AppArmor and the profile is loaded; else why it can't be had.
pub fn check_apparmor(profile: &str) -> Result<(), RuntimeError> {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if enabled.trim() != "Y" {
        return Err(RuntimeError::Failed(format!(
            "the AppArmor profile {profile} is asked for, but the kernel of this host has no AppArmor"
        )));
    }
    // Only where securityfs is mounted can be seen what is loaded; the kernel has the last word in any case.
    let Ok(loaded) = fs::read_to_string("/sys/kernel/security/apparmor/profiles") else {
        return Ok(());
    };
    let is_loaded = loaded
        .lines()
        .any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile));
    if is_loaded {
        Ok(())
    } else {
        Err(RuntimeError::Failed(format!(
            "the AppArmor profile {profile} is not loaded; load it with apparmor_parser"
        )))
    }
}

/// Has the next execve of this process take the profile on. Written through a procfs that nobody else has seen: what stands at the
/// container's /proc can't catch the write (CVE-2025-52881, CVE-2019-19921).
pub(crate) fn apply_at_exec(profile: &str) -> Result<(), RuntimeError> {
    let written = || {
        let proc = FsContext::open("proc")?.mount(0)?;
        let open = |path: &str| {
            syscall::openat2(
                proc.as_fd(),
                Path::new(path),
                libc::O_WRONLY,
                0,
                libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_XDEV,
            )
        };
        let attribute = open("thread-self/attr/apparmor/exec").or_else(|_| open("thread-self/attr/exec"))?;
        syscall::write(attribute.as_fd(), format!("exec {profile}").as_bytes())
    };
    written()
        .map(drop)
        .map_err(|error| RuntimeError::Failed(format!("take the AppArmor profile {profile} on: {error}")))
}
