//! Between hosts: what endpoints on other hosts say and are told (VXLAN, RFC 7348).
//!
//! A network is the same on all of its hosts: a frame that arrives is carried as if its sender stood behind a veth of this host, but in a scope of its own
//! that names the host it came from. So what one host has opened no other can continue, and who lives where is asked of the first packet alone.
//!
//! The programs wrap and unwrap by themselves. What they cannot do (packets that were wrapped once before, datagrams to be cut up by the kernel later,
//! those that must go in pieces) goes by the VXLAN device, where the kernel does it; `from_overlay` takes over behind it.

use core::mem::zeroed;

use aya_ebpf::{
    bindings::{BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers::{bpf_redirect, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
};
use sluice_datapath_common::{
    DropReason, Family, Ipv4, Ipv6, Ipv6Address,
    endpoint::EndpointKey,
    flow::{Action, FlowKey},
    network::{NETWORK_DIRECT, NETWORK_ENCRYPTED, NETWORK_INTERNAL},
    overlay::{Host, Remote, SEALED, host_of, network_of, scope_of},
    publish::Publication,
};

use super::{
    admit::{self, Affair, Number, Plan},
    deliver, error, flow,
    fragment::{self, Place},
    hold::Sender,
    policy, publish, report,
};
use crate::{
    family::{Layer3, Reach, Tables, Way},
    maps::{self, Desk, Prefix, SENDERS, Table, VNIS},
    packet::{
        ETHERNET, Fragment, Frame, Layer4, Packet, TCP, UDP,
        overlay::{Wrapping, holds_datagrams, is_congested, wrapped_by},
    },
    rewrite::overlay::{Underlay, scratch, unwrap, wrap as wrap_in},
    verdict::{self, Verdict},
};

/// The packet fits. No reason has this number, nor has a verdict.
const FITS: verdict::Number = 0;
/// No packet that is shorter needs to be measured: what every IPv4 host takes (RFC 791), in the smallest wrapping.
pub const ALWAYS_FITS: u32 = 512;

// === arriving ===

/// Is the packet one that another host has encapsulated? Pieces of one go to the host's stack, which puts them together.
#[inline(always)]
pub fn is_wrapped<F: Tables>(packet: &Packet<F>) -> bool {
    packet.key.protocol == UDP
        && packet.fragment == Fragment::Whole
        && maps::settings()
            .is_some_and(|settings| settings.overlay_port != 0 && settings.overlay_port == packet.key.destination_port)
        && F::LOCAL.find(&packet.key.destination).is_some()
}

/// Unwraps the packet in hand: the frame is the inner one then, and the answer its scope. Or the number of what becomes of it. Out of line for its stack.
#[inline(always)]
pub fn open<F: Layer3>(frame: Frame) -> Number {
    match open_inline::<F>(frame) {
        Ok(Some(scope)) => scope,
        Ok(None) => verdict::number(Ok(Verdict::Stack)),
        Err(reason) => verdict::number(Err(reason)),
    }
}

/// None: the kernel is to unwrap it.
#[inline(always)]
fn open_inline<F: Layer3>(frame: Frame) -> Result<Option<u32>, DropReason> {
    let facts = F::facts(false).ok_or(DropReason::Truncated)?;
    let above = facts.above;
    let wrapping = Wrapping::read(frame, above)?;
    let vni = wrapping.vni().ok_or(DropReason::UnknownVni)?;
    // what is encrypted does not come in here: the host's stack takes it, and the VXLAN device behind it
    let scope = scope_by(vni, F::mapped(facts.key.source), SEALED)?;
    let inner = u16::from_be(wrapping.ethernet.ether_type);
    let flags = match inner {
        same if same == F::ETHER_TYPE => 0,
        Ipv4::ETHER_TYPE => Ipv4::COMES_OUT,
        Ipv6::ETHER_TYPE => Ipv6::COMES_OUT,
        _ => return Err(DropReason::UnknownEtherType),
    };
    if is_congested::<F>(frame) || holds_datagrams(frame, above, inner) {
        return Ok(None);
    }
    let unwrapped = unwrap(frame, wrapped_by(above), flags, &wrapping.ethernet)?;
    Ok(unwrapped.then_some(scope))
}

/// The scope of what comes with this VNI from this address. An encrypted network and the address of an encrypted way belong together; `never`: one of these
/// bits neither may have.
#[inline(always)]
fn scope_by(vni: u32, address: Ipv6Address, never: u32) -> Result<u32, DropReason> {
    const NETWORKS: Table<u32, u32> = Table::of(&raw const VNIS);
    const HOSTS: Table<Ipv6Address, u32> = Table::of(&raw const SENDERS);
    let network = NETWORKS.get(&vni).ok_or(DropReason::UnknownVni)?;
    let host = HOSTS.get(&address).ok_or(DropReason::NotAMember)?;
    if (host ^ network) & SEALED != 0 || (host | network) & never != 0 {
        return Err(DropReason::InTheClear);
    }
    Ok(scope_of(host & !SEALED, network & !SEALED))
}

/// The scope of a frame that the kernel has unwrapped, or the number of what becomes of it. Out of line for its stack.
#[inline(always)]
pub fn find_scope(frame: Frame) -> Number {
    match find_scope_inline(frame) {
        Ok(scope) => scope,
        Err(reason) => verdict::number(Err(reason)),
    }
}

#[inline(always)]
fn find_scope_inline(frame: Frame) -> Result<u32, DropReason> {
    // SAFETY: integers only; all zero is a key like another.
    let mut key: bpf_tunnel_key = unsafe { zeroed() };
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the frame is the program's context; the key lies on the stack and has the size that is said. The union's members are integers.
    let address = unsafe {
        if bpf_skb_get_tunnel_key(frame.skb(), &raw mut key, size, 0) == 0 {
            Ipv4::mapped(sluice_datapath_common::Ipv4Address(
                key.__bindgen_anon_1.remote_ipv4.to_be(),
            ))
        } else if bpf_skb_get_tunnel_key(frame.skb(), &raw mut key, size, u64::from(BPF_F_TUNINFO_IPV6)) == 0 {
            Ipv6Address(key.__bindgen_anon_1.remote_ipv6)
        } else {
            return Err(DropReason::NotAMember);
        }
    };
    scope_by(key.tunnel_id, address, 0)
}

/// Carries an inner frame on, which came from another host in this scope.
#[inline(always)]
pub fn carry(frame: Frame, scope: u32) -> Result<Verdict, DropReason> {
    match frame.ether_type() {
        Ipv4::ETHER_TYPE => carry_by::<Ipv4>(frame, scope),
        Ipv6::ETHER_TYPE => carry_by::<Ipv6>(frame, scope),
        _ => Err(DropReason::UnknownEtherType),
    }
}

#[inline(always)]
fn carry_by<F: Layer3>(frame: Frame, scope: u32) -> Result<Verdict, DropReason> {
    let mut packet = Packet::<F>::read(frame, scope)?;
    // Who lives where is known here: hosts of other makes may ask, and are told by their own tables.
    if packet.layer4 == Layer4::Discovery {
        return Ok(Verdict::Heard);
    }
    // What has overtaken its first piece between two hosts has nowhere to wait.
    if fragment::follow(&packet, Sender::passing())? != Place::Known {
        return Err(DropReason::FragmentAlone);
    }
    if packet.layer4 == Layer4::Error {
        return error::follow(&mut packet);
    }
    let known = match flow::follow(&packet)? {
        Some(known) => known,
        None => match admit::judgement(F::admit(frame))? {
            Affair::Ours => flow::opened(&packet)?,
            Affair::Hosts => return Err(DropReason::NoSuchEndpoint),
        },
    };
    deliver::along(&packet, known)
}

// === judging ===

/// Judges what lies on the desk and was sent by another host: its endpoints and the host itself speak to our endpoints, and clients of ports that are
/// published there.
#[inline(always)]
pub fn judge<F: Layer3>() -> Number {
    let Some(Desk {
        key, plan, publication, ..
    }) = F::desk()
    else {
        return admit::number(Ok(Affair::Hosts));
    };
    plan.begin(key);
    admit::number(judge_inline(key, plan, publication).map(|()| Affair::Ours))
}

#[inline(always)]
fn judge_inline<F: Layer3>(
    key: &FlowKey<F>,
    plan: &mut Plan<F>,
    publication: &mut Publication<F>,
) -> Result<(), DropReason> {
    let (host, home) = (host_of(key.scope), network_of(key.scope));
    let network = maps::network(home).ok_or(DropReason::UnknownVni)?;
    admit::check_reach::<F>(key.destination)?;
    plan.there.lead_to_endpoint(home, key.destination)?;
    // What lives elsewhere is reached there: nothing is handed on.
    if plan.there.action != Action::Endpoint as u8 {
        return Err(DropReason::NoSuchEndpoint);
    }
    plan.back.lead_to_overlay(host, home, network.gateway_mac)?;
    if let Some(remote) = find_remote::<F>(home, &key.source) {
        // SAFETY: the kernel keeps the entry's slot readable until the program ends.
        let remote = unsafe { remote.as_ref() };
        if remote.host != host {
            return Err(DropReason::ForgedRemote);
        }
        plan.back.destination_mac = remote.mac;
        return policy::judge_neighbours(network, home, key, &plan.back, &plan.there);
    }
    if key.source == F::gateway(network) && key.source != F::ANY {
        return Ok(());
    }
    // A client of a port that other hosts accept for the endpoint.
    if F::reach(key.source) != Reach::Unicast
        || network.flags & NETWORK_INTERNAL != 0
        || publish::find_exact(key, publication) == 0
    {
        return Err(DropReason::ForgedRemote);
    }
    policy::judge_client(publication, &key.source)
}

#[inline(always)]
fn find_remote<F: Tables>(network: u32, address: &F::Address) -> Option<core::ptr::NonNull<Remote>> {
    F::REMOTES.find(&EndpointKey {
        network,
        address: *address,
    })
}

/// The same for what an endpoint on another host of this link says without any wrapping. `Hosts`: it is not that.
#[inline(always)]
pub fn judge_direct<F: Layer3>() -> Number {
    let others = admit::number(Ok(Affair::Hosts));
    let Some(Desk { key, plan, .. }) = F::desk() else {
        return others;
    };
    let Some(home) = F::SUBNETS.get(&Prefix::whole(key.destination)) else {
        return others;
    };
    let Some(network) = maps::network(home).filter(|network| network.flags & NETWORK_DIRECT != 0) else {
        return others;
    };
    plan.begin(key);
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    let Some(host) = find_remote::<F>(home, &key.source).and_then(|remote| maps::host(unsafe { remote.as_ref() }.host))
    else {
        return others;
    };
    let next_hop = F::neighbour(host);
    if next_hop == F::ANY {
        return others;
    }
    if plan.there.lead_to_endpoint(home, key.destination).is_err() || plan.there.action != Action::Endpoint as u8 {
        return admit::number(Err(DropReason::NoSuchEndpoint));
    }
    plan.back.lead_to_world(Way {
        ifindex: host.ifindex,
        next_hop,
    });
    let judged = policy::judge_neighbours(network, home, key, &plan.back, &plan.there);
    admit::number(judged.map(|()| Affair::Ours))
}

// === leaving ===

/// Does the packet in hand fit through the underlay of this scope's host when it is wrapped up? If it does not, its sender is told, unless it may go in
/// pieces: then that is the kernel's to do ([`wrap`]). Out of line for its stack.
#[inline(always)]
pub fn fit<F: Layer3>(frame: Frame, scope: u32) -> verdict::Number {
    let (Some(host), Some(facts)) = (maps::host(host_of(scope)), F::facts(false)) else {
        return verdict::number(Err(DropReason::NoOverlay));
    };
    let packet = Packet::of_facts(frame, facts);
    match longest(&packet) {
        Ok(length) if length <= host.mtu || may_be_cut(&packet) => FITS,
        Ok(_) => verdict::number(report::too_big(&packet, host.mtu)),
        Err(reason) => verdict::number(Err(reason)),
    }
}

/// A super-packet may not: what it is made of was measured by its sender.
#[inline(always)]
fn may_be_cut<F: Layer3>(packet: &Packet<F>) -> bool {
    packet.frame.gso_size() == 0 && F::may_be_cut(packet)
}

/// The length of the packet, or of the longest that a super-packet will be cut up into, bytes.
#[inline(always)]
fn longest<F: Layer3>(packet: &Packet<F>) -> Result<u32, DropReason> {
    let payload = packet.frame.gso_size();
    if payload == 0 {
        return Ok(packet.frame.len() - ETHERNET);
    }
    let header = match packet.key.protocol {
        // The upper half of the byte at 12 counts words.
        TCP => u32::from(packet.frame.peek(packet.above + 12)?[0] >> 4) * 4,
        _ => 8,
    };
    Ok(payload + header + packet.above - ETHERNET)
}

/// Wraps the frame up and sends it to the host of this scope. Out of line for its stack.
#[inline(always)]
pub fn wrap(frame: Frame, scope: u32) -> verdict::Number {
    let (Some(host), Some(network)) = (maps::host(host_of(scope)), maps::network(network_of(scope))) else {
        return verdict::number(Err(DropReason::NoOverlay));
    };
    let is_encrypted = network.flags & NETWORK_ENCRYPTED != 0;
    if host.ifindex == 0 || network.vni == 0 || is_encrypted != (host.sealed != 0) {
        return verdict::number(Err(DropReason::NoOverlay));
    }
    let goes_in_pieces = frame.gso_size() == 0 && frame.len() > host.mtu + ETHERNET;
    let wrapped = match host.address.to_mapped() {
        _ if goes_in_pieces || is_encrypted => Err(DropReason::RewriteFailed),
        Some(_) => send::<Ipv4>(frame, host, network.vni),
        None => send::<Ipv6>(frame, host, network.vni),
    };
    verdict::number(match wrapped {
        Ok(sent) => Ok(sent),
        Err(_) => by_device(frame, host, network.vni),
    })
}

#[inline(always)]
fn send<F: Layer3 + Underlay>(frame: Frame, host: &Host, vni: u32) -> Result<Verdict, DropReason> {
    wrap_in::<F>(frame, host, vni)?;
    Ok(Verdict::Sent(F::leave(host.ifindex, F::unmapped(host.next_hop))))
}

/// By words: `memset` is a function here, with a stack of its own.
///
/// # Safety
/// `key` can be written to.
#[inline(always)]
unsafe fn clear(key: *mut bpf_tunnel_key) {
    const { assert!(size_of::<bpf_tunnel_key>().is_multiple_of(4)) }
    let mut word = 0;
    while word < size_of::<bpf_tunnel_key>() / 4 {
        // SAFETY: within the key. Volatile, or the compiler would see through it.
        unsafe { key.cast::<u32>().add(word).write_volatile(0) };
        word += 1;
    }
}

/// By the VXLAN device.
#[inline(always)]
fn by_device(frame: Frame, host: &Host, vni: u32) -> Result<Verdict, DropReason> {
    let ifindex = maps::settings().map_or(0, |settings| settings.overlay_ifindex);
    if ifindex == 0 {
        return Err(DropReason::NoOverlay);
    }
    let Some(key) = scratch::<bpf_tunnel_key>() else {
        return Err(DropReason::NoOverlay);
    };
    // SAFETY: the scratch is this CPU's own, and large enough; integers only.
    let flags = unsafe {
        clear(key);
        (*key).tunnel_id = vni;
        (*key).tunnel_ttl = 64;
        match host.address.to_mapped() {
            Some(address) => {
                (*key).__bindgen_anon_1.remote_ipv4 = u32::from_be(address.0);
                BPF_F_ZERO_CSUM_TX
            }
            None => {
                (*key).__bindgen_anon_1.remote_ipv6 = host.address.0;
                BPF_F_ZERO_CSUM_TX | BPF_F_TUNINFO_IPV6
            }
        }
    };
    let size = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: the frame is the program's context; the key has the size that is said, and is copied.
    match unsafe { bpf_skb_set_tunnel_key(frame.skb(), key, size, u64::from(flags)) } {
        // SAFETY: integers only; the kernel finds the device when it sends.
        0 => Ok(Verdict::Sent(unsafe { bpf_redirect(ifindex, 0) } as i32)),
        _ => Err(DropReason::NoOverlay),
    }
}
