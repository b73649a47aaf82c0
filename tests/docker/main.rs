//! The engine as people meet it, by the stock docker CLI.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod addresses;
mod archives;
mod attach;
mod bad_input;
mod beside;
mod cluster;
mod compose;
mod compose_requests;
mod exec;
mod files;
mod health;
mod hostile_archives;
mod images;
mod isolation;
mod joining;
mod leftovers;
mod lifecycle;
mod limits;
mod links;
mod looking;
mod many;
mod modes;
mod names;
mod networks;
mod registries;
mod remap;
mod restarts;
mod running;
mod security;
mod shapes;
mod strokes;
mod surface;
mod two_tiers;
mod volumes;
mod wires;
