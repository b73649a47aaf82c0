//! Desired minus actual: what is to be done. Pure, so that it is tested with tables.
//!
//! It is found in two halves, because the tables speak of devices by numbers that the kernel gives: [`devices`] says which devices, sandboxes
//! and addresses go and come; [`tables`] says what the tables must hold for the devices that are there, and [`steps`] how to get there.

use std::collections::BTreeMap;

pub use beside::Beside;
pub use devices::{Devices, devices};
pub use place::{Place, places};
pub use remotes::{RemoteSteps, Settled};
pub use steps::{Steps, steps};
pub use tables::tables;

mod beside;
mod devices;
mod endpoint;
mod network;
pub mod overlay;
mod place;
mod policy;
mod publish;
mod remotes;
pub mod rules;
mod steps;
mod tables;
#[cfg(test)]
mod tests;

/// What cannot be made, by the id of what it was for.
pub type Troubles = BTreeMap<String, String>;
