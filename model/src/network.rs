//! Networks.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Id;

/// The name of the network that containers are on when nobody names one.
pub const DEFAULT_NETWORK: &str = "bridge";

/// What stands behind a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Our eBPF network on one host, under the name Docker's users know.
    Bridge,
    /// The host's own namespace.
    Host,
    /// Only loopback.
    Null,
    /// Devices of their own MAC on one of the host's.
    Macvlan,
    /// Devices on one of the host's, with its MAC.
    Ipvlan,
    /// Our eBPF network on all hosts of a cluster.
    Overlay,
}

/// The device of the host that a network's endpoints hang on, beside the datapath.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parent {
    /// Its name.
    pub device: String,
    /// What it is made of when it is ours: it comes and goes with the network.
    #[serde(default)]
    pub made_of: Option<MadeParent>,
    /// How the endpoints hang on it.
    pub hold: Hold,
}

/// A parent that is ours.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeParent {
    /// A VLAN (802.1Q) of a device of the host.
    Vlan {
        /// The device.
        of: String,
        /// 1 to 4094.
        tag: u16,
    },
    /// A device that leads nowhere: the endpoints meet on it.
    Dummy,
}

/// How endpoints hang on their parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hold {
    /// Veths that are ports of it: it is a Linux bridge. The datapath sees what the endpoints say.
    Port,
    /// Macvlan devices.
    Macvlan(MacvlanMode),
    /// Ipvlan devices.
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// Whom the devices of one parent reach directly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Each other.
    #[default]
    Bridge,
    /// Nobody on the parent.
    Private,
    /// Each other by the switch outside, which sends frames back (802.1Qbg).
    Vepa,
    /// There is one, and the parent is its own.
    Passthru,
}

/// At which layer the devices of one parent are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// As on a switch.
    #[default]
    L2,
    /// The host's namespace routes for them.
    L3,
    /// The same, and its netfilter sees what they say.
    L3s,
}

/// Whom they reach on the parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanFlag {
    /// Each other.
    #[default]
    Bridge,
    /// Nobody.
    Private,
    /// Each other by the switch outside.
    Vepa,
}

/// For what is not written when it is 0.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Text that names no mode of a driver.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of {1}")]
pub struct UnknownMode(pub String, pub &'static str);

/// A family of addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A subnet of a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subnet {
    /// The addresses.
    pub subnet: IpNet,
    /// The gateway's, which the host bears.
    pub gateway: IpAddr,
    /// Where endpoints' addresses are taken from, when not the whole subnet.
    pub range: Option<IpNet>,
    /// Addresses that others have, by what the user calls them: no endpoint gets one.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// How a network's endpoints meet the world, by family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// With an address of the host; the world reaches published ports at the host.
    #[default]
    Nat,
    /// As `nat`, and who has a route reaches every port of an endpoint at its own address.
    NatUnprotected,
    /// With their own addresses; who has a route reaches published ports there.
    Routed,
    /// Not at all; the host bears no address in the network.
    Isolated,
}

/// Text that names no gateway mode.
#[derive(Debug, thiserror::Error)]
#[error("unknown gateway mode {0:?}: one of nat, nat-unprotected, routed, isolated is wanted")]
pub struct UnknownGatewayMode(pub String);

/// Where a network's endpoints reach the host itself: what listens there and is no published port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostAccess {
    /// At none of its addresses.
    None,
    /// At the network's gateway.
    Gateway,
    /// At all of its addresses.
    All,
}

/// Text that names no host access.
#[derive(Debug, thiserror::Error)]
#[error("unknown host access {0:?}: one of none, gateway, all is wanted")]
pub struct UnknownHostAccess(pub String);

/// A network, as desired.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: Id,
    /// Its name, unique.
    pub name: String,
    /// What stands behind it.
    pub driver: Driver,
    /// Its number in the datapath, 2 to 4095; 0 for drivers without one.
    pub number: u32,
    /// Its subnets (at most one of each family).
    pub subnets: Vec<Subnet>,
    /// May its containers talk to each other without a link?
    pub icc: bool,
    /// Does traffic that leaves the host get an address of the host?
    pub masquerade: bool,
    /// No way in or out.
    pub internal: bool,
    /// The MTU of its devices, bytes; where it follows, what it was when the network was made.
    pub mtu: u32,
    /// Nobody named an MTU: it is that of the way out of this host, and changes with it.
    #[serde(default)]
    pub mtu_follows: bool,
    /// The device of the host that its endpoints hang on; none: the datapath alone.
    #[serde(default)]
    pub parent: Option<Parent>,
    /// The name of the device that bears its gateway addresses; none: the host's leg.
    #[serde(default)]
    pub gateway_device: Option<String>,
    /// Published ports are bound here when the user names no address.
    pub default_binding: IpAddr,
    /// How its IPv4 meets the world.
    #[serde(default)]
    pub gateway_mode4: GatewayMode,
    /// How its IPv6 meets the world.
    #[serde(default)]
    pub gateway_mode6: GatewayMode,
    /// Where its containers reach the host itself; none: nowhere in an internal network, everywhere in others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_access: Option<HostAccess>,
    /// Does what a container says to many (multicast, broadcast) reach the others?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multicast: bool,
    /// May containers be put on it one by one (of a meaning in swarms only; kept for those who look)?
    #[serde(default)]
    pub attachable: bool,
    /// Its number on the wire between hosts (VXLAN network identifier, 24 bits); 0: it is on one host.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vni: u32,
    /// Do hosts that reach each other without a router send to each other without VXLAN?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub direct_routing: bool,
    /// Does what hosts send each other of it go encrypted, or not at all?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options (`com.docker.network.…`).
    pub options: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
}

// === impl Network ===

impl Network {
    /// Its subnet of a family.
    pub fn subnet(&self, family: Family) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| Family::of(subnet.gateway) == family)
    }

    /// Are its endpoints known by name to each other? Not in the default network, as with Docker.
    pub fn has_names(&self) -> bool {
        self.name != DEFAULT_NETWORK && (self.is_placed() && !self.is_on_bridge() || self.is_beside())
    }

    /// Do its endpoints stand on a device of the host, where the datapath does not see what they say?
    pub fn is_beside(&self) -> bool {
        matches!(self.driver, Driver::Macvlan | Driver::Ipvlan)
    }

    /// Where its endpoints reach the host itself.
    pub fn host_access(&self) -> HostAccess {
        let usual = match self.internal {
            true => HostAccess::None,
            false => HostAccess::All,
        };
        self.host_access.unwrap_or(usual)
    }

    /// How it meets the world by a family.
    pub fn gateway_mode(&self, family: Family) -> GatewayMode {
        match family {
            Family::V4 => self.gateway_mode4,
            Family::V6 => self.gateway_mode6,
        }
    }

    /// Has it a place in the datapath: a number, and veths that programs look at?
    pub fn is_placed(&self) -> bool {
        matches!(self.driver, Driver::Bridge | Driver::Overlay)
    }

    /// Is it on all hosts of a cluster?
    pub fn is_shared(&self) -> bool {
        self.driver == Driver::Overlay
    }

    /// Is it on a Linux bridge of the host?
    pub fn is_on_bridge(&self) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.hold == Hold::Port)
    }
}

// === impl MacvlanMode, IpvlanMode, IpvlanFlag ===

/// Reads and shows the words of a driver's option.
macro_rules! words {
    ($mode:ident: $($word:literal => $variant:ident),+) => {
        impl $mode {
            /// As the user writes it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl FromStr for $mode {
            type Err = UnknownMode;

            fn from_str(text: &str) -> Result<Self, UnknownMode> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownMode(text.to_owned(), concat!($($word, " "),+).trim_ascii())),
                }
            }
        }
    };
}

words!(MacvlanMode: "bridge" => Bridge, "private" => Private, "vepa" => Vepa, "passthru" => Passthru);
words!(IpvlanMode: "l2" => L2, "l3" => L3, "l3s" => L3s);
words!(IpvlanFlag: "bridge" => Bridge, "private" => Private, "vepa" => Vepa);
// === impl HostAccess ===

impl HostAccess {
    /// As the user writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gateway => "gateway",
            Self::All => "all",
        }
    }
}

impl FromStr for HostAccess {
    type Err = UnknownHostAccess;

    fn from_str(text: &str) -> Result<Self, UnknownHostAccess> {
        [Self::None, Self::Gateway, Self::All]
            .into_iter()
            .find(|access| access.as_str() == text)
            .ok_or_else(|| UnknownHostAccess(text.to_owned()))
    }
}

// === impl GatewayMode ===

impl GatewayMode {
    /// As the user writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::NatUnprotected => "nat-unprotected",
            Self::Routed => "routed",
            Self::Isolated => "isolated",
        }
    }
}

impl FromStr for GatewayMode {
    type Err = UnknownGatewayMode;

    fn from_str(text: &str) -> Result<Self, UnknownGatewayMode> {
        [Self::Nat, Self::NatUnprotected, Self::Routed, Self::Isolated]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| UnknownGatewayMode(text.to_owned()))
    }
}

// === impl Family ===

impl Family {
    /// Both, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// An address's.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}
