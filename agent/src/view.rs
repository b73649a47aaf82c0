//! What the datapath shows to those who ask: plain words and numbers, no kernel types.

use std::net::IpAddr;

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
    /// `container`, `host` or `world`: where its packets are taken.
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
}
