//! A published port, asked for from everywhere at every address of the host, there and back. (127.0.0.1 never becomes a packet that a program sees: the
//! sockets of host processes are turned before, see `wire`.)

use std::net::Ipv4Addr;

use crate::frame::{Frame, Packet, SYN, TCP, UDP};
use crate::scene::{
    self, CLIENT, Container, GATEWAY, LONE, NIC_ADDRESS, OTHER_GATEWAY, SECOND_ADDRESS, SHOP, Scene, WEB,
};

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Asker {
    Endpoint(Container),
    Host,
    Lan,
}

/// The port at the host, the one at the endpoint, and the asker's.
const OUTSIDE: u16 = 8080;
const INSIDE: u16 = 80;
const ASKERS: u16 = 20_000;

/// Pitfalls B9, B10: {the same endpoint, the same network, another network, the host, the LAN} at {each address of the host, the endpoint's own}, TCP and UDP.
/// Whoever asks is answered from where it asked, and is seen as itself: only an endpoint that asks for itself is seen as its gateway.
#[test]
fn a_published_port_answers_everybody_at_every_address() {
    let everywhere = [NIC_ADDRESS, SECOND_ADDRESS, GATEWAY, OTHER_GATEWAY];
    for protocol in [TCP, UDP] {
        for asker in [
            Asker::Endpoint(WEB),
            Asker::Endpoint(SHOP),
            Asker::Endpoint(LONE),
            Asker::Lan,
        ] {
            for at in everywhere {
                ask(protocol, asker, (at, OUTSIDE));
            }
        }
        for asker in [Asker::Endpoint(SHOP), Asker::Host] {
            ask(protocol, asker, (WEB.address, INSIDE));
        }
    }
}

fn ask(protocol: u8, asker: Asker, at: (Ipv4Addr, u16)) {
    let mut scene = scene::set();
    scene.publish(Ipv4Addr::UNSPECIFIED, OUTSIDE, protocol, WEB, INSIDE);
    let own = match asker {
        Asker::Endpoint(container) => container.address,
        Asker::Host => GATEWAY,
        Asker::Lan => CLIENT,
    };
    let what = format!("protocol {protocol}, {asker:?} at {at:?}");
    let question = say(&mut scene, asker, &packet(protocol, (own, ASKERS), at));
    let seen = match asker {
        Asker::Endpoint(container) if container.number == WEB.number => GATEWAY,
        _ => own,
    };
    assert_eq!(question.receiver_mac(), WEB.mac, "{what}");
    assert_eq!((question.source(), question.source_port()), (seen, ASKERS), "{what}");
    assert_eq!(
        (question.destination(), question.destination_port()),
        (WEB.address, INSIDE),
        "{what}"
    );
    let answer = scene
        .says(WEB, &packet(protocol, (WEB.address, INSIDE), (seen, ASKERS)))
        .sent();
    assert_eq!((answer.source(), answer.source_port()), at, "{what}");
    assert_eq!(
        (answer.destination(), answer.destination_port()),
        (own, ASKERS),
        "{what}"
    );
    scene.assert_no_drops();
}

fn say(scene: &mut Scene, asker: Asker, packet: &Packet) -> Frame {
    match asker {
        Asker::Endpoint(container) => scene.says(container, packet),
        Asker::Host => scene.host_says(packet),
        Asker::Lan => scene.world_says(packet),
    }
    .sent()
}

fn packet(protocol: u8, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Packet {
    match protocol {
        TCP => Packet::tcp(from, to, SYN),
        _ => Packet::udp(from, to),
    }
}
