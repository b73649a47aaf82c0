//! The real programs, a packet at a time: packet in, verdict, packet out, entries left behind, counters moved (`BPF_PROG_TEST_RUN`).
//!
//! [`scene`] is the host the packets live on, [`datapath`] the programs and their tables, [`frame`] builds and takes apart what is sent.
//! [`reference`] says in plain Rust what they are to do, and [`random`] gives both the same packets by the million.
//! A redirect is not carried out in a test run; what really arrives is seen in `network`, with real namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed, and says where"
)]

mod datapath;
mod frame;
mod listener;
mod reference;
mod scene;
mod test_run;
mod twin;
mod wrapping;

mod arp;
mod bridged;
mod cost;
mod errors;
mod events;
mod families;
mod fragments;
mod hairpin;
mod host;
mod impostors;
mod judgement;
mod life;
mod modules;
mod monitor;
mod neighbours;
mod nic;
mod overlay;
mod pieces;
mod policy;
mod ports;
mod protocols;
mod published;
mod random;
mod report;
mod resolver;
mod routed;
mod rules;
mod shown;
mod speed;
mod verifier;
mod wire;
mod world;
