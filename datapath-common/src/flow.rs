//! The flow: a packet's 5-tuple and scope, and what is to be done with it. A connection is two entries, one per direction, made together.

use crate::{Family, Ipv4, Ipv6, plain_old_data};

/// The scope of packets that come from the world by a NIC.
pub const SCOPE_WORLD: u32 = 0;
/// The scope of packets that the host's own stack sends to containers. Other scopes are network numbers, which start at 2,
/// and those of overlays (`overlay::scope_of`).
pub const SCOPE_HOST: u32 = 1;

/// The 5-tuple of a packet *as it arrives*, and where it came from.
///
/// For ICMP echo the identifier stands in both ports, for protocols without ports both are 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowKey<F: Family> {
    /// Source address.
    pub source: F::Address,
    /// Destination address.
    pub destination: F::Address,
    /// Source port, network byte order.
    pub source_port: u16,
    /// Destination port, network byte order.
    pub destination_port: u16,
    /// A network's number, [`SCOPE_WORLD`], [`SCOPE_HOST`] or an overlay's (`overlay::scope_of`).
    pub scope: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero: a key is compared by its bytes.
    pub padding: [u8; 3],
}

/// Where a flow's packets go.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Straight into the namespace behind the veth `ifindex`.
    Endpoint = 1,
    /// Into the host's stack by the host's leg `ifindex`.
    Host = 2,
    /// Out of the NIC `ifindex` to `next_hop`.
    World = 3,
    /// Stay on the device the packet is on and go on there (what the host's stack forwards, translated on its way out).
    Stay = 4,
    /// To another host, encapsulated: which one, and in which network, `reverse_scope` tells. `ifindex` is the NIC that it leaves by.
    Overlay = 5,
}

/// The source address or port changes.
pub const FLOW_REWRITES_SOURCE: u8 = 1 << 0;
/// The destination address or port changes.
pub const FLOW_REWRITES_DESTINATION: u8 = 1 << 1;
/// This entry is the way back: whoever opened the connection is its destination.
pub const FLOW_IS_REPLY: u8 = 1 << 2;
/// The opener's address was translated to one of the host's: the binding holds a port.
pub const FLOW_MASQUERADES: u8 = 1 << 3;
/// The connection was made through a published port.
pub const FLOW_PUBLISHED: u8 = 1 << 4;

/// TCP: whoever sends in this direction has sent its FIN.
pub const FLOW_FIN_SENT: u8 = 1 << 5;
/// The network's MTU is larger than the NIC's: packets are measured before they leave.
pub const FLOW_CHECKS_MTU: u8 = 1 << 6;

/// What to do with the packets of one direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flow<F: Family> {
    /// Packets that took this entry. Counted without a lock: exact as long as one CPU at a time carries the flow.
    pub packets: u64,
    /// Bytes of these packets, Ethernet header included.
    pub bytes: u64,
    /// When the last packet passed, `bpf_ktime_get_coarse_ns` (CLOCK_MONOTONIC, up to one tick behind), ns.
    pub last_seen: u64,
    /// When the entry was made, same clock, ns.
    pub opened: u64,
    /// The source address the packet leaves with.
    pub source: F::Address,
    /// The destination address the packet leaves with.
    pub destination: F::Address,
    /// The router or neighbour that takes it, for [`Action::World`]; zero: ask the host's routes for each packet.
    pub next_hop: F::Address,
    /// The source port it leaves with, network byte order.
    pub source_port: u16,
    /// The destination port it leaves with, network byte order.
    pub destination_port: u16,
    /// What the address changes add to an Internet checksum (RFC 1624), for `bpf_l3_csum_replace` and the pseudo header.
    pub address_difference: u32,
    /// What the port changes add to the checksum of the layer above.
    pub port_difference: u32,
    /// The device `action` speaks of.
    pub ifindex: u32,
    /// The epoch in which the flow was last judged.
    pub epoch: u32,
    /// The endpoint number of the sender of these packets, 0: host or world.
    pub source_endpoint: u32,
    /// Its generation when the flow was judged.
    pub source_generation: u32,
    /// The endpoint number of the receiver, 0: host or world.
    pub destination_endpoint: u32,
    /// Its generation when the flow was judged.
    pub destination_generation: u32,
    /// The scope of the entry of the other direction, so that it can be found from this one.
    pub reverse_scope: u32,
    /// The MAC the frame leaves with as destination, where the datapath writes one.
    pub destination_mac: [u8; 6],
    /// The MAC the frame leaves with as source, where the datapath writes one.
    pub source_mac: [u8; 6],
    /// An [`Action`].
    pub action: u8,
    /// `FLOW_*` bits.
    pub flags: u8,
    /// A [`State`].
    pub state: u8,
    /// A `lifetime::Class`.
    pub class: u8,
    /// Always zero.
    pub filler: F::Filler,
}

impl<F: Family> Flow<F> {
    /// The endpoint that answers for the connection, in either entry: whoever opened it, or was spoken to from outside. 0: none.
    #[inline(always)]
    pub fn owner(&self) -> u32 {
        let (opener, other) = match self.flags & FLOW_IS_REPLY {
            0 => (self.source_endpoint, self.destination_endpoint),
            _ => (self.destination_endpoint, self.source_endpoint),
        };
        if opener != 0 { opener } else { other }
    }
}

/// The state of a connection, kept alike in both of its entries.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing came back yet; TCP: the opener has not spoken again after the answer. An endpoint may have a few such flows in the large table, the
    /// others live in the small LRU table and can be pushed out by others of their kind.
    Unanswered = 0,
    /// Both sides have spoken (TCP: the opener twice, and neither has closed).
    Established = 1,
    /// TCP: one side has sent FIN.
    Closing = 2,
    /// TCP: both have sent FIN, or one RST.
    Closed = 3,
}

const _: () = assert!(size_of::<FlowKey<Ipv4>>() == 20 && size_of::<FlowKey<Ipv6>>() == 44);
const _: () = assert!(size_of::<Flow<Ipv4>>() == 104 && size_of::<Flow<Ipv6>>() == 144);

plain_old_data!(FlowKey<Ipv4>, FlowKey<Ipv6>, Flow<Ipv4>, Flow<Ipv6>);
