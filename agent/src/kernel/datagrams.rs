//! Sockets that answer at any address, and many datagrams in one system call.
//!
//! A socket is bound to no address and transparent: it hears what is for any of its namespace's, and answers from the one it was asked at.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockFlag, SockType,
        SockaddrIn, SockaddrIn6, SockaddrLike as _, SockaddrStorage, bind, listen, recvmmsg, sendmsg, setsockopt,
        socket, sockopt,
    },
};

/// How many datagrams one call brings.
pub const BATCH: usize = 64;
/// The room for one: a question is much shorter.
const ROOM: usize = 4096;
/// What the kernel keeps for us meanwhile, bytes.
const BACKLOG: usize = 8 << 20;

/// A datagram's two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Who sent it.
    pub from: SocketAddr,
    /// The address it was sent to.
    pub to: IpAddr,
}

/// A family's sockets at one port: for datagrams and for streams.
#[derive(Debug)]
pub struct Pair {
    /// Not connected.
    pub datagrams: std::net::UdpSocket,
    /// Listening.
    pub streams: std::net::TcpListener,
}

/// Room for what a call brings.
pub struct Room {
    headers: MultiHeaders<SockaddrStorage>,
    bytes: Vec<[u8; ROOM]>,
}

impl Pair {
    /// Opens them in the namespace of the calling thread, for all its addresses. They do not block.
    pub fn open(family: AddressFamily, port: u16) -> io::Result<Self> {
        let (datagrams, streams) = sockets(family)?;
        for socket in [&datagrams, &streams] {
            answer_anywhere(socket.as_fd(), family)?;
        }
        match family {
            AddressFamily::Inet6 => setsockopt(&datagrams, sockopt::Ipv6RecvPacketInfo, &true)?,
            _ => setsockopt(&datagrams, sockopt::Ipv4PacketInfo, &true)?,
        }
        setsockopt(&datagrams, sockopt::RcvBufForce, &BACKLOG)?;
        for socket in [&datagrams, &streams] {
            match family {
                AddressFamily::Inet6 => {
                    let any = SocketAddrV6::new(std::net::Ipv6Addr::UNSPECIFIED, port, 0, 0);
                    bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
                }
                _ => {
                    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
                    bind(socket.as_raw_fd(), &SockaddrIn::from(any))?;
                }
            }
        }
        listen(&streams, Backlog::new(512)?)?;
        Ok(Self {
            datagrams: datagrams.into(),
            streams: streams.into(),
        })
    }

    /// The same at one address alone.
    pub fn at(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let (datagrams, streams) = sockets(AddressFamily::Inet)?;
        setsockopt(&datagrams, sockopt::Ipv4PacketInfo, &true)?;
        for socket in [&datagrams, &streams] {
            bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, port)))?;
        }
        listen(&streams, Backlog::new(16)?)?;
        Ok(Self {
            datagrams: datagrams.into(),
            streams: streams.into(),
        })
    }
}

/// One for datagrams and one for streams.
fn sockets(family: AddressFamily) -> io::Result<(OwnedFd, OwnedFd)> {
    let make = |kind| {
        let made = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        setsockopt(&made, sockopt::ReuseAddr, &true)?;
        Ok::<_, io::Error>(made)
    };
    Ok((make(SockType::Datagram)?, make(SockType::Stream)?))
}

fn answer_anywhere(socket: BorrowedFd<'_>, family: AddressFamily) -> io::Result<()> {
    /// `IPV6_TRANSPARENT` of linux/in6.h, which nix does not have.
    const IPV6_TRANSPARENT: libc::c_int = 75;
    if family != AddressFamily::Inet6 {
        return Ok(setsockopt(&socket, sockopt::IpTransparent, &true)?);
    }
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads an integer of the size that is said.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IPV6,
            IPV6_TRANSPARENT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

impl Room {
    /// For one call at a time.
    pub fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo))),
            bytes: vec![[0; ROOM]; BATCH],
        }
    }

    /// Takes what waits at the socket, and hands on each datagram that came whole. Answers how many there were; none is an error (it would block).
    pub fn receive(&mut self, socket: RawFd, mut each: impl FnMut(Ends, &[u8])) -> io::Result<usize> {
        let came = self.take(socket)?;
        for ((ends, length), bytes) in came.iter().zip(&self.bytes) {
            if let Some(ends) = ends {
                each(*ends, &bytes[..*length]);
            }
        }
        Ok(came.len())
    }

    /// Each datagram's ends, if it came whole, and its length.
    fn take(&mut self, socket: RawFd) -> io::Result<Vec<(Option<Ends>, usize)>> {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            self.bytes.iter_mut().map(|bytes| [IoSliceMut::new(bytes)]).collect();
        let mut came: Vec<(Option<Ends>, usize)> = Vec::with_capacity(BATCH);
        let messages = recvmmsg(
            socket,
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        for message in messages {
            let whole = !message.flags.contains(MsgFlags::MSG_TRUNC);
            let from = message.address.as_ref().and_then(address);
            let to = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    Some(IpAddr::from(u32::from_be(info.ipi_addr.s_addr).to_be_bytes()))
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
                _ => None,
            });
            let ends = from.zip(to).filter(|_| whole).map(|(from, to)| Ends { from, to });
            came.push((ends, message.bytes));
        }
        Ok(came)
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match storage.family()? {
        AddressFamily::Inet => storage
            .as_sockaddr_in()
            .map(|address| SocketAddrV4::from(*address).into()),
        AddressFamily::Inet6 => storage
            .as_sockaddr_in6()
            .map(|address| SocketAddrV6::from(*address).into()),
        _ => None,
    }
}

/// Answers a datagram from the address it was sent to.
pub fn answer(socket: RawFd, ends: Ends, bytes: &[u8]) -> io::Result<()> {
    let slices = [IoSlice::new(bytes)];
    match (ends.to, ends.from) {
        (IpAddr::V4(source), SocketAddr::V4(to)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(source).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(
                socket,
                &slices,
                &control,
                MsgFlags::MSG_DONTWAIT,
                Some(&SockaddrIn::from(to)),
            )?;
        }
        (IpAddr::V6(source), SocketAddr::V6(to)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: source.octets(),
                },
                ipi6_ifindex: 0,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(
                socket,
                &slices,
                &control,
                MsgFlags::MSG_DONTWAIT,
                Some(&SockaddrIn6::from(to)),
            )?;
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(())
}
