//! What the programs cost per packet, printed, with a bound that only a blunder would break.

use std::net::Ipv4Addr;

use crate::datapath::Verdict;
use crate::frame::{ACK, Packet, SYN, TCP};
use crate::scene::{
    self, CLIENT, GATEWAY, HOST_LEG, HOST_MAC, NIC, NIC_ADDRESS, NIC_MAC, ROUTER_MAC, SERVER, SHOP, WEB,
};

const ROUNDS: u32 = 300_000;
/// Nanoseconds. Ten times what a quiet machine shows.
const BOUND: u32 = 3000;

/// The rewritten frame is seen again from the second round on, so what is timed is a flow that changes nothing, or the packets of the host.
#[test]
fn a_followed_packet_costs_a_few_hundred_nanoseconds() {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, 8080, TCP, WEB, 80);
    scene
        .says(WEB, &Packet::tcp((WEB.address, 4000), (SHOP.address, 80), SYN))
        .sent();
    scene
        .says(SHOP, &Packet::tcp((SHOP.address, 80), (WEB.address, 4000), SYN | ACK))
        .sent();
    scene
        .host_says(&Packet::tcp((GATEWAY, 4000), (WEB.address, 80), SYN))
        .sent();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 80), (GATEWAY, 4000), SYN | ACK))
        .sent();
    let payload = [7; 100];
    let neighbour = Packet::tcp((WEB.address, 4000), (SHOP.address, 80), ACK).macs(WEB.mac, SHOP.mac);
    let host = Packet::tcp((GATEWAY, 4000), (WEB.address, 80), ACK).macs(HOST_MAC, WEB.mac);
    let in_passing = Packet::tcp((CLIENT, 5000), (NIC_ADDRESS, 22), ACK).macs(ROUTER_MAC, NIC_MAC);
    let out_passing = Packet::tcp((NIC_ADDRESS, 22), (CLIENT, 5000), ACK).macs(NIC_MAC, ROUTER_MAC);
    for (what, program, ifindex, packet) in [
        (
            "from_container, to a neighbour",
            "from_container",
            WEB.ifindex,
            neighbour,
        ),
        ("from_host, to an endpoint", "from_host", HOST_LEG, host),
        ("from_nic, the host's own", "from_nic", NIC, in_passing),
        ("to_nic, the host's own", "to_nic", NIC, out_passing),
    ] {
        let frame = packet.payload(&payload).build();
        assert_ne!(scene.run(program, ifindex, &frame).verdict, Verdict::Dropped, "{what}");
        let best = (0..3)
            .map(|_| scene.time(program, ifindex, &frame, ROUNDS))
            .min()
            .unwrap();
        println!("{what}: {best} ns");
        assert!(best < BOUND, "{what}: {best} ns");
    }
}

/// A translated packet is timed one by one, by the clock of the test: what a test run costs by itself is taken off.
#[test]
fn a_translated_packet_costs_little_more() {
    let mut scene = scene::set();
    scene
        .says(WEB, &Packet::tcp((WEB.address, 20_000), (SERVER, 80), SYN))
        .sent();
    scene
        .world_says(&Packet::tcp((SERVER, 80), (NIC_ADDRESS, 20_000), SYN | ACK))
        .sent();
    let out = Packet::tcp((WEB.address, 20_000), (SERVER, 80), ACK)
        .macs(WEB.mac, scene::GATEWAY_MAC)
        .build();
    let back = Packet::tcp((SERVER, 80), (NIC_ADDRESS, 20_000), ACK)
        .macs(ROUTER_MAC, NIC_MAC)
        .build();
    for (what, program, ifindex, frame) in [
        ("masqueraded out", "from_container", WEB.ifindex, out),
        ("and back", "from_nic", NIC, back),
    ] {
        let total: u32 = (0..2000).map(|_| scene.time(program, ifindex, &frame, 1)).sum();
        println!("{what}: {} ns, a single run each", total / 2000);
        assert!(total / 2000 < 2 * BOUND);
    }
}
