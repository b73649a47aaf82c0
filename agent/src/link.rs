//! The devices and namespaces that the agent makes, and those of the host that it follows.

pub mod host_leg;
pub mod listing;
pub mod sandbox;
pub mod uplink;
pub mod veth;
