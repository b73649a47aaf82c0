//! Where does it go? The ways that a direction of a conversation can take.

use sluice_datapath_common::{
    DropReason, Family,
    endpoint::EndpointKey,
    flow::{Action, SCOPE_HOST, SCOPE_WORLD},
};

use crate::{
    family::{Tables, Way},
    maps::{self, CONFIG},
};

/// The way to one end of a conversation, and who is there.
#[derive(Clone, Copy)]
pub struct Leg<F: Family> {
    /// What is done with the packet: an [`Action`].
    pub action: u8,
    /// The device the action speaks of; 0: not known, or not needed.
    pub ifindex: u32,
    /// For [`Action::World`].
    pub next_hop: F::Address,
    /// The endpoint's number there, 0: host or world.
    pub endpoint: u32,
    /// Its generation.
    pub generation: u32,
    /// The scope of packets that come from there.
    pub scope: u32,
    /// The MAC of whoever takes the frame.
    pub destination_mac: [u8; 6],
    /// The MAC it leaves with.
    pub source_mac: [u8; 6],
}

impl<F: Tables> Leg<F> {
    /// Into the namespace of the endpoint that has this address.
    #[inline(always)]
    pub fn to_endpoint(network: u32, address: F::Address) -> Result<Self, DropReason> {
        let endpoint = F::ENDPOINTS
            .get(&EndpointKey { network, address })
            .ok_or(DropReason::NoSuchEndpoint)?;
        let gateway_mac = maps::network(network).ok_or(DropReason::NoSuchEndpoint)?.gateway_mac;
        Ok(Self {
            action: Action::Endpoint as u8,
            ifindex: endpoint.ifindex,
            next_hop: F::ANY,
            endpoint: endpoint.endpoint,
            generation: maps::generation(endpoint.endpoint),
            scope: network,
            destination_mac: endpoint.mac,
            source_mac: gateway_mac,
        })
    }

    /// Into the host's stack, by its leg. Not by `BPF_F_INGRESS` on the host's end: the leg's own counters then say what crossed it.
    #[inline(always)]
    pub fn to_host(source_mac: [u8; 6]) -> Self {
        let config = CONFIG.load();
        Self {
            action: Action::Host as u8,
            ifindex: config.host_leg_ifindex,
            scope: SCOPE_HOST,
            destination_mac: config.host_mac,
            source_mac,
            ..Self::nowhere()
        }
    }

    /// Out of a NIC.
    #[inline(always)]
    pub fn to_world(way: Way<F>) -> Self {
        Self {
            action: Action::World as u8,
            ifindex: way.ifindex,
            next_hop: way.next_hop,
            scope: SCOPE_WORLD,
            ..Self::nowhere()
        }
    }

    /// On from where it is, the host's stack having routed it; what comes from there has this scope.
    #[inline(always)]
    pub fn in_place(scope: u32) -> Self {
        Self {
            action: Action::Stay as u8,
            scope,
            ..Self::nowhere()
        }
    }

    #[inline(always)]
    fn nowhere() -> Self {
        Self {
            action: Action::Stay as u8,
            ifindex: 0,
            next_hop: F::ANY,
            endpoint: 0,
            generation: 0,
            scope: 0,
            destination_mac: [0; 6],
            source_mac: [0; 6],
        }
    }
}
