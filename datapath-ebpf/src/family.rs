//! What ties an address family to its tables, and to the questions that the kernel answers family by family.
//!
//! The traits are split by who implements them: [`Tables`] and [`Kernel`] here, `packet::Read` beside the reading, `rewrite::Write` beside the
//! writing, [`outline::Outline`] where the verifier's work is divided. [`Layer3`] is all of them.

mod ipv6;

use core::{mem::zeroed, ptr::NonNull};

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibQuestion, bpf_redir_neigh, bpf_sock, bpf_sock_tuple,
    },
    helpers::{bpf_fib_lookup, bpf_redirect_neigh, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use sluice_datapath_common::{
    DropReason, Family, Ipv4, Ipv4Address, Ipv6Address, checksum,
    endpoint::{Attachment, Endpoint, EndpointKey},
    event::FlowEvent,
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, FragmentPorts},
    network::{NETWORK_MASQUERADES, NETWORK_ROUTED, NETWORK_UNPROTECTED, Network},
    overlay::{Host, Remote},
    policy::Groups,
    publish::{Publication, PublishKey, RangeKey, SourceKey},
    socket::{SocketPeer, SocketPeerKey},
    uplink::{LocalAddress, Uplink},
};

use crate::{
    maps::{self, CONFIG, Desk, Prefix, Table},
    outline,
    packet::{self, Facts, Frame, UDP},
    rewrite,
};

/// A family whose packets we carry.
pub trait Layer3: Tables + Kernel + packet::Read + rewrite::Write + outline::Outline {}

/// The tables of the family.
pub trait Tables: Family {
    /// Answered flows.
    const FLOWS: Table<FlowKey<Self>, Flow<Self>>;
    /// Flows that nobody has answered yet.
    const OPENING: Table<FlowKey<Self>, Flow<Self>>;
    /// Who lives at an address of a network.
    const ENDPOINTS: Table<EndpointKey<Self>, Endpoint>;
    /// Who lives at an address of a network on another host.
    const REMOTES: Table<EndpointKey<Self>, Remote>;
    /// The network an address belongs to.
    const SUBNETS: Table<Prefix<Self::Address>, u32>;
    /// The host's own addresses.
    const LOCAL: Table<Self::Address, LocalAddress>;
    /// NICs.
    const UPLINKS: Table<u32, Uplink<Self>>;
    /// Published ports.
    const PUBLISHED: Table<PublishKey<Self>, Publication<Self>>;
    /// Published ranges of ports.
    const RANGES: Table<Prefix<RangeKey<Self>>, Publication<Self>>;
    /// Who may use an endpoint's published ports, where not everybody may.
    const SOURCES: Table<Prefix<SourceKey<Self>>, u32>;
    /// The groups that an address belongs to.
    const KNOWN: Table<Prefix<Self::Address>, Groups>;
    /// The ports of datagrams whose later fragments are awaited.
    const FRAGMENTS: Table<FragmentKey<Self>, FragmentPorts>;
    /// Translated sockets of host processes.
    const PEERS: Table<SocketPeerKey<Self>, SocketPeer<Self>>;

    /// The flag of networks that masquerade.
    const MASQUERADES: u32;
    /// The flag of networks that are routed.
    const ROUTED: u32;
    /// The flag of networks whose endpoints are reached at all ports by who has a route.
    const UNPROTECTED: u32;

    /// Where this CPU notes what it has read of a packet, or of the one that it quotes.
    fn facts(quoted: bool) -> Option<&'static mut Facts<Self>>;
    /// This CPU's desk.
    fn desk() -> Option<&'static mut Desk<Self>>;
    /// Where this CPU writes the event of a conversation.
    fn told() -> Option<&'static mut FlowEvent<Self>>;
    /// The network's gateway address; `ANY`: none.
    fn gateway(network: &Network) -> Self::Address;
    /// Where the network's endpoints find the resolver; `ANY`: nowhere.
    fn resolver(network: &Network) -> Self::Address;
    /// The address the endpoint was given; `ANY`: none.
    fn given(attachment: &Attachment) -> Self::Address;
    /// The address that the endpoint may bear besides when it speaks to many: before it has one, and on its link.
    fn says_to_many(attachment: &Attachment) -> Self::Address;
    /// Is it the address of all endpoints of the network?
    fn is_broadcast(network: &Network, address: Self::Address) -> bool;
    /// What kind of address it is.
    fn reach(address: Self::Address) -> Reach;
    /// As the tables of overlays have it: an IPv4 address as an IPv4-mapped one.
    fn mapped(address: Self::Address) -> Ipv6Address;
    /// The other way round. Of an address of the other family it is nonsense.
    fn unmapped(address: Ipv6Address) -> Self::Address;
    /// The address of another host on a link that it shares with us; `ANY`: it has none.
    fn neighbour(host: &Host) -> Self::Address;
    /// What replacing `old` by `new` adds to a checksum.
    fn difference(old: Self::Address, new: Self::Address) -> u32;
}

/// What the kernel is asked per family.
pub trait Kernel: Family {
    /// The way to `destination` as the host's routes have it for a packet that came in by the host's leg from `source`.
    fn way(frame: Frame, source: Self::Address, destination: Self::Address) -> Result<Way<Self>, DropReason>;
    /// Sends the frame out of `ifindex`; the neighbour table supplies the MACs. A zero `next_hop` asks the routes once more.
    fn leave(ifindex: u32, next_hop: Self::Address) -> i32;
    /// Does such a socket of this network namespace own what arrives as `key`?
    fn socket_owns(frame: Frame, key: &FlowKey<Self>, which: Sockets) -> bool;
}

/// Out of a device, to a neighbour.
#[derive(Clone, Copy)]
pub struct Way<F: Family> {
    /// The device.
    pub ifindex: u32,
    /// The router, or the destination itself; `ANY`: the router speaks another family, ask the routes for each packet.
    pub next_hop: F::Address,
}

/// Which sockets count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// All.
    All,
    /// None that listens for connections.
    Speaking,
    /// Those that speak to one peer.
    Connected,
}

/// Kinds of addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// One host.
    Unicast,
    /// Many hosts.
    Multicast,
    /// One host, of the same link only.
    Link,
    /// Never on a wire.
    Nowhere,
}

impl<F: Tables + Kernel + packet::Read + rewrite::Write + outline::Outline> Layer3 for F {}

// === impl Ipv4 ===

impl Tables for Ipv4 {
    const FLOWS: Table<FlowKey<Self>, Flow<Self>> = Table::of(&raw const maps::FLOWS4);
    const OPENING: Table<FlowKey<Self>, Flow<Self>> = Table::of(&raw const maps::OPENING4);
    const ENDPOINTS: Table<EndpointKey<Self>, Endpoint> = Table::of(&raw const maps::ENDPOINTS4);
    const REMOTES: Table<EndpointKey<Self>, Remote> = Table::of(&raw const maps::REMOTES4);
    const SUBNETS: Table<Prefix<Ipv4Address>, u32> = Table::of(&raw const maps::SUBNETS4);
    const LOCAL: Table<Ipv4Address, LocalAddress> = Table::of(&raw const maps::LOCAL4);
    const UPLINKS: Table<u32, Uplink<Self>> = Table::of(&raw const maps::UPLINKS4);
    const PUBLISHED: Table<PublishKey<Self>, Publication<Self>> = Table::of(&raw const maps::PUBLISHED4);
    const RANGES: Table<Prefix<RangeKey<Self>>, Publication<Self>> = Table::of(&raw const maps::RANGES4);
    const SOURCES: Table<Prefix<SourceKey<Self>>, u32> = Table::of(&raw const maps::SOURCES4);
    const KNOWN: Table<Prefix<Ipv4Address>, Groups> = Table::of(&raw const maps::KNOWN4);
    const FRAGMENTS: Table<FragmentKey<Self>, FragmentPorts> = Table::of(&raw const maps::FRAGMENTS4);
    const PEERS: Table<SocketPeerKey<Self>, SocketPeer<Self>> = Table::of(&raw const maps::PEERS4);
    const MASQUERADES: u32 = NETWORK_MASQUERADES;
    const ROUTED: u32 = NETWORK_ROUTED;
    const UNPROTECTED: u32 = NETWORK_UNPROTECTED;

    #[inline(always)]
    fn facts(quoted: bool) -> Option<&'static mut Facts<Self>> {
        // SAFETY: it is this CPU's own, and a program reads one packet and one quotation; integers only, and zero is a variant of each enum.
        maps::FACTS4
            .get_ptr_mut(quoted as u32)
            .map(|facts| unsafe { &mut *facts })
    }

    #[inline(always)]
    fn desk() -> Option<&'static mut Desk<Self>> {
        // SAFETY: it is this CPU's own, and each program asks for it once at a time; integers only, so any bytes are a value.
        maps::DESK4.get_ptr_mut(0).map(|desk| unsafe { &mut *desk })
    }

    #[inline(always)]
    fn told() -> Option<&'static mut FlowEvent<Self>> {
        // SAFETY: it is this CPU's own, and a program tells of one conversation at a time; integers only, so any bytes are a value.
        maps::TOLD_FLOW4.get_ptr_mut(0).map(|event| unsafe { &mut *event })
    }

    #[inline(always)]
    fn gateway(network: &Network) -> Ipv4Address {
        network.gateway4
    }

    #[inline(always)]
    fn resolver(network: &Network) -> Ipv4Address {
        network.resolver4
    }

    #[inline(always)]
    fn given(attachment: &Attachment) -> Ipv4Address {
        attachment.address4
    }

    #[inline(always)]
    fn says_to_many(_attachment: &Attachment) -> Ipv4Address {
        Ipv4::ANY
    }

    #[inline(always)]
    fn is_broadcast(network: &Network, address: Ipv4Address) -> bool {
        address == network.broadcast4 && address != Ipv4::ANY
    }

    #[inline(always)]
    fn reach(address: Ipv4Address) -> Reach {
        match u32::from_be(address.0) >> 24 {
            0 | 127 => Reach::Nowhere,
            224..=239 => Reach::Multicast,
            240..=255 if address.0 == u32::MAX => Reach::Multicast,
            240..=255 => Reach::Nowhere,
            _ => Reach::Unicast,
        }
    }

    #[inline(always)]
    fn mapped(address: Ipv4Address) -> Ipv6Address {
        Ipv6Address::mapped(address)
    }

    #[inline(always)]
    fn unmapped(address: Ipv6Address) -> Ipv4Address {
        Ipv4Address(address.0[3])
    }

    #[inline(always)]
    fn neighbour(host: &Host) -> Ipv4Address {
        host.neighbour4
    }

    #[inline(always)]
    fn difference(old: Ipv4Address, new: Ipv4Address) -> u32 {
        checksum::difference(old.0, new.0)
    }
}

impl Kernel for Ipv4 {
    /// The kernel answers 0 or a `BPF_FIB_LKUP_RET_*`. Without a resolved neighbour (NO_NEIGH) and for a packet over the route's MTU
    /// (FRAG_NEEDED) it has filled in the device and the next hop all the same; both are dealt with when the packet leaves.
    ///
    /// The source stays the packet's own, as it would be for the host's stack, so that routing rules by source do what they say.
    #[inline(always)]
    fn way(frame: Frame, source: Ipv4Address, destination: Ipv4Address) -> Result<Way<Self>, DropReason> {
        // SAFETY: the struct consists of integers; all zero is a question about nothing.
        let mut question: FibQuestion = unsafe { zeroed() };
        question.family = Ipv4::AF;
        question.ifindex = CONFIG.load().host_ifindex;
        question.__bindgen_anon_3.ipv4_src = source.0;
        question.__bindgen_anon_4.ipv4_dst = destination.0;
        let size = size_of::<FibQuestion>() as i32;
        // SAFETY: the frame is the program's context, the question lives on the stack and has the size that is said.
        let answer = unsafe { bpf_fib_lookup(frame.context(), &raw mut question, size, 0) };
        match answer as u32 {
            BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => {
                // SAFETY: the union's members are integers.
                let next_hop = match question.family {
                    Ipv4::AF => unsafe { question.__bindgen_anon_4.ipv4_dst },
                    _ => 0,
                };
                Ok(Way {
                    ifindex: question.ifindex,
                    next_hop: Ipv4Address(next_hop),
                })
            }
            BPF_FIB_LKUP_RET_FWD_DISABLED => Err(DropReason::ForwardingDisabled),
            _ => Err(DropReason::NoRoute),
        }
    }

    #[inline(always)]
    fn leave(ifindex: u32, next_hop: Ipv4Address) -> i32 {
        if next_hop == Ipv4::ANY {
            // SAFETY: no parameters: the kernel looks the route up by itself.
            return unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) } as i32;
        }
        // SAFETY: integers only.
        let mut neighbour: bpf_redir_neigh = unsafe { zeroed() };
        neighbour.nh_family = u32::from(Ipv4::AF);
        neighbour.__bindgen_anon_1.ipv4_nh = next_hop.0;
        let size = size_of::<bpf_redir_neigh>() as i32;
        // SAFETY: the parameters live on the stack and have the size that is said; the kernel copies them.
        unsafe { bpf_redirect_neigh(ifindex, &raw mut neighbour, size, 0) as i32 }
    }

    #[inline(always)]
    fn socket_owns(frame: Frame, key: &FlowKey<Self>, which: Sockets) -> bool {
        // SAFETY: integers only.
        let mut tuple: bpf_sock_tuple = unsafe { zeroed() };
        // SAFETY: the union's members are integers.
        let ipv4 = unsafe { &mut tuple.__bindgen_anon_1.ipv4 };
        ipv4.saddr = key.source.0;
        ipv4.daddr = key.destination.0;
        ipv4.sport = key.source_port;
        ipv4.dport = key.destination_port;
        owns(frame, &mut tuple, 12, key.protocol, which)
    }
}

/// Does a socket own what arrives as the tuple, which is `size` bytes long?
#[inline(always)]
fn owns(frame: Frame, tuple: &mut bpf_sock_tuple, size: u32, protocol: u8, which: Sockets) -> bool {
    /// `BPF_F_CURRENT_NETNS`
    const THIS_NAMESPACE: u64 = u64::MAX;
    /// `TCP_LISTEN`
    const LISTEN: u32 = 10;
    /// `TCP_ESTABLISHED`, which a connected socket of UDP is, too.
    const ESTABLISHED: u32 = 1;
    // SAFETY: the frame is the program's context; the tuple holds at least `size` bytes.
    let socket = unsafe {
        match protocol {
            UDP => bpf_sk_lookup_udp(frame.context(), &raw mut *tuple, size, THIS_NAMESPACE, 0),
            _ => bpf_skc_lookup_tcp(frame.context(), &raw mut *tuple, size, THIS_NAMESPACE, 0),
        }
    };
    let Some(socket) = NonNull::<bpf_sock>::new(socket) else {
        return false;
    };
    // SAFETY: a socket that was looked up may be read until it is released, which must happen exactly once.
    unsafe {
        let state = (*socket.as_ptr()).state;
        let owns = match (which, protocol) {
            (Sockets::All, _) | (Sockets::Speaking, UDP) => true,
            (Sockets::Connected, UDP) => state == ESTABLISHED,
            _ => state != LISTEN,
        };
        bpf_sk_release(socket.as_ptr().cast());
        owns
    }
}
