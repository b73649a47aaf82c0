//! The words the kernel side and the user side of the datapath share.
//!
//! Nothing here does I/O or allocates. It builds for the host too, so its rules are tested in microseconds without root.
//! Addresses and ports are in network byte order wherever they stand in a key or a value; every other number is in host order.
#![cfg_attr(not(test), no_std)]

pub mod checksum;
pub mod config;
pub mod counter;
pub mod crc32c;
pub mod drop;
pub mod endpoint;
pub mod event;
pub mod family;
pub mod flow;
pub mod fragment;
pub mod lifetime;
pub mod maps;
pub mod network;
pub mod overlay;
pub mod policy;
pub mod programs;
pub mod publish;
pub mod resolver;
pub mod settings;
pub mod socket;
pub mod uplink;

pub use drop::DropReason;
pub use family::{Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address};

/// Lets userspace copy a value to and from a kernel map as bytes.
///
/// Every type named here is `repr(C)`, holds only integers and has its padding written out as fields.
#[cfg(feature = "user")]
macro_rules! plain_old_data {
    ($($kind:ty),+ $(,)?) => { $(
        // SAFETY: `repr(C)`, integers only, no hidden padding (sizes are asserted beside each type): any bytes are a value.
        unsafe impl aya::Pod for $kind {}
    )+ };
}
#[cfg(not(feature = "user"))]
macro_rules! plain_old_data {
    ($($kind:ty),+ $(,)?) => {};
}
pub(crate) use plain_old_data;
