//! The paths, a file each, named from where they stand.

pub mod from_container;
pub mod from_host;
pub mod from_nic;
pub mod from_overlay;
pub mod from_resolver;
pub mod socket;
pub mod socket6;
pub mod to_nic;
