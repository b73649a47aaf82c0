//! Questions for names: where endpoints ask, and where their questions go.
//!
//! An endpoint asks at an address that means the resolver in every namespace. The socket hooks turn that into an address of the endpoint's own network,
//! which no packet is routed to: `from_container` hands what is for it to the resolver's leg, past the host's stack and its firewall.

use crate::{Ipv4Address, Ipv6Address, plain_old_data};

/// Where endpoints ask by IPv4, as Docker's do.
pub const ASKED4: Ipv4Address = Ipv4Address::new([127, 0, 0, 11]);
/// Where endpoints without IPv4 ask. Of the prefix whose packets are thrown away (RFC 6666): should a question ever get past the hooks, it goes nowhere.
pub const ASKED6: Ipv6Address = Ipv6Address::new([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11]);
/// The port they ask, host byte order.
pub const ASKED_PORT: u16 = 53;
/// The port their questions go to, host byte order. Not that of DNS: a host may answer at its gateway addresses by itself. It was that of `systat`, which
/// nobody has answered for decades.
pub const RESOLVER_PORT: u16 = 11;

/// Where the sockets of a network namespace find the resolver.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Resolver {
    /// By IPv4; zero: the namespace has no IPv4.
    pub address4: Ipv4Address,
    /// By IPv6; zero: the namespace has no IPv6.
    pub address6: Ipv6Address,
}

/// How much an endpoint asks. Counted without a lock.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Asking {
    /// The tick of the last question.
    pub tick: u32,
    /// Packets that have not leaked yet.
    pub questions: u32,
}

impl Asking {
    /// A tick is two to the power of this many ns: 16.8 ms.
    pub const TICK_SHIFT: u32 = 24;
    /// How many ticks' packets there is room for.
    pub const DEPTH: u32 = 6;
}

const _: () = assert!(size_of::<Resolver>() == 20 && size_of::<Asking>() == 8);

plain_old_data!(Resolver, Asking);
