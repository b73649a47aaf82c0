//! Who may speak to whom: links between endpoints, what documents say, and the endpoints of a network that hear what is said to many.
//!
//! What documents say is looked up at each end of a conversation that is an endpoint of this host: the endpoint is a subject, who is on the other side
//! belongs to groups, and for subject and group there is a cell. Numbers of subjects, groups, lists and rules are fingerprints of what they stand for.

use crate::plain_old_data;

/// A port that a link opens where the endpoints of a network may not speak to each other.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LinkKey {
    /// The number of the endpoint that may speak.
    pub from: u32,
    /// The number of the endpoint that is spoken to.
    pub to: u32,
    /// The port that is spoken to, network byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub padding: u8,
}

/// The size of `LINKS`.
pub const MAX_LINKS: usize = 16_384;

/// The size of `MEMBERS`.
pub const MAX_LISTENERS: usize = 16_384;

/// How many endpoints of a network hear what is said to many.
pub const MAX_MEMBERS: u32 = 1_024;

/// A place among those who hear what is said to many in a network. Places are taken from 0 on, without a gap.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MemberKey {
    /// The network's number.
    pub network: u32,
    /// The place, from 0.
    pub place: u32,
}

/// Which of the two ends of a conversation is judged: the one that is spoken to.
pub const INGRESS: u32 = 0;
/// The one that speaks first.
pub const EGRESS: u32 = 1;

/// What a rule says; the greater goes before the less. 0: nothing.
pub const ALLOW: u8 = 1;
/// It may not be, and who speaks is told so.
pub const REJECT: u8 = 2;
/// It may not be.
pub const DENY: u8 = 3;

/// The group that everybody belongs to.
pub const EVERYBODY: u64 = 1;
/// What stands in its cell is said where no other cell says anything.
pub const NOBODY: u64 = 2;

/// How many groups an address may belong to, besides everybody's. Half as many do, except while a change is written: then it may be both to the groups
/// before and to those behind.
pub const MAX_GROUPS: usize = 16;

/// What is said of an endpoint of this host.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Subject {
    /// Of what it hears. 0: nothing.
    pub ingress: u64,
    /// Of what it says. 0: nothing.
    pub egress: u64,
}

/// The groups that an address belongs to; behind the last there are zeros.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Groups {
    /// Their numbers.
    pub groups: [u64; MAX_GROUPS],
}

/// What is said of whom.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CellKey {
    /// The number of a subject.
    pub subject: u64,
    /// The number of a group.
    pub group: u64,
}

/// What is said.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Judgement {
    /// The number of the rule that says it.
    pub rule: u64,
    /// The number of the rule that would say it, were documents in force that are under audit.
    pub audited_rule: u64,
    /// [`ALLOW`], [`REJECT`], [`DENY`], or 0.
    pub said: u8,
    /// The same, were documents in force that are under audit.
    pub audited: u8,
    /// Always zero.
    pub padding: [u8; 6],
}

/// What is said of a group.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cell {
    /// Of all its traffic.
    pub all: Judgement,
    /// The number of the list where more is said of some of it. 0: nowhere.
    pub list: u64,
}

/// Some traffic in a list, found by its longest prefix: list, protocol, leading bits of the port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ListKey {
    /// The list's number, in two halves.
    pub list: [u32; 2],
    /// IP protocol number.
    pub protocol: u16,
    /// The port that is spoken to, or of ICMP the type of the question; network byte order.
    pub port: u16,
}

/// The bits of a [`ListKey`] before the port.
pub const LIST_KEY_BITS: u32 = 80;

/// What is counted: packets that a rule spoke of when they were judged.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VerdictKey {
    /// The rule's number.
    pub rule: u64,
    /// [`ALLOW`], [`REJECT`] or [`DENY`].
    pub verdict: u8,
    /// Not 0: nothing was done, the document is under audit.
    pub audited: u8,
    /// Always zero.
    pub padding: [u8; 6],
}

const _: () = assert!(size_of::<Subject>() == 16 && size_of::<CellKey>() == 16 && size_of::<Judgement>() == 24);
const _: () = assert!(size_of::<Cell>() == 32 && size_of::<ListKey>() == 12 && size_of::<VerdictKey>() == 16);
const _: () = assert!(size_of::<LinkKey>() == 12 && size_of::<MemberKey>() == 8);

plain_old_data!(
    LinkKey, MemberKey, Subject, Groups, CellKey, Judgement, Cell, ListKey, VerdictKey
);

impl ListKey {
    /// The key of some traffic.
    #[inline(always)]
    pub const fn of(list: u64, protocol: u8, port: u16) -> Self {
        Self {
            list: [list as u32, (list >> 32) as u32],
            protocol: protocol as u16,
            port,
        }
    }
}
