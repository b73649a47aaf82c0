//! Streams whose every byte is checked, each way, by real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::namespace::Namespace;

/// Several times what a socket buffers, so that super-packets form.
fn size() -> usize {
    match std::env::var_os("SLUICE_VM") {
        None => 6 << 20,
        // Where a processor is emulated, a few super-packets must do.
        Some(_) => 1 << 20,
    }
}

/// Somebody serves: takes a connection, reads what comes, and sends as much back. Says who called.
fn serve(listener: TcpListener) -> (SocketAddr, usize) {
    let (mut stream, caller) = listener.accept().unwrap();
    stream.set_read_timeout(Some(lab::patience(20))).unwrap();
    let read = expect_pattern(&mut stream);
    send_pattern(&mut stream);
    (caller, read)
}

/// Somebody calls: sends, then reads what comes back. Says who it thinks it talks to.
fn call(to: SocketAddr) -> (SocketAddr, usize) {
    let mut stream = TcpStream::connect_timeout(&to, lab::patience(5)).unwrap_or_else(|error| panic!("{to}: {error}"));
    stream.set_read_timeout(Some(lab::patience(20))).unwrap();
    let peer = stream.peer_addr().unwrap();
    send_pattern(&mut stream);
    (peer, expect_pattern(&mut stream))
}

/// Bytes whose place in the stream can be seen.
fn pattern(at: usize) -> Vec<u8> {
    (at..at + 65_536)
        .map(|place| (place ^ place >> 8 ^ place >> 16) as u8)
        .collect()
}

fn send_pattern(stream: &mut TcpStream) {
    (0..size())
        .step_by(65_536)
        .for_each(|at| stream.write_all(&pattern(at)).unwrap());
    stream.shutdown(Shutdown::Write).unwrap();
}

fn expect_pattern(stream: &mut TcpStream) -> usize {
    let mut piece = vec![0; 65_536];
    for at in (0..size()).step_by(65_536) {
        stream.read_exact(&mut piece).unwrap();
        assert!(piece == pattern(at), "the stream differs near {at}");
    }
    assert_eq!(stream.read(&mut piece).unwrap(), 0, "nothing follows");
    size()
}

/// Listens. A process that another test is just starting holds what it inherits for a moment, the listener before this one included.
pub fn listen(at: SocketAddr) -> TcpListener {
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(at) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && std::time::Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.unwrap_or_else(|error| panic!("listen at {at}: {error}")),
        }
    }
}

/// A transfer each way from `client` to `at`, which is served at `inside` of `server`. Who called, and whom the caller sees.
pub fn transfer(
    client: &Namespace,
    at: SocketAddr,
    server: &Namespace,
    inside: SocketAddr,
) -> (SocketAddr, SocketAddr) {
    let listener = server.inside(|| listen(inside));
    std::thread::scope(|scope| {
        let served = scope.spawn(|| serve(listener));
        let (peer, read) = client.inside(|| call(at));
        assert_eq!(read, size());
        let (caller, read) = served.join().unwrap();
        assert_eq!(read, size());
        (caller, peer)
    })
}
