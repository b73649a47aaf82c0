//! Real containers, made by the runtime with its real shim. All of it needs root and is passed over without.

// What fails here fails a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cgroups;
mod escapes;
mod exec;
mod isolation;
mod lab;
mod lifecycle;
mod memory;
mod oracle;
mod robust;
mod speed;
mod streams;
mod userns;
mod view;
