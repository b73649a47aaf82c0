//! What the agent sets when it loads the programs: typed globals, fixed until the next load.

use crate::plain_old_data;

/// The facts of this host that every program may need.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Config {
    /// The cookie of the daemon's own network namespace (`SO_NETNS_COOKIE`): socket hooks leave all other namespaces alone.
    pub netns_cookie: u64,
    /// The datapath's end of the host's leg (`sluice0-dp`): what is redirected there comes in at `sluice0`.
    pub host_leg_ifindex: u32,
    /// The host's end of the leg (`sluice0`): the device routes are looked up from.
    pub host_ifindex: u32,
    /// The MAC of `sluice0`.
    pub host_mac: [u8; 6],
    /// The first port of the host's ephemeral range (`ip_local_port_range`), host byte order.
    pub ephemeral_first: u16,
    /// Its last port.
    pub ephemeral_last: u16,
    /// Always zero.
    pub padding: [u8; 6],
}

const _: () = assert!(size_of::<Config>() == 32);

plain_old_data!(Config);
