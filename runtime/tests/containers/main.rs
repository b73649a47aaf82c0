//! Real containers, made by the runtime with its real shim. All of it needs root and is passed over without.

mod cgroups;
mod exec;
mod isolation;
mod lab;
mod lifecycle;
mod memory;
mod oracle;
mod speed;
mod streams;
