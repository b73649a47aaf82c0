//! The real programs, a packet at a time: packet in, verdict, packet out, entries left behind, counters moved (`BPF_PROG_TEST_RUN`).
//!
//! [`scene`] is the host the packets live on, [`datapath`] the programs and their tables, [`frame`] builds and takes apart what is sent.
//! A redirect is not carried out in a test run; what really arrives is seen in `network`, with real namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed, and says where"
)]

mod datapath;
mod frame;
mod scene;

mod arp;
mod errors;
mod fragments;
mod host;
mod impostors;
mod judgement;
mod life;
mod neighbours;
mod nic;
mod published;
mod speed;

mod verifier;
mod wire;
mod world;
