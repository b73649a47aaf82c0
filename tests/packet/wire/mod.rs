//! Redirects carried out: a host, two containers and a LAN made of namespaces, and real sockets that talk through the programs.
//!
//! ```text
//!   web 10.7.0.2  fd07::2 ─┐                                  ┌─ lan 192.0.2.50  2001:db8::50
//!                          ├─ host: sluice0 10.7.0.1  fd07::1
//!   shop 10.7.0.3 fd07::3 ─┘        nic0 192.0.2.1  2001:db8::1
//! ```

mod datagrams;
mod handmade;
mod lossy;
mod namespace;
mod overlay;
mod places;
mod rig;
mod streams;
mod sums;
mod tagged;
mod transfer;

pub use namespace::{Namespace, run};
pub use places::{FAMILIES, Places, WEB6};
pub use rig::Rig;
pub use transfer::transfer;
