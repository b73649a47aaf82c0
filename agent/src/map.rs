//! The tables of the datapath: opened, read, written. Their list is `for_each_map!` of the contract.

pub mod contents;
pub mod handle;
pub mod pins;
pub mod rules;
