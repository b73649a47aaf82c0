//! What of this host's containers is reached from where, and where the host's firewall believes something else.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sluice_agent::{
    HostDevice,
    firewall::{Belief, Firewalls, Visit},
    view::{Clients, Disbelief, Exposure, Opening},
};
use sluice_model::{
    Endpoint, Network, PublishedPort, RemoteEndpoint,
    container::NetworkMode,
    network::{Family, GatewayMode},
};

use crate::{Engine, EngineError};

impl Engine {
    /// Every way in to this host's containers, and what its firewalls would say of it.
    pub async fn exposure(&self) -> Result<Exposure, EngineError> {
        let endpoints: Vec<Endpoint> = self.networks.places().endpoints.values().cloned().collect();
        let mut openings = Vec::new();
        for network in self.networks.all() {
            let there = endpoints.iter().filter(|endpoint| endpoint.network == network.id);
            there.for_each(|endpoint| openings.extend(ways_to(endpoint, &network)));
        }
        openings.extend(self.on_the_hosts_network());
        openings.extend(self.handed_on().await?);
        openings.sort_by(|one, other| {
            let key = |opening: &Opening| {
                (
                    opening.container.clone(),
                    opening.protocol.clone(),
                    opening.port,
                    opening.address,
                )
            };
            key(one).cmp(&key(other))
        });
        let firewalls = self.agent.firewalls().await?;
        let devices: Vec<HostDevice> = self.agent.host_devices().await?;
        for opening in openings.iter_mut().filter(|opening| opening.passes_firewall) {
            opening.beliefs = beliefs(opening, &firewalls, &devices);
        }
        Ok(Exposure {
            firewalls: firewalls.names(),
            unread: firewalls.unread().to_vec(),
            warnings: openings.iter().flat_map(warnings).collect(),
            openings,
        })
    }

    /// Ports that this host takes packets for and hands on to containers of others.
    async fn handed_on(&self) -> Result<Vec<Opening>, EngineError> {
        let mut openings = Vec::new();
        for network in self.networks.all().into_iter().filter(Network::is_shared) {
            for (endpoint, host) in self.inspect_network(network.id.as_str()).await?.remote {
                openings.extend(handed_on_to(&endpoint, &host.name, &network.name));
            }
        }
        Ok(openings)
    }

    /// Containers whose processes are the host's, as far as its network is concerned.
    fn on_the_hosts_network(&self) -> Vec<Opening> {
        let mut openings = Vec::new();
        for held in self.containers.all() {
            held.look(|container| {
                if container.host_config.network_mode != NetworkMode::Host || !container.state.is_alive() {
                    return;
                }
                openings.push(Opening {
                    container: container.name.clone(),
                    container_id: container.id.to_string(),
                    network: "host".to_owned(),
                    clients: Clients::Firewall,
                    ..everything_at(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
                });
            });
        }
        openings
    }
}

/// Every way to an endpoint from outside of its network.
fn ways_to(endpoint: &Endpoint, network: &Network) -> Vec<Opening> {
    let mut ways = Vec::new();
    let own = || endpoint.addresses.iter().map(|address| address.addr());
    let whole = |address, clients| Opening {
        clients,
        ..everything_at(address)
    };
    if let Some(parent) = network.parent.as_ref().filter(|_| !network.internal) {
        ways.extend(own().map(|address| whole(address, Clients::Wire(parent.device.clone()))));
    }
    if network.is_placed() {
        ways.extend(endpoint.ports.iter().map(|port| published(endpoint, port)));
        for address in own() {
            match network.gateway_mode(Family::of(address)) {
                GatewayMode::Routed => {
                    ways.extend(endpoint.ports.iter().map(|port| at_its_own(endpoint, port, address)))
                }
                GatewayMode::NatUnprotected => ways.push(whole(address, Clients::Routed)),
                GatewayMode::Nat | GatewayMode::Isolated => {}
            }
        }
    }
    for way in &mut ways {
        way.container.clone_from(&endpoint.name);
        way.container_id = endpoint.container.to_string();
        way.network.clone_from(&network.name);
    }
    // two ports of the host may lead to one of its own
    ways.dedup();
    ways
}

fn everything_at(address: IpAddr) -> Opening {
    Opening {
        container: String::new(),
        container_id: String::new(),
        network: String::new(),
        host: None,
        every_host: false,
        address,
        protocol: None,
        port: None,
        count: 1,
        container_port: None,
        clients: Clients::Everybody,
        passes_firewall: false,
        beliefs: Vec::new(),
    }
}

/// A port at addresses of the host.
fn published(endpoint: &Endpoint, port: &PublishedPort) -> Opening {
    let at = port.host_address;
    let has_family = endpoint
        .addresses
        .iter()
        .any(|own| own.addr().is_ipv4() == at.is_ipv4());
    // Who has IPv4 only is reached at IPv6 addresses by the host's own processes alone.
    let clients = match at.is_loopback() || !has_family {
        true => Clients::Host,
        false => clients_of(&endpoint.publish_from, at),
    };
    Opening {
        every_host: endpoint.publish_mesh && at.is_unspecified(),
        protocol: Some(port.container.protocol.to_string()),
        port: Some(port.host_port),
        count: port.count,
        container_port: Some(port.container.port),
        passes_firewall: clients != Clients::Host,
        clients,
        ..everything_at(at)
    }
}

/// The ports of a container on another host that are this host's, too.
fn handed_on_to(endpoint: &RemoteEndpoint, host: &str, network: &str) -> Vec<Opening> {
    let has_family = |at: IpAddr| {
        endpoint
            .addresses
            .iter()
            .any(|own| own.addr().is_ipv4() == at.is_ipv4())
    };
    let ports = endpoint.ports.iter();
    ports
        .filter(|port| port.host_address.is_unspecified() && has_family(port.host_address))
        .map(|port| {
            let clients = clients_of(&endpoint.publish_from, port.host_address);
            Opening {
                container: endpoint.name.clone(),
                container_id: endpoint.container.to_string(),
                network: network.to_owned(),
                host: Some(host.to_owned()),
                every_host: true,
                protocol: Some(port.container.protocol.to_string()),
                port: Some(port.host_port),
                count: port.count,
                container_port: Some(port.container.port),
                passes_firewall: clients != Clients::Host,
                clients,
                ..everything_at(port.host_address)
            }
        })
        .collect()
}

/// Who may use published ports that are for these alone, at an address.
fn clients_of(publish_from: &[IpNet], address: IpAddr) -> Clients {
    match sources(publish_from, address) {
        None => Clients::Everybody,
        Some(sources) if sources.is_empty() => Clients::Host,
        Some(sources) => Clients::Sources(sources),
    }
}

/// The same port at the container's own address.
fn at_its_own(endpoint: &Endpoint, port: &PublishedPort, address: IpAddr) -> Opening {
    Opening {
        protocol: Some(port.container.protocol.to_string()),
        port: Some(port.container.port),
        count: port.count,
        container_port: Some(port.container.port),
        clients: match sources(&endpoint.publish_from, address) {
            None => Clients::Routed,
            Some(sources) => Clients::RoutedSources(sources),
        },
        ..everything_at(address)
    }
}

/// Who alone may use published ports, of this address's family; None: everybody.
fn sources(publish_from: &[IpNet], address: IpAddr) -> Option<Vec<IpNet>> {
    let of_family = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
    let sources = publish_from.iter().filter(of_family).copied().collect();
    (!publish_from.is_empty()).then_some(sources)
}

/// What the firewalls would do with those who get through, at every device by which they come.
fn beliefs(opening: &Opening, firewalls: &Firewalls, devices: &[HostDevice]) -> Vec<Disbelief> {
    let everybody = match opening.address {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    let sources = match &opening.clients {
        Clients::Sources(sources) => sources.as_slice(),
        _ => std::slice::from_ref(&everybody),
    };
    let (Some(first), protocol) = (opening.port, opening.protocol.as_deref()) else {
        return Vec::new();
    };
    let protocol = match protocol {
        Some("udp") => 17,
        Some("sctp") => 132,
        _ => 6,
    };
    let mut found = Vec::new();
    for device in devices.iter().filter(|device| !device.is_loopback) {
        let of_device = device.addresses.iter().map(|address| address.addr());
        let meant = of_device.filter(|address| {
            *address == opening.address
                || opening.address.is_unspecified() && address.is_ipv4() == opening.address.is_ipv4()
        });
        let mut judged: Option<(Belief, &str)> = None;
        for address in meant {
            for source in sources {
                for port in first..=first.saturating_add(opening.count.saturating_sub(1)) {
                    let visit = Visit {
                        device: device.name.clone(),
                        source: *source,
                        address,
                        protocol,
                        port,
                    };
                    let (belief, name) = firewalls.belief(&visit);
                    judged = Some(match judged {
                        None => (belief, name),
                        Some((before, by)) => (together(before, belief), if by.is_empty() { name } else { by }),
                    });
                }
            }
        }
        if let Some((belief, name)) = judged.filter(|(belief, _)| *belief != Belief::Open) {
            found.push(Disbelief {
                firewall: name.to_owned(),
                belief,
                device: device.name.clone(),
            });
        }
    }
    found
}

/// What is believed of two kinds of packets as one.
fn together(one: Belief, other: Belief) -> Belief {
    match (one, other) {
        (one, other) if one == other => one,
        (Belief::Unclear, _) | (_, Belief::Unclear) => Belief::Unclear,
        _ => Belief::Limited,
    }
}

/// A sentence for each firewall that is mistaken about an opening.
fn warnings(opening: &Opening) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    for told in &opening.beliefs {
        let devices: Vec<&str> = opening
            .beliefs
            .iter()
            .filter(|other| other.belief == told.belief && other.firewall == told.firewall)
            .map(|other| other.device.as_str())
            .collect();
        let believes = match told.belief {
            Belief::Closed => "believes it closed",
            Belief::Limited => "would let only some of them in",
            Belief::Unclear => "may believe it closed (by a rule that Sluice cannot read)",
            Belief::Open => continue,
        };
        let port = opening.port.unwrap_or_default();
        let ports = match opening.count {
            1 => port.to_string(),
            count => format!("{port}-{}", port.saturating_add(count - 1)),
        };
        let at = match opening.address {
            IpAddr::V4(address) => format!("{address}:{ports}"),
            IpAddr::V6(address) => format!("[{address}]:{ports}"),
        };
        let sentence = format!(
            "{}: {at}/{} is reached from outside, but {} {believes} at {}. Packets to published ports do not pass the host's firewall: publish the port at \
             another address (-p 127.0.0.1:…) or for some clients (--publish-from) if it is not meant for all",
            opening.container,
            opening.protocol.as_deref().unwrap_or_default(),
            told.firewall,
            devices.join(", "),
        );
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use sluice_model::{
        Id,
        network::{Driver, Hold, Parent},
    };

    use super::*;
    use crate::network::defaults::bare;

    fn endpoint(network: &Network, addresses: &[&str], ports: &[(&str, u16, &str, u16)], from: &[&str]) -> Endpoint {
        let ports = ports.iter().map(|(at, host_port, container, count)| PublishedPort {
            container: container.parse().unwrap(),
            host_address: at.parse().unwrap(),
            host_port: *host_port,
            count: *count,
        });
        Endpoint {
            id: Id::from_bytes(rand::random()),
            number: 1,
            generation: 1,
            network: network.id.clone(),
            container: Id::from_bytes(rand::random()),
            name: "web".into(),
            sandbox: Id::from_bytes(rand::random()),
            interface: "eth0".into(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            ports: ports.collect(),
            gateways: vec![],
            sysctls: Default::default(),
            labels: Default::default(),
            aliases: vec![],
            links: vec![],
            exposed: vec![],
            publish_from: from.iter().map(|net| net.parse().unwrap()).collect(),
            publish_mesh: false,
        }
    }

    /// Address, port, count and clients of each way.
    fn told(endpoint: &Endpoint, network: &Network) -> Vec<String> {
        let ways = ways_to(endpoint, network);
        ways.iter()
            .map(|way| format!("{} {:?} {} {:?}", way.address, way.port, way.count, way.clients))
            .collect()
    }

    #[test]
    fn a_published_port_is_open_to_whom_its_address_and_its_sources_say() {
        let network = bare("net", Driver::Bridge);
        let ports = [
            ("0.0.0.0", 8080, "80/tcp", 1),
            ("::", 8080, "80/tcp", 1),
            ("127.0.0.1", 81, "81/tcp", 1),
            ("10.88.0.1", 7000, "9000/udp", 10),
        ];
        let plain = endpoint(&network, &["172.17.0.2/16"], &ports, &[]);
        assert_eq!(
            told(&plain, &network),
            [
                "0.0.0.0 Some(8080) 1 Everybody",
                ":: Some(8080) 1 Host",
                "127.0.0.1 Some(81) 1 Host",
                "10.88.0.1 Some(7000) 10 Everybody",
            ]
        );
        let limited = endpoint(
            &network,
            &["172.17.0.2/16", "fd00::2/64"],
            &ports[..2],
            &["192.0.2.0/24"],
        );
        assert_eq!(
            told(&limited, &network),
            ["0.0.0.0 Some(8080) 1 Sources([192.0.2.0/24])", ":: Some(8080) 1 Host"]
        );
    }

    #[test]
    fn a_port_of_the_mesh_is_told_where_its_container_is_and_on_every_other_host() {
        let network = bare("net", Driver::Overlay);
        let ports = [
            ("0.0.0.0", 8080, "80/tcp", 1),
            ("::", 8080, "80/tcp", 1),
            ("10.88.0.1", 81, "81/tcp", 1),
        ];
        let mut endpoint = endpoint(&network, &["10.32.0.2/24"], &ports, &["192.0.2.0/24"]);
        endpoint.publish_mesh = true;
        let here = ways_to(&endpoint, &network);
        assert_eq!(
            here.iter().map(|way| way.every_host).collect::<Vec<_>>(),
            [true, true, false]
        );
        let there = handed_on_to(&RemoteEndpoint::of(&endpoint, "id"), "second", "net");
        let [way] = there.as_slice() else { panic!("{there:?}") };
        assert_eq!((way.host.as_deref(), way.every_host), (Some("second"), true));
        assert_eq!((way.port, &way.clients), (Some(8080), &here[0].clients));
        endpoint.publish_mesh = false;
        assert_eq!(handed_on_to(&RemoteEndpoint::of(&endpoint, "id"), "second", "net"), []);
    }

    #[test]
    fn what_is_reached_at_a_containers_own_address_is_told_too() {
        let ports = [("0.0.0.0", 8080, "80/tcp", 1)];
        let mut network = bare("net", Driver::Bridge);
        network.gateway_mode4 = GatewayMode::Routed;
        let routed = endpoint(&network, &["10.71.0.9/24"], &ports, &[]);
        assert_eq!(
            told(&routed, &network),
            ["0.0.0.0 Some(8080) 1 Everybody", "10.71.0.9 Some(80) 1 Routed"]
        );
        network.gateway_mode4 = GatewayMode::NatUnprotected;
        assert_eq!(
            told(&routed, &network),
            ["0.0.0.0 Some(8080) 1 Everybody", "10.71.0.9 None 1 Routed"]
        );
        let mut wire = bare("wire", Driver::Bridge);
        wire.parent = Some(Parent {
            device: "br0".into(),
            made_of: None,
            hold: Hold::Port,
        });
        let on_wire = endpoint(&wire, &["10.88.0.9/24"], &[], &[]);
        assert_eq!(told(&on_wire, &wire), ["10.88.0.9 None 1 Wire(\"br0\")"]);
    }
}
