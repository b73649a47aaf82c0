//! Who answers at an address and port of the host?

use sluice_datapath_common::publish::{Publication, PublishKey};

use crate::family::Tables;

/// The publication at this address of the host, or at all of them. The exact address goes first.
///
/// One at 127.0.0.1 is never found from a packet, as no packet to it gets as far as a program: it is for host processes alone
/// (`program/socket.rs`).
#[inline(always)]
pub fn find<F: Tables>(address: F::Address, port: u16, protocol: u8) -> Option<Publication<F>> {
    let exact = PublishKey {
        address,
        port,
        protocol,
        padding: 0,
    };
    if let Some(publication) = F::PUBLISHED.get(&exact) {
        return Some(publication);
    }
    F::PUBLISHED.get(&PublishKey {
        address: F::ANY,
        ..exact
    })
}
