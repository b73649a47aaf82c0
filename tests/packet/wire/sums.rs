//! Every kind of checksum that a driver or a socket may leave in a packet, by hand: finished, none at all, waiting for the NIC, and that of a
//! super-packet. Who receives looks at what the kernel would give to a NIC, and finishes the sum as a NIC would.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{self, MsgFlags};

use super::handmade::{ip_header, packet_socket, pseudo_header};
use super::namespace::{Namespace, mac_of};
use super::places::{FAMILIES, Places};
use super::rig::Rig;
use crate::frame::{TCP, UDP, checksum};

/// What the sender leaves where the checksum belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The checksum (CHECKSUM_NONE).
    Finished,
    /// Zero: UDP of IPv4 needs none.
    Absent,
    /// That of the pseudo header; the NIC is asked to do the rest (CHECKSUM_PARTIAL).
    Waiting,
    /// The same, and the NIC is asked to cut the packet up (GSO).
    Super,
}
use Kind::{Absent, Finished, Super, Waiting};

/// `struct virtio_net_hdr`: what the kernel and a NIC say to each other of a packet. Host byte order.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
struct Offload {
    flags: u8,
    cut: u8,
    headers: u16,
    size: u16,
    start: u16,
    offset: u16,
}

const ETHERNET: usize = 14;
const NEEDS_SUM: u8 = 1;
const CUT_TCP4: u8 = 1;
const CUT_TCP6: u8 = 4;
const CUT_UDP: u8 = 5;
const SYN: u8 = 2;
const PUSH_ACK: u8 = 0x18;

/// What a test sends; the ends as the sender knows them.
#[derive(Clone, Copy)]
struct Sent {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    protocol: u8,
    tcp_flags: u8,
    kind: Kind,
}

/// From whom to whom, as the sender and as the receiver know it.
struct Path<'a> {
    name: &'static str,
    sender: (&'a Namespace, [u8; 6]),
    receiver: &'a Namespace,
    to: (IpAddr, u16),
    arrives_at: (IpAddr, u16),
    speaker: IpAddr,
    seen_as: IpAddr,
}

/// Pitfall B52.
#[test]
fn every_kind_of_checksum_stays_right_on_every_path() {
    let mut rig = Rig::make(true);
    let mut port = 5000;
    let gateway = [0x02, 0x42, 0, 0, 0, 1];
    let nic = rig.host.inside(|| mac_of("nic0"));
    // A refusal would close what the next packet needs.
    rig.web.silence();
    rig.lan.silence();
    for places in FAMILIES {
        let Places {
            web, shop, host, lan, ..
        } = places;
        let paths = [
            Path {
                name: "to a neighbour",
                sender: (&rig.shop, gateway),
                receiver: &rig.web,
                to: (web, 80),
                arrives_at: (web, 80),
                speaker: shop,
                seen_as: shop,
            },
            Path {
                name: "to a published port",
                sender: (&rig.lan, nic),
                receiver: &rig.web,
                to: (host, 8080),
                arrives_at: (web, 80),
                speaker: lan,
                seen_as: lan,
            },
            Path {
                name: "masqueraded",
                sender: (&rig.web, gateway),
                receiver: &rig.lan,
                to: (lan, 9000),
                arrives_at: (lan, 9000),
                speaker: web,
                seen_as: host,
            },
        ];
        for path in &paths {
            for protocol in [UDP, TCP] {
                port += 1;
                let ear = path.receiver.inside(|| Ear::on("eth0"));
                for kind in [Finished, Absent, Waiting, Super] {
                    if kind == Absent && (protocol == TCP || web.is_ipv6()) {
                        continue;
                    }
                    // A SYN opens the way; data of TCP follows it.
                    let tcp_flags = if kind == Super { PUSH_ACK } else { SYN };
                    let sent = Sent {
                        from: (path.speaker, port),
                        to: path.to,
                        protocol,
                        tcp_flags,
                        kind,
                    };
                    let what = format!("{} {web}, protocol {protocol}, {kind:?}", path.name);
                    let (namespace, to_mac) = path.sender;
                    namespace.inside(|| say(&sent, to_mac));
                    ear.expect(&sent, path, &what);
                }
            }
        }
    }
    rig.assert_clean();
}

/// Gives a packet to the thread's `eth0` as a guest gives it to its NIC.
fn say(sent: &Sent, to_mac: [u8; 6]) {
    let payload: usize = match sent.kind {
        Super => 3_000,
        _ => 101,
    };
    let (mut segment, at) = match sent.protocol {
        TCP => (vec![0; 20], 16),
        _ => (vec![0; 8], 6),
    };
    segment[..2].copy_from_slice(&sent.from.1.to_be_bytes());
    segment[2..4].copy_from_slice(&sent.to.1.to_be_bytes());
    if sent.protocol == TCP {
        (segment[12], segment[13]) = (5 << 4, sent.tcp_flags);
        segment[14..16].copy_from_slice(&1000u16.to_be_bytes());
    }
    let headers = segment.len();
    segment.extend((0..payload).map(|byte| (byte * 7) as u8));
    if sent.protocol == UDP {
        let length = segment.len() as u16;
        segment[4..6].copy_from_slice(&length.to_be_bytes());
    }
    let pseudo = pseudo_header(sent.from.0, sent.to.0, sent.protocol, segment.len());
    let sum = match sent.kind {
        Finished => checksum(&[&pseudo[..], &segment].concat()),
        Absent => 0,
        // Not complemented: the NIC will do that.
        Waiting | Super => !checksum(&pseudo),
    };
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let ip = ip_header(sent.from.0, sent.to.0, sent.protocol, segment.len());
    let mut offload = Offload::default();
    if matches!(sent.kind, Waiting | Super) {
        offload.flags = NEEDS_SUM;
        offload.start = (ETHERNET + ip.len()) as u16;
        offload.offset = at as u16;
    }
    if sent.kind == Super {
        offload.cut = match (sent.protocol, sent.from.0) {
            (TCP, IpAddr::V4(_)) => CUT_TCP4,
            (TCP, IpAddr::V6(_)) => CUT_TCP6,
            _ => CUT_UDP,
        };
        offload.size = 1_000;
        offload.headers = (ETHERNET + ip.len() + headers) as u16;
    }
    let kind: u16 = if sent.from.0.is_ipv4() { 0x0800 } else { 0x86dd };
    let ethernet = [&to_mac[..], &mac_of("eth0"), &kind.to_be_bytes()].concat();
    let mouth = offloading_socket("eth0", 0);
    let frame = [&offload.bytes()[..], &ethernet, &ip, &segment].concat();
    let told = socket::send(mouth.as_raw_fd(), &frame, MsgFlags::empty());
    told.unwrap_or_else(|error| panic!("send {:?}: {error}", sent.kind));
}

/// Hears what comes in by a device, with what the kernel says of its checksum.
struct Ear(OwnedFd);

impl Ear {
    fn on(device: &str) -> Self {
        Self(offloading_socket(device, libc::ETH_P_ALL as u16))
    }

    /// The packet comes, from whom and to whom it should be, and its checksum is right when a NIC has finished it.
    fn expect(&self, sent: &Sent, path: &Path<'_>, what: &str) {
        let wanted = if sent.kind == Super { 3_000 } else { 101 };
        let mut heard = 0;
        let patience = Instant::now() + Duration::from_secs(20);
        let mut buffer = vec![0; 70_000];
        while heard < wanted {
            let length = match socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(_) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                Err(error) => panic!("{what}: {heard} of {wanted} bytes arrived, and then: {error}"),
            };
            let (offload, frame) = buffer[..length].split_at_mut(size_of::<Offload>());
            let Some(heard_now) = prove(Offload::of(offload), frame, sent, path, what) else {
                continue;
            };
            heard += heard_now;
        }
        assert_eq!(heard, wanted, "{what}");
    }
}

/// The bytes of payload that the frame brings of what was sent.
fn prove(offload: Offload, frame: &mut [u8], sent: &Sent, path: &Path<'_>, what: &str) -> Option<usize> {
    let (source, destination, header) = match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => (address(&frame[26..30]), address(&frame[30..34]), 20),
        0x86dd => (address(&frame[22..38]), address(&frame[38..54]), 40),
        _ => return None,
    };
    let protocol = frame[ETHERNET + if header == 20 { 9 } else { 6 }];
    let length = u16::from_be_bytes(match header {
        20 => [frame[16], frame[17]],
        _ => [frame[18], frame[19]],
    });
    let above = ETHERNET + header;
    let end = match header {
        20 => ETHERNET + usize::from(length),
        _ => above + usize::from(length),
    };
    let port = |at: usize| u16::from_be_bytes([frame[above + at], frame[above + at + 1]]);
    if protocol != sent.protocol || (destination, port(2)) != path.arrives_at || source != path.seen_as {
        return None;
    }
    assert_eq!(port(0), sent.from.1, "{what}: the port is kept");
    if header == 20 {
        assert_eq!(checksum(&frame[ETHERNET..above]), 0, "{what}: the sum of the header");
    }
    let headers = if protocol == TCP { 20 } else { 8 };
    let at = above + if protocol == TCP { 16 } else { 6 };
    let payload = end - above - headers;
    if sent.kind == Absent {
        assert_eq!(frame[at..at + 2], [0, 0], "{what}: there is none");
        return Some(payload);
    }
    if offload.flags & NEEDS_SUM != 0 {
        assert_eq!(
            (usize::from(offload.start), usize::from(offload.offset)),
            (above, at - above)
        );
        let sum = checksum(&frame[above..end]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let pseudo = pseudo_header(source, destination, protocol, end - above);
    assert_eq!(
        checksum(&[&pseudo[..], &frame[above..end]].concat()),
        0,
        "{what}: {offload:?}"
    );
    Some(payload)
}

impl Offload {
    fn bytes(self) -> [u8; 10] {
        let [h, s, t, o] = [self.headers, self.size, self.start, self.offset].map(u16::to_ne_bytes);
        [self.flags, self.cut, h[0], h[1], s[0], s[1], t[0], t[1], o[0], o[1]]
    }

    fn of(bytes: &[u8]) -> Self {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            cut: bytes[1],
            headers: number(2),
            size: number(4),
            start: number(6),
            offset: number(8),
        }
    }
}

fn address(octets: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(octets) {
        Ok(four) => four.into(),
        Err(_) => <[u8; 16]>::try_from(octets).unwrap().into(),
    }
}

/// A socket for frames of a device, each behind an [`Offload`]. It hears frames of this type; 0: none.
fn offloading_socket(device: &str, hears: u16) -> OwnedFd {
    const PACKET_VNET_HDR: i32 = 15;
    let socket = packet_socket(device, hears);
    let yes: i32 = 1;
    // SAFETY: the socket is open, and the option an integer.
    let set = unsafe {
        let size = size_of::<i32>() as u32;
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_VNET_HDR,
            (&raw const yes).cast(),
            size,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    socket
}
