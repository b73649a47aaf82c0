//! The devices and namespaces that the agent makes, and those of the host that it follows.

pub mod child;
pub mod gateway_device;
pub mod host_leg;
pub mod listing;
pub mod overlay;
pub mod parent;
pub mod resolver_leg;
pub mod sandbox;
pub mod seal;
pub mod uplink;
pub mod veth;
