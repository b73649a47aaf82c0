//! What only a kernel with modules has: SCTP sockets, and NICs that are VLANs. Other kernels say that they skip it.

use std::io;
use std::mem::zeroed;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{self, MsgFlags, SockaddrStorage};

use crate::frame::SCTP;
use crate::wire::{FAMILIES, Namespace, Places, Rig, WEB6, run, transfer};

/// Longer than a packet may be: it is sent in chunks.
const MESSAGE: usize = 5_000;

/// An SCTP socket that looks like a stream. None: the kernel knows no SCTP.
fn association(of: IpAddr) -> Option<OwnedFd> {
    let family = if of.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_SCTP) };
    match socket {
        0.. => {
            // SAFETY: it is new, and ours.
            let socket = unsafe { OwnedFd::from_raw_fd(socket) };
            set_patience(&socket);
            if of.is_ipv6() {
                // Or the addresses of both families would stand in its INIT, as those of one end.
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32);
            }
            Some(socket)
        }
        _ => {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT), "{error}");
            None
        }
    }
}

/// No call waits for ever.
fn set_patience(socket: &OwnedFd) {
    // SAFETY: all zero is a time.
    let mut limit: libc::timeval = unsafe { zeroed() };
    limit.tv_sec = lab::patience(20).as_secs() as i64;
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &limit);
    set_option(socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &limit);
}

fn set_option<T>(socket: &OwnedFd, level: i32, option: i32, value: &T) {
    let size = size_of::<T>() as u32;
    // SAFETY: the socket is open, and the option a `T`.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Reads a whole message.
fn hear(socket: &OwnedFd, what: &str) -> Vec<u8> {
    let mut message = Vec::new();
    let mut part = vec![0; MESSAGE];
    while message.len() < MESSAGE {
        match socket::recv(socket.as_raw_fd(), &mut part, MsgFlags::empty()) {
            Ok(0) => break,
            Ok(length) => message.extend(&part[..length]),
            Err(error) => panic!("{what}: after {} bytes: {error}", message.len()),
        }
    }
    message
}

/// An association from `client`, bound to `port`, to `to`, which is served at `inside` of `server`: a long message each way. Whom the server sees.
fn associate(client: &Namespace, port: u16, to: SocketAddr, server: &Namespace, inside: SocketAddr) -> SocketAddr {
    let what = format!("from port {port} to {to}");
    let message: Vec<u8> = (0..MESSAGE).map(|place| (place ^ place >> 8) as u8).collect();
    let listener = server.inside(|| {
        let listener = association(inside.ip()).unwrap();
        socket::bind(listener.as_raw_fd(), &SockaddrStorage::from(inside)).unwrap();
        socket::listen(&listener, socket::Backlog::new(1).unwrap()).unwrap();
        listener
    });
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let accepted = socket::accept(listener.as_raw_fd()).unwrap_or_else(|error| panic!("nobody came: {error}"));
            // SAFETY: it is new, and ours.
            let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
            set_patience(&accepted);
            let caller: SockaddrStorage = socket::getpeername(accepted.as_raw_fd()).unwrap();
            let heard = hear(&accepted, &what);
            socket::send(accepted.as_raw_fd(), &heard, MsgFlags::empty()).unwrap();
            // The other side closes first.
            let _ = socket::recv(accepted.as_raw_fd(), &mut [0; 8], MsgFlags::empty());
            caller
        });
        client.inside(|| {
            let socket = association(to.ip()).unwrap();
            let any = SocketAddr::new(if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() }, port);
            socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(any)).unwrap();
            socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            socket::send(socket.as_raw_fd(), &message, MsgFlags::empty()).unwrap();
            assert!(hear(&socket, &what) == message, "{what}: the message comes back");
        });
        let caller = served.join().unwrap();
        let v4 = caller
            .as_sockaddr_in()
            .map(|address| SocketAddrV4::from(*address).into());
        let v6 = caller
            .as_sockaddr_in6()
            .map(|address| SocketAddrV6::from(*address).into());
        v4.or(v6).unwrap()
    })
}

/// Pitfall B50.
#[test]
fn sctp_associations_between_endpoints_by_a_published_port_and_masqueraded_bring_long_messages() {
    if association(WEB6.into()).is_none() {
        return lab::skipped("the kernel knows no SCTP");
    }
    let mut rig = Rig::make(true);
    rig.publish(SCTP, 9000, 38_412, WEB6.into());
    // No port is used twice: an end that closes slowly would take another for itself.
    let mut port = 7000;
    let mut next = || {
        port += 1;
        port
    };
    // The first time the stacks leave the CRC to the NIC, then they sum up themselves, or see that others do.
    for crc in ["on", "off"] {
        for (namespace, device) in [
            (&rig.host, "nic0"),
            (&rig.lan, "eth0"),
            (&rig.web, "eth0"),
            (&rig.shop, "eth0"),
        ] {
            namespace.inside(|| run("ethtool", &["-K", device, "tx-checksum-sctp", crc]));
        }
        for Places {
            web, shop, host, lan, ..
        } in FAMILIES
        {
            let inside = SocketAddr::from((web, 38_412));
            let of = next();
            let neighbour = associate(&rig.shop, of, inside, &rig.web, inside);
            assert_eq!(neighbour, SocketAddr::from((shop, of)));
            let of = next();
            let client = associate(&rig.lan, of, (host, 9000).into(), &rig.web, inside);
            assert_eq!(client, SocketAddr::from((lan, of)), "a client of a published port");
            let (of, server) = (next(), SocketAddr::from((lan, 9899)));
            let first = associate(&rig.web, of, server, &rig.lan, server);
            assert_eq!(first, SocketAddr::from((host, of)), "masqueraded");
            let second = associate(&rig.shop, of, server, &rig.lan, server);
            assert!(
                second.ip() == host && second.port() != of,
                "the port is taken by now: {second}"
            );
        }
    }
    rig.assert_clean();
}

#[test]
fn a_nic_that_is_a_vlan_serves_published_ports_and_masquerades() {
    let trial = Namespace::make();
    let has_vlans = trial.inside(|| {
        run(
            "ip",
            &["link", "add", "cable0", "type", "veth", "peer", "name", "cable1"],
        );
        let vlan = std::process::Command::new("ip")
            .args([
                "link", "add", "link", "cable0", "name", "tag0", "type", "vlan", "id", "5",
            ])
            .output();
        vlan.unwrap().status.success()
    });
    if !has_vlans {
        return lab::skipped("the kernel knows no VLANs");
    }
    let mut rig = Rig::in_vlan(5);
    for Places { web, host, lan, .. } in FAMILIES {
        let (caller, _) = transfer(&rig.lan, (host, 8080).into(), &rig.web, (web, 80).into());
        assert_eq!(caller.ip(), lan);
        let (caller, _) = transfer(&rig.web, (lan, 9000).into(), &rig.lan, (lan, 9000).into());
        assert_eq!(caller.ip(), host);
    }
    rig.assert_clean();
}
