//! What systemd is told (`sd_notify`): a datagram to the socket that it named.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The daemon answers.
pub(crate) const READY: &str = "READY=1\nSTATUS=answering";
/// The daemon ends; containers go on.
pub(crate) const STOPPING: &str = "STOPPING=1\nSTATUS=ending; containers go on";

/// Tells it, when there is someone to tell.
pub(crate) fn tell(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, state)
    {
        tracing::warn!(%error, "cannot tell systemd how the daemon is");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(state.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_at_a_path_and_at_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("sluiced-notify-{}", std::process::id()));
        let name = format!("sluiced-notify-{}", std::process::id());
        let at_path = UnixDatagram::bind(&path).unwrap();
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [
            (at_path, path.clone().into_os_string()),
            (at_name, format!("@{name}").into()),
        ] {
            send(&address, READY).unwrap();
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], READY.as_bytes());
        }
        std::fs::remove_file(path).unwrap();
    }
}
