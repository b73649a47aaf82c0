//! Sockets of this namespace, asked for and destroyed by `NETLINK_SOCK_DIAG` (sock_diag(7), `linux/inet_diag.h`).

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket as new_socket};

use rtnetlink::sys::{Socket, protocols::NETLINK_SOCK_DIAG};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const UDP: u8 = libc::IPPROTO_UDP as u8;
/// `TCP_ESTABLISHED`: of UDP sockets, those that are connected.
const CONNECTED: u32 = 1 << 1;
/// `TCP_CLOSE`: of TCP sockets, those that have a port, and neither listen nor are connected. Told since Linux 6.8, to who asks for the state
/// `TCP_BOUND_INACTIVE`, which itself is never told.
const IDLE: u8 = 7;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_sockid`: ports, addresses, device, cookie.
const ID: usize = 48;
/// Where the id begins in `struct inet_diag_msg`.
const ID_IN_MESSAGE: usize = 4;

/// A socket as the kernel tells it from others: the bytes of `struct inet_diag_sockid`.
struct Found {
    family: u8,
    state: u8,
    id: [u8; ID],
}

/// Ports that sockets of a namespace have, at whatever address.
#[derive(Debug)]
pub struct HeldPorts {
    /// Protocol number and port.
    ports: HashSet<(u8, u16)>,
    knows_idle: bool,
}

impl HeldPorts {
    /// May a socket have the port? True where it cannot be known: of TCP, when the kernel does not tell of sockets that do nothing; of protocols
    /// that were not asked about.
    pub fn may_hold(&self, protocol: u8, port: u16) -> bool {
        let is_known = match i32::from(protocol) {
            libc::IPPROTO_UDP => true,
            libc::IPPROTO_TCP => self.knows_idle,
            _ => false,
        };
        !is_known || self.ports.contains(&(protocol, port))
    }
}

/// The ports that sockets of the calling thread's namespace have, of TCP and UDP, in a dump for each protocol and family.
pub fn held_ports() -> io::Result<HeldPorts> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    // Whether the kernel tells of such sockets is seen by one of ours.
    let probe = new_socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(probe.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 0))?;
    let of_probe = getsockname::<SockaddrIn>(probe.as_raw_fd())?.port();
    let mut held = HeldPorts {
        ports: HashSet::new(),
        knows_idle: false,
    };
    for protocol in [libc::IPPROTO_TCP as u8, libc::IPPROTO_UDP as u8] {
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            let question = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, (family, protocol), u32::MAX, &[0; ID]);
            socket.send(&question, 0)?;
            let found = match answers(&socket) {
                // A host without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                found => found?,
            };
            for found in found {
                if protocol == libc::IPPROTO_TCP as u8 && found.state == IDLE && found.port() == of_probe {
                    held.knows_idle = true;
                } else {
                    held.ports.insert((protocol, found.port()));
                }
            }
        }
    }
    Ok(held)
}

/// Destroys the connected UDP sockets whose peer `is_doomed`, and answers how many. Their owners read ECONNABORTED and connect anew.
///
/// Not TCP's: what waits to be read would be lost, and its other end says itself that it is gone.
pub fn destroy_udp(is_doomed: impl Fn(IpAddr) -> bool) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let mut doomed = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        socket.send(
            &request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, (family, UDP), CONNECTED, &[0; ID]),
            0,
        )?;
        doomed.extend(
            answers(&socket)?
                .into_iter()
                .filter(|found| found.peer().is_some_and(&is_doomed)),
        );
    }
    let mut destroyed = 0;
    for Found { family, id, .. } in doomed {
        socket.send(&request(SOCK_DESTROY, NLM_F_ACK, (family, UDP), u32::MAX, &id), 0)?;
        match answers(&socket) {
            Ok(_) => destroyed += 1,
            // it went by itself
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(destroyed)
}

/// A message with a `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, (family, protocol): (u8, u8), states: u32, id: &[u8; ID]) -> Vec<u8> {
    let length = (HEADER + 8 + ID) as u32;
    let mut bytes = Vec::with_capacity(length as usize);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    // sequence and port: one question at a time
    bytes.extend([0; 8]);
    bytes.extend([family, protocol, 0, 0]);
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// Everything up to the end of the answer.
fn answers(socket: &Socket) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
            let Some(message) = rest.get(..length).filter(|_| length >= HEADER) else {
                break;
            };
            let body = &message[HEADER..];
            match u16::from_ne_bytes([message[4], message[5]]) {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => {
                    let code = body.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return if code == 0 {
                        Ok(found)
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    };
                }
                _ => found.extend(Found::read(body)),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

impl Found {
    /// From a `struct inet_diag_msg`.
    fn read(body: &[u8]) -> Option<Self> {
        Some(Self {
            family: *body.first()?,
            state: *body.get(1)?,
            id: *body.get(ID_IN_MESSAGE..)?.first_chunk()?,
        })
    }

    /// Its port.
    fn port(&self) -> u16 {
        u16::from_be_bytes([self.id[0], self.id[1]])
    }

    /// The address it is connected to; one of IPv4 in a socket of IPv6 is one of IPv4.
    fn peer(&self) -> Option<IpAddr> {
        let address: [u8; 16] = *self.id.get(20..)?.first_chunk()?;
        let [a, b, c, d, ..] = address;
        Some(match i32::from(self.family) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            _ => Ipv6Addr::from(address).to_canonical(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn tells_of_idle_sockets() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 8)
    }

    #[test]
    fn a_port_that_a_socket_has_may_be_held_whatever_the_socket_does_with_it() {
        const TCP: u8 = libc::IPPROTO_TCP as u8;
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let idle = new_socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(idle.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let idle_port = getsockname::<SockaddrIn>(idle.as_raw_fd()).unwrap().port();
        let held = held_ports().unwrap();
        assert!(held.may_hold(UDP, udp.local_addr().unwrap().port()));
        assert!(held.may_hold(TCP, listening.local_addr().unwrap().port()));
        assert!(held.may_hold(TCP, idle_port));
        assert!(held.may_hold(132, 1), "nobody asked");
        assert!(!held.may_hold(UDP, 1), "nobody has it");
        drop(idle);
        let others = held_ports().unwrap();
        assert_eq!(
            others.knows_idle,
            tells_of_idle_sockets(),
            "as the kernel's version says"
        );
        assert!(!others.knows_idle || !others.may_hold(TCP, idle_port), "it is gone");
    }

    #[test]
    fn sockets_that_are_connected_to_the_doomed_are_destroyed_and_no_others() {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        let bound = |to: &str| {
            let socket = UdpSocket::bind(to).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let connected = |from: &str, to: &str| {
            let socket = bound(from);
            socket.connect(to).unwrap();
            socket
        };
        let doomed = [
            connected("127.0.0.1:0", "127.0.0.9:53"),
            connected("[::]:0", "[::ffff:127.0.0.9]:53"),
            connected("[::1]:0", "[::1]:53"),
        ];
        let others = [connected("127.0.0.1:0", "127.0.0.8:53"), bound("127.0.0.1:0")];
        let wanted: [IpAddr; 2] = ["127.0.0.9".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(destroy_udp(|peer| wanted.contains(&peer)).unwrap(), 3);
        let end = |socket: &UdpSocket| socket.recv(&mut [0; 8]).unwrap_err().raw_os_error();
        for socket in &doomed {
            assert_eq!(end(socket), Some(libc::ECONNABORTED));
        }
        for socket in &others {
            assert_eq!(end(socket), Some(libc::EAGAIN));
        }
    }
}
