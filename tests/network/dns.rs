//! Questions for names as programs put them in a container's network, and what comes back.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use lab::{Docker, Host, patience};

pub const RESOLVER: &str = "127.0.0.11:53";
pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;

pub const NO_ERROR: u8 = 0;
pub const SERVER_FAILURE: u8 = 2;

/// What came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub code: u8,
    pub truncated: bool,
    /// Addresses, and names of PTR records.
    pub records: Vec<String>,
}

pub fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(id.to_be_bytes());
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// Reads a name, following where it points.
fn name(bytes: &[u8], at: &mut usize) -> String {
    let (mut labels, mut here, mut jumped) = (Vec::new(), *at, false);
    loop {
        let length = usize::from(bytes[here]);
        if length >= 0xc0 {
            if !jumped {
                *at = here + 2;
            }
            jumped = true;
            here = (length & 0x3f) << 8 | usize::from(bytes[here + 1]);
            continue;
        }
        here += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(&bytes[here..here + length]).into_owned());
        here += length;
    }
    if !jumped {
        *at = here;
    }
    labels.join(".")
}

pub fn answer(bytes: &[u8], id: u16) -> Answer {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    assert_eq!(word(0), id, "the answer bears the question's id");
    let mut at = 12;
    for _ in 0..word(4) {
        name(bytes, &mut at);
        at += 4;
    }
    let mut records = Vec::new();
    for _ in 0..word(6) {
        name(bytes, &mut at);
        let (kind, length) = (word(at), usize::from(word(at + 8)));
        at += 10;
        let data = &bytes[at..at + length];
        records.push(match (kind, length) {
            (A, 4) => IpAddr::from(<[u8; 4]>::try_from(data).unwrap()).to_string(),
            (AAAA, 16) => IpAddr::from(<[u8; 16]>::try_from(data).unwrap()).to_string(),
            (PTR, _) => name(bytes, &mut at.clone()),
            _ => format!("type {kind}"),
        });
        at += length;
    }
    Answer {
        code: bytes[3] & 15,
        truncated: bytes[2] & 2 != 0,
        records,
    }
}

/// How a resolver asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The C library: a connected socket.
    Connected,
    /// musl: one socket, bound, that is not connected, and looks who answers.
    Unconnected,
    /// A socket of AF_INET6, by the mapped address; connected.
    Mapped,
    /// The same, not connected.
    MappedUnconnected,
    Stream,
}
pub use Way::{Connected, Mapped, MappedUnconnected, Stream, Unconnected};

pub const WAYS: [Way; 5] = [Connected, Unconnected, Mapped, MappedUnconnected, Stream];

/// Asks in the network of a process. The error of a question that is not answered.
pub fn ask(pid: u32, way: Way, asked: &str, kind: u16) -> std::io::Result<Answer> {
    ask_for(pid, way, asked, kind, patience(10))
}

pub fn ask_for(pid: u32, way: Way, asked: &str, kind: u16, limit: Duration) -> std::io::Result<Answer> {
    Host::within(pid, || {
        let id = 4711;
        let bytes = question(id, asked, kind);
        let to: SocketAddr = match way {
            Mapped | MappedUnconnected => "[::ffff:127.0.0.11]:53".parse().unwrap(),
            _ => RESOLVER.parse().unwrap(),
        };
        let mut buffer = [0; 65536];
        if way == Stream {
            let mut stream = TcpStream::connect_timeout(&to, limit)?;
            assert_eq!(stream.peer_addr()?, to);
            stream.set_read_timeout(Some(limit))?;
            stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes())?;
            stream.write_all(&bytes)?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            let length = usize::from(u16::from_be_bytes(length));
            stream.read_exact(&mut buffer[..length])?;
            return Ok(answer(&buffer[..length], id));
        }
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(limit))?;
        if matches!(way, Connected | Mapped) {
            socket.connect(to)?;
            assert_eq!(socket.peer_addr()?, to);
            socket.send(&bytes)?;
        } else {
            socket.send_to(&bytes, to)?;
        }
        let (length, from) = socket.recv_from(&mut buffer)?;
        assert_eq!(from, to, "the answer seems to come from whom was asked");
        Ok(answer(&buffer[..length], id))
    })
}

#[track_caller]
pub fn told(pid: u32, asked: &str, kind: u16) -> Vec<String> {
    ask(pid, Connected, asked, kind).unwrap().records
}

pub fn address(docker: &Docker, container: &str, network: &str) -> String {
    docker.inspect(
        container,
        &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"),
    )
}
