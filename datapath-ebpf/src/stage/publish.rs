//! Who answers at an address and port of the host?

use core::ptr::NonNull;

use sluice_datapath_common::{
    DropReason, Family as _, Ipv4,
    flow::FlowKey,
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
    // SAFETY: the kernel keeps the slot of an entry readable until the program ends, even when the entry is removed meanwhile.
    find_entry::<F>(address, port, protocol).map(|entry| unsafe { entry.read() })
}

/// The same as it lies in its table.
#[inline(always)]
fn find_entry<F: Tables>(address: F::Address, port: u16, protocol: u8) -> Option<NonNull<Publication<F>>> {
    let mut key = PublishKey {
        address,
        port,
        protocol,
        padding: 0,
    };
    if let Some(publication) = F::PUBLISHED.find(&key) {
        return Some(publication);
    }
    key.address = F::ANY;
    if let Some(publication) = F::PUBLISHED.find(&key) {
        return Some(publication);
    }
    // Most hosts have no ranges, and a trie costs more than a hash.
    if !has_ranges() {
        return None;
    }
    let mut key = Prefix::whole(RangeKey {
        address,
        protocol: u16::from(protocol),
        port,
    });
    if let Some(publication) = F::RANGES.find(&key) {
        return Some(publication);
    }
    key.of_mut().address = F::ANY;
    F::RANGES.find(&key)
}

#[inline(always)]
fn has_ranges() -> bool {
    maps::settings().is_some_and(|settings| settings.published_ranges != 0)
}

/// The same for a packet with this key, which cannot change its family: an endpoint that has IPv4 only is for sockets of host processes
/// (`program/socket.rs`). Not 0: the publication is written. Out of line for its stack.
#[inline(never)]
pub fn find_for_packet<F: Tables>(key: &FlowKey<F>, publication: &mut Publication<F>) -> u32 {
    let Some(found) = find_entry::<F>(key.destination, key.destination_port, key.protocol) else {
        return 0;
    };
    write_down(found, publication);
    (F::AF == Ipv4::AF || F::reach(publication.address) == Reach::Unicast) as u32
}

/// The publication at exactly the address of this key. Not 0: it is written. Out of line for its stack.
#[inline(never)]
pub fn find_exact<F: Tables>(key: &FlowKey<F>, publication: &mut Publication<F>) -> u32 {
    let exact = PublishKey {
        address: key.destination,
        port: key.destination_port,
        protocol: key.protocol,
        padding: 0,
    };
    let found = match F::PUBLISHED.find(&exact) {
        None if has_ranges() => F::RANGES.find(&Prefix::whole(RangeKey {
            address: key.destination,
            protocol: u16::from(key.protocol),
            port: key.destination_port,
        })),
        found => found,
    };
    let Some(found) = found else { return 0 };
    write_down(found, publication);
    1
}

/// Field by field: `memmove` is a function here, with a stack of its own.
#[inline(always)]
fn write_down<F: Tables>(found: NonNull<Publication<F>>, publication: &mut Publication<F>) {
    // SAFETY: see `find`.
    let found = unsafe { found.as_ref() };
    publication.network = found.network;
    publication.limited = found.limited;
    publication.endpoint = found.endpoint;
    publication.address = found.address;
    publication.port = found.port;
    publication.first = found.first;
}

/// The way to whoever answers, if it is still the endpoint that published the port: its address may have been given to another.
#[inline(always)]
pub fn lead<F: Tables>(publication: &Publication<F>, leg: &mut Leg<F>) -> Result<(), DropReason> {
    leg.lead_to_endpoint(u32::from(publication.network), publication.address)?;
    match leg.endpoint == publication.endpoint {
        true => Ok(()),
        false => Err(DropReason::NoSuchEndpoint),
    }
}
