//! A proxy in a host that says whom it was asked for.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use crate::Host;

/// It goes with the test's process.
pub struct Proxy {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one on this port of the host's loopback. It knows `CONNECT`.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(host: &Host, port: u16) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        // what a thread in the host begins is in the host, too
        host.inside(|| {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|why| panic!("{why}"));
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    let seen = seen.clone();
                    std::thread::spawn(move || lead(&client, &seen));
                }
            });
        });
        Self { asked }
    }

    /// `host:port` of each connection it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn lead(client: &TcpStream, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 || header.trim().is_empty() {
            break;
        }
    }
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(target.clone());
    let server = TcpStream::connect(&target).ok()?;
    let mut client = client.try_clone().ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut up, mut down) = (server.try_clone().ok()?, server);
    let mut back = client;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut reader, &mut up);
        let _ = up.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut down, &mut back);
    let _ = back.shutdown(std::net::Shutdown::Both);
    Some(())
}
