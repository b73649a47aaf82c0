//! Capability sets of a process.

use std::{collections::HashSet, io};

use oci_spec::runtime::{Capability, LinuxCapabilities};
use serde::{Deserialize, Serialize};

use crate::{RuntimeError, syscall};

/// What Docker gives a container's root by default.
pub const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The kernel's number of a capability, which is its bit in a set.
const fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

const SYS_ADMIN: u64 = 1 << number(Capability::SysAdmin);
const HIGHEST_POSSIBLE: u32 = 63;

/// The five sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sets {
    bounding: u64,
    effective: u64,
    inheritable: u64,
    permitted: u64,
    ambient: u64,
}

fn mask(set: &Option<HashSet<Capability>>) -> u64 {
    set.iter()
        .flatten()
        .fold(0, |mask, capability| mask | 1 << number(*capability))
}

impl From<&LinuxCapabilities> for Sets {
    fn from(capabilities: &LinuxCapabilities) -> Self {
        Self {
            bounding: mask(capabilities.bounding()),
            effective: mask(capabilities.effective()),
            inheritable: mask(capabilities.inheritable()),
            permitted: mask(capabilities.permitted()),
            ambient: mask(capabilities.ambient()),
        }
    }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> RuntimeError {
    move |error| RuntimeError::Failed(format!("{what}: {error}"))
}

impl Sets {
    /// Takes everything out of the bounding set that is not in ours. Must come while SETPCAP is still held.
    pub fn limit(&self) -> Result<(), RuntimeError> {
        for capability in 0..=HIGHEST_POSSIBLE {
            if self.bounding & (1 << capability) != 0 {
                continue;
            }
            // SAFETY: takes no pointers.
            if unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) } < 0 {
                // The kernel knows no higher one.
                break;
            }
            // SAFETY: takes no pointers.
            syscall::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })
                .map_err(failed("drop a capability from the bounding set"))?;
        }
        Ok(())
    }

    /// Sets all but the bounding set, and keeps SYS_ADMIN effective for the time being: loading a seccomp filter asks for it.
    pub fn apply_but_keep_admin(&self) -> Result<(), RuntimeError> {
        set(self.effective | SYS_ADMIN, self.permitted | SYS_ADMIN, self.inheritable)
    }

    /// Sets all but the bounding set, finally.
    pub fn apply(&self) -> Result<(), RuntimeError> {
        set(self.effective, self.permitted, self.inheritable)?;
        if self.ambient == 0 {
            return Ok(());
        }
        for capability in (0..=HIGHEST_POSSIBLE).filter(|capability| self.ambient & (1 << capability) != 0) {
            // SAFETY: takes no pointers.
            let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
            // One that is not permitted and inheritable as well can't be ambient: the others still can.
            if let Err(error) = syscall::result(raised)
                && error.raw_os_error() != Some(libc::EPERM)
            {
                return Err(failed("raise an ambient capability")(error));
            }
        }
        Ok(())
    }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set(effective: u64, permitted: u64, inheritable: u64) -> Result<(), RuntimeError> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    // What the kernel does not know, or the process does not have, can't be asked for.
    let available = available()?;
    let (effective, permitted, inheritable) = (
        effective & permitted & available,
        permitted & available,
        inheritable & known(),
    );
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 takes a header and two data records; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) };
    syscall::result(result as i32)
        .map(drop)
        .map_err(failed("set the capabilities"))
}

/// The permitted set of this process.
fn available() -> Result<u64, RuntimeError> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 fills two data records, which are ours.
    let result = unsafe { libc::syscall(libc::SYS_capget, &header, data.as_mut_ptr()) };
    syscall::result(result as i32).map_err(failed("read the capabilities"))?;
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

/// All capabilities the kernel knows.
fn known() -> u64 {
    (0..=HIGHEST_POSSIBLE)
        // SAFETY: takes no pointers.
        .take_while(|capability| unsafe { libc::prctl(libc::PR_CAPBSET_READ, *capability, 0, 0, 0) } >= 0)
        .fold(0, |mask, capability| mask | 1 << capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_dockers() {
        let set = DEFAULT_CAPABILITIES.into_iter().collect();
        assert_eq!(
            mask(&Some(set)),
            0xa804_25fb,
            "as CapBnd of a Docker container shows it"
        );
    }
}
