//! Is the sender who it says it is?

use sluice_datapath_common::{DropReason, endpoint::Attachment};

use crate::{
    family::{Reach, Tables},
    maps::{ATTACHMENTS, Table},
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
    Err(if given == F::ANY {
        DropReason::FamilyDisabled
    } else if F::reach(packet.key.source) == Reach::Link {
        // Neighbour discovery has been dealt with by now.
        DropReason::LinkLocal
    } else {
        DropReason::ForgedSource
    })
}
