//! Containers.

pub(crate) mod create;
pub(crate) mod files;
pub(crate) mod host_config;
pub(crate) mod inspect;
pub(crate) mod networks;
pub(crate) mod ports;
pub(crate) mod stats;
pub(crate) mod summary;

#[cfg(test)]
mod tests;
