//! Parts the host from endpoints that are gone.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    kernel::{netlink::Netlink, sock_diag},
    link::host_leg,
};

/// Makes the host forget endpoints that are gone: who has their addresses next is another, at another MAC. Nothing here may fail the round.
pub fn part_with(netlink: &mut Netlink, leg: u32, departed: &BTreeSet<IpAddr>) {
    if departed.is_empty() {
        return;
    }
    match netlink.carry_out(
        departed
            .iter()
            .map(|address| host_leg::forget_neighbour(leg, *address))
            .collect(),
    ) {
        Ok(outcomes) => {
            for error in outcomes.into_iter().filter_map(Result::err) {
                if error.raw_os_error() != Some(libc::ENOENT) {
                    tracing::debug!(%error, "cannot forget a neighbour");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot forget neighbours"),
    }
    // A process of the host that is connected to one would go on sending to nobody for ever: no hook runs on what it sends.
    match sock_diag::destroy_udp(|peer| departed.contains(&peer)) {
        Ok(0) => {}
        Ok(destroyed) => tracing::debug!(
            destroyed,
            "sockets of the host were connected to endpoints that are gone"
        ),
        Err(error) => tracing::warn!(%error, "cannot part sockets of the host from endpoints that are gone"),
    }
}
