//! The steps of a case. Printed they are Rust again.

use std::fmt;

use super::place::Place;
use crate::reference::Hook;
use crate::reference::conversation::Side;
use crate::reference::world::{Family, HostAccess};

/// What happens, one after the other. Each step has a label, by which later ones may speak of it.
#[derive(Clone, Default)]
pub struct Case {
    pub steps: Vec<(usize, Step)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A packet comes by.
    Says(Speech),
    /// Somebody asks by ARP, or in IPv6 as a neighbour.
    Asks(Question),
    /// A network gets other rules.
    Rules {
        network: u32,
        icc: bool,
        masquerades: bool,
        internal: bool,
        mtu: u32,
    },
    /// An endpoint may hold so many conversations (0: any number), so many of them half open.
    Limits {
        conversations: u32,
        half_open: u32,
    },
    /// A network's IPv6 addresses are the world's business from now on, or no more.
    Routed {
        network: u32,
        routed6: bool,
    },
    /// Where a network's endpoints reach the host itself, and whether who has a route reaches all of them.
    Opens {
        network: u32,
        host_access: HostAccess,
        unprotected: bool,
    },
    /// A network hands what is said to many to its endpoints from now on, or no more.
    Carries {
        network: u32,
        multicast: bool,
    },
    /// A link from one endpoint to another is made, or goes.
    Links {
        from: u32,
        to: u32,
        port: u16,
        protocol: u8,
        holds: bool,
    },
    /// The published ports of the endpoint are for the 24 bits around this place only (in IPv6 its twin's), or for all.
    Serves {
        endpoint: u32,
        only: Option<Place>,
    },
    /// The endpoint with this number begins a life, or ends it.
    Starts(u32),
    Stops(u32),
    /// A port is published at an address of the host (or at any, which is `Nobody`) for an endpoint, in both families.
    Publishes {
        at: Place,
        port: u16,
        protocol: u8,
        endpoint: u32,
        inside: u16,
        /// More than one: a range of ports.
        count: u16,
    },
    Unpublishes {
        at: Place,
        port: u16,
        protocol: u8,
    },
    /// A port of an endpoint on another host is published here, at an address of the host.
    Meshes {
        at: Place,
        port: u16,
        protocol: u8,
        to: Place,
        inside: u16,
    },
    /// An endpoint takes clients at a port that other hosts have published for it.
    Accepts {
        endpoint: u32,
        port: u16,
        protocol: u8,
    },
    /// The host joins others, and takes what they encapsulate at this port of UDP.
    Joins(u16),
    /// It takes nothing of that any more.
    Parts,
    /// Another host is reached in this way (device 0: in none that is known), and may be a neighbour on a link.
    Meets {
        host: u32,
        device: u32,
        mtu: u32,
        is_neighbour: bool,
    },
    /// Another host is gone.
    Misses(u32),
    /// An endpoint lives on this other host from now on (0: nowhere), and links may speak of it.
    Moves {
        place: Place,
        host: u32,
        is_linked: bool,
    },
    /// Between hosts of one link the network's packets go as they are from now on, or no more.
    Direct {
        network: u32,
        direct: bool,
    },
    /// A NIC lends another address, or none, or is none of ours any more; in both families, as all that speaks of places.
    Uplink {
        device: u32,
        lends: Option<Place>,
        mtu: u32,
    },
    NoUplink {
        device: u32,
    },
    /// The host has an address, or has it no more.
    Owns(Place, bool),
    /// Every flow is to be judged again.
    Epoch,
    /// So many seconds pass in which the conversation that step `of` opened is silent.
    Ages {
        of: usize,
        seconds: u64,
    },
    /// The agent has found that the conversation is over.
    Expires {
        of: usize,
    },
    /// One of its entries is pushed out by others, if nobody has answered yet.
    PushedOut {
        of: usize,
        side: Side,
    },
}

/// A packet, and where it comes by. What is not said is as in [`PLAIN`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Speech {
    pub hook: Hook,
    pub device: u32,
    pub family: Family,
    pub ends: Ends,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub icmp_kind: u8,
    pub hops: u8,
    pub identification: u16,
    /// Where in its datagram it begins, in units of eight bytes.
    pub offset: u16,
    pub more_fragments: bool,
    /// Words of IP options.
    pub options: u8,
    /// IPv6: which of the chains of extension headers (`six::CHAINS`).
    pub headers: u8,
    pub payload: u16,
    pub has_udp_checksum: bool,
    pub from: Station,
    pub to: Station,
    /// For ICMP errors: what they are about.
    pub quotes: Option<Quote>,
    /// Another host has encapsulated it.
    pub wrapped: Option<Wrapped>,
    /// The frame ends here.
    pub cut: Option<u16>,
    /// The byte here is changed by these bits.
    pub flip: Option<(u16, u8)>,
}

/// A packet's addresses and ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    New(Place, u16, Place, u16),
    /// Those of a side of the conversation that this step opened.
    Of(usize, Side),
}

/// Whose MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Station {
    /// That of who should send it, or take it.
    Right,
    Gateway,
    Stranger,
    Everybody,
}

/// The packet that an ICMP error is about: what a side of a conversation has sent, as it looked when it arrived at the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quote {
    pub of: usize,
    pub side: Side,
    /// Who reports, if not the one it was sent to.
    pub reporter: Option<Place>,
    /// How many bytes of it are quoted.
    pub bytes: u16,
    pub payload: u16,
    pub offset: u16,
}

/// What stands around a frame of another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrapped {
    pub by: Place,
    pub to: Place,
    /// Of the underlay.
    pub family: Family,
    pub port: u16,
    pub flags: u8,
    pub vni: u32,
    pub marks: u8,
    /// The outer frame ends here.
    pub cut: Option<u16>,
    /// The outer frame's byte here is changed by these bits.
    pub flip: Option<(u16, u8)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    pub hook: Hook,
    pub device: u32,
    pub family: Family,
    /// Of ARP: 1 asks, 2 answers. Of neighbour discovery the same, 3 and 4 are what only routers say.
    pub operation: u16,
    /// Who asks, if not who should.
    pub claims: Option<Place>,
    pub claims_mac: bool,
    pub target: Place,
    pub cut: Option<u16>,
}

/// An ordinary packet.
pub const PLAIN: Speech = Speech {
    hook: Hook::FromContainer,
    device: 11,
    family: Family::V4,
    ends: Ends::New(Place::Web, 4000, Place::Shop, 80),
    protocol: 17,
    tcp_flags: 0,
    icmp_kind: 8,
    hops: 64,
    identification: 1,
    offset: 0,
    more_fragments: false,
    options: 0,
    headers: 0,
    payload: 10,
    has_udp_checksum: true,
    from: Station::Right,
    to: Station::Right,
    quotes: None,
    wrapped: None,
    cut: None,
    flip: None,
};

impl Speech {
    /// The same with one thing less special; as many of them as there are special things.
    pub fn plainer(&self) -> Vec<Speech> {
        let mut all = Vec::new();
        macro_rules! plain {
            ($($field:ident)+) => { $(
                if self.$field != PLAIN.$field {
                    all.push(Speech { $field: PLAIN.$field, ..*self });
                }
            )+ };
        }
        plain!(tcp_flags icmp_kind hops identification offset more_fragments options headers payload has_udp_checksum from to);
        plain!(wrapped cut flip);
        all
    }
}

/// What differs from [`PLAIN`], as Rust.
impl fmt::Debug for Speech {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Speech {{ ")?;
        macro_rules! say {
            ($($field:ident)+) => { $(
                if self.$field != PLAIN.$field {
                    write!(f, "{}: {:?}, ", stringify!($field), self.$field)?;
                }
            )+ };
        }
        say!(hook device family ends protocol tcp_flags icmp_kind hops identification offset more_fragments options headers payload);
        say!(has_udp_checksum from to quotes wrapped cut flip);
        write!(f, "..PLAIN }}")
    }
}

impl Case {
    /// As a test to be kept.
    pub fn as_test(&self, seed: u64) -> String {
        let mut case = self.clone();
        case.relabel();
        let mut text =
            format!("/// Found with seed {seed}.\n#[test]\nfn say_here_what_must_be_so() {{\n    replay(&[\n");
        for (_, step) in &case.steps {
            text += &format!("        {step:?},\n");
        }
        text + "    ]);\n}\n"
    }

    /// Gives each step its place as its label.
    pub fn relabel(&mut self) {
        let labels: Vec<usize> = self.steps.iter().map(|(label, _)| *label).collect();
        let place = |label: usize| labels.iter().position(|other| *other == label).unwrap_or(usize::MAX);
        for (index, (label, step)) in self.steps.iter_mut().enumerate() {
            *label = index;
            match step {
                Step::Says(speech) => {
                    if let Ends::Of(of, _) = &mut speech.ends {
                        *of = place(*of);
                    }
                    if let Some(quote) = &mut speech.quotes {
                        quote.of = place(quote.of);
                    }
                }
                Step::Expires { of } | Step::Ages { of, .. } | Step::PushedOut { of, .. } => *of = place(*of),
                _ => {}
            }
        }
    }

    /// From the steps as they stand in a test.
    pub fn of(steps: &[Step]) -> Self {
        Self {
            steps: steps.iter().copied().enumerate().collect(),
        }
    }
}
