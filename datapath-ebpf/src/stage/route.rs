//! Where does it go? The ways that a direction of a conversation can take.

use sluice_datapath_common::{
    DropReason, Family,
    endpoint::EndpointKey,
    flow::{Action, SCOPE_HOST, SCOPE_WORLD},
    network::{NETWORK_DIRECT, Network},
    overlay::{host_of, scope_of},
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
    /// Leads to the endpoint that has this address: into its namespace, or to the host that it lives on.
    #[inline(always)]
    pub fn lead_to_endpoint(&mut self, network: u32, address: F::Address) -> Result<(), DropReason> {
        match write_endpoint(self, &EndpointKey { network, address }) {
            true => Ok(()),
            false => Err(DropReason::NoSuchEndpoint),
        }
    }

    /// Leads to another host, which is known by its number: into this network, to whoever has the MAC.
    #[inline(always)]
    pub fn lead_to_overlay(&mut self, host: u32, network: u32, mac: [u8; 6]) -> Result<(), DropReason> {
        let way = maps::host(host).ok_or(DropReason::NoOverlay)?.ifindex;
        let source_mac = maps::network(network).ok_or(DropReason::NoOverlay)?.gateway_mac;
        self.lead_in_place(scope_of(host, network));
        self.action = Action::Overlay as u8;
        self.ifindex = way;
        self.destination_mac = mac;
        self.source_mac = source_mac;
        Ok(())
    }

    /// Leads to an endpoint of another host without any wrapping, where the network wants it so and both hosts are on one link.
    #[inline(always)]
    pub fn take_direct_way(&mut self, network: &Network) {
        if self.action != Action::Overlay as u8 || network.flags & NETWORK_DIRECT == 0 {
            return;
        }
        let Some(host) = maps::host(host_of(self.scope)) else {
            return;
        };
        let next_hop = F::neighbour(host);
        if next_hop != F::ANY {
            self.lead_to_world(Way {
                ifindex: host.ifindex,
                next_hop,
            });
        }
    }

    /// Leads into the host's stack, by its leg. Not by `BPF_F_INGRESS` on the host's end: the leg's own counters then say what crossed it.
    #[inline(always)]
    pub fn lead_to_host(&mut self, source_mac: [u8; 6]) {
        let config = CONFIG.load();
        self.lead_in_place(SCOPE_HOST);
        self.action = Action::Host as u8;
        self.ifindex = config.host_leg_ifindex;
        self.destination_mac = config.host_mac;
        self.source_mac = source_mac;
    }

    /// Leads out of a NIC.
    #[inline(always)]
    pub fn lead_to_world(&mut self, way: Way<F>) {
        self.lead_in_place(SCOPE_WORLD);
        self.action = Action::World as u8;
        self.ifindex = way.ifindex;
        self.next_hop = way.next_hop;
    }

    /// Leads on from where the packet is, the host's stack having routed it; what comes from there has this scope.
    #[inline(always)]
    pub fn lead_in_place(&mut self, scope: u32) {
        *self = Self {
            action: Action::Stay as u8,
            ifindex: 0,
            next_hop: F::ANY,
            endpoint: 0,
            generation: 0,
            scope,
            destination_mac: [0; 6],
            source_mac: [0; 6],
        };
    }
}

/// Out of line, as the verifier would walk what follows once for each answer.
#[inline(never)]
fn write_endpoint<F: Tables>(leg: &mut Leg<F>, key: &EndpointKey<F>) -> bool {
    let Some(endpoint) = F::ENDPOINTS.get(key) else {
        return F::REMOTES
            .get(key)
            .is_some_and(|remote| leg.lead_to_overlay(remote.host, key.network, remote.mac).is_ok());
    };
    let Some(network) = maps::network(key.network) else {
        return false;
    };
    *leg = Leg {
        action: Action::Endpoint as u8,
        ifindex: endpoint.ifindex,
        next_hop: F::ANY,
        endpoint: endpoint.endpoint,
        generation: maps::generation(endpoint.endpoint),
        scope: key.network,
        destination_mac: endpoint.mac,
        source_mac: network.gateway_mac,
    };
    true
}
