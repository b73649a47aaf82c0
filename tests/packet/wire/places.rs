//! Where everybody is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
pub const SHOP: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 3);
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const LAN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 1);
pub const WEB6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2);
pub const SHOP6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 3);
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const LAN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x50);

/// Where everybody is, in one family.
#[derive(Clone, Copy)]
pub struct Places {
    pub gateway: IpAddr,
    pub web: IpAddr,
    pub shop: IpAddr,
    pub host: IpAddr,
    pub lan: IpAddr,
    pub loopback: IpAddr,
}

pub const FAMILIES: [Places; 2] = [
    Places {
        gateway: IpAddr::V4(GATEWAY),
        web: IpAddr::V4(WEB),
        shop: IpAddr::V4(SHOP),
        host: IpAddr::V4(HOST),
        lan: IpAddr::V4(LAN),
        loopback: IpAddr::V4(Ipv4Addr::LOCALHOST),
    },
    Places {
        gateway: IpAddr::V6(GATEWAY6),
        web: IpAddr::V6(WEB6),
        shop: IpAddr::V6(SHOP6),
        host: IpAddr::V6(HOST6),
        lan: IpAddr::V6(LAN6),
        loopback: IpAddr::V6(Ipv6Addr::LOCALHOST),
    },
];

impl Places {
    /// Any address and port of the family.
    pub fn anywhere(&self) -> SocketAddr {
        match self.web {
            IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        }
    }
}
