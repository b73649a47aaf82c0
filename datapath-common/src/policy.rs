//! Who may speak to whom: links between endpoints, and the endpoints of a network that hear what is said to many.

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

const _: () = assert!(size_of::<LinkKey>() == 12 && size_of::<MemberKey>() == 8);

plain_old_data!(LinkKey, MemberKey);
