//! May they speak?

use sluice_datapath_common::{
    DropReason,
    network::{NETWORK_ICC, Network},
};

/// Judges what an endpoint says to another of its own network. The way through a published port is not judged here: it is open to all.
#[inline(always)]
pub fn judge_neighbours(network: &Network) -> Result<(), DropReason> {
    match network.flags & NETWORK_ICC != 0 {
        true => Ok(()),
        false => Err(DropReason::IccDisabled),
    }
}
