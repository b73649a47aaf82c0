//! Volumes: made, found, filled, mounted, removed.

pub(crate) mod create;
pub(crate) mod fill;
pub(crate) mod inspect;
pub(crate) mod local;
pub(crate) mod of_container;
pub(crate) mod prune;
pub(crate) mod register;
pub(crate) mod remove;
