//! Who is meant: endpoints by their labels, network and name; addresses; the host; the world.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, value::MapAccessDeserializer},
    ser::SerializeMap,
};

use crate::glob;

/// What rules may ask of an endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The labels of its container.
    pub labels: BTreeMap<String, String>,
    /// The name of its container.
    pub name: String,
    /// The name of its network.
    pub network: String,
    /// The id of its network.
    pub network_id: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Which endpoints are meant: those that all of it is true of. Nothing at all is true of every endpoint.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Labels of the container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Values>,
    /// The name or id of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The name of the container; `*` is any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The values that a label may have: one of these, in which `*` is any characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Values(pub Vec<String>);

/// Who is on the other side.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Peer {
    /// Endpoints.
    Endpoints(Selector),
    /// Whoever has an address of this prefix and of none of the exceptions: endpoints, the host and the world alike.
    Addresses {
        /// The prefix.
        cidr: IpNet,
        /// Prefixes inside it that are not meant.
        except: Vec<IpNet>,
    },
    /// The host itself, at any of its addresses. Hosts of the cluster reach each other's endpoints by the gateway's, which all of them have.
    Host,
    /// Whoever is neither the host nor has an address in a network of ours.
    World,
}

// === impl Selector ===

impl Selector {
    /// Is this endpoint meant?
    pub fn selects(&self, facts: &Facts) -> bool {
        let network = |wanted: &String| *wanted == facts.network || *wanted == facts.network_id;
        self.network.as_ref().is_none_or(network)
            && self
                .name
                .as_ref()
                .is_none_or(|pattern| glob::fits(pattern, &facts.name))
            && self
                .labels
                .iter()
                .all(|(key, values)| facts.labels.get(key).is_some_and(|value| values.hold(value)))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = self
            .labels
            .iter()
            .map(|(key, Values(values))| format!("{key}={}", values.join("|")))
            .collect();
        words.extend(self.network.iter().map(|network| format!("network {network}")));
        words.extend(self.name.iter().map(|name| format!("name {name}")));
        match words.is_empty() {
            true => out.write_str("every endpoint"),
            false => out.write_str(&words.join(", ")),
        }
    }
}

// === impl Values ===

impl Values {
    /// Is this one of them?
    pub fn hold(&self, value: &str) -> bool {
        self.0.iter().any(|pattern| glob::fits(pattern, value))
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [value] => serializer.serialize_str(value),
            values => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> de::Visitor<'de> for Words {
            type Value = Values;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a value or a list of values")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Values, E> {
                Ok(Values(vec![value.to_owned()]))
            }

            // What YAML takes for something else than text is a label's text all the same.
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element::<String>()? {
                    values.push(value);
                }
                match values.is_empty() {
                    true => Err(de::Error::custom("a label with no value to choose from selects nobody")),
                    false => Ok(Values(values)),
                }
            }
        }
        deserializer.deserialize_any(Words)
    }
}

// === impl Peer ===

impl Peer {
    /// Is this endpoint meant, when it speaks with this address of its own?
    pub fn is_endpoint(&self, facts: &Facts, address: IpAddr) -> bool {
        match self {
            Self::Endpoints(selector) => selector.selects(facts),
            Self::Addresses { .. } => self.holds(address),
            Self::Host | Self::World => false,
        }
    }

    /// Is it about addresses, this one among them?
    pub fn holds(&self, address: IpAddr) -> bool {
        match self {
            Self::Addresses { cidr, except } => {
                cidr.contains(&address) && !except.iter().any(|except| except.contains(&address))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoints(selector) => selector.fmt(out),
            Self::Addresses { cidr, except } if except.is_empty() => cidr.fmt(out),
            Self::Addresses { cidr, except } => {
                let except: Vec<String> = except.iter().map(IpNet::to_string).collect();
                write!(out, "{cidr} except {}", except.join(", "))
            }
            Self::Host => out.write_str("host"),
            Self::World => out.write_str("world"),
        }
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Endpoints(selector) => selector.serialize(serializer),
            Self::Addresses { cidr, except } => {
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("cidr", cidr)?;
                if !except.is_empty() {
                    map.serialize_entry("except", except)?;
                }
                map.end()
            }
            Self::Host => serializer.serialize_str("host"),
            Self::World => serializer.serialize_str("world"),
        }
    }
}

impl<'de> Deserialize<'de> for Peer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> de::Visitor<'de> for Words {
            type Value = Peer;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("host, world, {cidr: …, except: […]}, or {labels: …, network: …, name: …}")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Peer, E> {
                match word {
                    "host" => Ok(Peer::Host),
                    "world" => Ok(Peer::World),
                    _ => Err(E::custom(format_args!(
                        "{word:?} is nobody: write host, world, {{cidr: …}}, or {{labels: …, network: …, name: …}}"
                    ))),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Peer, A::Error> {
                Fields::deserialize(MapAccessDeserializer::new(map))?
                    .meant()
                    .map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// What may be written of a peer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    labels: BTreeMap<String, Values>,
    #[serde(default)]
    network: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    cidr: Option<String>,
    #[serde(default)]
    except: Vec<String>,
}

impl Fields {
    fn meant(self) -> Result<Peer, String> {
        let Some(cidr) = self.cidr else {
            if !self.except.is_empty() {
                return Err("except is said of a cidr, and there is none".to_owned());
            }
            return Ok(Peer::Endpoints(Selector {
                labels: self.labels,
                network: self.network,
                name: self.name,
            }));
        };
        if !self.labels.is_empty() || self.network.is_some() || self.name.is_some() {
            return Err("a cidr stands alone: it is about addresses, whoever has them".to_owned());
        }
        let cidr = prefix(&cidr)?;
        let except = self
            .except
            .iter()
            .map(|text| prefix(text))
            .collect::<Result<Vec<_>, _>>()?;
        match except.iter().find(|except| !cidr.contains(*except)) {
            Some(outside) => Err(format!("{outside} is no exception from {cidr}: it lies outside")),
            None => Ok(Peer::Addresses { cidr, except }),
        }
    }
}

/// A prefix, or an address, which is one of its whole length.
fn prefix(text: &str) -> Result<IpNet, String> {
    let parsed = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = parsed.map_err(|_| format!("{text:?} is no prefix as 10.0.0.0/8 or fd00::/8"))?;
    match net == net.trunc() {
        true => Ok(net),
        false => Err(format!("{text} has bits behind its prefix; {} is meant?", net.trunc())),
    }
}
