//! What passes a device, frame by frame.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// A look at a device.
pub struct Wire(OwnedFd);

impl Wire {
    /// Looks at everything that passes from now on, both ways.
    pub fn of(device: &str) -> Self {
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: a system call without pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, flags, i32::from(every_protocol)) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: it was opened just now and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: integers and arrays of them.
        let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        place.sll_family = libc::AF_PACKET as u16;
        place.sll_protocol = every_protocol;
        place.sll_ifindex = nix::net::if_::if_nametoindex(device).unwrap() as i32;
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is whole and has the size that is said.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const place).cast(), size) };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        Self(socket)
    }

    /// What has passed since the last look.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut room = [0u8; 65_536];
        loop {
            // SAFETY: the kernel writes into the room, at most as much as it has.
            let read = unsafe { libc::recv(self.0.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
            match usize::try_from(read) {
                Ok(length) => frames.push(room[..length].to_vec()),
                Err(_) => return frames,
            }
        }
    }
}

/// The destination port of a UDP packet in IPv4 without options.
pub fn udp_port(frame: &[u8]) -> Option<u16> {
    let is_udp = frame.get(12..15) == Some(&[8, 0, 0x45]) && frame.get(23) == Some(&17);
    is_udp.then(|| u16::from_be_bytes([frame[36], frame[37]]))
}
