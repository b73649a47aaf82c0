//! What networks, links and published ports say about who may speak to whom: as rules, beside those of documents, and with the entries that they are in the
//! datapath. They are judged before documents, and no document allows what they forbid.

use std::net::IpAddr;

use serde::Serialize;
use sluice_model::{
    Endpoint, Network,
    network::{Family, GatewayMode, HostAccess},
};

use crate::Engine;

/// A rule that no document says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Standing {
    /// What says it: `network shop`, `link of web`, `port of web` …
    pub origin: String,
    /// `allow` or `deny`.
    pub verdict: &'static str,
    /// Who speaks.
    pub from: String,
    /// To whom.
    pub to: String,
    /// By what: `80/tcp`, or everything.
    pub traffic: String,
    /// The reason that `sluice drops` names for what it forbids; of what it allows empty.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// The entry that it is in the tables (docs/maps.md).
    pub entry: String,
}

const ALLOW: &str = "allow";
const DENY: &str = "deny";
const EVERYTHING: &str = "everything";

impl Engine {
    /// Every such rule of this host's networks, network by network, in the order in which they are judged.
    pub fn standing_rules(&self) -> Vec<Standing> {
        let endpoints: Vec<Endpoint> = self.networks.places().endpoints.values().cloned().collect();
        let mut networks: Vec<Network> = self.networks.all();
        networks.retain(Network::is_placed);
        networks.sort_by(|one, other| one.name.cmp(&other.name));
        networks
            .iter()
            .flat_map(|network| of_network(network, &endpoints))
            .collect()
    }
}

fn of_network(network: &Network, endpoints: &[Endpoint]) -> Vec<Standing> {
    let there: Vec<&Endpoint> = endpoints
        .iter()
        .filter(|endpoint| endpoint.network == network.id)
        .collect();
    let mut rules = vec![isolation(network)];
    if network.internal {
        rules.extend(internal(network));
    }
    rules.extend(between(network, &there));
    rules.push(multicast(network));
    rules.push(host_access(network));
    if !network.internal {
        rules.extend(there.iter().flat_map(|endpoint| published(endpoint)));
        rules.extend(
            [Family::V4, Family::V6]
                .into_iter()
                .filter_map(|family| from_outside(network, family)),
        );
    }
    rules
}

fn rule(network: &Network, verdict: &'static str, ends: (&str, &str), reason: &'static str, entry: String) -> Standing {
    Standing {
        origin: format!("network {}", network.name),
        verdict,
        from: ends.0.to_owned(),
        to: ends.1.to_owned(),
        traffic: EVERYTHING.to_owned(),
        reason,
        entry,
    }
}

fn flag(network: &Network, flag: &str) -> String {
    format!("NETWORKS[{}]: {flag}", network.number)
}

fn isolation(network: &Network) -> Standing {
    let subnets = network
        .subnets
        .iter()
        .map(|subnet| format!("{} → {}", subnet.subnet, network.number));
    let entry = format!("SUBNETS: {}", subnets.collect::<Vec<_>>().join(", "));
    rule(
        network,
        DENY,
        ("other networks", &network.name),
        "isolated_network",
        entry,
    )
}

fn internal(network: &Network) -> [Standing; 2] {
    let entry = || flag(network, "INTERNAL");
    [
        rule(network, DENY, (&network.name, "world"), "internal_network", entry()),
        rule(network, DENY, ("world", &network.name), "internal_network", entry()),
    ]
}

/// Links go before what the network says where its containers may not speak to each other, and say nothing where they may.
fn between(network: &Network, there: &[&Endpoint]) -> Vec<Standing> {
    let ends = (network.name.as_str(), network.name.as_str());
    if network.icc {
        return vec![rule(network, ALLOW, ends, "", flag(network, "ICC"))];
    }
    let mut rules = Vec::new();
    for endpoint in there {
        for link in &endpoint.links {
            for target in there.iter().filter(|target| link.leads_to(target)) {
                rules.extend(target.exposed.iter().map(|exposed| Standing {
                    origin: format!("link of {}", endpoint.name),
                    verdict: ALLOW,
                    from: endpoint.name.clone(),
                    to: target.name.clone(),
                    traffic: exposed.to_string(),
                    reason: "",
                    entry: format!("LINKS: {} → {}, {exposed}", endpoint.number, target.number),
                }));
            }
        }
    }
    rules.push(rule(network, DENY, ends, "icc_disabled", flag(network, "not ICC")));
    rules
}

fn multicast(network: &Network) -> Standing {
    let ends = (network.name.as_str(), "multicast and broadcast");
    match network.multicast {
        true => rule(network, ALLOW, ends, "", flag(network, "MULTICAST")),
        false => rule(network, DENY, ends, "multicast", flag(network, "not MULTICAST")),
    }
}

fn host_access(network: &Network) -> Standing {
    let from = network.name.as_str();
    let reason = if network.internal {
        "internal_network"
    } else {
        "host_access"
    };
    match network.host_access() {
        HostAccess::All => rule(
            network,
            ALLOW,
            (from, "host"),
            "",
            flag(network, "neither NO_HOST nor ONLY_GATEWAY"),
        ),
        HostAccess::Gateway => rule(
            network,
            DENY,
            (from, "host, but for the gateway"),
            reason,
            flag(network, "ONLY_GATEWAY"),
        ),
        HostAccess::None => rule(network, DENY, (from, "host"), reason, flag(network, "NO_HOST")),
    }
}

/// A port for everybody, or for those it is published to.
fn published(endpoint: &Endpoint) -> Vec<Standing> {
    let mut rules = Vec::new();
    for port in &endpoint.ports {
        let family = match port.host_address {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        };
        let last = port.host_port.saturating_add(port.count.saturating_sub(1));
        let (table, asked) = match last == port.host_port {
            true => ("PUBLISHED", port.host_port.to_string()),
            false => ("RANGES", format!("{}-{last}", port.host_port)),
        };
        let protocol = port.container.protocol;
        let at = |address: IpAddr| match address.is_unspecified() {
            true => "any address".to_owned(),
            false => address.to_string(),
        };
        let one = |verdict, from: String, reason, entry| Standing {
            origin: format!("port of {}", endpoint.name),
            verdict,
            from,
            to: format!("{} at {}", endpoint.name, at(port.host_address)),
            traffic: format!("{asked}/{protocol}"),
            reason,
            entry,
        };
        let entry = format!(
            "{table}{family}: {}, {asked}/{protocol} → {}",
            at(port.host_address),
            endpoint.number
        );
        if endpoint.publish_from.is_empty() {
            rules.push(one(ALLOW, "everybody".to_owned(), "", entry));
            continue;
        }
        for source in &endpoint.publish_from {
            let table = if source.addr().is_ipv4() { 4 } else { 6 };
            let source_entry = format!("SOURCES{table}: {}, {source}", endpoint.number);
            rules.push(one(ALLOW, source.to_string(), "", source_entry));
        }
        rules.push(one(
            DENY,
            "everybody else".to_owned(),
            "publish_from",
            format!("{entry}, limited"),
        ));
    }
    rules
}

/// What reaches containers at their own addresses.
fn from_outside(network: &Network, family: Family) -> Option<Standing> {
    let subnet = network.subnet(family)?;
    let to = subnet.subnet.to_string();
    let ends = ("world", to.as_str());
    Some(match network.gateway_mode(family) {
        GatewayMode::NatUnprotected => rule(network, ALLOW, ends, "", flag(network, "UNPROTECTED")),
        GatewayMode::Routed => Standing {
            traffic: "but for published ports and pings".to_owned(),
            ..rule(network, DENY, ends, "unpublished", flag(network, "ROUTED"))
        },
        GatewayMode::Nat | GatewayMode::Isolated => rule(
            network,
            DENY,
            ends,
            "unpublished",
            flag(network, "neither ROUTED nor UNPROTECTED"),
        ),
    })
}
