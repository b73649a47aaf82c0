//! The processes of a container: how they are made, what they are given, and the shim that stays with them.

pub(crate) mod channel;
pub(crate) mod creator;
pub(crate) mod exec;
pub(crate) mod identity;
pub(crate) mod init;
pub(crate) mod reaper;
pub(crate) mod remapped;
pub(crate) mod shim;
pub(crate) mod stdio;
pub(crate) mod tty;
