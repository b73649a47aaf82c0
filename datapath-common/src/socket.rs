//! Sockets of host processes whose peer was translated from a published port to an endpoint.

use crate::{Family, Ipv4, Ipv6, plain_old_data};

/// A socket and the endpoint it was sent to. A socket of AF_INET6 sees an IPv4 endpoint as an IPv4-mapped address (`::ffff:a.b.c.d`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SocketPeerKey<F: Family> {
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// The endpoint's address.
    pub address: F::Address,
    /// The port at the endpoint, network byte order.
    pub port: u16,
    /// Always zero.
    pub padding: [u8; 2],
    /// Always zero.
    pub filler: F::Filler,
}

/// What the process asked for, and is shown as its peer.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SocketPeer<F: Family> {
    /// The address it asked for.
    pub address: F::Address,
    /// The port it asked for, network byte order.
    pub port: u16,
    /// Always zero.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<SocketPeerKey<Ipv4>>() == 16 && size_of::<SocketPeerKey<Ipv6>>() == 32);
const _: () = assert!(size_of::<SocketPeer<Ipv4>>() == 8 && size_of::<SocketPeer<Ipv6>>() == 20);

plain_old_data!(
    SocketPeerKey<Ipv4>,
    SocketPeerKey<Ipv6>,
    SocketPeer<Ipv4>,
    SocketPeer<Ipv6>
);
