//! What has been written to a local socket and nobody has taken yet.

use std::os::fd::{AsFd, AsRawFd};

/// Bytes written to this AF_UNIX stream that its other end has not read: in whole buffers, with what the kernel adds to them, so only 0 is exact
/// (`SIOCOUTQ`, unix(7)). None: the socket is of another kind and cannot tell.
pub fn unread(socket: impl AsFd) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one int, which is there for it; a socket that does not know the question answers with an error.
    let answered = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if answered == 0 {
        usize::try_from(bytes).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn what_is_read_is_unread_no_more() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread(&ours), Some(0));
        ours.write_all(b"head").unwrap();
        assert!(unread(&ours).unwrap() >= 4);
        let mut buffer = [0; 4];
        theirs.read_exact(&mut buffer).unwrap();
        assert_eq!(unread(&ours), Some(0));
        assert_eq!(unread(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
