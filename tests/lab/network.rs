//! The usual lab: a host that will run containers, and a LAN with everybody else in it.

use std::net::Ipv4Addr;

use crate::{Host, Watch};

/// The host's address in the LAN.
pub const HOST: &str = "10.88.0.1";
/// The address of everybody else in the LAN; also the host's router.
pub const LAN: &str = "10.88.0.2";
/// Another address in the LAN.
pub const SECOND: &str = "10.88.0.3";
/// An address behind the router.
pub const INTERNET: &str = "198.51.100.1";

/// A host and its LAN.
pub struct Lab {
    /// The host that runs the daemon; `eth0` is its NIC.
    pub host: Host,
    /// The rest of the world. It has no route to containers, so an answer to one proves masquerading.
    pub lan: Host,
    /// Looks at all that the host sends to the LAN: nothing may bear a container's address.
    pub watch: Watch,
}

impl Lab {
    /// Both, joined by a cable.
    pub fn new() -> Self {
        let (host, lan) = (Host::new(), Host::new());
        host.connect("eth0", &lan, "eth0");
        host.run(&format!("ip address add {HOST}/24 dev eth0"));
        lan.run(&format!(
            "ip address add {LAN}/24 dev eth0; ip address add {SECOND}/24 dev eth0; ip address add {INTERNET}/32 dev lo"
        ));
        host.run(&format!("ip route add default via {LAN}"));
        let watch = lan.inside(|| Watch::over("eth0", Ipv4Addr::new(10, 88, 0, 0)));
        Self { host, lan, watch }
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}
