//! Fragments follow their first fragment, the only one that bears ports.
//!
//! What overtakes its first fragment is lost, and with it the datagram: its sender or the layer above sends it again. Holding fragments back
//! would need memory that anybody could fill.

use aya_ebpf::bindings::BPF_ANY;
use sluice_datapath_common::{
    DropReason,
    fragment::{FragmentKey, FragmentPorts},
};

use crate::{
    family::Layer3,
    packet::{Fragment, Packet},
};

/// Remembers the ports of a first fragment, and gives them to those that follow.
#[inline(always)]
pub fn follow<F: Layer3>(packet: &mut Packet<F>) -> Result<(), DropReason> {
    if packet.fragment == Fragment::Whole {
        return Ok(());
    }
    let key = FragmentKey {
        source: packet.key.source,
        destination: packet.key.destination,
        identification: F::identification(packet)?,
        scope: packet.key.scope,
        protocol: packet.key.protocol,
        padding: [0; 3],
    };
    if packet.fragment == Fragment::First {
        let ports = FragmentPorts {
            source_port: packet.key.source_port,
            destination_port: packet.key.destination_port,
        };
        // An LRU table takes it unless memory is short, and then the later fragments say so.
        let _ = F::FRAGMENTS.insert(&key, &raw const ports, BPF_ANY);
        return Ok(());
    }
    let ports = F::FRAGMENTS.get(&key).ok_or(DropReason::FragmentAlone)?;
    packet.key.source_port = ports.source_port;
    packet.key.destination_port = ports.destination_port;
    Ok(())
}
