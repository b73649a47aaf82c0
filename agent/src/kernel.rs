//! The border: system calls and files of the kernel. Nothing here knows what an endpoint is.

pub mod bpf;
pub mod datagrams;
pub mod genetlink;
pub mod mounts;
pub mod netlink;
pub mod netns;
pub mod ring;
pub mod sock_diag;
pub mod sysctl;
