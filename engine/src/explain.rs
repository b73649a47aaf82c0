//! What would become of a conversation: names are turned into who is meant, the agent asks the real programs.

use std::net::IpAddr;

use sluice_agent::{Question, Refusal, Speaker, Target, view::Explanation};
use sluice_model::{Endpoint, Network};
use sluice_policy::traffic::{ICMP, ICMP6};

use crate::{Asked, Engine, EngineError};

impl Engine {
    /// What would become of the first packet of a conversation, step by step. Nothing of it is left or counted anywhere.
    pub async fn explain(&self, asked: &Asked) -> Result<Explanation, EngineError> {
        let endpoints: Vec<Endpoint> = self.networks.places().endpoints.values().cloned().collect();
        let places = Places {
            endpoints,
            networks: self.networks.all(),
        };
        let host = match asked.from.as_str() {
            "host" => Vec::new(),
            _ => self.agent().host_devices().await?,
        };
        let is_of_host = |address: IpAddr| {
            let addresses = host.iter().flat_map(|device| device.addresses.iter());
            let mut own = addresses.map(ipnet::IpNet::addr);
            own.any(|own| own == address)
        };
        let question = places.question(asked, is_of_host)?;
        self.agent().explain(question).await.map_err(|refusal| match refusal {
            Refusal::Question(why) => EngineError::invalid(why),
            Refusal::Failed(why) => why.into(),
        })
    }
}

/// Who lives where on this host.
struct Places {
    endpoints: Vec<Endpoint>,
    networks: Vec<Network>,
}

/// Somebody outside, when nobody is named: of the prefixes for documentation.
const SOMEBODY: (&str, &str) = ("203.0.113.1", "2001:db8::1");

impl Places {
    fn question(&self, asked: &Asked, is_of_host: impl Fn(IpAddr) -> bool) -> Result<Question, EngineError> {
        let literal = |text: &str| text.parse::<IpAddr>().ok();
        // What is said by its address says the family; ICMP of IPv6 too; else it is IPv4 where both have it.
        let said = literal(&asked.to).or_else(|| literal(&asked.from));
        let six = match said {
            Some(address) => address.is_ipv6(),
            None if asked.protocol == ICMP6 => true,
            None => [&asked.from, &asked.to].iter().any(|name| self.is_only_of_six(name)),
        };
        let somebody = if six { SOMEBODY.1 } else { SOMEBODY.0 };
        let somebody = || {
            literal(somebody)
                .ok_or_else(|| EngineError::failed("an address of the prefixes for documentation cannot be read"))
        };
        let to = match asked.to.as_str() {
            "host" => Target::Host(six),
            "world" => Target::Address(somebody()?),
            text => match literal(text) {
                Some(address) => Target::Address(address),
                None => Target::Address(self.address_of(text, six, &self.networks_of(&asked.from))?),
            },
        };
        let from = match asked.from.as_str() {
            "host" => Speaker::Host,
            "world" => Speaker::World(somebody()?),
            text => match literal(text) {
                Some(address) if is_of_host(address) => Speaker::Host,
                Some(address) => match self.at(address)? {
                    Some(endpoint) => Speaker::Endpoint(endpoint.number),
                    None => Speaker::World(address),
                },
                None => Speaker::Endpoint(self.speaker(text, to)?.number),
            },
        };
        // "icmp" is an echo of either family.
        let is_six = match to {
            Target::Address(address) => address.is_ipv6(),
            Target::Host(six) => six,
        };
        let (protocol, port) = match (asked.protocol, asked.port) {
            (ICMP, 8) if is_six => (ICMP6, 128),
            said => said,
        };
        Ok(Question {
            from,
            to,
            protocol,
            port,
        })
    }

    /// The endpoints of a container, by its name, its id or how that begins.
    fn named(&self, text: &str) -> impl Iterator<Item = &Endpoint> {
        /// A shorter beginning of an id might be somebody's name.
        const SHORT: usize = 12;
        self.endpoints.iter().filter(move |endpoint| {
            endpoint.name == text || (text.len() >= SHORT && endpoint.container.as_str().starts_with(text))
        })
    }

    fn network(&self, endpoint: &Endpoint) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == endpoint.network)
    }

    fn networks_of(&self, text: &str) -> Vec<&str> {
        self.named(text).map(|endpoint| endpoint.network.as_str()).collect()
    }

    fn is_only_of_six(&self, text: &str) -> bool {
        let addresses: Vec<_> = self
            .named(text)
            .flat_map(|endpoint| endpoint.addresses.iter())
            .collect();
        !addresses.is_empty() && addresses.iter().all(|address| address.addr().is_ipv6())
    }

    /// Where a container is spoken to: on a network that the speaker is on too, if there is one.
    fn address_of(&self, text: &str, six: bool, common: &[&str]) -> Result<IpAddr, EngineError> {
        let mut there: Vec<&Endpoint> = self.named(text).collect();
        there.sort_by_key(|endpoint| !common.contains(&endpoint.network.as_str()));
        let addresses = there.iter().flat_map(|endpoint| endpoint.addresses.iter());
        let mut addresses = addresses.map(ipnet::IpNet::addr);
        addresses
            .find(|address| address.is_ipv6() == six)
            .ok_or_else(|| no_such(text))
    }

    /// Of a container's endpoints the one that leads there: by whose network, else by whose gateway.
    fn speaker(&self, text: &str, to: Target) -> Result<&Endpoint, EngineError> {
        let six = match to {
            Target::Address(address) => address.is_ipv6(),
            Target::Host(six) => six,
        };
        let has_family =
            |endpoint: &&Endpoint| endpoint.addresses.iter().any(|address| address.addr().is_ipv6() == six);
        let candidates: Vec<&Endpoint> = self.named(text).filter(has_family).collect();
        let is_on_link = |endpoint: &&&Endpoint| match to {
            Target::Address(to) => endpoint.addresses.iter().any(|address| address.contains(&to)),
            Target::Host(_) => false,
        };
        let leads = |endpoint: &&&Endpoint| endpoint.gateways.iter().any(|gateway| gateway.is_ipv6() == six);
        let found = candidates.iter().find(is_on_link);
        let found = found.or_else(|| candidates.iter().find(leads)).or(candidates.first());
        let found = *found.ok_or_else(|| no_such(text))?;
        self.on_the_datapath(found)
    }

    /// Who lives at an address.
    fn at(&self, address: IpAddr) -> Result<Option<&Endpoint>, EngineError> {
        let lives_there = |endpoint: &&Endpoint| endpoint.addresses.iter().any(|own| own.addr() == address);
        let found = self.endpoints.iter().find(lives_there);
        if let Some(endpoint) = found {
            return self.on_the_datapath(endpoint).map(Some);
        }
        let is_ours = self
            .networks
            .iter()
            .filter(|network| network.is_placed() && !network.is_on_bridge())
            .any(|network| network.subnets.iter().any(|subnet| subnet.subnet.contains(&address)));
        match is_ours {
            true => Err(EngineError::invalid(format!(
                "no container of this host has the address {address}: who lives on another host is to be asked about there"
            ))),
            false => Ok(None),
        }
    }

    fn on_the_datapath<'a>(&self, endpoint: &'a Endpoint) -> Result<&'a Endpoint, EngineError> {
        match self.network(endpoint).is_some_and(Network::is_placed) {
            true => Ok(endpoint),
            false => Err(EngineError::invalid(format!(
                "what {} says on its network does not come by the datapath",
                endpoint.name
            ))),
        }
    }
}

fn no_such(text: &str) -> EngineError {
    EngineError::not_found(format!(
        "{text} is no container that runs on a network of that family on this host; an address, \"host\" and \"world\" are understood too"
    ))
}
