//! The agent on a host of its own, with the real programs. Needs root; says so and passes without.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod stage;
mod witness;

mod endpoints;
mod ipv6;
mod leaving;
mod restarts;
mod uplinks;
