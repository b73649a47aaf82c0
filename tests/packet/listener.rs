//! What really comes in by a device of the scene: the programs can send a copy of a packet, and a test run does that.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

use crate::frame::Frame;

/// Hears the frames of one Ethernet type that come in by a device of the scene.
pub struct Listener(OwnedFd);

impl Listener {
    /// Hears IPv4.
    pub fn on(device: &str) -> Self {
        Self::of(device, libc::ETH_P_IP as u16)
    }

    /// Hears this type.
    pub fn of(device: &str, ether_type: u16) -> Self {
        let socket = socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthIp,
        )
        .unwrap();
        // SAFETY: all zero is an address of no device.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ether_type.to_be();
        address.sll_ifindex = nix::net::if_::if_nametoindex(device).unwrap() as i32;
        // SAFETY: the address is one, of the size that is said.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        assert_eq!(bound, 0);
        Self(socket)
    }

    /// Hears what leaves by any device of the namespace.
    pub fn of_all() -> Self {
        let socket = socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .unwrap();
        Self(socket)
    }

    /// The devices that this very frame has left by, of all that has left so far. What leaves is heard before whoever sends it goes on.
    pub fn left_by(&self, frame: &[u8]) -> Vec<u32> {
        let (mut devices, mut buffer) = (Vec::new(), vec![0; 4096]);
        loop {
            // SAFETY: all zero is an address of no device.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut size = size_of_val(&address) as u32;
            // SAFETY: buffer and address are writable, of the sizes that are said.
            let length = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut address).cast(),
                    &raw mut size,
                )
            };
            let Ok(length) = usize::try_from(length) else {
                return devices;
            };
            if address.sll_pkttype == libc::PACKET_OUTGOING && buffer[..length] == *frame {
                devices.push(address.sll_ifindex as u32);
            }
        }
    }

    /// The next frames; and there are no more than these.
    pub fn frames(&self, count: usize) -> Vec<Frame> {
        self.frames_of(count, |_| true)
    }

    /// The same of those that matter.
    pub fn frames_of(&self, count: usize, matters: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 65_536];
        let patience = Instant::now() + Duration::from_secs(if count == 0 { 0 } else { 10 });
        loop {
            match socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => frames.extend(Some(Frame(buffer[..length].to_vec())).filter(&matters)),
                Err(_) if frames.len() < count && Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                Err(_) => return frames,
            }
        }
    }
}
