//! Whom the host asks: the servers of its `/etc/resolv.conf`, followed as the file changes.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// The port of DNS.
pub const PORT: u16 = 53;
/// As many as the C library asks.
const MOST: usize = 3;

/// The file and what it said when it was read last.
#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    read: Option<Stamp>,
    servers: Vec<SocketAddr>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl HostServers {
    /// Of this file.
    pub fn of(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read: None,
            servers: Vec::new(),
        }
    }

    /// The servers as the file has them now. Looking costs a microsecond, so that it is looked each time: nothing has to be watched, whoever replaces the
    /// file and however.
    pub fn current(&mut self) -> &[SocketAddr] {
        let stamp = fs::metadata(&self.path).ok().map(|file| Stamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
        });
        if stamp.is_none() || stamp != self.read {
            self.servers = fs::read_to_string(&self.path).map_or_else(|_| Vec::new(), |text| servers(&text));
            self.read = stamp;
        }
        &self.servers
    }
}

/// The servers of a file's text, in order.
fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()).flatten()
        })
        .filter_map(server)
        .take(MOST)
        .collect()
}

/// An address, of IPv6 perhaps with the link it is on: `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let (address, link) = text.split_once('%').unwrap_or((text, ""));
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V6(address) if !link.is_empty() => {
            let scope = link.parse().ok().or_else(|| nix::net::if_::if_nametoindex(link).ok())?;
            Some(SocketAddrV6::new(address, PORT, 0, scope).into())
        }
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => None,
        address => Some(SocketAddr::new(address, PORT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_stand_in_their_order_and_the_rest_is_passed_over() {
        let text = "# by hand\nsearch example\nnameserver 127.0.0.53\n nameserver fe80::1%7\nnameserver nonsense\n;nameserver 192.0.2.9\nnameserver 192.0.2.1 # near\nnameserver 192.0.2.2\n";
        let expected: Vec<SocketAddr> = vec![
            "127.0.0.53:53".parse().unwrap(),
            SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 7).into(),
            "192.0.2.1:53".parse().unwrap(),
        ];
        assert_eq!(servers(text), expected);
    }

    #[test]
    fn a_file_that_changes_or_is_replaced_is_read_again() {
        let path = std::env::temp_dir().join(format!("sluice-servers-{}", std::process::id()));
        let mut servers = HostServers::of(&path);
        assert!(servers.current().is_empty(), "there is no file");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(servers.current(), ["192.0.2.1:53".parse().unwrap()]);
        let other = path.with_extension("new");
        fs::write(&other, "nameserver 192.0.2.2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(servers.current(), ["192.0.2.2:53".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        assert!(servers.current().is_empty());
    }
}
