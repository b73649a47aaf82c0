//! The host, its containers and the LAN, with the programs attached.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::programs::TcAttachType;
use lab::Watch;
use sluice_datapath_common::config::Config;
use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::endpoint::{Attachment, Endpoint, EndpointKey};
use sluice_datapath_common::network::{
    NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES, NETWORK_MASQUERADES6, Network,
};
use sluice_datapath_common::overlay::{Host, PORT, Remote};
use sluice_datapath_common::publish::{Publication, PublishKey};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::uplink::{LocalAddress, Uplink};
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6, Ipv6Address, programs};

use super::namespace::{Namespace, counter, ethtool, ip, netns_cookie};
use super::places::{GATEWAY, GATEWAY6, HOST, HOST6, SHOP, SHOP6, WEB, WEB6};
use crate::datapath::Datapath;
use crate::frame::{TCP, UDP};

const MAC: &str = "02:42:00:00:00:01";
const NETWORK: u32 = 2;

pub struct Rig {
    pub host: Namespace,
    pub web: Namespace,
    pub shop: Namespace,
    pub lan: Namespace,
    datapath: Datapath,
    /// No container's address leaves by the NIC, in no test.
    _watch: Watch,
}

impl Rig {
    /// Makes all of it. With `offload` off, every checksum is finished by its sender and proven by its receiver.
    pub fn make(offload: bool) -> Self {
        Self::on_cable(offload, None)
    }

    /// The same with a NIC, `nic0`, that is a VLAN of another: of `trunk0`, to which the programs are attached too.
    pub fn in_vlan(tag: u16) -> Self {
        let mut rig = Self::on_cable(true, Some(tag));
        rig.attach_to_nic("trunk0");
        rig
    }

    fn on_cable(offload: bool, vlan: Option<u16>) -> Self {
        let (host, web, shop, lan) = (
            Namespace::make(),
            Namespace::make(),
            Namespace::make(),
            Namespace::make(),
        );
        let (web_path, shop_path, lan_path) = (web.path(), shop.path(), lan.path());
        let cookie = host.inside(move || {
            ip(&format!(
                "link add sluice0 index 21 address {MAC} type veth peer name sluice0-dp index 22"
            ));
            ip(&format!(
                "link add slc1 index 11 address {MAC} type veth peer name eth0 netns {web_path}"
            ));
            ip(&format!(
                "link add slc2 index 12 address {MAC} type veth peer name eth0 netns {shop_path}"
            ));
            match vlan {
                None => ip(&format!(
                    "link add nic0 index 31 type veth peer name eth0 netns {lan_path}"
                )),
                Some(tag) => {
                    ip(&format!(
                        "link add trunk0 index 30 type veth peer name trunk0 netns {lan_path}"
                    ));
                    ip("link set trunk0 up");
                    ip(&format!("link add link trunk0 name nic0 index 31 type vlan id {tag}"));
                }
            }
            for device in ["sluice0-dp", "slc1", "slc2"] {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
            }
            ip("addr add 10.7.0.1/24 dev sluice0");
            ip("addr add fd07::1/64 dev sluice0 nodad");
            ip("addr add 192.0.2.1/24 dev nic0");
            ip("addr add 2001:db8::1/64 dev nic0 nodad");
            ["sluice0", "sluice0-dp", "slc1", "slc2", "nic0"]
                .iter()
                .for_each(|device| ip(&format!("link set {device} up")));
            std::fs::write("/proc/sys/net/ipv4/conf/sluice0/forwarding", "1").unwrap();
            std::fs::write("/proc/sys/net/ipv6/conf/sluice0/forwarding", "1").unwrap();
            netns_cookie()
        });
        for (namespace, last) in [(&web, 2), (&shop, 3)] {
            namespace.inside(|| {
                ip(&format!("link set eth0 address 02:42:0a:07:00:0{last}"));
                ip(&format!("addr add 10.7.0.{last}/24 dev eth0"));
                ip(&format!("addr add fd07::{last}/64 dev eth0 nodad"));
                ip("link set eth0 up");
                ip("route add default via 10.7.0.1");
                ip("route add default via fd07::1");
                ethtool("eth0", offload);
            });
        }
        lan.inside(|| {
            if let Some(tag) = vlan {
                ip("link set trunk0 up");
                ip(&format!("link add link trunk0 name eth0 type vlan id {tag}"));
            }
            ip("addr add 192.0.2.50/24 dev eth0");
            ip("addr add 2001:db8::50/64 dev eth0 nodad");
            ip("link set eth0 up");
            ethtool("eth0", offload);
        });
        if !offload {
            host.inside(|| {
                ["sluice0", "sluice0-dp", "nic0"]
                    .iter()
                    .for_each(|device| ethtool(device, false))
            });
        }
        let config = Config {
            netns_cookie: cookie,
            host_leg_ifindex: 22,
            host_ifindex: 21,
            host_mac: [0x02, 0x42, 0, 0, 0, 1],
            ephemeral_first: 32_768,
            ephemeral_last: 60_999,
            padding: [0; 6],
        };
        let mut rig = Self {
            host,
            web,
            shop,
            _watch: lan.inside(|| Watch::over("eth0", HOST)),
            lan,
            datapath: Datapath::load(&config),
        };
        rig.fill();
        rig.attach();
        rig.attach_to_nic("nic0");
        rig
    }

    /// Gives all devices this MTU.
    pub fn set_mtu(&self, mtu: u32) {
        let set = |namespace: &Namespace, devices: &[&str]| {
            namespace.inside(|| {
                devices
                    .iter()
                    .for_each(|device| ip(&format!("link set {device} mtu {mtu}")))
            });
        };
        set(&self.host, &["sluice0", "sluice0-dp", "slc1", "slc2", "nic0"]);
        [&self.web, &self.shop, &self.lan]
            .iter()
            .for_each(|namespace| set(namespace, &["eth0"]));
    }

    fn fill(&mut self) {
        let datapath = &mut self.datapath;
        datapath.set("EPOCH", 0, 1u32);
        datapath.set(
            "NETWORKS",
            NETWORK,
            Network {
                flags: NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES | NETWORK_MASQUERADES6,
                mtu: 1500,
                broadcast4: Default::default(),
                gateway4: GATEWAY.into(),
                gateway6: GATEWAY6.into(),
                gateway_mac: [0x02, 0x42, 0, 0, 0, 1],
                ..Network::default()
            },
        );
        datapath.insert_subnet(Ipv4Address::new([10, 7, 0, 0]), 24, NETWORK);
        let prefix = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 0);
        datapath.insert_subnet6(prefix.into(), 64, NETWORK);
        for (number, address, address6) in [(1, WEB, WEB6), (2, SHOP, SHOP6)] {
            let [a, b, c, d] = address.octets();
            let (ifindex, mac) = (10 + number, [0x02, 0x42, a, b, c, d]);
            let key = EndpointKey::<Ipv4> {
                network: NETWORK,
                address: address.into(),
            };
            let endpoint = Endpoint {
                endpoint: number,
                ifindex,
                mac,
                padding: [0; 2],
            };
            datapath.insert("ENDPOINTS4", key, endpoint);
            let key = EndpointKey::<Ipv6> {
                network: NETWORK,
                address: address6.into(),
            };
            datapath.insert("ENDPOINTS6", key, endpoint);
            datapath.insert(
                "ATTACHMENTS",
                ifindex,
                Attachment {
                    endpoint: number,
                    generation: 0,
                    network: NETWORK,
                    address4: address.into(),
                    address6: address6.into(),
                    mac,
                    padding: [0; 2],
                },
            );
        }
        for (address, gateway_of) in [(GATEWAY, NETWORK), (HOST, 0)] {
            datapath.insert(
                "LOCAL4",
                Ipv4Address::from(address),
                LocalAddress {
                    ifindex: 21,
                    gateway_of,
                },
            );
        }
        for (address, gateway_of) in [(GATEWAY6, NETWORK), (HOST6, 0)] {
            let local = LocalAddress {
                ifindex: 21,
                gateway_of,
            };
            datapath.insert("LOCAL6", Ipv6Address::from(address), local);
        }
        datapath.insert(
            "UPLINKS6",
            31u32,
            Uplink::<Ipv6> {
                address: HOST6.into(),
                mtu: 1500,
            },
        );
        datapath.insert(
            "UPLINKS4",
            31u32,
            Uplink::<Ipv4> {
                address: HOST.into(),
                mtu: 1500,
            },
        );
        // 8080 of both families, and 8081 of IPv4 alone.
        for (protocol, port) in [(TCP, 8080u16), (UDP, 8080), (TCP, 8081), (UDP, 8081)] {
            let inside6 = match port {
                8080 => WEB6.into(),
                _ => Ipv6Address::mapped(WEB.into()),
            };
            self.publish(protocol, port, 80, inside6);
        }
    }

    /// Publishes a port of the host for port `inside` of `web`, which is at this address to those who speak IPv6.
    pub fn publish(&mut self, protocol: u8, port: u16, inside: u16, address6: Ipv6Address) {
        let datapath = &mut self.datapath;
        let publication = Publication::<Ipv4> {
            network: NETWORK as u16,
            endpoint: 1,
            address: WEB.into(),
            port: inside.to_be(),
            first: 0,
            limited: 0,
        };
        let key = PublishKey::<Ipv4> {
            address: Ipv4Address(0),
            port: port.to_be(),
            protocol,
            padding: 0,
        };
        datapath.insert("PUBLISHED4", key, publication);
        let publication = Publication::<Ipv6> {
            network: NETWORK as u16,
            endpoint: 1,
            address: address6,
            port: inside.to_be(),
            first: 0,
            limited: 0,
        };
        let key = PublishKey::<Ipv6> {
            address: Ipv6Address::default(),
            port: port.to_be(),
            protocol,
            padding: 0,
        };
        datapath.insert("PUBLISHED6", key, publication);
        datapath.reserve(port, protocol);
        datapath.reserve_for(libc::AF_INET6 as u8, port, protocol);
    }

    /// Makes the network an overlay, in which these addresses live on another host, behind this underlay.
    pub fn join_overlay(&mut self, vni: u32, underlay: IpAddr, far: Ipv4Addr, far6: Ipv6Addr, mtu: u32) {
        const DEVICE: u32 = 41;
        let Self { host, datapath, .. } = self;
        host.inside(|| {
            ip(&format!(
                "link add sluice0-vx index {DEVICE} type vxlan external dstport {PORT} udp6zerocsumrx udp6zerocsumtx"
            ));
            ip("link set sluice0-vx up");
            datapath.attach(programs::FROM_OVERLAY, "sluice0-vx", TcAttachType::Ingress);
        });
        let mapped = |address: IpAddr| match address {
            IpAddr::V4(address) => Ipv6Address::mapped(address.into()),
            IpAddr::V6(address) => address.into(),
        };
        let ours = if underlay.is_ipv4() { HOST.into() } else { HOST6.into() };
        let other = Host {
            address: mapped(underlay),
            source: mapped(ours),
            next_hop: mapped(underlay),
            ifindex: 31,
            mtu,
            port: PORT.to_be(),
            ..Host::default()
        };
        datapath.set("HOSTS", 1, other);
        datapath.insert("SENDERS", mapped(underlay), 1u32);
        datapath.insert("VNIS", vni, NETWORK);
        let [a, b, c, d] = far.octets();
        let remote = Remote {
            host: 1,
            endpoint: 0,
            mac: [0x02, 0x42, a, b, c, d],
            padding: [0; 2],
        };
        let key = EndpointKey::<Ipv4> {
            network: NETWORK,
            address: far.into(),
        };
        datapath.insert("REMOTES4", key, remote);
        let key = EndpointKey::<Ipv6> {
            network: NETWORK,
            address: far6.into(),
        };
        datapath.insert("REMOTES6", key, remote);
        let network: Network = datapath.slot("NETWORKS", NETWORK);
        datapath.set("NETWORKS", NETWORK, Network { vni, mtu, ..network });
        let settings: Settings = datapath.slot("SETTINGS", 0);
        let settings = Settings {
            overlay_ifindex: DEVICE,
            overlay_port: PORT.to_be(),
            ..settings
        };
        datapath.set("SETTINGS", 0, settings);
    }

    /// Gives the network's devices this MTU; that of the NIC stays.
    pub fn set_inner_mtu(&self, mtu: u32) {
        for device in ["sluice0", "sluice0-dp", "slc1", "slc2"] {
            self.host.inside(|| ip(&format!("link set {device} mtu {mtu}")));
        }
        for namespace in [&self.web, &self.shop] {
            namespace.inside(|| ip(&format!("link set eth0 mtu {mtu}")));
        }
    }

    /// Puts the programs of a NIC on a device of the host.
    fn attach_to_nic(&mut self, device: &'static str) {
        let Self { host, datapath, .. } = self;
        host.inside(move || {
            datapath.attach(programs::FROM_NIC, device, TcAttachType::Ingress);
            datapath.attach(programs::TO_NIC, device, TcAttachType::Egress);
        });
    }

    fn attach(&mut self) {
        let Self { host, datapath, .. } = self;
        host.inside(move || {
            datapath.attach(programs::FROM_CONTAINER, "slc1", TcAttachType::Ingress);
            datapath.attach(programs::FROM_CONTAINER, "slc2", TcAttachType::Ingress);
            datapath.attach(programs::FROM_HOST, "sluice0-dp", TcAttachType::Ingress);
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
            let cgroup = mounts
                .lines()
                .find(|line| line.contains(" - cgroup2 "))
                .and_then(|line| line.split(' ').nth(4));
            datapath.attach_hooks(&File::open(cgroup.expect("a cgroup2 mount")).unwrap());
        });
    }

    /// Nobody has seen a wrong checksum, and nothing has been dropped.
    pub fn assert_clean(&mut self) {
        for namespace in [&self.host, &self.web, &self.shop, &self.lan] {
            let statistics = namespace.inside(|| std::fs::read_to_string("/proc/net/snmp").unwrap());
            for protocol in ["Tcp", "Udp", "Icmp"] {
                assert_eq!(counter(&statistics, protocol, "InCsumErrors"), 0, "{protocol}");
            }
            let statistics = namespace.inside(|| std::fs::read_to_string("/proc/net/snmp6").unwrap());
            for line in statistics.lines().filter(|line| line.contains("InCsumErrors")) {
                assert!(line.ends_with("\t0"), "{line}");
            }
        }
        let unexpected = self.drops();
        assert!(unexpected.is_empty(), "{unexpected:?}");
    }

    /// What has been dropped, but for what every stack says to groups by itself.
    pub fn drops(&mut self) -> Vec<(DropReason, Direction, u32, u64)> {
        let mut drops = self.datapath.drops();
        drops.retain(|drop| drop.0 != DropReason::Multicast);
        drops
    }
}
