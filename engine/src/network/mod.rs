//! Networks as the engine sees them: which there are, who gets which address and port, and what a container reads in `/etc`.

pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod defaults;
pub(crate) mod disconnect;
pub(crate) mod endpoint_options;
mod exposure;
pub(crate) mod hosts;
pub(crate) mod inspect;
pub(crate) mod ipam;
pub(crate) mod links;
pub(crate) mod numbers;
pub(crate) mod options;
pub(crate) mod parents;
pub(crate) mod place;
pub(crate) mod pools;
pub(crate) mod ports;
pub(crate) mod register;
pub(crate) mod remove;
pub(crate) mod resolv;
pub(crate) mod sharing;
pub(crate) mod sources;
