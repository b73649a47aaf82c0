//! Traffic that tests make.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use lab::{Host, patience};

/// Fetches a page with the host's curl: its first line, or the exit code of curl.
pub fn fetch(host: &Host, url: &str) -> Result<String, i32> {
    let ran = host.shell(&format!("curl -sS --max-time {} {url}", patience(5).as_secs()));
    if ran.is_ok() {
        Ok(ran.stdout.trim_end().to_owned())
    } else {
        Err(ran.code().unwrap_or(-1))
    }
}

/// Opens a connection, asks for the page and reads it to the end, as a client without patience.
pub fn ask(address: &str) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, patience(5))?;
    stream.set_read_timeout(Some(patience(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A server in the host that tells who comes first, and who gives up when nobody does.
pub fn who_comes(host: &Host, address: &str) -> JoinHandle<SocketAddr> {
    let listener = host.inside(|| TcpListener::bind(address).unwrap());
    listener.set_nonblocking(true).unwrap();
    let address = address.to_owned();
    std::thread::spawn(move || {
        let mut peer = None;
        lab::eventually(&format!("somebody comes to {address}"), 20, || {
            peer = listener.accept().ok().map(|(_, peer)| peer);
            peer.is_some()
        });
        peer.unwrap()
    })
}

/// A server in the host that takes one connection, says nothing, and tells who came and what they sent.
pub fn accept_one(host: &Host, address: &str) -> JoinHandle<(SocketAddr, Vec<u8>)> {
    let listener = host.inside(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.set_read_timeout(Some(patience(30))).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        (peer, bytes)
    })
}

/// A server in the host that takes one connection and sends the file.
pub fn send_one(host: &Host, address: &str, file: &Path) -> JoinHandle<SocketAddr> {
    let listener = host.inside(|| TcpListener::bind(address).unwrap());
    let bytes = std::fs::read(file).unwrap();
    std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&bytes).unwrap();
        peer
    })
}
