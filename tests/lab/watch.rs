//! Somebody in the LAN who looks at every packet: no container's address may ever leave a host.

use std::mem::zeroed;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, sock_filter};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType};

/// Catches what comes in by a device with a source that has no business there. When it goes, there must have been nothing.
///
/// It sees every packet: the kernel itself leaves aside what is right, so that nothing is lost for want of room.
pub struct Watch {
    socket: OwnedFd,
    forgives: bool,
}

impl Watch {
    /// Looks at a device of the thread's network namespace. Right are IPv4 sources of `network`, a /24, and IPv6 ones that are not unique local.
    pub fn over(device: &str, network: Ipv4Addr) -> Self {
        let socket = socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap_or_else(|error| panic!("open a packet socket: {error}"));
        let watch = Self {
            socket,
            forgives: false,
        };
        watch.attach(&filter(network));
        watch.bind(device);
        watch
    }

    /// The network is a routed one: containers speak with their own addresses there.
    pub fn forgive(&mut self) {
        self.forgives = true;
    }

    /// What was caught since the last time, as addresses and beginnings of packets.
    pub fn caught(&self) -> Vec<String> {
        let mut buffer = [0; 96];
        let mut caught = Vec::new();
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => caught.push(format!("{:02x?}", &buffer[..length])),
                // The device has gone. What it caught before is told after this.
                Err(Errno::ENETDOWN) => {}
                Err(_) => return caught,
            }
        }
    }

    fn attach(&self, filter: &[sock_filter]) {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which lives until then and has the length that is said.
        let done = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as u32,
            )
        };
        assert_eq!(done, 0, "attach a filter: {}", std::io::Error::last_os_error());
    }

    fn bind(&self, device: &str) {
        // SAFETY: all zero is an address of no device.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex =
            nix::net::if_::if_nametoindex(device).unwrap_or_else(|error| panic!("{device}: {error}")) as i32;
        // SAFETY: it is an address, of the size that is said.
        let done = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        assert_eq!(done, 0, "watch {device}: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.forgives || std::thread::panicking() {
            return;
        }
        let caught = self.caught();
        assert!(caught.is_empty(), "these left the host unmasqueraded: {caught:#?}");
    }
}

/// Takes what comes in with a source that is not right, as many bytes of it as tell who it is.
fn filter(network: Ipv4Addr) -> [sock_filter; 13] {
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    const KIND_OF_PACKET: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    const OUTGOING: u32 = 4;
    let network = u32::from(network) & 0xffff_ff00;
    let step = |code: u32, yes: u8, no: u8, k: u32| sock_filter {
        code: code as u16,
        jt: yes,
        jf: no,
        k,
    };
    [
        step(LOAD_BYTE, 0, 0, KIND_OF_PACKET),
        step(IF_EQUAL, 9, 0, OUTGOING),
        step(LOAD_HALF, 0, 0, 12),
        step(IF_EQUAL, 1, 0, 0x0800),
        step(IF_EQUAL, 3, 6, 0x86dd),
        step(LOAD_WORD, 0, 0, 26),
        step(AND, 0, 0, 0xffff_ff00),
        step(IF_EQUAL, 3, 4, network),
        step(LOAD_BYTE, 0, 0, 22),
        step(AND, 0, 0, 0xfe),
        step(IF_EQUAL, 1, 0, 0xfc),
        step(RETURN, 0, 0, 0),
        step(RETURN, 0, 0, 96),
    ]
}
