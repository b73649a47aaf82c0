//! May this conversation be, and how? The answer depends on the opener's packet alone, as it arrived.

use std::net::IpAddr;

use sluice_datapath_common::DropReason;
use sluice_datapath_common::flow::Action;
use sluice_datapath_common::overlay::{host_of, is_overlay, network_of, scope_of};

use super::conversation::Key;
use super::path::{HOST, WORLD};
use super::world::{HostAccess, Mac, Network, Publication, Reach, World, family, reach};

pub enum Judgement {
    /// Ours, and this is how it is carried.
    Ours(Box<Plan>),
    /// The host's own affair.
    Hosts,
}

/// How a conversation is carried.
#[derive(Clone, Debug)]
pub struct Plan {
    pub there: Leg,
    pub back: Leg,
    /// The opener's address as the other side sees it.
    pub source: IpAddr,
    /// Who is really spoken to.
    pub destination: IpAddr,
    pub destination_port: u16,
    pub masquerades: bool,
    pub published: bool,
    pub checks_mtu: bool,
}

/// The way to one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leg {
    pub action: Action,
    pub device: u32,
    /// "Any": none.
    pub next_hop: IpAddr,
    /// Who is there; 0: the host or the world.
    pub endpoint: u32,
    pub generation: u32,
    /// What comes from there has this scope.
    pub scope: u32,
    pub to_mac: Mac,
    pub from_mac: Mac,
}

impl World {
    /// Judges the conversation that a packet with these ends opens, seen on this device.
    pub fn judge(&self, device: u32, opening: &Key) -> Result<Judgement, DropReason> {
        match opening.scope {
            scope if is_overlay(scope) => self.judge_peer(opening).map(ours),
            WORLD => match self.judge_direct(opening) {
                Some(judged) => judged.map(ours),
                None => self.judge_world(opening),
            },
            HOST => self.judge_host(device, opening).map(ours),
            network => self.judge_endpoint(network, opening).map(ours),
        }
    }

    fn judge_endpoint(&self, number: u32, opening: &Key) -> Result<Plan, DropReason> {
        let network = self.networks.get(&number).ok_or(DropReason::UnknownDevice)?;
        let back = self
            .to_endpoint(number, opening.source)
            .ok_or(DropReason::UnknownDevice)?;
        must_be_unicast(opening.destination)?;
        // What it says to itself it says without us.
        if opening.destination == opening.source {
            return Err(DropReason::NotRoutable);
        }
        if let Some(gateway_of) = self.local.get(&opening.destination) {
            if network.internal && *gateway_of != number {
                return Err(DropReason::InternalNetwork);
            }
            return self.judge_to_host(number, network, opening, back);
        }
        match self.home(opening.destination) {
            Some(home) if home != number => Err(DropReason::IsolatedNetwork),
            Some(home) => {
                let there = self
                    .to_endpoint(home, opening.destination)
                    .ok_or(DropReason::NoSuchEndpoint)?;
                self.must_meet(home, opening, &back, &there)?;
                let there = self.directly(network, there, opening.destination);
                Ok(Plan::untranslated(opening, there, back))
            }
            None => self.judge_to_world(network, opening, back),
        }
    }

    /// May neighbours speak to each other, or does a link let them?
    fn must_meet(&self, number: u32, opening: &Key, from: &Leg, to: &Leg) -> Result<(), DropReason> {
        let known_as = |endpoint: u32, address: IpAddr| match endpoint {
            0 => self.remotes.get(&(number, address)).map_or(0, |remote| remote.number),
            endpoint => endpoint,
        };
        let (from, to) = (
            known_as(from.endpoint, opening.source),
            known_as(to.endpoint, opening.destination),
        );
        let link = (from, to, opening.destination_port, opening.protocol);
        let is_linked = from != 0 && to != 0 && self.links.contains(&link);
        match is_linked || self.networks.get(&number).is_some_and(|network| network.icc) {
            true => Ok(()),
            false => Err(DropReason::IccDisabled),
        }
    }

    /// To an address of the host: to who has published the port there, or to the host itself.
    fn judge_to_host(&self, number: u32, network: &Network, opening: &Key, back: Leg) -> Result<Plan, DropReason> {
        let published = self.publication(opening.destination, opening.destination_port, opening.protocol);
        let Some((publication, port)) = published else {
            let at_gateway = self.local.get(&opening.destination) == Some(&number);
            let reaches = match network.host_access {
                HostAccess::All => true,
                HostAccess::Gateway => at_gateway,
                HostAccess::None => false,
            };
            if !reaches {
                return Err(match network.internal {
                    true => DropReason::InternalNetwork,
                    false => DropReason::HostAccess,
                });
            }
            return Ok(Plan::untranslated(
                opening,
                self.to_host(back.to_mac, opening.source),
                back,
            ));
        };
        // Published or not, nothing gets out of an internal network or into one.
        let is_internal = |number: u32| self.networks.get(&number).is_some_and(|network| network.internal);
        if publication.network != number && (network.internal || is_internal(publication.network)) {
            return Err(DropReason::InternalNetwork);
        }
        self.must_serve(publication.endpoint, opening)?;
        let mut plan = self.to_publication(&publication, port, opening, back)?;
        if plan.there.endpoint == plan.back.endpoint {
            // It would answer itself; so the gateway speaks for it.
            plan.source = network
                .gateway(family(opening.source))
                .unwrap_or(super::world::any(opening.source));
        }
        Ok(plan)
    }

    fn judge_to_world(&self, network: &Network, opening: &Key, back: Leg) -> Result<Plan, DropReason> {
        if network.internal {
            return Err(DropReason::InternalNetwork);
        }
        let (device, next_hop) = self.way(opening.destination).ok_or(DropReason::NoRoute)?;
        let Some(uplink) = self.uplink(device, family(opening.source)) else {
            // A device of somebody else's: the host forwards it, by the rules that are there.
            return Ok(Plan::untranslated(
                opening,
                self.to_host(back.to_mac, opening.source),
                back,
            ));
        };
        if network.is_routed(family(opening.source)) {
            return Ok(Plan {
                checks_mtu: network.mtu > uplink.mtu,
                ..Plan::untranslated(opening, to_nic(device, next_hop), back)
            });
        }
        let lent = uplink.address.filter(|_| network.masquerades);
        Ok(Plan {
            source: lent.ok_or(DropReason::NoMasquerade)?,
            masquerades: true,
            checks_mtu: network.mtu > uplink.mtu,
            ..Plan::untranslated(opening, to_nic(device, next_hop), back)
        })
    }

    /// The world reaches published ports, and nothing else of ours.
    fn judge_world(&self, opening: &Key) -> Result<Judgement, DropReason> {
        let home = match self.local.contains_key(&opening.destination) {
            true => None,
            false => match self.home(opening.destination) {
                None => return Ok(Judgement::Hosts),
                home => home,
            },
        };
        let published = match home {
            Some(home) => Some(self.reached(opening, home)?),
            None => self
                .publication(opening.destination, opening.destination_port, opening.protocol)
                .map(|(publication, port)| (publication, port, true)),
        };
        let Some((publication, port, is_published)) = published.filter(|_| reach(opening.source) == Reach::Unicast)
        else {
            return Ok(Judgement::Hosts);
        };
        if self.local.contains_key(&opening.source) || self.home(opening.source).is_some() {
            return Err(DropReason::ForgedSource);
        }
        let network = self.networks.get(&publication.network);
        let network = network
            .filter(|network| !network.internal)
            .ok_or(DropReason::InternalNetwork)?;
        if is_published {
            self.must_serve(publication.endpoint, opening)?;
        }
        // Answers go by the host's routes; without one, back by the NIC the question came from, which is not known here.
        let family = family(opening.source);
        let way = self
            .way(opening.source)
            .filter(|(device, _)| self.uplink(*device, family).is_some());
        let (out, next_hop) = way.unwrap_or((0, super::world::any(opening.source)));
        let mut plan = self.to_publication(&publication, port, opening, to_nic(out, next_hop))?;
        plan.checks_mtu = self.uplink(out, family).is_some_and(|uplink| network.mtu > uplink.mtu);
        // At its own address there is nothing to translate.
        plan.published = home.is_none();
        Ok(ours(plan))
    }

    /// The host's stack speaks to an endpoint, or forwards what an endpoint says out of a NIC.
    fn judge_host(&self, device: u32, opening: &Key) -> Result<Plan, DropReason> {
        if let Some(home) = self.home(opening.destination) {
            if !self.local.contains_key(&opening.source) {
                let (publication, _, is_published) = self.reached(opening, home)?;
                if is_published {
                    self.must_serve(publication.endpoint, opening)?;
                }
            }
            let there = self
                .to_endpoint(home, opening.destination)
                .ok_or(DropReason::NoSuchEndpoint)?;
            let mut plan = Plan::untranslated(opening, there, self.to_host(there.from_mac, opening.source));
            if there.action == Action::Overlay {
                // On another host it is the gateway who speaks.
                let network = self.networks.get(&home);
                let gateway = network.and_then(|network| network.gateway(family(opening.source)));
                plan.source = gateway.ok_or(DropReason::NotRoutable)?;
            }
            return Ok(plan);
        }
        let home = self.home(opening.source).and_then(|home| self.networks.get(&home));
        let home = home.ok_or(DropReason::NotRoutable)?;
        if home.internal {
            return Err(DropReason::InternalNetwork);
        }
        if !home.masquerades {
            return Err(DropReason::NoMasquerade);
        }
        let uplink = self.uplink(device, family(opening.source));
        let lent = uplink.and_then(|uplink| uplink.address);
        Ok(Plan {
            source: lent.ok_or(DropReason::UnmasqueradedSource)?,
            masquerades: true,
            ..Plan::untranslated(
                opening,
                Leg::in_place(WORLD, opening.source),
                Leg::in_place(HOST, opening.source),
            )
        })
    }

    /// Another host speaks to an endpoint here: for one of its own, for itself, or for a client of a port that it accepts for ours.
    fn judge_peer(&self, opening: &Key) -> Result<Plan, DropReason> {
        let (host, home) = (host_of(opening.scope), network_of(opening.scope));
        let network = self.networks.get(&home).ok_or(DropReason::UnknownVni)?;
        must_be_unicast(opening.destination)?;
        // What lives elsewhere is reached there.
        let there = self.to_endpoint(home, opening.destination);
        let there = there.filter(|there| there.action == Action::Endpoint);
        let there = there.ok_or(DropReason::NoSuchEndpoint)?;
        let mut back = self
            .to_peer(host, home, network.gateway_mac, opening.source)
            .ok_or(DropReason::NoOverlay)?;
        if let Some(remote) = self.remotes.get(&(home, opening.source)) {
            if remote.host != host {
                return Err(DropReason::ForgedRemote);
            }
            back.to_mac = remote.mac;
            self.must_meet(home, opening, &back, &there)?;
        } else if network.gateway(family(opening.source)) != Some(opening.source) {
            let published = self.publication_at(opening.destination, opening.destination_port, opening.protocol);
            let may_be = !network.internal && reach(opening.source) == Reach::Unicast;
            let (publication, _) = published.filter(|_| may_be).ok_or(DropReason::ForgedRemote)?;
            self.must_serve(publication.endpoint, opening)?;
        }
        Ok(Plan::untranslated(opening, there, back))
    }

    /// The same for what an endpoint on another host of a link says without any wrapping. None: it is not that.
    fn judge_direct(&self, opening: &Key) -> Option<Result<Plan, DropReason>> {
        self.overlay_port?;
        let home = self.home(opening.destination)?;
        self.networks.get(&home).filter(|network| network.direct)?;
        let remote = self.remotes.get(&(home, opening.source))?;
        let peer = self.peers.get(&remote.host)?;
        let back = to_nic(peer.device, peer.neighbour(family(opening.source))?);
        let there = self.to_endpoint(home, opening.destination);
        let Some(there) = there.filter(|there| there.action == Action::Endpoint) else {
            return Some(Err(DropReason::NoSuchEndpoint));
        };
        let met = self.must_meet(home, opening, &back, &there);
        Some(met.map(|()| Plan::untranslated(opening, there, back)))
    }

    /// Who answers at an endpoint's own address, for those outside of its network: in a routed one its published ports, and pings; in an unprotected one
    /// everything. And whether that is by a published port.
    fn reached(&self, opening: &Key, home: u32) -> Result<(Publication, u16, bool), DropReason> {
        let family = family(opening.source);
        let network = self.networks.get(&home);
        let unprotected = network.is_some_and(|network| network.unprotected);
        if !unprotected && !network.is_some_and(|network| network.is_routed(family)) {
            return Err(DropReason::Unpublished);
        }
        if opening.protocol != super::wire::icmp(family) {
            match self.publication_at(opening.destination, opening.destination_port, opening.protocol) {
                Some((publication, port)) => return Ok((publication, port, true)),
                None if unprotected => {}
                None => return Err(DropReason::Unpublished),
            }
        }
        let endpoint = self.endpoints.get(&(home, opening.destination));
        let publication = Publication {
            network: home,
            endpoint: endpoint.ok_or(DropReason::NoSuchEndpoint)?.number,
            address: opening.destination,
            port: opening.destination_port,
            count: 1,
        };
        Ok((publication, opening.destination_port, false))
    }

    /// A published port may be for some clients only.
    fn must_serve(&self, endpoint: u32, opening: &Key) -> Result<(), DropReason> {
        match self.serves(endpoint, opening.source) {
            true => Ok(()),
            false => Err(DropReason::PublishFrom),
        }
    }

    fn to_publication(
        &self,
        publication: &Publication,
        port: u16,
        opening: &Key,
        back: Leg,
    ) -> Result<Plan, DropReason> {
        let there = self.to_endpoint(publication.network, publication.address);
        // The address may have been given to another meanwhile.
        let there = there.filter(|there| there.endpoint == publication.endpoint);
        let mut plan = Plan::untranslated(opening, there.ok_or(DropReason::NoSuchEndpoint)?, back);
        plan.destination = publication.address;
        plan.destination_port = port;
        plan.published = true;
        Ok(plan)
    }

    /// The way into the namespace of who lives there, or to the host that they live on.
    pub fn to_endpoint(&self, network: u32, address: IpAddr) -> Option<Leg> {
        let Some(endpoint) = self.endpoints.get(&(network, address)) else {
            let remote = self.remotes.get(&(network, address))?;
            return self.to_peer(remote.host, network, remote.mac, address);
        };
        Some(Leg {
            action: Action::Endpoint,
            device: endpoint.device,
            endpoint: endpoint.number,
            generation: self.generation(endpoint.number),
            to_mac: endpoint.mac,
            from_mac: self.networks.get(&network)?.gateway_mac,
            ..Leg::in_place(network, address)
        })
    }

    /// To another host, and there to whoever has the MAC.
    fn to_peer(&self, host: u32, network: u32, to_mac: Mac, of: IpAddr) -> Option<Leg> {
        Some(Leg {
            action: Action::Overlay,
            device: self.peers.get(&host)?.device,
            to_mac,
            from_mac: self.networks.get(&network)?.gateway_mac,
            ..Leg::in_place(scope_of(host, network), of)
        })
    }

    /// Without any wrapping, where the network wants it so and both hosts are on one link.
    fn directly(&self, network: &Network, there: Leg, of: IpAddr) -> Leg {
        let peer = match there.action {
            Action::Overlay if network.direct => self.peers.get(&host_of(there.scope)),
            _ => None,
        };
        match peer.and_then(|peer| Some((peer.device, peer.neighbour(family(of))?))) {
            Some((device, next_hop)) => to_nic(device, next_hop),
            None => there,
        }
    }

    fn to_host(&self, from_mac: Mac, of: IpAddr) -> Leg {
        Leg {
            action: Action::Host,
            device: self.host.leg,
            to_mac: self.host.mac,
            from_mac,
            ..Leg::in_place(HOST, of)
        }
    }
}

impl Plan {
    fn untranslated(opening: &Key, there: Leg, back: Leg) -> Self {
        Self {
            there,
            back,
            source: opening.source,
            destination: opening.destination,
            destination_port: opening.destination_port,
            masquerades: false,
            published: false,
            checks_mtu: false,
        }
    }
}

fn to_nic(device: u32, next_hop: IpAddr) -> Leg {
    Leg {
        action: Action::World,
        device,
        next_hop,
        ..Leg::in_place(WORLD, next_hop)
    }
}

fn ours(plan: Plan) -> Judgement {
    Judgement::Ours(Box::new(plan))
}

pub fn must_be_unicast(address: IpAddr) -> Result<(), DropReason> {
    match reach(address) {
        Reach::Unicast => Ok(()),
        Reach::Multicast => Err(DropReason::Multicast),
        Reach::Link => Err(DropReason::LinkLocal),
        Reach::Nowhere => Err(DropReason::NotRoutable),
    }
}
