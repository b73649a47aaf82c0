//! A plain VXLAN device of the kernel on the other side of the cable: `far`, at 10.7.0.9, in the same overlay as `web` and `shop`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::datagrams::{ask, echo, set_option};
use super::namespace::{ip, run};
use super::places::{GATEWAY, LAN, LAN6, WEB, WEB6};
use super::rig::Rig;
use super::transfer::transfer;

const FAR: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 9);
const FAR6: Ipv6Addr = Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 9);
const FAR_MAC: &str = "02:42:0a:07:00:09";
const VNI: u32 = 0x00ab_cdef;

/// The rig, and far behind this underlay. `mtu`: the inner one.
fn rig(offload: bool, underlay: IpAddr, mtu: u32) -> Rig {
    let mut rig = Rig::make(offload);
    // first: a device that goes up tells its link of itself
    rig.join_overlay(VNI, underlay, FAR, FAR6, mtu);
    rig.set_inner_mtu(mtu);
    rig.lan.inside(|| {
        let (local, remote, zero) = match underlay {
            IpAddr::V4(_) => ("192.0.2.50", "192.0.2.1", "noudpcsum"),
            IpAddr::V6(_) => ("2001:db8::50", "2001:db8::1", "udp6zerocsumtx udp6zerocsumrx"),
        };
        ip(&format!(
            "link add far address {FAR_MAC} mtu {mtu} type vxlan id {VNI} local {local} remote {remote} dstport 4789 {zero} dev eth0"
        ));
        ip("addr add 10.7.0.9/24 dev far");
        ip("addr add fd07::9/64 dev far nodad");
        ip("link set far up");
        for (last, gateway) in [(2, false), (3, false), (1, true)] {
            let mac = if gateway { "02:42:00:00:00:01".to_owned() } else { format!("02:42:0a:07:00:0{last}") };
            ip(&format!("neigh replace 10.7.0.{last} lladdr {mac} dev far nud permanent"));
            ip(&format!("neigh replace fd07::{last} lladdr {mac} dev far nud permanent"));
        }
    });
    rig
}

fn underlays() -> [(IpAddr, u32); 2] {
    [(LAN.into(), 1_450), (LAN6.into(), 1_430)]
}

#[test]
fn streams_cross_to_a_vxlan_device_of_the_kernel_and_back() {
    for (underlay, mtu) in underlays() {
        for offload in [true, false] {
            let mut rig = rig(offload, underlay, mtu);
            let pairs: [(IpAddr, IpAddr); 2] = [(WEB.into(), FAR.into()), (WEB6.into(), FAR6.into())];
            for (near, far) in pairs {
                let at = SocketAddr::from((far, 7000));
                let (caller, _) = transfer(&rig.web, at, &rig.lan, at);
                assert_eq!(caller.ip(), near);
                let at = SocketAddr::from((near, 7001));
                let (caller, _) = transfer(&rig.lan, at, &rig.web, at);
                assert_eq!(caller.ip(), far);
            }
            // the host is the gateway there
            let at = SocketAddr::from((FAR, 7002));
            let (caller, _) = transfer(&rig.host, at, &rig.lan, at);
            assert_eq!(caller.ip(), IpAddr::from(GATEWAY));
            rig.assert_clean();
        }
    }
}

/// Pitfall B51.
#[test]
fn frames_of_a_cable_are_put_together_before_they_are_unwrapped() {
    let mut rig = rig(true, LAN.into(), 1_450);
    // a cable that knows nothing of what is inside: each frame is one packet of 1,450 bytes with its wrapping
    rig.lan.inside(|| {
        let off = "tso off tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off tx-gso-partial off";
        let words: Vec<&str> = ["-K", "eth0"].into_iter().chain(off.split(' ')).collect();
        run("ethtool", &words);
    });
    rig.host.inside(|| run("ethtool", &["-K", "nic0", "gro", "on"]));
    let received = |rig: &Rig| -> [u64; 2] {
        let read = |what: &str| {
            let statistics = rig
                .web
                .inside(|| run("ip", &["-s", "-s", "-j", "link", "show", "eth0"]));
            let of = statistics.split("\"rx\":").nth(1).unwrap();
            let of = of.split(&format!("\"{what}\":")).nth(1).unwrap();
            let digits: String = of.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        };
        ["bytes", "packets"].map(read)
    };
    let before = received(&rig);
    let at = SocketAddr::from((WEB, 7003));
    let (caller, _) = transfer(&rig.lan, at, &rig.web, at);
    assert_eq!(caller.ip(), IpAddr::from(FAR));
    let after = received(&rig);
    let (many, packets) = (after[0] - before[0], after[1] - before[1]);
    assert!(many / packets > 2 * 1_450, "{many} bytes came in {packets} packets");
    rig.assert_clean();
}

#[test]
fn datagrams_cross_whole_in_pieces_and_as_super_packets() {
    let mut rig = rig(true, LAN.into(), 1_450);
    for (server, near) in [
        (SocketAddr::from((FAR, 80)), false),
        (SocketAddr::from((WEB, 80)), true),
    ] {
        let (there, here) = if near {
            (&rig.web, &rig.lan)
        } else {
            (&rig.lan, &rig.web)
        };
        let socket = there.inside(|| UdpSocket::bind(server).unwrap());
        let answering = std::thread::spawn(move || echo(&socket, 2));
        for length in [100, 8000] {
            here.inside(|| ask((Ipv4Addr::UNSPECIFIED, 0).into(), server, length));
        }
        answering.join().unwrap();
        // as QUIC sends them
        const SEGMENTS: usize = 20;
        const SEGMENT: usize = 1_200;
        let socket = there.inside(|| UdpSocket::bind(server).unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let sent: Vec<u8> = (0..SEGMENTS * SEGMENT).map(|place| (place / SEGMENT) as u8).collect();
        here.inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT as i32);
            assert_eq!(socket.send_to(&sent, server).unwrap(), sent.len());
        });
        let mut datagram = [0; 2_000];
        for number in 0..SEGMENTS {
            let (length, _) = socket.recv_from(&mut datagram).unwrap();
            assert_eq!((length, usize::from(datagram[0])), (SEGMENT, number));
        }
    }
    rig.assert_clean();
}

#[test]
fn what_is_too_long_for_the_underlay_is_reported_or_cut_up() {
    let rig = rig(false, LAN.into(), 1_450);
    rig.web.inside(|| ip("link set eth0 mtu 1500"));
    rig.host.inside(|| ip("link set slc1 mtu 1500"));
    // the first is told, the second knows
    let pinged = rig.web.inside(|| {
        let line = "(for i in 1 2 3; do ping -c 1 -W 5 -M do -s 1472 10.7.0.9; done; ping -c 1 -W 5 -M dont -s 1472 10.7.0.9) 2>&1";
        run("sh", &["-c", line])
    });
    assert!(pinged.contains("mtu") && pinged.contains("1450"), "{pinged}");
    assert!(pinged.ends_with("ms\n") || pinged.contains("1 received"), "{pinged}");
}
