//! What a packet costs, by program and by how full the tables are: for `cargo xtask bench --only programs`, which reads what is printed here.
//!
//! Every packet is a test run of its own, since a program that translates sees its own work from the second round on; the kernel times it. The hosts that
//! are compared stand side by side, and are measured in turn.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use sluice_datapath_common::endpoint::{Endpoint, EndpointKey};
use sluice_datapath_common::flow::{Flow, FlowKey};
use sluice_datapath_common::network::{NETWORK_EXISTS, NETWORK_ICC, NETWORK_MASQUERADES};
use sluice_datapath_common::overlay::scope_of;
use sluice_datapath_common::{Ipv4, Ipv4Address, programs};

use crate::datapath::Datapath;
use crate::frame::{ACK, Frame, Packet, SYN, TCP};
use crate::overlay::{self, FAR, FAR_MAC, NEAR};
use crate::scene::{
    self, CLIENT, GATEWAY, GATEWAY_MAC, HOST_LEG, HOST_MAC, NIC, NIC_ADDRESS, NIC_MAC, ROUTER_MAC, SERVER, SHOP, Scene,
    WEB,
};

/// Room for half a million flows.
const ENTRIES: u32 = 1 << 20;
/// Flows that speak: their entries are warm, as those of speaking flows are.
const SPEAKING: u16 = 64;
/// How often each host has its turn, and the packets of a turn.
const TURNS: usize = 15;
const PACKETS: usize = 400;

/// Who says what, to be measured.
struct Case {
    program: &'static str,
    what: &'static str,
    device: u32,
    /// The packet of the speaking flow with this number, or of a flow that is new each time.
    packet: fn(u16) -> Packet,
}

/// What is measured: packets of known flows, first packets, and how the known flows come to be.
struct Cases {
    known: &'static [Case],
    first: &'static [Case],
    speak: fn(&mut Scene),
}

/// On one host.
const ON_ONE: Cases = Cases {
    known: &KNOWN,
    first: &FIRST,
    speak,
};

/// Between hosts.
const BETWEEN: Cases = Cases {
    known: &KNOWN_BETWEEN,
    first: &FIRST_BETWEEN,
    speak: speak_to_far,
};

const KNOWN_BETWEEN: [Case; 2] = [
    Case {
        program: programs::FROM_CONTAINER,
        what: "to another host",
        device: NEAR.ifindex,
        packet: |n| Packet::tcp((NEAR.address, 10_000 + n), (FAR, 80), ACK).macs(NEAR.mac, FAR_MAC),
    },
    Case {
        program: programs::FROM_NIC,
        what: FROM_PEER,
        device: NIC,
        packet: |n| Packet::tcp((FAR, 80), (NEAR.address, 10_000 + n), ACK).macs(FAR_MAC, NEAR.mac),
    },
];

const FIRST_BETWEEN: [Case; 1] = [Case {
    program: programs::FROM_CONTAINER,
    what: "first, to another host",
    device: NEAR.ifindex,
    packet: |n| Packet::tcp((NEAR.address, 10_100 + n), (FAR, 80), SYN).macs(NEAR.mac, FAR_MAC),
}];

/// What comes in wrapped up.
const FROM_PEER: &str = "from another host";

/// Packets of known flows, and of the host's own.
const KNOWN: [Case; 7] = [
    Case {
        program: programs::FROM_CONTAINER,
        what: "to a neighbour",
        device: WEB.ifindex,
        packet: |n| Packet::tcp((WEB.address, 10_000 + n), (SHOP.address, 80), ACK).macs(WEB.mac, SHOP.mac),
    },
    Case {
        program: programs::FROM_CONTAINER,
        what: "masqueraded",
        device: WEB.ifindex,
        packet: |n| Packet::tcp((WEB.address, 10_000 + n), (SERVER, 80), ACK).macs(WEB.mac, GATEWAY_MAC),
    },
    Case {
        program: programs::FROM_NIC,
        what: "answer to a masqueraded one",
        device: NIC,
        packet: |n| Packet::tcp((SERVER, 80), (NIC_ADDRESS, 10_000 + n), ACK).macs(ROUTER_MAC, NIC_MAC),
    },
    Case {
        program: programs::FROM_NIC,
        what: "to a published port",
        device: NIC,
        packet: |n| Packet::tcp((CLIENT, 10_000 + n), (NIC_ADDRESS, PUBLISHED), ACK).macs(ROUTER_MAC, NIC_MAC),
    },
    Case {
        program: programs::FROM_NIC,
        what: "the host's own",
        device: NIC,
        packet: |n| Packet::tcp((CLIENT, 10_000 + n), (NIC_ADDRESS, 22), ACK).macs(ROUTER_MAC, NIC_MAC),
    },
    Case {
        program: programs::FROM_HOST,
        what: "to an endpoint",
        device: HOST_LEG,
        packet: |n| Packet::tcp((GATEWAY, 10_000 + n), (WEB.address, 80), ACK).macs(HOST_MAC, WEB.mac),
    },
    Case {
        program: programs::TO_NIC,
        what: "the host's own",
        device: NIC,
        packet: |n| Packet::tcp((NIC_ADDRESS, 10_000 + n), (CLIENT, 80), ACK).macs(NIC_MAC, ROUTER_MAC),
    },
];

/// First packets of connections.
const FIRST: [Case; 4] = [
    Case {
        program: programs::FROM_CONTAINER,
        what: "first, to a neighbour",
        device: WEB.ifindex,
        packet: |n| Packet::tcp((WEB.address, 10_100 + n), (SHOP.address, 80), SYN).macs(WEB.mac, SHOP.mac),
    },
    Case {
        program: programs::FROM_CONTAINER,
        what: "first, masqueraded",
        device: WEB.ifindex,
        packet: |n| Packet::tcp((WEB.address, 10_100 + n), (SERVER, 80), SYN).macs(WEB.mac, GATEWAY_MAC),
    },
    Case {
        program: programs::FROM_CONTAINER,
        what: "first, masqueraded, from an ephemeral port",
        device: WEB.ifindex,
        packet: |n| Packet::tcp((WEB.address, EPHEMERAL + n), (SERVER, 80), SYN).macs(WEB.mac, GATEWAY_MAC),
    },
    Case {
        program: programs::FROM_NIC,
        what: "first, to a published port",
        device: NIC,
        packet: |n| Packet::tcp((CLIENT, 10_100 + n), (NIC_ADDRESS, PUBLISHED), SYN).macs(ROUTER_MAC, NIC_MAC),
    },
];

/// The first of the ephemeral ports that are spoken from.
const EPHEMERAL: u16 = 60_000;
/// The published port that is spoken to.
const PUBLISHED: u16 = 8080;

#[test]
#[ignore = "a measurement, which cargo xtask bench --only programs runs"]
fn nanoseconds_per_packet() {
    compare(&ON_ONE, "live flows", &[1, 500_000], fill_flows);
    compare(&ON_ONE, "published ports", &[1, 1_000, 10_000], |scene, ports| {
        for n in 1..ports as u16 {
            scene.publish(Ipv4Addr::UNSPECIFIED, 20_000 + n, TCP, SHOP, 80);
        }
    });
    compare(&ON_ONE, "links", &[1, 1_000, 10_000], fill_links);
    compare(&ON_ONE, "connections to one server", &[1, 27_000], fill_ports);
    compare(&ON_ONE, "networks", &[2, 1_000], fill_networks);
    compare(&BETWEEN, "endpoints on other hosts", &[1, 100_000], fill_remotes);
}

/// Measures everything on hosts whose tables hold so much, and prints it.
fn compare(cases: &Cases, of: &str, sizes: &[u32], fill: fn(&mut Scene, u32)) {
    let mut hosts: Vec<(u32, Scene)> = sizes
        .iter()
        .map(|size| {
            let tables = [("FLOWS4", ENTRIES)];
            let datapath = Datapath::load_with(&scene::config(), &tables);
            // For as long as the process lives, as the scene wants it.
            let mut scene = scene::set_with(Box::leak(Box::new(Mutex::new(datapath))));
            scene.publish(Ipv4Addr::UNSPECIFIED, PUBLISHED, TCP, WEB, 80);
            // As on a real host: conversations begin in the large table, unless their endpoint floods.
            scene.limit(0, u32::MAX);
            fill(&mut scene, *size);
            (cases.speak)(&mut scene);
            (*size, scene)
        })
        .collect();
    let known = cases.known.iter().map(|case| (case, false));
    for (case, is_first) in known.chain(cases.first.iter().map(|case| (case, true))) {
        let frames: Vec<Frame> = frames(case, if is_first { PACKETS as u16 } else { SPEAKING });
        let mut best = vec![u32::MAX; hosts.len()];
        for _ in 0..TURNS {
            for ((_, scene), best) in hosts.iter_mut().zip(&mut best) {
                if is_first {
                    forget_first(scene);
                }
                *best = (*best).min(median(scene, case, &frames));
            }
        }
        for ((size, _), best) in hosts.iter().zip(best) {
            println!("cost: {} | {} | {of} | {size} | {best}", case.program, case.what);
        }
    }
}

fn frames(case: &Case, count: u16) -> Vec<Frame> {
    (0..count)
        .map(|n| frame(case, (case.packet)(n).payload(&[7; 100])))
        .collect()
}

fn frame(case: &Case, packet: Packet) -> Frame {
    match case.what {
        FROM_PEER => overlay::sent_by_peer(&packet.build()),
        _ => packet.build(),
    }
}

/// The packet in the middle of one turn, nanoseconds.
fn median(scene: &mut Scene, case: &Case, frames: &[Frame]) -> u32 {
    let each = frames.iter().cycle().take(PACKETS);
    let mut times: Vec<u32> = each
        .map(|frame| scene.time(case.program, case.device, frame, 1))
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// Opens and answers the flows that are measured.
fn speak(scene: &mut Scene) {
    for n in 0..SPEAKING {
        let port = 10_000 + n;
        scene
            .says(WEB, &Packet::tcp((WEB.address, port), (SHOP.address, 80), SYN))
            .sent();
        scene
            .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, port), SYN | ACK))
            .sent();
        scene
            .says(WEB, &Packet::tcp((WEB.address, port), (SERVER, 80), SYN))
            .sent();
        scene
            .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, port), SYN | ACK))
            .sent();
        scene
            .world_says(&Packet::tcp((CLIENT, port), (NIC_ADDRESS, PUBLISHED), SYN))
            .sent();
        scene
            .says(WEB, &Packet::tcp((WEB.address, 80), (CLIENT, port), SYN | ACK))
            .sent();
        scene
            .host_says(&Packet::tcp((GATEWAY, port), (WEB.address, 80), SYN))
            .sent();
        scene
            .says(WEB, &Packet::tcp((WEB.address, 80), (GATEWAY, port), SYN | ACK))
            .sent();
        // What follows the handshake may be what makes a flow an answered one.
        for case in &KNOWN {
            scene.run(case.program, case.device, &(case.packet)(n).build());
        }
    }
}

/// The same with an endpoint on another host.
fn speak_to_far(scene: &mut Scene) {
    for n in 0..SPEAKING {
        let port = 10_000 + n;
        let syn = Packet::tcp((NEAR.address, port), (FAR, 80), SYN).macs(NEAR.mac, FAR_MAC);
        scene.run(programs::FROM_CONTAINER, NEAR.ifindex, &syn.build());
        let answer = Packet::tcp((FAR, 80), (NEAR.address, port), SYN | ACK).macs(FAR_MAC, NEAR.mac);
        scene.run(programs::FROM_NIC, NIC, &overlay::sent_by_peer(&answer.build()));
        for case in &KNOWN_BETWEEN {
            scene.run(case.program, case.device, &frame(case, (case.packet)(n)));
        }
    }
}

/// So many flows that nobody asks for, each with both entries.
fn fill_flows(scene: &mut Scene, flows: u32) {
    let flow = Flow::<Ipv4>::default();
    for n in 1..flows {
        let key = FlowKey::<Ipv4> {
            source: Ipv4Address((0x0a64_0000 + (n >> 8)).to_be()),
            destination: Ipv4Address(0xcb00_7163_u32.to_be()),
            source_port: ((n & 0xff) as u16 + 1024).to_be(),
            destination_port: 443_u16.to_be(),
            scope: 2,
            protocol: TCP,
            padding: [0; 3],
        };
        let back = FlowKey::<Ipv4> {
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            scope: 0,
            ..key
        };
        scene.insert("FLOWS4", key, flow);
        scene.insert("FLOWS4", back, flow);
    }
}

/// So many connections to one server from ephemeral ports, which have to be exchanged for others.
fn fill_ports(scene: &mut Scene, connections: u32) {
    for n in 1..connections as u16 {
        let syn = Packet::tcp((WEB.address, 32_768 + n), (SERVER, 80), SYN);
        scene.says(WEB, &syn).sent();
    }
}

/// So many links in a network whose endpoints may not speak to each other without one.
fn fill_links(scene: &mut Scene, links: u32) {
    scene.network(2, NETWORK_EXISTS | NETWORK_MASQUERADES);
    scene.link(WEB, SHOP, 80, TCP);
    for n in 1..links as u16 {
        scene.link(WEB, SHOP, 20_000 + n, TCP);
    }
}

/// So many endpoints of a network on other hosts.
fn fill_remotes(scene: &mut Scene, endpoints: u32) {
    overlay::furnish(scene);
    for n in 1..endpoints {
        overlay::settle(scene, Ipv4Addr::from_bits(0x0a80_0000 + n));
    }
}

/// So many networks, each with a subnet and an endpoint.
fn fill_networks(scene: &mut Scene, networks: u32) {
    for n in 4..networks {
        scene.network(n, NETWORK_EXISTS | NETWORK_ICC | NETWORK_MASQUERADES);
        let subnet = 0x0a80_0000 + (n << 8);
        scene.insert_subnet(Ipv4Address(subnet.to_be()), 24, n);
        let key = EndpointKey::<Ipv4> {
            network: n,
            address: Ipv4Address((subnet + 2).to_be()),
        };
        let endpoint = Endpoint {
            endpoint: n,
            ifindex: WEB.ifindex,
            mac: WEB.mac,
            padding: [0; 2],
        };
        scene.insert("ENDPOINTS4", key, endpoint);
    }
}

/// So that the same packets are first ones again.
fn forget_first(scene: &mut Scene) {
    for n in 0..PACKETS as u16 {
        let port = 10_100 + n;
        let (own, published) = ((WEB.address, port), (NIC_ADDRESS, PUBLISHED));
        let exchanged = (WEB.address, EPHEMERAL + n);
        if let Some(flow) = scene.lookup::<_, Flow<Ipv4>>("FLOWS4", scene::key(2, TCP, exchanged, (SERVER, 80))) {
            let back = scene::key(0, TCP, (SERVER, 80), (NIC_ADDRESS, u16::from_be(flow.source_port)));
            scene.remove::<_, Flow<Ipv4>>("FLOWS4", back);
            scene.remove::<_, Flow<Ipv4>>("FLOWS4", scene::key(2, TCP, exchanged, (SERVER, 80)));
        }
        for key in [
            scene::key(2, TCP, own, (SHOP.address, 80)),
            scene::key(2, TCP, (SHOP.address, 80), own),
            scene::key(2, TCP, own, (SERVER, 80)),
            scene::key(0, TCP, (SERVER, 80), (NIC_ADDRESS, port)),
            scene::key(0, TCP, (CLIENT, port), published),
            scene::key(2, TCP, (WEB.address, 80), (CLIENT, port)),
            scene::key(NEAR.network, TCP, (NEAR.address, port), (FAR, 80)),
            scene::key(scope_of(1, NEAR.network), TCP, (FAR, 80), (NEAR.address, port)),
        ] {
            scene.remove::<_, Flow<Ipv4>>("FLOWS4", key);
        }
    }
}
