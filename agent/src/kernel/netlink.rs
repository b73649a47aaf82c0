//! rtnetlink, many requests in one system call.
//!
//! The messages are those of the `rtnetlink` crate; its connection (a task and a channel) is kept for following events, where nobody waits.
//! Making an endpoint is all waiting: here one `send` carries all messages for one namespace and the kernel has carried them out when it
//! returns. A socket stays in the namespace it was opened in.

use std::{io, ops::ControlFlow};

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{Socket, protocols::NETLINK_ROUTE},
};

/// A request and its flags besides `NLM_F_REQUEST | NLM_F_ACK`.
pub type Request = (RouteNetlinkMessage, u16);

/// A socket in one namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket in the namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Else an error message carries the request back, and a long dump overruns the buffer.
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Carries out the requests in order, all of them even when one fails, and tells how each went.
    pub fn carry_out(&mut self, requests: Vec<Request>) -> io::Result<Vec<io::Result<()>>> {
        let mut answers: Vec<Option<io::Result<()>>> = requests.iter().map(|_| None).collect();
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for (message, flags) in requests {
            self.append(&mut bytes, message, flags | NLM_F_ACK);
        }
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        self.socket.send(&bytes, 0)?;
        while answers.iter().any(Option::is_none) {
            self.receive(|header, payload| {
                if let NetlinkPayload::Error(answer) = payload {
                    let index = header.sequence_number.wrapping_sub(first) as usize;
                    if let Some(slot) = answers.get_mut(index) {
                        *slot = Some(answer.code.map_or(Ok(()), |_| Err(answer.to_io())));
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Carries out one request.
    pub fn carry_out_one(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.carry_out(vec![(message, flags)])?.pop().unwrap_or(Ok(()))
    }

    /// What a request for one thing answers; none: there is no such thing.
    pub fn ask(&mut self, request: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, request, 0);
        let sequence = self.sequence;
        self.socket.send(&bytes, 0)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(|header, payload| {
                if header.sequence_number == sequence {
                    outcome = match payload {
                        NetlinkPayload::InnerMessage(message) => Some(Ok(Some(message))),
                        NetlinkPayload::Error(answer) => Some(answer.code.map_or(Ok(None), |_| Err(answer.to_io()))),
                        _ => None,
                    };
                }
                ControlFlow::Continue(())
            })?;
        }
        match outcome.unwrap_or(Ok(None)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            answer => answer,
        }
    }

    /// Everything a request for a dump answers, handed on piece by piece.
    pub fn dump(&mut self, request: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, request, NLM_F_DUMP);
        let sequence = self.sequence;
        self.socket.send(&bytes, 0)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.receive(|header, payload| {
                if header.sequence_number != sequence {
                    return ControlFlow::Continue(());
                }
                match payload {
                    NetlinkPayload::InnerMessage(message) => each(message),
                    NetlinkPayload::Error(answer) => {
                        outcome = Some(answer.code.map_or(Ok(()), |_| Err(answer.to_io())))
                    }
                    NetlinkPayload::Done(_) => outcome = Some(Ok(())),
                    _ => {}
                }
                if outcome.is_some() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
        }
        outcome.unwrap_or(Ok(()))
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    /// One datagram, message by message. What cannot be read is passed over: newer kernels say more than we know.
    fn receive(
        &self,
        mut each: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let (bytes, _) = self.socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as usize) {
            let Some(message) = rest.get(..length).filter(|_| length >= 16) else {
                break;
            };
            if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                let (header, payload) = message.into_parts();
                if each(header, payload).is_break() {
                    break;
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The name of a device in the namespace of the calling thread; none: there is no such device.
pub fn device_name(ifindex: u32) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the kernel writes at most `IF_NAMESIZE` bytes, with a zero at the end.
    if unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) }.is_null() {
        return None;
    }
    // SAFETY: see above.
    Some(
        unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }
            .to_string_lossy()
            .into_owned(),
    )
}
