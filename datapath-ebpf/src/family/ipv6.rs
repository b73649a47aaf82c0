//! IPv6: its tables, and its questions to the kernel.

use core::mem::zeroed;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibQuestion, bpf_redir_neigh, bpf_sock_tuple,
    },
    helpers::{bpf_fib_lookup, bpf_redirect_neigh},
};
use sluice_datapath_common::{
    DropReason, Family, Ipv6, Ipv6Address, checksum,
    endpoint::{Attachment, Endpoint, EndpointKey},
    event::FlowEvent,
    flow::{Flow, FlowKey},
    fragment::{FragmentKey, FragmentPorts},
    network::{NETWORK_MASQUERADES6, NETWORK_ROUTED6, NETWORK_UNPROTECTED6, Network},
    overlay::{Host, Remote},
    policy::Groups,
    publish::{Publication, PublishKey, RangeKey, SourceKey},
    socket::{SocketPeer, SocketPeerKey},
    uplink::{LocalAddress, Uplink},
};

use super::{Kernel, Reach, Sockets, Tables, Way, owns};
use crate::{
    maps::{self, CONFIG, Desk, Prefix, Table},
    packet::{Facts, Frame},
};

impl Tables for Ipv6 {
    const FLOWS: Table<FlowKey<Self>, Flow<Self>> = Table::of(&raw const maps::FLOWS6);
    const OPENING: Table<FlowKey<Self>, Flow<Self>> = Table::of(&raw const maps::OPENING6);
    const ENDPOINTS: Table<EndpointKey<Self>, Endpoint> = Table::of(&raw const maps::ENDPOINTS6);
    const REMOTES: Table<EndpointKey<Self>, Remote> = Table::of(&raw const maps::REMOTES6);
    const SUBNETS: Table<Prefix<Ipv6Address>, u32> = Table::of(&raw const maps::SUBNETS6);
    const LOCAL: Table<Ipv6Address, LocalAddress> = Table::of(&raw const maps::LOCAL6);
    const UPLINKS: Table<u32, Uplink<Self>> = Table::of(&raw const maps::UPLINKS6);
    const PUBLISHED: Table<PublishKey<Self>, Publication<Self>> = Table::of(&raw const maps::PUBLISHED6);
    const RANGES: Table<Prefix<RangeKey<Self>>, Publication<Self>> = Table::of(&raw const maps::RANGES6);
    const SOURCES: Table<Prefix<SourceKey<Self>>, u32> = Table::of(&raw const maps::SOURCES6);
    const KNOWN: Table<Prefix<Ipv6Address>, Groups> = Table::of(&raw const maps::KNOWN6);
    const FRAGMENTS: Table<FragmentKey<Self>, FragmentPorts> = Table::of(&raw const maps::FRAGMENTS6);
    const PEERS: Table<SocketPeerKey<Self>, SocketPeer<Self>> = Table::of(&raw const maps::PEERS6);
    const MASQUERADES: u32 = NETWORK_MASQUERADES6;
    const ROUTED: u32 = NETWORK_ROUTED6;
    const UNPROTECTED: u32 = NETWORK_UNPROTECTED6;

    #[inline(always)]
    fn facts(quoted: bool) -> Option<&'static mut Facts<Self>> {
        // SAFETY: it is this CPU's own, and a program reads one packet and one quotation; integers only, and zero is a variant of each enum.
        maps::FACTS6
            .get_ptr_mut(quoted as u32)
            .map(|facts| unsafe { &mut *facts })
    }

    #[inline(always)]
    fn desk() -> Option<&'static mut Desk<Self>> {
        // SAFETY: it is this CPU's own, and each program asks for it once at a time; integers only, so any bytes are a value.
        maps::DESK6.get_ptr_mut(0).map(|desk| unsafe { &mut *desk })
    }

    #[inline(always)]
    fn told() -> Option<&'static mut FlowEvent<Self>> {
        // SAFETY: it is this CPU's own, and a program tells of one conversation at a time; integers only, so any bytes are a value.
        maps::TOLD_FLOW6.get_ptr_mut(0).map(|event| unsafe { &mut *event })
    }

    #[inline(always)]
    fn gateway(network: &Network) -> Ipv6Address {
        network.gateway6
    }

    #[inline(always)]
    fn resolver(network: &Network) -> Ipv6Address {
        network.resolver6
    }

    #[inline(always)]
    fn given(attachment: &Attachment) -> Ipv6Address {
        attachment.address6
    }

    #[inline(always)]
    fn says_to_many(attachment: &Attachment) -> Ipv6Address {
        Ipv6Address::link_local(attachment.mac)
    }

    #[inline(always)]
    fn is_broadcast(_network: &Network, _address: Ipv6Address) -> bool {
        false
    }

    #[inline(always)]
    fn reach(address: Ipv6Address) -> Reach {
        if address.is_multicast() {
            Reach::Multicast
        } else if address.is_link_local() {
            Reach::Link
        } else if address.0[0] == 0 && address.0[1] == 0 {
            // Unspecified, loopback, IPv4-mapped and what else RFC 4291 has there: all inside a host.
            Reach::Nowhere
        } else {
            Reach::Unicast
        }
    }

    #[inline(always)]
    fn mapped(address: Ipv6Address) -> Ipv6Address {
        address
    }

    #[inline(always)]
    fn unmapped(address: Ipv6Address) -> Ipv6Address {
        address
    }

    #[inline(always)]
    fn neighbour(host: &Host) -> Ipv6Address {
        host.neighbour6
    }

    #[inline(always)]
    fn difference(old: Ipv6Address, new: Ipv6Address) -> u32 {
        let mut sum = 0;
        for word in 0..4 {
            sum = checksum::add(sum, checksum::difference(old.0[word], new.0[word]));
        }
        sum
    }
}

impl Kernel for Ipv6 {
    /// As for IPv4. The next hop is a link-local address more often than not.
    #[inline(always)]
    fn way(frame: Frame, source: Ipv6Address, destination: Ipv6Address) -> Result<Way<Self>, DropReason> {
        // SAFETY: the struct consists of integers; all zero is a question about nothing.
        let mut question: FibQuestion = unsafe { zeroed() };
        question.family = Ipv6::AF;
        question.ifindex = CONFIG.load().host_ifindex;
        question.__bindgen_anon_3.ipv6_src = source.0;
        question.__bindgen_anon_4.ipv6_dst = destination.0;
        let size = size_of::<FibQuestion>() as i32;
        // SAFETY: the frame is the program's context, the question lives on the stack and has the size that is said.
        let answer = unsafe { bpf_fib_lookup(frame.context(), &raw mut question, size, 0) };
        match answer as u32 {
            BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => Ok(Way {
                ifindex: question.ifindex,
                // SAFETY: the union's members are integers.
                next_hop: Ipv6Address(unsafe { question.__bindgen_anon_4.ipv6_dst }),
            }),
            BPF_FIB_LKUP_RET_FWD_DISABLED => Err(DropReason::ForwardingDisabled),
            _ => Err(DropReason::NoRoute),
        }
    }

    #[inline(always)]
    fn leave(ifindex: u32, next_hop: Ipv6Address) -> i32 {
        if next_hop == Ipv6::ANY {
            // SAFETY: no parameters: the kernel looks the route up by itself.
            return unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) } as i32;
        }
        // SAFETY: integers only.
        let mut neighbour: bpf_redir_neigh = unsafe { zeroed() };
        neighbour.nh_family = u32::from(Ipv6::AF);
        neighbour.__bindgen_anon_1.ipv6_nh = next_hop.0;
        let size = size_of::<bpf_redir_neigh>() as i32;
        // SAFETY: the parameters live on the stack and have the size that is said; the kernel copies them.
        unsafe { bpf_redirect_neigh(ifindex, &raw mut neighbour, size, 0) as i32 }
    }

    #[inline(always)]
    fn socket_owns(frame: Frame, key: &FlowKey<Self>, which: Sockets) -> bool {
        // SAFETY: integers only.
        let mut tuple: bpf_sock_tuple = unsafe { zeroed() };
        // SAFETY: the union's members are integers.
        let ipv6 = unsafe { &mut tuple.__bindgen_anon_1.ipv6 };
        ipv6.saddr = key.source.0;
        ipv6.daddr = key.destination.0;
        ipv6.sport = key.source_port;
        ipv6.dport = key.destination_port;
        owns(frame, &mut tuple, 36, key.protocol, which)
    }
}
