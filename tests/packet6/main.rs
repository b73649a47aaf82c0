//! The tests of `packet` for IPv6: the same scene, the same packets, the same expectations, spoken in the other family.
//!
//! The tests say what they say in IPv4. Between them and the programs stands an interpreter: tables get the twins of their entries ([`datapath`]),
//! frames are translated on their way in and out ([`translate`]). Checksums are carried over, not made anew: what is wrong in IPv6 is wrong in
//! IPv4. What only IPv6 has is tested in words of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed, and says where"
)]
#![allow(
    dead_code,
    reason = "the scene is shared with the tests of IPv4, and not all of it is needed here"
)]

mod chains;
mod datapath;
mod discovery;
mod listener;
mod report;
mod six;
mod translate;

#[path = "../packet/datapath.rs"]
mod programs;

#[path = "../packet/frame.rs"]
mod frame;
#[path = "../packet/scene.rs"]
mod scene;
#[path = "../packet/test_run.rs"]
mod test_run;
#[path = "../packet/twin.rs"]
mod twin;
#[path = "../packet/listener.rs"]
mod wiretap;

#[path = "../packet/errors.rs"]
mod errors;
#[path = "../packet/events.rs"]
mod events;
#[path = "../packet/fragments.rs"]
mod fragments;
#[path = "../packet/hairpin.rs"]
mod hairpin;
#[path = "../packet/host.rs"]
mod host;
#[path = "../packet/impostors.rs"]
mod impostors;
#[path = "../packet/judgement.rs"]
mod judgement;
#[path = "../packet/life.rs"]
mod life;
#[path = "../packet/monitor.rs"]
mod monitor;
#[path = "../packet/neighbours.rs"]
mod neighbours;
#[path = "../packet/nic.rs"]
mod nic;
#[path = "../packet/policy.rs"]
mod policy;
#[path = "../packet/ports.rs"]
mod ports;
#[path = "../packet/published.rs"]
mod published;
#[path = "../packet/resolver.rs"]
mod resolver;
#[path = "../packet/routed.rs"]
mod routed;
#[path = "../packet/rules.rs"]
mod rules;
#[path = "../packet/world.rs"]
mod world;
