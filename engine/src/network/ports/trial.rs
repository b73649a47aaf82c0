//! Whether another program of the host has a port, and which ports the kernel gives itself.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
    },
};
use sluice_agent::held_ports;
use sluice_model::Protocol;

/// The range that Docker picks from when it can't be read.
pub(crate) const EPHEMERAL: (u16, u16) = (32_768, 60_999);

/// What a trial bind says of a port.
pub(crate) type Trial = dyn Fn(Protocol, IpAddr, u16) -> Result<(), Errno>;

/// Binds the port for a moment: TCP with SO_REUSEADDR and without listening, so that connections in TIME_WAIT don't count and no client is
/// accepted by nobody; UDP without, so that every other socket counts. A kernel without SCTP has nobody who could hold a port of it.
pub(crate) fn try_bind(protocol: Protocol, address: IpAddr, port: u16) -> Result<(), Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, which) = match protocol {
        Protocol::Tcp => (SockType::Stream, None),
        Protocol::Udp => (SockType::Datagram, None),
        Protocol::Sctp => (SockType::Stream, Some(SockProtocol::Sctp)),
    };
    let probe = match socket(family, kind, SockFlag::SOCK_CLOEXEC, which) {
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if protocol == Protocol::Sctp => return Ok(()),
        probe => probe?,
    };
    if protocol == Protocol::Tcp {
        setsockopt(&probe, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        // or it would ask for IPv4's port too
        setsockopt(&probe, sockopt::Ipv6V6Only, &true)?;
    }
    match address {
        IpAddr::V4(address) => bind(probe.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, port))),
        IpAddr::V6(address) => bind(
            probe.as_raw_fd(),
            &SockaddrIn6::from(SocketAddrV6::new(address, port, 0, 0)),
        ),
    }
}

/// Tries ports of so many wishes: a few by binding each. Of many only those that some socket of the host may have, at whatever address, and the
/// first at each address: a bind costs some 20 µs, and ten thousand would cost their user a noticeable time.
pub(crate) fn trial(wishes: usize) -> Box<Trial> {
    const FEW: usize = 32;
    if wishes <= FEW {
        return Box::new(try_bind);
    }
    let held = match held_ports() {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(%error, "cannot list the sockets of the host; each port is tried by itself");
            return Box::new(try_bind);
        }
    };
    let tried = Mutex::new(HashSet::new());
    Box::new(move |protocol, address, port| {
        let first_there = tried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((protocol, address));
        if first_there || held.may_hold(protocol.number(), port) {
            return try_bind(protocol, address, port);
        }
        Ok(())
    })
}

/// The kernel's range of ephemeral ports.
pub(crate) fn ephemeral_range() -> (u16, u16) {
    let read = || {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u16>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    read()
        .filter(|(first, last)| *first > 0 && first < last)
        .unwrap_or(EPHEMERAL)
}
