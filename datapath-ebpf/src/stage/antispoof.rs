//! Is the sender who it says it is?

use sluice_datapath_common::{DropReason, endpoint::Attachment, network::NETWORK_MULTICAST};

use crate::{
    family::{Reach, Tables},
    maps::{self, ATTACHMENTS, Table},
    packet::{Frame, Mac, Packet},
};

/// Who stands behind the veth the frame came from. The device cannot be forged.
#[inline(always)]
pub fn sender(frame: Frame) -> Result<&'static Attachment, DropReason> {
    const TABLE: Table<u32, Attachment> = Table::of(&raw const ATTACHMENTS);
    // SAFETY: the kernel keeps the entry's slot readable until the program ends.
    TABLE
        .find(&frame.ifindex())
        .map(|attachment| unsafe { attachment.as_ref() })
        .ok_or(DropReason::UnknownDevice)
}

/// Does the packet bear the MAC and the address that its sender was given?
#[inline(always)]
pub fn check<F: Tables>(packet: &Packet<F>, sender: &Attachment) -> Result<(), DropReason> {
    let given = F::given(sender);
    if packet.frame.ethernet()?.sender() != Mac::new(sender.mac) {
        return Err(DropReason::ForgedMac);
    }
    if packet.key.source == given && given != F::ANY {
        return Ok(());
    }
    if given != F::ANY && may_say_to_many::<F>(sender) != 0 {
        return Ok(());
    }
    Err(if given == F::ANY {
        DropReason::FamilyDisabled
    } else if F::reach(packet.key.source) == Reach::Link {
        // Neighbour discovery has been dealt with by now.
        DropReason::LinkLocal
    } else {
        DropReason::ForgedSource
    })
}

/// Not 0: the packet in hand is for many, which may be said where it is carried also by who has no address yet (DHCP), and with the link-local address
/// of IPv6. Out of line for its stack.
#[inline(never)]
fn may_say_to_many<F: Tables>(sender: &Attachment) -> u32 {
    let Some(network) = maps::network(sender.network) else {
        return 0;
    };
    let Some(facts) = F::facts(false) else { return 0 };
    let is_carried = network.flags & NETWORK_MULTICAST != 0;
    let is_for_many = F::reach(facts.key.destination) == Reach::Multicast;
    (is_carried && is_for_many && facts.key.source == F::says_to_many(sender)) as u32
}
