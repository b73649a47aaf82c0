//! What other hosts say that the programs at the NICs did not unwrap themselves: the kernel did, behind its VXLAN device.

use sluice_datapath_common::{DropReason, overlay::is_overlay};

use crate::{outline, packet::Frame, stage::overlay, verdict, verdict::Verdict};

/// From the VXLAN device to an endpoint. The device is ours alone: nothing of it is for the host's stack.
#[inline(always)]
pub fn path(frame: Frame) -> Result<Verdict, DropReason> {
    let scope = outline::find_scope(frame);
    if !is_overlay(scope) {
        return verdict::of_number(scope);
    }
    overlay::carry(frame, scope)
}
