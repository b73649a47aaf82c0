//! Who answers at an address and port of the host?

use sluice_datapath_common::{
    DropReason, Family as _, Ipv4,
    publish::{Publication, PublishKey, RangeKey},
};

use super::route::Leg;
use crate::{
    family::{Reach, Tables},
    maps::{self, Prefix},
};

/// The publication at this address of the host, or at all of them. The exact address goes first, and a single port
/// before a range.
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
    let anywhere = PublishKey {
        address: F::ANY,
        ..exact
    };
    if let Some(publication) = F::PUBLISHED.get(&anywhere) {
        return Some(publication);
    }
    // Most hosts have no ranges, and a trie costs more than a hash.
    match maps::settings() {
        Some(settings) if settings.published_ranges != 0 => find_in_ranges::<F>(address, port, protocol),
        _ => None,
    }
}

/// The same among the ranges.
#[inline(always)]
fn find_in_ranges<F: Tables>(address: F::Address, port: u16, protocol: u8) -> Option<Publication<F>> {
    let exact = RangeKey {
        address,
        protocol: u16::from(protocol),
        port,
    };
    if let Some(publication) = F::RANGES.get(&Prefix::whole(exact)) {
        return Some(publication);
    }
    F::RANGES.get(&Prefix::whole(RangeKey {
        address: F::ANY,
        ..exact
    }))
}

/// The same for a packet, which cannot change its family: an endpoint that has IPv4 only is for sockets of host processes
/// (`program/socket.rs`).
#[inline(always)]
pub fn find_for_packet<F: Tables>(address: F::Address, port: u16, protocol: u8) -> Option<Publication<F>> {
    find::<F>(address, port, protocol)
        .filter(|publication| F::AF == Ipv4::AF || F::reach(publication.address) == Reach::Unicast)
}

/// The publication at exactly this address.
#[inline(always)]
pub fn find_exact<F: Tables>(address: F::Address, port: u16, protocol: u8) -> Option<Publication<F>> {
    let exact = PublishKey {
        address,
        port,
        protocol,
        padding: 0,
    };
    if let Some(publication) = F::PUBLISHED.get(&exact) {
        return Some(publication);
    }
    match maps::settings() {
        Some(settings) if settings.published_ranges != 0 => F::RANGES.get(&Prefix::whole(RangeKey {
            address,
            protocol: u16::from(protocol),
            port,
        })),
        _ => None,
    }
}

/// The way to whoever answers, if it is still the endpoint that published the port: its address may have been given to another.
#[inline(always)]
pub fn lead<F: Tables>(publication: &Publication<F>, leg: &mut Leg<F>) -> Result<(), DropReason> {
    leg.lead_to_endpoint(publication.network, publication.address)?;
    match leg.endpoint == publication.endpoint {
        true => Ok(()),
        false => Err(DropReason::NoSuchEndpoint),
    }
}
