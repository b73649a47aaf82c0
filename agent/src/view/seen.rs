//! What somebody who monitors sees: one line of JSON each, whose fields keep their names and meanings (`docs/monitor.md`).

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What happened. Fields that do not apply are left out; more may come.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// When, to some milliseconds.
    pub time: Timestamp,
    /// Of what kind it is.
    pub event: Happening,
    /// What became of the packet, or of the conversation's first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Outcome>,
    /// Who sent it; of a conversation, who opened it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Side>,
    /// To whom; of a conversation, whom it asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Side>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `udplite`, `arp` or the number of the IP protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// ICMP alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<Reason>,
    /// The rule of a document that has decided, as `sluice policy get` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Where it was seen: `from_container`, `from_host`, `from_nic`, `to_nic`, `from_overlay` or `from_resolver`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// The device it was seen at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The frame's Ethernet type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ether_type: Option<u16>,
    /// The length of the frame, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// How the frame begins, base64; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// From whom it seems to come, where that was translated (masquerade).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_source: Option<Side>,
    /// To whom it really goes, where that was translated (published port).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated_destination: Option<Side>,
    /// `container`, `host`, `overlay` or `world`: where the opener's packets are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub towards: Option<String>,
    /// What a conversation that closed has carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
    /// What could not be told one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// Kinds of what happens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Happening {
    /// A packet died.
    Drop,
    /// A conversation was opened.
    Open,
    /// A conversation is over.
    Close,
    /// Something was not told one by one.
    Lost,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It went on.
    Forwarded,
    /// It died.
    Dropped,
    /// It died by a document, and nobody was told.
    Denied,
    /// It died by a document, and its sender was told.
    Rejected,
}

/// One end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Side {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The container's name; `host`: this host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
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

/// What an ICMP message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Icmp {
    /// Its type; of a conversation it is an echo or timestamp, and this is left out.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// Its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// The identifier of an echo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
}

/// Why a packet was dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// As a word.
    pub name: String,
    /// As a number, which is never given another meaning.
    pub number: u8,
    /// In a sentence.
    pub sentence: String,
}

/// What a conversation has carried.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Carried {
    /// Packets from the opener.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets to the opener.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Seconds since it was opened.
    pub age: f64,
    /// `closed` by its ends, `idle` for too long, or its `container` is gone.
    pub end: String,
}

/// What was not told one by one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Of which reason to be dropped, or `open` or `close`; empty: of all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    /// More came than are told in a second.
    pub too_many: u64,
    /// Earlier ones had not been read yet.
    pub unread: u64,
    /// Lines that this reader was too slow for.
    pub missed: u64,
}

// === impl Seen ===

impl Seen {
    /// Nothing is known but when and what.
    pub fn of(time: Timestamp, event: Happening) -> Self {
        Self {
            time,
            event,
            verdict: None,
            source: None,
            destination: None,
            protocol: None,
            icmp: None,
            drop_reason: None,
            policy: None,
            point: None,
            device: None,
            ether_type: None,
            length: None,
            frame: None,
            translated_source: None,
            translated_destination: None,
            towards: None,
            carried: None,
            lost: None,
        }
    }

    /// All ends that it speaks of.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        let ends = [&self.source, &self.destination];
        let translated = [&self.translated_source, &self.translated_destination];
        ends.into_iter().chain(translated).flatten()
    }
}
