//! What the agent may change while packets pass: one record, read only where a conversation opens or a port is looked for.

use crate::plain_old_data;

/// The slot of `SETTINGS`. All zero (nobody has written it yet) is no limit, no range.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Settings {
    /// How many connections one endpoint may hold in the tables of answered flows; 0: any number.
    pub flows_per_endpoint: u32,
    /// How many of them may be half open (unanswered, or TCP's handshake not complete); what is beyond goes to the tables whose oldest give way.
    /// 0: all of them go there.
    pub half_open_per_endpoint: u32,
    /// Not 0: ranges of ports are published, so that they are asked for where no single port is.
    pub published_ranges: u32,
    /// How many packets one endpoint may send to the resolver in a tick (see `resolver`); 0: any number.
    pub questions_per_tick: u32,
    /// The datapath's end of the resolver's leg: what is sent into its namespace the resolver hears. 0: there is none.
    pub resolver_ifindex: u32,
    /// The VXLAN device: what encapsulates where the programs cannot. 0: there is none.
    pub overlay_ifindex: u32,
    /// The UDP port that encapsulated packets come to, network byte order; 0: none come.
    pub overlay_port: u16,
    /// Always zero.
    pub padding: u16,
    /// Not 0: documents say who may speak to whom.
    pub policies: u32,
}

/// What an endpoint holds in the tables of answered flows. Counted without a lock by the packet path, corrected by whoever walks the tables: a
/// figure to judge by, not to bill by. It may be below zero for a moment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Connections, of both families.
    pub flows: i64,
    /// Those of them that are half open.
    pub half_open: i64,
}

const _: () = assert!(size_of::<Settings>() == 32 && size_of::<Tally>() == 16);

plain_old_data!(Settings, Tally);
