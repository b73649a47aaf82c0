//! The host that the packets live on: two networks, three endpoints, two NICs.
//!
//! ```text
//!   network 2: 10.9.0.0/24   web 10.9.0.2, shop 10.9.0.3      sluice0 bears both gateways, .1
//!   network 3: 10.8.0.0/24   lone 10.8.0.2
//!   nic0 192.0.2.1/24, the default route by 192.0.2.254       nic1 198.51.100.1/24
//!   vms0 172.30.0.1/24, a device of somebody else's
//! ```

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard};

use nix::sched::{CloneFlags, setns, unshare};
use sluice_datapath_common::config::Config;
use sluice_datapath_common::drop::{Direction, DropReason};
use sluice_datapath_common::endpoint::{Attachment, Endpoint, EndpointKey};
use sluice_datapath_common::flow::{Flow, FlowKey};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES, Network};
use sluice_datapath_common::policy::LinkKey;
use sluice_datapath_common::publish::{Publication, PublishKey, RangeKey, blocks};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::uplink::{LocalAddress, Uplink};
use sluice_datapath_common::{Ipv4, Ipv4Address, Ipv6Address, programs};

use crate::datapath::{Datapath, Outcome, Verdict};
use crate::frame::{Frame, Mac, Packet};
use crate::twin;

/// An endpoint of the scene.
#[derive(Clone, Copy, Debug)]
pub struct Container {
    pub number: u32,
    pub network: u32,
    pub ifindex: u32,
    pub address: Ipv4Addr,
    pub mac: Mac,
}

pub const WEB: Container = container(1, 2, 11, [10, 9, 0, 2]);
pub const SHOP: Container = container(2, 2, 12, [10, 9, 0, 3]);
pub const LONE: Container = container(3, 3, 13, [10, 8, 0, 2]);
const CONTAINERS: [Container; 3] = [WEB, SHOP, LONE];

pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const OTHER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
pub const GATEWAY_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x01];

/// The host's end of its leg.
pub const HOST_IFINDEX: u32 = 21;
/// The datapath's.
pub const HOST_LEG: u32 = 22;
pub const HOST_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x02];
pub const LEG_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x03];

pub const NIC: u32 = 31;
pub const NIC_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x31];
pub const NIC_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub const ROUTER_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x3f];
pub const SECOND_NIC: u32 = 32;
pub const SECOND_NIC_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x32];
pub const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A device of somebody else's.
pub const VM_BRIDGE: u32 = 33;
pub const VM_BRIDGE_MAC: Mac = [0x02, 0x42, 0, 0, 0, 0x33];

/// Somebody in the LAN.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
/// Somebody far away.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

pub const HOST_NETNS: u64 = 0x5111_ce00;

/// The scene with all tables as they are at the beginning of a test. One test at a time.
pub struct Scene {
    datapath: MutexGuard<'static, Datapath>,
    generations: [u32; 8],
    epoch: u32,
}

/// Sets the scene and moves the thread into its network namespace, where test runs look for devices.
pub fn set() -> Scene {
    static DATAPATH: LazyLock<Mutex<Datapath>> = LazyLock::new(|| Mutex::new(Datapath::load(&config())));
    set_with(&DATAPATH)
}

/// The same with tables as large as on a real host.
pub fn set_large() -> Scene {
    static DATAPATH: LazyLock<Mutex<Datapath>> = LazyLock::new(|| {
        Mutex::new(Datapath::load_with(
            &config(),
            &[
                ("FLOWS4", 131_072),
                ("OPENING4", 512),
                ("FLOWS6", 131_072),
                ("OPENING6", 512),
            ],
        ))
    });
    set_with(&DATAPATH)
}

/// The same on a datapath of one's own.
pub fn set_with(datapath: &'static Mutex<Datapath>) -> Scene {
    static NAMESPACE: LazyLock<File> = LazyLock::new(furnish);
    setns(&*NAMESPACE, CloneFlags::CLONE_NEWNET).expect("enter the network namespace of the scene");
    // A test that failed has left nothing behind that is not cleared here.
    let datapath = datapath.lock().unwrap_or_else(|failed| failed.into_inner());
    let mut scene = Scene {
        datapath,
        generations: [0; 8],
        epoch: 1,
    };
    scene.reset();
    scene
}

impl Scene {
    fn reset(&mut self) {
        self.clear();
        self.set("EPOCH", 0, 1u32);
        for number in 0..8 {
            self.set("GENERATIONS", number, if number == 0 { 0 } else { 1u32 });
        }
        self.generations = [0, 1, 1, 1, 1, 1, 1, 1];
        self.network(2, NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES);
        self.network(3, NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES);
        self.insert_subnet(v4([10, 9, 0, 0]), 24, 2);
        self.insert_subnet(v4([10, 8, 0, 0]), 24, 3);
        for container in CONTAINERS {
            self.start(container);
        }
        for (address, ifindex, gateway_of) in [
            (GATEWAY, HOST_IFINDEX, 2),
            (OTHER_GATEWAY, HOST_IFINDEX, 3),
            (NIC_ADDRESS, NIC, 0),
            (SECOND_ADDRESS, SECOND_NIC, 0),
            (Ipv4Addr::new(172, 30, 0, 1), VM_BRIDGE, 0),
        ] {
            self.insert(
                "LOCAL4",
                Ipv4Address::from(address),
                LocalAddress { ifindex, gateway_of },
            );
        }
        self.uplink(NIC, NIC_ADDRESS, 1500);
        self.uplink(SECOND_NIC, SECOND_ADDRESS, 1500);
    }

    /// Writes a network's rules.
    pub fn network(&mut self, number: u32, flags: u32) {
        self.network_with_mtu(number, flags, 1500);
    }

    pub fn network_with_mtu(&mut self, number: u32, flags: u32, mtu: u32) {
        let gateway = if number == 2 { GATEWAY } else { OTHER_GATEWAY };
        let network = Network {
            flags,
            mtu,
            broadcast4: Ipv4Addr::from(gateway.to_bits() | 0xff).into(),
            gateway4: gateway.into(),
            gateway6: Ipv6Address::default(),
            gateway_mac: GATEWAY_MAC,
            ..Network::default()
        };
        self.set("NETWORKS", number, network);
    }

    pub fn uplink(&mut self, ifindex: u32, address: Ipv4Addr, mtu: u32) {
        self.insert(
            "UPLINKS4",
            ifindex,
            Uplink::<Ipv4> {
                address: address.into(),
                mtu,
            },
        );
    }

    /// An endpoint comes to live at its address.
    pub fn start(&mut self, container: Container) {
        let generation = self.generations[container.number as usize];
        let Container {
            number,
            network,
            ifindex,
            address,
            mac,
        } = container;
        let key = EndpointKey::<Ipv4> {
            network,
            address: address.into(),
        };
        self.insert(
            "ENDPOINTS4",
            key,
            Endpoint {
                endpoint: number,
                ifindex,
                mac,
                padding: [0; 2],
            },
        );
        let attachment = Attachment {
            endpoint: number,
            generation,
            network,
            address4: address.into(),
            address6: Ipv6Address::default(),
            mac,
            padding: [0; 2],
        };
        self.insert("ATTACHMENTS", ifindex, attachment);
    }

    /// An endpoint goes, and its flows with it.
    pub fn stop(&mut self, container: Container) {
        self.generations[container.number as usize] += 1;
        let generation = self.generations[container.number as usize];
        self.set("GENERATIONS", container.number, generation);
        let key = EndpointKey::<Ipv4> {
            network: container.network,
            address: container.address.into(),
        };
        self.remove::<_, Endpoint>("ENDPOINTS4", key);
        self.remove::<_, Attachment>("ATTACHMENTS", container.ifindex);
    }

    /// Ports, routes or policy have changed.
    pub fn move_epoch(&mut self) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.set("EPOCH", 0, epoch);
    }

    /// Publishes a port of an endpoint at an address of the host; 0.0.0.0 is every address.
    pub fn publish(&mut self, address: Ipv4Addr, port: u16, protocol: u8, container: Container, inside: u16) {
        let key = PublishKey::<Ipv4> {
            address: address.into(),
            port: port.to_be(),
            protocol,
            padding: 0,
        };
        let publication = Publication::<Ipv4> {
            network: container.network as u16,
            endpoint: container.number,
            address: container.address.into(),
            port: inside.to_be(),
            first: 0,
            limited: 0,
        };
        self.insert("PUBLISHED4", key, publication);
        self.reserve(port, protocol);
    }

    /// The same for clients of this prefix only.
    pub fn publish_for(
        &mut self,
        address: Ipv4Addr,
        port: u16,
        protocol: u8,
        to: (Container, u16),
        clients: &[(Ipv4Addr, u32)],
    ) {
        let (container, inside) = to;
        let key = PublishKey::<Ipv4> {
            address: address.into(),
            port: port.to_be(),
            protocol,
            padding: 0,
        };
        let publication = Publication::<Ipv4> {
            network: container.network as u16,
            endpoint: container.number,
            address: container.address.into(),
            port: inside.to_be(),
            first: 0,
            limited: 1,
        };
        self.insert("PUBLISHED4", key, publication);
        self.reserve(port, protocol);
        for (prefix, bits) in clients {
            self.insert_source(container.number, (*prefix).into(), *bits);
        }
    }

    /// A link opens a port.
    pub fn link(&mut self, from: Container, to: Container, port: u16, protocol: u8) {
        self.insert("LINKS", link_key(from, to, port, protocol), 1u32);
    }

    pub fn unlink(&mut self, from: Container, to: Container, port: u16, protocol: u8) {
        self.remove::<_, u32>("LINKS", link_key(from, to, port, protocol));
    }

    /// Publishes a range of ports.
    pub fn publish_range(&mut self, address: Ipv4Addr, ports: (u16, u16), protocol: u8, to: (Container, u16)) {
        let (first, last) = ports;
        let (container, inside) = to;
        for (start, bits) in blocks(first, last) {
            let key = RangeKey::<Ipv4> {
                address: address.into(),
                protocol: u16::from(protocol),
                port: start.to_be(),
            };
            let publication = Publication::<Ipv4> {
                network: container.network as u16,
                endpoint: container.number,
                address: container.address.into(),
                port: inside.to_be(),
                first: first.to_be(),
                limited: 0,
            };
            self.insert_range(key, 48 + bits, publication);
        }
        (first..=last).for_each(|port| self.reserve(port, protocol));
        let settings: Settings = self.slot("SETTINGS", 0);
        self.set(
            "SETTINGS",
            0,
            Settings {
                published_ranges: settings.published_ranges + 1,
                ..settings
            },
        );
    }

    pub fn unpublish(&mut self, address: Ipv4Addr, port: u16, protocol: u8) {
        let key = PublishKey::<Ipv4> {
            address: address.into(),
            port: port.to_be(),
            protocol,
            padding: 0,
        };
        self.remove::<_, Publication<Ipv4>>("PUBLISHED4", key);
    }

    /// How many connections an endpoint may have, and how many of them half open in the large table. 0: any number, and none.
    pub fn limit(&mut self, flows: u32, half_open: u32) {
        let settings: Settings = self.slot("SETTINGS", 0);
        self.set(
            "SETTINGS",
            0,
            Settings {
                flows_per_endpoint: flows,
                half_open_per_endpoint: half_open,
                ..settings
            },
        );
    }

    /// The clock of flows, ns.
    pub fn now(&self) -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes to `time`, which is exclusively borrowed. This clock cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    /// The endpoint says this, by its own MAC unless the packet has one.
    pub fn says(&mut self, container: Container, packet: &Packet) -> Outcome {
        let mut packet = packet.clone();
        if packet.from_mac == [0; 6] {
            packet.from_mac = container.mac;
        }
        if packet.to_mac == [0; 6] {
            let neighbour = CONTAINERS
                .iter()
                .find(|other| other.network == container.network && other.address == packet.destination);
            packet.to_mac = neighbour.map_or(GATEWAY_MAC, |neighbour| neighbour.mac);
        }
        self.run(programs::FROM_CONTAINER, container.ifindex, &packet.build())
    }

    /// What the datapath has sent out of the first NIC for an endpoint passes there.
    pub fn leaves_from(&mut self, container: Container, packet: &Packet) -> Outcome {
        let packet = packet.clone().macs(NIC_MAC, ROUTER_MAC);
        self.run_after(programs::TO_NIC, NIC, container.ifindex, &packet.build())
    }

    /// The host's stack says this to an endpoint.
    pub fn host_says(&mut self, packet: &Packet) -> Outcome {
        let to = CONTAINERS
            .iter()
            .find(|container| container.address == packet.destination);
        let packet = packet
            .clone()
            .macs(HOST_MAC, to.map_or(LEG_MAC, |container| container.mac));
        self.run(programs::FROM_HOST, HOST_LEG, &packet.build())
    }

    /// The world says this, at the first NIC.
    pub fn world_says(&mut self, packet: &Packet) -> Outcome {
        let packet = packet.clone().macs(ROUTER_MAC, NIC_MAC);
        self.run(programs::FROM_NIC, NIC, &packet.build())
    }

    /// The host's stack sends this out of the first NIC.
    pub fn leaves(&mut self, packet: &Packet) -> Outcome {
        let packet = packet.clone().macs(NIC_MAC, ROUTER_MAC);
        self.run(programs::TO_NIC, NIC, &packet.build())
    }

    /// The flow that a packet with these ends takes, whichever table it is in.
    pub fn flow(&mut self, scope: u32, protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Option<Flow<Ipv4>> {
        let key = key(scope, protocol, from, to);
        let all = [self.flows("FLOWS4"), self.flows("OPENING4")].concat();
        all.into_iter().find(|(other, _)| *other == key).map(|(_, flow)| flow)
    }

    /// How many entries both flow tables have: answered, unanswered.
    pub fn counts(&mut self) -> (usize, usize) {
        (self.flows("FLOWS4").len(), self.flows("OPENING4").len())
    }

    /// Nobody has spoken yet.
    pub fn forget_flows(&mut self) {
        for map in ["FLOWS4", "OPENING4"] {
            for (key, _) in self.flows(map) {
                self.remove::<_, Flow<Ipv4>>(map, key);
            }
        }
    }

    /// What has been dropped since this was asked last.
    pub fn take_drops(&mut self) -> Vec<(DropReason, Direction, u32, u64)> {
        let drops = self.drops();
        self.forget_drops();
        drops
    }

    /// Exactly this one packet has been dropped, and nothing else.
    #[track_caller]
    pub fn assert_dropped(&mut self, outcome: &Outcome, reason: DropReason, direction: Direction, endpoint: u32) {
        assert_eq!(outcome.verdict, Verdict::Dropped);
        assert_eq!(self.drops(), [(reason, direction, endpoint, 1)]);
    }

    /// Nothing has been dropped.
    #[track_caller]
    pub fn assert_no_drops(&mut self) {
        assert_eq!(self.drops(), []);
    }
}

fn link_key(from: Container, to: Container, port: u16, protocol: u8) -> LinkKey {
    LinkKey {
        from: from.number,
        to: to.number,
        port: port.to_be(),
        protocol,
        padding: 0,
    }
}

impl Outcome {
    /// It was sent on, with right checksums.
    #[track_caller]
    pub fn sent(self) -> Frame {
        assert_eq!(self.verdict, Verdict::Sent);
        if let Err(wrong) = self.frame.sums() {
            panic!("{wrong}: {:?}", self.frame);
        }
        self.frame
    }

    /// It goes on where it is, with right checksums.
    #[track_caller]
    pub fn stays(self) -> Frame {
        assert_eq!(self.verdict, Verdict::Stack);
        if let Err(wrong) = self.frame.sums() {
            panic!("{wrong}: {:?}", self.frame);
        }
        self.frame
    }
}

/// A socket of the host, of both families.
pub fn bind_udp(address: Ipv4Addr, port: u16) -> [UdpSocket; 2] {
    [IpAddr::from(address), IpAddr::from(twin::of(address))]
        .map(|address| UdpSocket::bind((address, port)).unwrap_or_else(|error| panic!("bind {address}: {error}")))
}

/// The key of a flow.
pub fn key(scope: u32, protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> FlowKey<Ipv4> {
    FlowKey {
        source: from.0.into(),
        destination: to.0.into(),
        source_port: from.1.to_be(),
        destination_port: to.1.to_be(),
        scope,
        protocol,
        padding: [0; 3],
    }
}

const fn container(number: u32, network: u32, ifindex: u32, address: [u8; 4]) -> Container {
    let [a, b, c, d] = address;
    Container {
        number,
        network,
        ifindex,
        address: Ipv4Addr::new(a, b, c, d),
        mac: [0x02, 0x42, a, b, c, d],
    }
}

fn v4(octets: [u8; 4]) -> Ipv4Address {
    Ipv4Address::new(octets)
}

/// What the programs know of the host.
pub fn config() -> Config {
    Config {
        netns_cookie: HOST_NETNS,
        host_leg_ifindex: HOST_LEG,
        host_ifindex: HOST_IFINDEX,
        host_mac: HOST_MAC,
        ephemeral_first: 32_768,
        ephemeral_last: 60_999,
        padding: [0; 6],
    }
}

/// Makes a network namespace with the scene's devices, addresses and routes. It lives as long as the process.
pub fn furnish() -> File {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace (root is needed)");
        let mut lines = String::from("link set lo up\n");
        let mut pair = |name: &str, index: u32, mac: Mac| {
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            let peer = index + 100;
            lines += &format!("link add {name} index {index} address {mac} type veth peer name {name}p index {peer}\n");
            lines += &format!("link set {name} up\nlink set {name}p up\n");
        };
        for container in CONTAINERS {
            pair(&format!("slc{}", container.number), container.ifindex, GATEWAY_MAC);
        }
        pair("nic0", NIC, NIC_MAC);
        // Two more, for whoever needs them.
        pair("slc4", 14, GATEWAY_MAC);
        pair("slc5", 15, GATEWAY_MAC);
        pair("nic1", SECOND_NIC, SECOND_NIC_MAC);
        pair("vms0", VM_BRIDGE, VM_BRIDGE_MAC);
        lines += "link add sluice0-dp index 22 address 02:42:00:00:00:03 type veth peer name sluice0 index 21\n";
        lines += "link set sluice0 address 02:42:00:00:00:02\nlink set sluice0 up\nlink set sluice0-dp up\n";
        for (address, device) in [
            (GATEWAY, "sluice0"),
            (OTHER_GATEWAY, "sluice0"),
            (NIC_ADDRESS, "nic0"),
            (SECOND_ADDRESS, "nic1"),
            (Ipv4Addr::new(172, 30, 0, 1), "vms0"),
        ] {
            let twin = twin::of(address);
            lines += &format!("addr add {address}/24 dev {device}\naddr add {twin}/120 dev {device} nodad\n");
        }
        let (router, nowhere) = (twin::of(ROUTER), twin::of(Ipv4Addr::new(100, 64, 0, 0)));
        lines += &format!("route add default via {ROUTER}\nroute add default via {router}\n");
        lines += &format!("route add unreachable 100.64.0.0/10\nroute add unreachable {nowhere}/106\n");
        for line in lines.lines() {
            let ip = Command::new("ip").args(line.split(' ')).output().expect("run ip");
            assert!(
                ip.status.success(),
                "ip {line}: {}",
                String::from_utf8_lossy(&ip.stderr)
            );
        }
        // /proc/sys/net shows the network namespace of whoever looks.
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/conf/sluice0/forwarding");
            std::fs::write(path, "1").expect("let sluice0 forward");
        }
        File::open("/proc/thread-self/ns/net").expect("open the namespace")
    });
    made.join().expect("furnish the scene")
}

impl Deref for Scene {
    type Target = Datapath;

    fn deref(&self) -> &Datapath {
        &self.datapath
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Datapath {
        &mut self.datapath
    }
}
