//! The line between the shim and a process it makes: a socket of messages, closed by a successful execve.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use crate::{RuntimeError, syscall};

const LONGEST: usize = 4096;

/// What the new process, or who makes it, tells the shim.
#[derive(Debug)]
pub(crate) enum Report {
    /// The process has this pid (of the shim's namespace).
    Pid(i32),
    /// All is set up; here is the terminal's master, if it has one.
    Ready(Option<OwnedFd>),
    /// It can't be.
    Failed(RuntimeError),
}

/// Sends a report; `terminal` goes with it.
fn send(channel: BorrowedFd<'_>, bytes: &[u8], terminal: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr() as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: msghdr is plain data, all zeroes is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    // u64s, for the alignment of a control header.
    let mut control = [0u64; 4];
    if let Some(terminal) = terminal {
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: pure arithmetic.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;
        // SAFETY: the control buffer is larger than the space for one descriptor, so there is a first header and room for its data.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
            libc::CMSG_DATA(header)
                .cast::<RawFd>()
                .write_unaligned(terminal.as_raw_fd());
        }
    }
    // SAFETY: message points to buffers that outlive the call.
    let sent = unsafe { libc::sendmsg(channel.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    syscall::result(sent as i32).map(drop)
}

pub(crate) fn send_pid(channel: BorrowedFd<'_>, pid: i32) -> io::Result<()> {
    let mut bytes = vec![b'P'];
    bytes.extend_from_slice(&pid.to_le_bytes());
    send(channel, &bytes, None)
}

pub(crate) fn send_ready(channel: BorrowedFd<'_>, terminal: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send(channel, b"R", terminal)
}

/// Nobody is left to tell if this fails.
pub(crate) fn send_failure(channel: BorrowedFd<'_>, error: &RuntimeError) {
    let mut bytes = vec![b'E'];
    bytes.extend_from_slice(&error.encode());
    let _ = send(channel, &bytes, None);
}

/// From the shim: go on.
pub(crate) fn send_go(channel: BorrowedFd<'_>) -> io::Result<()> {
    send(channel, b"G", None)
}

/// Waits for the shim's word; its silence means it is gone.
pub(crate) fn wait_for_go(channel: BorrowedFd<'_>) -> Result<(), RuntimeError> {
    let mut byte = [0];
    match syscall::read(channel, &mut byte) {
        Ok(1) => Ok(()),
        Ok(_) => Err(RuntimeError::Failed("the shim went away before the start".to_owned())),
        Err(error) => Err(RuntimeError::Failed(format!("wait for the start: {error}"))),
    }
}

/// The next report; none when all at the other end have closed it or become another program.
pub(crate) fn receive(channel: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    let mut bytes = [0u8; LONGEST];
    let mut vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut control = [0u64; 4];
    // SAFETY: msghdr is plain data, all zeroes is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let length = loop {
        // SAFETY: message points to buffers of ours that outlive the call.
        let received = unsafe { libc::recvmsg(channel.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
        match syscall::result(received as i32) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => break other? as usize,
        }
    };
    let terminal = descriptor_of(&message);
    let Some((kind, rest)) = bytes[..length].split_first() else {
        return Ok(None);
    };
    Ok(Some(match kind {
        b'P' => Report::Pid(rest.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes))),
        b'R' => Report::Ready(terminal),
        _ => Report::Failed(RuntimeError::decode(rest)),
    }))
}

fn descriptor_of(message: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the kernel filled the control buffer that message points to and set its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
        return None;
    }
    // SAFETY: a header of SCM_RIGHTS is followed by at least one descriptor, which the kernel has just made for us.
    Some(unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()) })
}
