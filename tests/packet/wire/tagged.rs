//! Frames with a VLAN tag (IEEE 802.1Q), on hosts that know no VLAN: a tag is somebody else's, unless it bears a priority and nothing more.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{self, MsgFlags};
use sluice_datapath_common::drop::{Direction, DropReason};

use super::handmade::{ip_header, packet_socket};
use super::namespace::mac_of;
use super::places::{HOST, LAN, WEB};
use super::rig::Rig;
use crate::frame::UDP;

/// A tag: the priority stands in the upper three bits, the VLAN in the lower twelve.
const OF_VLAN_7: u16 = 7;
const OF_PRIORITY_5: u16 = 5 << 13;

/// Sends a datagram by the thread's `eth0`, with this tag.
fn say(to_mac: [u8; 6], tag: u16, from: (IpAddr, u16), to: (IpAddr, u16), words: &[u8]) {
    let length = (8 + words.len()) as u16;
    // Without a checksum.
    let udp = [
        &from.1.to_be_bytes()[..],
        &to.1.to_be_bytes(),
        &length.to_be_bytes(),
        &[0; 2],
        words,
    ]
    .concat();
    let ip = ip_header(from.0, to.0, UDP, udp.len());
    let frame = [
        &to_mac[..],
        &mac_of("eth0"),
        &[0x81, 0],
        &tag.to_be_bytes(),
        &[8, 0],
        &ip,
        &udp,
    ]
    .concat();
    socket::send(packet_socket("eth0", 0).as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
}

#[test]
fn a_frame_of_a_vlan_is_not_for_a_published_port_and_one_with_a_mere_priority_is() {
    let mut rig = Rig::make(true);
    let server = rig.web.inside(|| UdpSocket::bind((WEB, 80)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let nic = rig.host.inside(|| mac_of("nic0"));
    let (from, to) = ((LAN.into(), 4000), (HOST.into(), 8080));
    rig.lan.inside(|| {
        say(nic, OF_VLAN_7, from, to, b"of a VLAN");
        say(nic, OF_PRIORITY_5 | OF_VLAN_7, from, to, b"of a VLAN");
        say(nic, OF_PRIORITY_5, from, to, b"urgent");
        say(nic, 0, from, to, b"last");
    });
    let heard: Vec<String> = (0..2).map(|_| heard_by(&server)).collect();
    assert_eq!(heard, ["urgent", "last"]);
    rig.assert_clean();
}

#[test]
fn an_endpoint_leaves_its_network_by_no_vlan_and_may_be_urgent() {
    let mut rig = Rig::make(true);
    let server = rig.lan.inside(|| UdpSocket::bind((LAN, 9000)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let gateway = rig.host.inside(|| mac_of("slc1"));
    let (from, to) = ((WEB.into(), 4000), (LAN.into(), 9000));
    rig.web.inside(|| {
        say(gateway, OF_VLAN_7, from, to, b"of a VLAN");
        say(gateway, OF_PRIORITY_5, from, to, b"urgent");
    });
    assert_eq!(heard_by(&server), "urgent");
    let drops: Vec<_> = rig.drops().iter().map(|drop| (drop.0, drop.1, drop.3)).collect();
    assert_eq!(drops, [(DropReason::UnknownEtherType, Direction::FromContainer, 1)]);
}

fn heard_by(server: &UdpSocket) -> String {
    let mut words = [0; 64];
    let (length, _) = server.recv_from(&mut words).unwrap();
    String::from_utf8_lossy(&words[..length]).into_owned()
}
