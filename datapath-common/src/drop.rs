//! Every way for a packet to die: one list, from which the enum, the counters, `sluice drops` and `docs/drops.md` come.

use crate::plain_old_data;

/// Declares the reasons from one table. A number, once given, never changes its meaning and is never given again.
macro_rules! drop_reasons {
    ($($number:literal $name:ident $word:literal $sentence:literal;)+) => {
        /// Why a packet was dropped.
        #[repr(u8)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[cfg_attr(not(target_arch = "bpf"), derive(Hash))]
        pub enum DropReason { $(#[doc = $sentence] $name = $number),+ }

        impl DropReason {
            /// All of them, by number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name),+];

            /// The reason with this number.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)+ _ => None }
            }

            /// The reason as one word, for metrics and filters.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// The reason in a sentence, for a tired operator.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),+ }
            }
        }
    };
}

drop_reasons! {
    1  Truncated            "truncated"              "The packet ends before its headers do.";
    2  UnknownDevice        "unknown_device"         "The packet came from a veth that belongs to no endpoint (one that is just being made or removed).";
    3  ForgedMac            "forged_mac"             "The sender used a MAC address that is not the one it was given.";
    4  ForgedSource         "forged_source"          "The sender used a source address that is not the one it was given.";
    5  UnknownEtherType     "unknown_ether_type"     "The frame is neither IPv4, IPv6 nor ARP.";
    6  FamilyDisabled       "family_disabled"        "The endpoint has no address of this family (IPv6 is off in its network).";
    7  Multicast            "multicast"              "The packet goes to a multicast or broadcast address, and the network does not carry these.";
    8  NotRoutable          "not_routable"           "The destination is an address that is never routed (loopback, 0.0.0.0/8, 240.0.0.0/4).";
    9  NoSuchEndpoint       "no_such_endpoint"       "The destination belongs to one of our networks, but no endpoint lives there.";
    10 IsolatedNetwork      "isolated_network"       "The destination lives in another network, and networks are isolated from each other.";
    11 InternalNetwork      "internal_network"       "The network is internal: nothing gets out of it or in.";
    12 IccDisabled          "icc_disabled"           "The network does not let its containers talk to each other (icc=false).";
    13 Unpublished          "unpublished"            "A host of the outside spoke to a container's own address; only published ports can be reached from there.";
    14 NoRoute              "no_route"               "The host has no route to the destination.";
    15 NoMasquerade         "no_masquerade"          "The packet would leave the host, but masquerading is off (ip-masq=false) and the network is not routed; or it is for a network of another Sluice on this host.";
    16 NoPortLeft           "no_port_left"           "All ports for masqueraded connections to this destination are in use.";
    17 CannotTranslate      "cannot_translate"       "The protocol cannot be translated (NAT), and the packet would need to be.";
    18 FlowTableFull        "flow_table_full"        "The flow table is full: no new connections until others end.";
    19 FragmentAlone        "fragment_alone"         "A fragment came without the first fragment of its datagram, and none came while it waited or there was no room to wait.";
    20 NotAnOpening         "not_an_opening"         "A TCP packet without a known connection that does not open one (no SYN).";
    21 RewriteFailed        "rewrite_failed"         "The kernel refused to change the packet (out of memory, or shorter than its headers say).";
    22 ForwardingDisabled   "forwarding_disabled"    "The packet would leave the host, but forwarding is off (ip-forward=false).";
    23 UnrelatedError       "unrelated_error"        "An ICMP error about a packet of no known connection.";
    24 UnmasqueradedSource  "unmasqueraded_source"   "A packet with a container's address was about to leave by a NIC and could not be translated.";
    25 ForgedArp            "forged_arp"             "An ARP packet claims an address that is not the sender's.";
    26 ForgedNeighbour      "forged_neighbour"       "An IPv6 neighbour or router message claims an address or a part that is not the sender's.";
    27 LinkLocal            "link_local"             "The packet comes from or goes to a link-local address; only neighbour discovery and multicast listening do.";
    28 ExtensionHeaders     "extension_headers"      "The packet has more or longer IPv6 extension headers than are read (6, or 256 bytes together).";
    29 SourceRouted         "source_routed"          "The packet says itself by which routers it is to go on, which could lead it past the rules.";
    30 FlowLimit            "flow_limit"             "The endpoint holds as many connections as one endpoint may (--flows-per-container).";
    31 TinyFragment         "tiny_fragment"          "The first fragment of a datagram is too short for the header above IP, or a later one lies over that header.";
    32 TooManyQuestions     "too_many_questions"     "The endpoint asks for names faster than one endpoint may, so that the others are answered too.";
    33 HostAccess           "host_access"            "The container spoke to the host itself, and its network does not let containers do so (sluice.host-access).";
    34 PublishFrom          "publish_from"           "The port is published for some addresses only, and the client's is not among them (sluice.publish-from).";
    35 UnknownVni           "unknown_vni"            "An encapsulated packet bears a number (VNI) that no overlay network of this host has.";
    36 NotAMember           "not_a_member"           "An encapsulated packet came from an address that belongs to no host of the cluster.";
    37 ForgedRemote         "forged_remote"          "The sender inside an encapsulated packet does not live on the host that the packet came from.";
    38 NoOverlay            "no_overlay"             "No way is known to the host on which the destination lives, or this host cannot encapsulate.";
    39 PolicyDenied         "policy_denied"          "A policy denies the conversation, or selects the container and does not allow it (sluice policy).";
    40 PolicyRejected       "policy_rejected"        "A policy rejects the conversation: its opener was told so (TCP: RST; else ICMP unreachable).";
    41 InTheClear           "in_the_clear"           "A packet of an encrypted network came unencrypted, or one of another network by the encrypted way.";
}

/// Which way the packet went when it died.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From an endpoint (`from_container`).
    FromContainer = 0,
    /// From the host's stack to an endpoint (`from_host`).
    FromHost = 1,
    /// From the world (`from_nic`).
    FromNic = 2,
    /// To the world (`to_nic`).
    ToNic = 3,
    /// From the resolver to an endpoint (`from_resolver`).
    FromResolver = 4,
    /// From another host, where the kernel has decapsulated it (`from_overlay`). What our programs decapsulate comes from the world (`from_nic`).
    FromOverlay = 5,
}

/// Drops are counted per reason, direction and endpoint.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DropKey {
    /// The endpoint's number at whose veth it happened; 0: none.
    pub endpoint: u32,
    /// A [`DropReason`].
    pub reason: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// Always zero.
    pub padding: [u8; 2],
}

// === impl Direction ===

impl Direction {
    /// The direction with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::FromContainer),
            1 => Some(Self::FromHost),
            2 => Some(Self::FromNic),
            3 => Some(Self::ToNic),
            4 => Some(Self::FromResolver),
            5 => Some(Self::FromOverlay),
            _ => None,
        }
    }

    /// The direction as one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::FromContainer => "from_container",
            Self::FromHost => "from_host",
            Self::FromNic => "from_nic",
            Self::ToNic => "to_nic",
            Self::FromResolver => "from_resolver",
            Self::FromOverlay => "from_overlay",
        }
    }
}

const _: () = assert!(size_of::<DropKey>() == 8);

plain_old_data!(DropKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_words_and_reasons_are_one_to_one() {
        let mut words = std::collections::HashSet::new();
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index + 1, "numbers have no gaps: {reason:?}");
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
            assert!(words.insert(reason.word()), "{} is given twice", reason.word());
            assert!(reason.sentence().ends_with('.'), "{reason:?} is told in a sentence");
        }
    }
}
