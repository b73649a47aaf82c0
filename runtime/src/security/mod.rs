//! What the container's processes may do: capabilities and system calls.

pub(crate) mod apparmor;
pub(crate) mod capabilities;
pub(crate) mod seccomp;
pub(crate) mod seccomp_profile;
