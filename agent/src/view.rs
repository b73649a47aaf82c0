//! What the datapath shows to those who ask: plain words and numbers, no kernel types.

mod explained;
mod exposure;
mod seen;

use std::{collections::BTreeMap, net::IpAddr};

pub use explained::{Explanation, Step};
pub use exposure::{Clients, Disbelief, Exposure, Opening};
use jiff::Timestamp;
pub use seen::{Carried, Happening, Icmp, Lost, Outcome, Reason, Seen, Side};
use serde::{Deserialize, Serialize};

/// One side of a flow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// The address.
    pub address: IpAddr,
    /// The port, 0 where the protocol has none (ICMP: the identifier).
    pub port: u16,
    /// The container's name, when it is one of ours; `host` for the host; empty for the world.
    pub name: String,
    /// The container's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The name of its network.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The container's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A connection, seen from who opened it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Flow {
    /// `tcp`, `udp`, `icmp` or the protocol's number.
    pub protocol: String,
    /// Who opened it.
    pub from: Peer,
    /// Whom it asked for.
    pub to: Peer,
    /// From whom it seems to come, when that was translated (masquerade).
    pub translated_from: Option<Peer>,
    /// To whom it really goes, when that was translated (published port).
    pub translated_to: Option<Peer>,
    /// `unanswered`, `established`, `closing` or `closed`.
    pub state: String,
    /// `container`, `host`, `overlay` (another host of the cluster) or `world`: where its packets are taken.
    pub towards: String,
    /// Packets and bytes from the opener.
    pub packets: u64,
    /// As above.
    pub bytes: u64,
    /// Packets and bytes to the opener.
    pub reply_packets: u64,
    /// As above.
    pub reply_bytes: u64,
    /// Seconds since it was opened.
    pub age: f64,
    /// Seconds since its last packet.
    pub idle: f64,
}

/// Packets and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Count {
    /// Packets that were judged; what goes on as it was judged before is not counted.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How often a rule has spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Verdicts {
    /// And it was done.
    pub done: Count,
    /// And nothing was done, as it is under audit. Only what it is against is counted so.
    pub audited: Count,
}

/// A count of drops.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Drop {
    /// The reason as a word.
    pub reason: String,
    /// The reason as a sentence.
    pub sentence: String,
    /// `from_container`, `from_host`, `from_nic` or `to_nic`.
    pub direction: String,
    /// The container's name at whose veth it happened; empty: none.
    pub endpoint: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A line for somebody who follows the drops. More kinds may come; a reader passes over those it does not know.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Told {
    /// A packet died.
    Drop(Box<DropTold>),
    /// Packets died that are not told of one by one. At most one such line comes per reason and second.
    Untold(Untold),
    /// The follower was too slow.
    Missed {
        /// Now.
        time: Timestamp,
        /// How many lines it has missed.
        lines: u64,
    },
}

/// A packet that died, as far as its headers could be read; addresses and ports as they stood in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DropTold {
    /// When, to some milliseconds.
    pub time: Timestamp,
    /// The reason as a word.
    pub reason: String,
    /// The reason as a sentence.
    pub sentence: String,
    /// The reason's number.
    pub number: u8,
    /// `from_container`, `from_host`, `from_nic` or `to_nic`.
    pub direction: String,
    /// The container's name at whose veth it happened; elsewhere, the one that has an address of the packet; empty: none.
    pub container: String,
    /// Its id.
    pub container_id: String,
    /// The name of its network.
    pub network: String,
    /// The device; empty: of a fragment that waited in vain it is not known any more.
    pub device: String,
    /// The frame's Ethernet type.
    pub ether_type: u16,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `udplite`, `arp` or the number of the IP protocol; empty: neither IP nor ARP.
    pub protocol: String,
    /// Who sent it (ARP: who speaks).
    pub source: Option<IpAddr>,
    /// The name of the container with this address; empty: none.
    pub source_name: String,
    /// Its port.
    pub source_port: Option<u16>,
    /// To whom (ARP: whom it is about).
    pub destination: Option<IpAddr>,
    /// The name of the container with this address; empty: none.
    pub destination_name: String,
    /// Its port.
    pub destination_port: Option<u16>,
    /// ICMP: the message's type.
    pub icmp_type: Option<u8>,
    /// ICMP: its code.
    pub icmp_code: Option<u8>,
    /// ICMP: the identifier of an echo.
    pub icmp_id: Option<u16>,
    /// The length of the frame, bytes.
    pub length: u32,
}

/// Drops that were counted, but not told of one by one to those who follow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Untold {
    /// Now.
    pub time: Timestamp,
    /// The reason as a word.
    pub reason: String,
    /// The reason's number.
    pub number: u8,
    /// Because more of this reason came than are told in a second.
    pub too_many: u64,
    /// Because earlier ones had not been read yet.
    pub lost: u64,
}

/// How the telling of drops goes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Telling {
    /// How many follow.
    pub followers: u32,
    /// What was not told of one by one since the tables were made, while somebody followed.
    pub untold: Vec<Untold>,
    /// Lines that slow followers have missed since the daemon started.
    pub missed: u64,
}

/// How full a table is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Its name, as `bpftool map` shows it.
    pub name: String,
    /// What it holds, in a sentence.
    pub sentence: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries it can hold.
    pub capacity: u64,
}

/// A program and where it is attached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The devices or cgroup it is attached to.
    pub attached_to: Vec<String>,
    /// `tcx`, `clsact` or `cgroup`.
    pub by: String,
}

/// What an endpoint holds of the tables of flows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// The container's name; `host`: connections of no container.
    pub endpoint: String,
    /// Connections, of both families.
    pub connections: i64,
    /// Those of them that are half open.
    pub half_open: i64,
}

/// How the datapath is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// The revision of the store that the tables agree with.
    pub revision: u64,
    /// Endpoints on this host.
    pub endpoints: u64,
    /// The epoch.
    pub epoch: u32,
    /// What could not be made real, a sentence each.
    pub troubles: Vec<String>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Who fills the tables of flows, whoever holds most first.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// Programs.
    pub programs: Vec<Program>,
    /// Those who follow the drops, and what they were not told.
    #[serde(default)]
    pub telling: Telling,
}
