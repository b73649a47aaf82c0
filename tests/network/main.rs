//! The network as people meet it: pages, pings and transfers between a LAN, a host and its containers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod asking;
mod beside;
mod dns;
mod drops;
mod explain;
mod exposure;
mod full;
mod guards;
mod hairpin;
mod ipv6;
mod isolation;
mod lab_itself;
mod lent;
mod monitor;
mod mtu;
mod names;
mod netfilter;
mod outward;
mod pages;
mod ranges;
mod survival;
mod tools;
mod traffic;
