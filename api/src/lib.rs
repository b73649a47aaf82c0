//! Speaks Docker's HTTP to the world.
//!
//! A request passes the [`door`] (version, faults), the [`router`] (all routes on one page), a function in [`routes`] that turns path, query and
//! body into words of the engine, and comes back through [`wire`], the only place that knows what Docker's JSON looks like.
#![forbid(unsafe_code)]

mod body;
#[cfg(test)]
mod coverage;
mod credentials;
mod detach;
mod door;
mod error;
mod filter;
mod host;
mod metrics;
mod name;
mod query;
mod router;
mod routes;
mod serve;
mod stream;
mod time;
mod version;
mod wire;

pub use metrics::Measures;
pub use router::{metrics_router, router};
pub use serve::{Socket, serve};
