//! What leaves by a NIC: no container's address does. What the datapath sends out itself is translated already and passes with one look-up, like
//! everything that is the host's own.

use sluice_datapath_common::{
    DropReason, Family, Ipv4, Ipv6,
    endpoint::Attachment,
    flow::{Action, FLOW_MASQUERADES, SCOPE_HOST},
    network::NETWORK_INTERNAL,
};

use crate::{
    family::Layer3,
    maps::{self, ATTACHMENTS, Prefix, Table},
    packet::{Frame, Layer4, Packet},
    rewrite,
    stage::{
        admit::{self, Affair},
        error,
        flow::{self, Entry},
        fragment::{self, Place},
        hold::Sender,
    },
    verdict::Verdict,
};

/// On its way out, as it is or translated in place.
#[inline(always)]
pub fn path(frame: Frame) -> Result<Verdict, DropReason> {
    match frame.ether_type() {
        Ipv4::ETHER_TYPE => guard::<Ipv4>(frame),
        Ipv6::ETHER_TYPE => guard::<Ipv6>(frame),
        _ => Ok(Verdict::Stack),
    }
}

#[inline(always)]
fn guard<F: Layer3>(frame: Frame) -> Result<Verdict, DropReason> {
    let read = Packet::<F>::read(frame, SCOPE_HOST);
    if read.is_err() && is_of_endpoint::<F>(frame) {
        return Err(DropReason::UnmasqueradedSource);
    }
    let Ok(mut packet) = read else {
        return Ok(Verdict::Stack);
    };
    // The host's own neighbours: of endpoints' none comes so far.
    if packet.layer4 == Layer4::Discovery {
        return Ok(Verdict::Stack);
    }
    let Some(home) = F::SUBNETS.get(&Prefix::whole(packet.key.source)) else {
        return Ok(Verdict::Stack);
    };
    if leaves_as_it_is::<F>(frame, home) {
        return Ok(Verdict::Stack);
    }
    if fragment::follow(&packet, Sender::passing()) != Ok(Place::Known) {
        return Err(DropReason::UnmasqueradedSource);
    }
    if packet.layer4 == Layer4::Error {
        return error::follow(&mut packet).map_err(|_| DropReason::UnmasqueradedSource);
    }
    let flow = match own_before(&mut packet, home)? {
        Before::Answered => return Ok(Verdict::Stack),
        Before::Known(known) => known,
        Before::Unknown => match admit::judgement(F::admit(frame))? {
            Affair::Ours => flow::opened(&packet)?,
            Affair::Hosts => return Err(DropReason::UnmasqueradedSource),
        },
    };
    // SAFETY: the kernel keeps the entry's slot readable until the program ends. The stack that forwarded the packet has counted its hop.
    rewrite::translate(&packet, unsafe { flow.as_ref() }, 0)?;
    Ok(Verdict::Stack)
}

/// Does the packet, which cannot be read to its end, come from an address of ours?
#[inline(always)]
fn is_of_endpoint<F: Layer3>(frame: Frame) -> bool {
    F::source_of_unread(frame).is_some_and(|source| F::SUBNETS.find(&Prefix::whole(source)).is_some())
}

/// In a routed network the address is the world's business. In an unprotected one it is if the endpoint itself has sent the packet here, which has
/// been judged then (`from_container`): what the host's stack forwards is to be masqueraded.
#[inline(always)]
fn leaves_as_it_is<F: Layer3>(frame: Frame, home: u32) -> bool {
    const TABLE: Table<u32, Attachment> = Table::of(&raw const ATTACHMENTS);
    let Some(network) = maps::network(home).filter(|network| network.flags & NETWORK_INTERNAL == 0) else {
        return false;
    };
    admit::is_routed::<F>(network)
        || (admit::is_unprotected::<F>(network) && TABLE.find(&frame.first_ifindex()).is_some())
}

/// What is known of the conversation of a packet that the stack forwards.
enum Before<F: Family> {
    /// It answers who spoke to the endpoint's own address, and bears that.
    Answered,
    /// It is masqueraded as this flow has it.
    Known(Entry<F>),
    /// Nothing.
    Unknown,
}

/// The flow the endpoint itself opened by `from_container`, whose packet we gave to the stack to be reported on or cut up; else one that was
/// opened here.
#[inline(always)]
fn own_before<F: Layer3>(packet: &mut Packet<F>, home: u32) -> Result<Before<F>, DropReason> {
    packet.key.scope = home;
    let own = flow::known(&packet.key);
    packet.key.scope = SCOPE_HOST;
    if let Some(own) = own {
        // SAFETY: see `guard`.
        let flow = unsafe { own.as_ref() };
        if flow.flags & FLOW_MASQUERADES != 0 {
            return Ok(Before::Known(own));
        }
        if flow.action == Action::World as u8 && flow.source == packet.key.source {
            return Ok(Before::Answered);
        }
    }
    Ok(match flow::follow(packet)? {
        Some(known) => Before::Known(known),
        None => Before::Unknown,
    })
}
