//! What is counted, always per CPU: nobody waits for anybody.

use crate::plain_old_data;

/// Packets and bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counter {
    /// Packets; a super-packet (GSO) counts once.
    pub packets: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

plain_old_data!(Counter);
