//! Frames made by hand, and sockets that send and hear them.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType};

use crate::frame::checksum;

/// A socket for frames of a device of the thread's network namespace. It hears frames of this type; 0: none.
pub fn packet_socket(device: &str, hears: u16) -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
    // SAFETY: all zero is an address of no device.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = hears.to_be();
    address.sll_ifindex = nix::net::if_::if_nametoindex(device).unwrap() as i32;
    // SAFETY: the address is one, of the size that is said.
    let bound = unsafe {
        let size = size_of_val(&address) as u32;
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size)
    };
    assert_eq!(bound, 0);
    socket
}

/// The header of IPv4 or IPv6 in front of so many bytes.
pub fn ip_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let addresses = [octets(from), octets(to)].concat();
    match from {
        IpAddr::V4(_) => {
            let mut header = vec![0x45, 0];
            header.extend((20 + length as u16).to_be_bytes());
            header.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(addresses);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        IpAddr::V6(_) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((length as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(addresses);
            header
        }
    }
}

/// RFC 768 and RFC 8200, 8.1: of the same sum.
pub fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = [octets(from), octets(to)].concat();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
