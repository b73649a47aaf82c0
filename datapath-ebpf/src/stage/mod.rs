//! The questions that are asked of a packet, one a file.

pub mod admit;
pub mod antispoof;
pub mod arp;
pub mod bridge;
pub mod deliver;
pub mod error;
pub mod flow;
pub mod fragment;
pub mod hold;
pub mod lent;
pub mod life;
pub mod many;
pub mod masquerade;
pub mod neighbour;
pub mod open;
pub mod overlay;
pub mod policy;
pub mod publish;
pub mod reclaim;
pub mod refuse;
pub mod report;
pub mod resolver;
pub mod route;
pub mod weigh;
