//! The container's view of the file system: mounts, devices, masks, and the turn of the root.
//!
//! All of it runs in the new mount namespace, before the container's own program. Every path in the container's root is resolved by the
//! kernel within that root and then only spoken of by descriptor, so an image full of symbolic links can't lead a mount elsewhere.

pub(crate) mod devices;
pub(crate) mod masks;
pub(crate) mod mounts;
pub(crate) mod options;
pub(crate) mod pivot;
pub(crate) mod resolve;
pub(crate) mod shared_memory;
