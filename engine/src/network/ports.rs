//! Published ports: which are taken, which are free, and whether another program of the host has one.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
    },
};
use rand::RngExt;
use sluice_agent::held_ports;
use sluice_model::{Id, Network, PortBinding, PortSpec, Protocol, PublishedPort};

use crate::EngineError;

/// The range that Docker picks from when it can't be read.
const EPHEMERAL: (u16, u16) = (32_768, 60_999);

/// Ports taken by the containers of this host.
#[derive(Default)]
pub(crate) struct Ports {
    /// By protocol and address. There are few, and no port is taken twice at one.
    taken: HashMap<(Protocol, IpAddr), Bits>,
    of_endpoints: HashMap<Id, Vec<PublishedPort>>,
}

/// A bit for each port.
struct Bits(Box<[u64; 1024]>);

/// What a trial bind says of a port.
pub(crate) type Trial = dyn Fn(Protocol, IpAddr, u16) -> Result<(), Errno>;

impl Ports {
    /// Enters a port, or a range of them, that an endpoint has already.
    pub fn enter(&mut self, endpoint: &Id, port: &PublishedPort) {
        self.set(port);
        self.of_endpoints.entry(endpoint.clone()).or_default().push(*port);
    }

    /// Gives back all ports of an endpoint.
    pub fn release(&mut self, endpoint: &Id) {
        for port in self.of_endpoints.remove(endpoint).unwrap_or_default() {
            self.unset(&port);
        }
        self.taken.retain(|_, ports| !ports.is_empty());
    }

    fn set(&mut self, port: &PublishedPort) {
        let ports = self
            .taken
            .entry((port.container.protocol, port.host_address))
            .or_default();
        port.singles().for_each(|port| ports.set(port.host_port, true));
    }

    fn unset(&mut self, port: &PublishedPort) {
        if let Some(ports) = self.taken.get_mut(&(port.container.protocol, port.host_address)) {
            port.singles().for_each(|port| ports.set(port.host_port, false));
        }
    }

    /// Is the port another container's?
    fn is_taken(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let overlaps = |other: IpAddr| {
            let of_one_family = other.is_ipv4() == address.is_ipv4();
            other == address || of_one_family && (other.is_unspecified() || address.is_unspecified())
        };
        self.taken
            .iter()
            .any(|((of, other), ports)| *of == protocol && overlaps(*other) && ports.contains(port))
    }

    /// Takes all ports of a wish for an endpoint, or none. Consecutive ones are one range.
    pub fn take(
        &mut self,
        endpoint: &Id,
        wishes: &[PortBinding],
        binding: Binding,
        ephemeral: (u16, u16),
        trial: &Trial,
    ) -> Result<Vec<PublishedPort>, EngineError> {
        let mut given = Vec::with_capacity(wishes.len());
        for wish in wishes {
            match self.take_one(wish, &addresses(wish, binding), ephemeral, trial) {
                Ok(ports) => {
                    ports.iter().for_each(|port| self.set(port));
                    given.extend(ports);
                }
                Err(error) => {
                    given.iter().for_each(|port| self.unset(port));
                    self.release(endpoint);
                    return Err(error);
                }
            }
        }
        let ranges = PublishedPort::ranges(given);
        self.of_endpoints.entry(endpoint.clone()).or_default().extend(&ranges);
        Ok(ranges)
    }

    /// One port at all these addresses.
    fn take_one(
        &self,
        wish: &PortBinding,
        addresses: &[IpAddr],
        ephemeral: (u16, u16),
        trial: &Trial,
    ) -> Result<Vec<PublishedPort>, EngineError> {
        let (container, protocol) = (wish.container, wish.container.protocol);
        let published = |host_port| {
            let at = |address: &IpAddr| PublishedPort {
                container,
                host_address: *address,
                host_port,
                count: 1,
            };
            addresses.iter().map(at).collect()
        };
        let (first, last) = match wish.host_ports {
            (0, 0) => ephemeral,
            range => range,
        };
        let wanted = first == last;
        // Docker starts a search for any port at a random place, one in a range of the user's at its beginning
        let start = if wish.host_ports == (0, 0) {
            rand::rng().random_range(first..=last)
        } else {
            first
        };
        for port in (start..=last).chain(first..start) {
            match self.is_free(protocol, addresses, port, trial) {
                Ok(()) => return Ok(published(port)),
                Err(Refusal { why, .. }) if !wanted && is_somebodys(why) => {}
                Err(Refusal { address, why: None }) => {
                    return Err(EngineError::conflict(format!(
                        "Bind for {} failed: port is already allocated",
                        SocketAddr::new(address, port)
                    )));
                }
                Err(Refusal {
                    address,
                    why: Some(why),
                }) => return Err(refused(address, port, protocol, why)),
            }
        }
        Err(EngineError::conflict("all ports are allocated"))
    }

    fn is_free(&self, protocol: Protocol, addresses: &[IpAddr], port: u16, trial: &Trial) -> Result<(), Refusal> {
        for address in addresses {
            let refusal = |why| Refusal { address: *address, why };
            if self.is_taken(protocol, *address, port) {
                return Err(refusal(None));
            }
            trial(protocol, *address, port).map_err(|why| refusal(Some(why)))?;
        }
        Ok(())
    }
}

// === impl Bits ===

impl Default for Bits {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl Bits {
    fn set(&mut self, port: u16, is_set: bool) {
        let (word, bit) = (&mut self.0[usize::from(port >> 6)], 1 << (port & 63));
        *word = if is_set { *word | bit } else { *word & !bit };
    }

    fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port >> 6)] & 1 << (port & 63) != 0
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Where a container's ports are bound when its user names no address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    /// The network's address for it.
    pub address: IpAddr,
    /// Every IPv6 address, too, when that means every IPv4 address?
    pub with_ipv6: bool,
}

impl Binding {
    /// Of a network, on a host that has IPv6 or not.
    pub fn of(network: &Network) -> Self {
        Self {
            address: network.default_binding,
            with_ipv6: std::path::Path::new("/proc/net/if_inet6").exists(),
        }
    }
}

/// A port that cannot be had at an address: the kernel says why, or it is another container's.
struct Refusal {
    address: IpAddr,
    why: Option<Errno>,
}

/// Somebody has it, and another may be free?
fn is_somebodys(why: Option<Errno>) -> bool {
    matches!(why, None | Some(Errno::EADDRINUSE | Errno::EACCES))
}

/// The host's addresses that a wish means.
fn addresses(wish: &PortBinding, binding: Binding) -> Vec<IpAddr> {
    let every_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match wish.host_address {
        Some(address) => vec![address],
        None if binding.address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && binding.with_ipv6 => {
            vec![binding.address, every_ipv6]
        }
        None => vec![binding.address],
    }
}

fn refused(address: IpAddr, port: u16, protocol: Protocol, why: Errno) -> EngineError {
    let why = match why {
        Errno::EADDRINUSE => "address already in use".to_owned(),
        Errno::EADDRNOTAVAIL => "cannot assign requested address".to_owned(),
        other => other.desc().to_lowercase(),
    };
    EngineError::failed(format!(
        "failed to bind host port for {}/{protocol}: {why}",
        SocketAddr::new(address, port)
    ))
}

/// What `-P` adds: every exposed port that has no binding of its own, at any port of the host.
pub(crate) fn wishes(bindings: &[PortBinding], exposed: &[PortSpec], publish_all: bool) -> Vec<PortBinding> {
    let mut all = bindings.to_vec();
    if publish_all {
        let bound: HashSet<PortSpec> = bindings.iter().map(|binding| binding.container).collect();
        for port in exposed {
            if !bound.contains(port) {
                all.push(PortBinding {
                    container: *port,
                    host_address: None,
                    host_ports: (0, 0),
                    count: 1,
                });
            }
        }
    }
    // what can be only one port goes first, so that a search does not take it away
    all.sort_by_key(|wish| wish.host_ports.0 != wish.host_ports.1 || wish.host_ports.0 == 0);
    all
}

/// Binds the port for a moment: TCP with SO_REUSEADDR and without listening, so that connections in TIME_WAIT don't count and no client is
/// accepted by nobody; UDP without, so that every other socket counts. A kernel without SCTP has nobody who could hold a port of it.
pub(crate) fn try_bind(protocol: Protocol, address: IpAddr, port: u16) -> Result<(), Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, which) = match protocol {
        Protocol::Tcp => (SockType::Stream, None),
        Protocol::Udp => (SockType::Datagram, None),
        Protocol::Sctp => (SockType::Stream, Some(SockProtocol::Sctp)),
    };
    let probe = match socket(family, kind, SockFlag::SOCK_CLOEXEC, which) {
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if protocol == Protocol::Sctp => return Ok(()),
        probe => probe?,
    };
    if protocol == Protocol::Tcp {
        setsockopt(&probe, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        // or it would ask for IPv4's port too
        setsockopt(&probe, sockopt::Ipv6V6Only, &true)?;
    }
    match address {
        IpAddr::V4(address) => bind(probe.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(address, port))),
        IpAddr::V6(address) => bind(
            probe.as_raw_fd(),
            &SockaddrIn6::from(SocketAddrV6::new(address, port, 0, 0)),
        ),
    }
}

/// Tries ports of so many wishes: a few by binding each. Of many only those that some socket of the host may have, at whatever address, and the
/// first at each address: a bind costs some 20 µs, and ten thousand would cost their user a noticeable time.
pub(crate) fn trial(wishes: usize) -> Box<Trial> {
    const FEW: usize = 32;
    if wishes <= FEW {
        return Box::new(try_bind);
    }
    let held = match held_ports() {
        Ok(held) => held,
        Err(error) => {
            tracing::warn!(%error, "cannot list the sockets of the host; each port is tried by itself");
            return Box::new(try_bind);
        }
    };
    let tried = Mutex::new(HashSet::new());
    Box::new(move |protocol, address, port| {
        let first_there = tried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((protocol, address));
        if first_there || held.may_hold(protocol.number(), port) {
            return try_bind(protocol, address, port);
        }
        Ok(())
    })
}

/// The kernel's range of ephemeral ports.
pub(crate) fn ephemeral_range() -> (u16, u16) {
    let read = || {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u16>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    read()
        .filter(|(first, last)| *first > 0 && first < last)
        .unwrap_or(EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const ANY: Binding = Binding {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        with_ipv6: false,
    };

    fn wish(container: &str, address: Option<&str>, host_ports: (u16, u16)) -> PortBinding {
        PortBinding {
            container: container.parse().unwrap(),
            host_address: address.map(|address| address.parse().unwrap()),
            host_ports,
            count: 1,
        }
    }

    fn id(byte: u8) -> Id {
        Id::from_bytes([byte; 32])
    }

    fn free(_: Protocol, _: IpAddr, _: u16) -> Result<(), Errno> {
        Ok(())
    }

    fn take(ports: &mut Ports, by: u8, wishes: &[PortBinding]) -> Result<Vec<u16>, EngineError> {
        let given = ports.take(&id(by), wishes, ANY, (40_000, 40_003), &free)?;
        Ok(given.iter().map(|port| port.host_port).collect())
    }

    #[test]
    fn a_port_is_given_once_for_overlapping_addresses() {
        let mut ports = Ports::default();
        assert_eq!(
            take(&mut ports, 1, &[wish("80/tcp", None, (8080, 8080))]).unwrap(),
            [8080]
        );
        let error = take(&mut ports, 2, &[wish("80/tcp", Some("127.0.0.1"), (8080, 8080))]).unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert_eq!(
            error.message,
            "Bind for 127.0.0.1:8080 failed: port is already allocated"
        );
        assert!(
            take(&mut ports, 2, &[wish("80/udp", None, (8080, 8080))]).is_ok(),
            "UDP is another matter"
        );
        ports.release(&id(1));
        assert!(take(&mut ports, 3, &[wish("80/tcp", None, (8080, 8080))]).is_ok());
    }

    #[test]
    fn a_port_without_an_address_is_one_of_both_families_and_one_with_an_address_is_not() {
        let mut ports = Ports::default();
        let both = Binding { with_ipv6: true, ..ANY };
        let mut at = |by, address, port| {
            let wish = [wish("80/tcp", address, (port, port))];
            let given = ports.take(&id(by), &wish, both, (40_000, 40_003), &free)?;
            Ok::<_, EngineError>(
                given
                    .iter()
                    .map(|port| port.host_address.to_string())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(at(1, None, 8080).unwrap(), ["0.0.0.0", "::"]);
        assert_eq!(at(2, Some("0.0.0.0"), 8081).unwrap(), ["0.0.0.0"]);
        assert_eq!(
            at(3, Some("::"), 8081).unwrap(),
            ["::"],
            "the other family is another matter"
        );
        assert_eq!(
            at(4, Some("::1"), 8080).unwrap_err().message,
            "Bind for [::1]:8080 failed: port is already allocated"
        );
    }

    #[test]
    fn a_port_that_one_family_has_given_away_is_passed_over_in_a_search() {
        let mut ports = Ports::default();
        let both = Binding { with_ipv6: true, ..ANY };
        ports
            .take(&id(1), &[wish("80/tcp", Some("::"), (7000, 7000))], both, (1, 2), &free)
            .unwrap();
        let given = ports
            .take(&id(2), &[wish("80/tcp", None, (7000, 7001))], both, (1, 2), &free)
            .unwrap();
        assert_eq!(
            given.iter().map(|port| port.host_port).collect::<Vec<_>>(),
            [7001, 7001]
        );
    }

    #[test]
    fn different_addresses_share_a_port_number() {
        let mut ports = Ports::default();
        assert!(take(&mut ports, 1, &[wish("80/tcp", Some("10.0.0.1"), (80, 80))]).is_ok());
        assert!(take(&mut ports, 2, &[wish("80/tcp", Some("10.0.0.2"), (80, 80))]).is_ok());
    }

    #[test]
    fn a_range_gives_the_first_free_and_any_port_is_ephemeral() {
        let mut ports = Ports::default();
        assert_eq!(
            take(&mut ports, 1, &[wish("80/tcp", None, (7000, 7001))]).unwrap(),
            [7000]
        );
        assert_eq!(
            take(&mut ports, 2, &[wish("80/tcp", None, (7000, 7001))]).unwrap(),
            [7001]
        );
        assert_eq!(
            take(&mut ports, 3, &[wish("80/tcp", None, (7000, 7001))])
                .unwrap_err()
                .message,
            "all ports are allocated"
        );
        let mut any: Vec<u16> = (4..8)
            .map(|by| take(&mut ports, by, &[wish("80/tcp", None, (0, 0))]).unwrap()[0])
            .collect();
        any.sort_unstable();
        assert_eq!(any, [40_000, 40_001, 40_002, 40_003]);
    }

    #[test]
    fn many_consecutive_ports_are_taken_as_one_range_and_given_back_as_one() {
        let mut ports = Ports::default();
        let wishes: Vec<_> = (20_000..30_000)
            .map(|port| wish(&format!("{port}/udp"), None, (port, port)))
            .collect();
        let given = ports.take(&id(1), &wishes, ANY, (0, 0), &free).unwrap();
        assert_eq!(
            given
                .iter()
                .map(|port| (port.host_port, port.count))
                .collect::<Vec<_>>(),
            [(20_000, 10_000)]
        );
        assert!(take(&mut ports, 2, &[wish("53/udp", None, (25_000, 25_000))]).is_err());
        // A daemon that starts again enters what it finds.
        let mut again = Ports::default();
        again.enter(&id(1), &given[0]);
        assert!(take(&mut again, 2, &[wish("53/udp", None, (29_999, 29_999))]).is_err());
        assert!(take(&mut again, 2, &[wish("53/udp", None, (30_000, 30_000))]).is_ok());
        again.release(&id(1));
        assert!(take(&mut again, 3, &[wish("53/udp", None, (25_000, 25_000))]).is_ok());
    }

    #[test]
    fn a_port_of_another_program_is_noticed_among_many() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let trial = trial(10_000);
        let _ = trial(Protocol::Udp, loopback, 1);
        assert_eq!(trial(Protocol::Udp, loopback, port), Err(Errno::EADDRINUSE));
        assert_eq!(trial(Protocol::Tcp, loopback, 1), try_bind(Protocol::Tcp, loopback, 1));
        let nowhere = "192.0.2.77".parse().unwrap();
        assert_eq!(trial(Protocol::Udp, nowhere, 9), Err(Errno::EADDRNOTAVAIL));
    }

    #[test]
    fn a_wish_that_fails_takes_nothing() {
        let mut ports = Ports::default();
        take(&mut ports, 1, &[wish("80/tcp", None, (81, 81))]).unwrap();
        assert!(
            take(
                &mut ports,
                2,
                &[wish("80/tcp", None, (80, 80)), wish("81/tcp", None, (81, 81))]
            )
            .is_err()
        );
        assert!(take(&mut ports, 3, &[wish("80/tcp", None, (80, 80))]).is_ok());
    }

    #[test]
    fn a_port_of_sctp_can_be_published_whether_the_kernel_has_sctp_or_not() {
        let mut ports = Ports::default();
        let wish = [wish("9000/sctp", None, (9000, 9000))];
        let taken = ports.take(&id(1), &wish, ANY, EPHEMERAL, &try_bind);
        assert!(taken.is_ok(), "{:?}", taken.err().map(|error| error.message));
        assert!(
            ports.take(&id(2), &wish, ANY, EPHEMERAL, &try_bind).is_err(),
            "it is taken now"
        );
    }

    #[test]
    fn a_port_of_another_program_is_told_from_one_of_ours() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ports = Ports::default();
        let wish = [wish("80/tcp", Some("127.0.0.1"), (port, port))];
        let error = ports.take(&id(1), &wish, ANY, EPHEMERAL, &try_bind).unwrap_err();
        assert_eq!(error.kind, Kind::Failed);
        assert_eq!(
            error.message,
            format!("failed to bind host port for 127.0.0.1:{port}/tcp: address already in use")
        );
        drop(listener);
        assert!(ports.take(&id(1), &wish, ANY, EPHEMERAL, &try_bind).is_ok());
    }

    #[test]
    fn publish_all_adds_what_is_exposed_and_not_bound() {
        let exposed = ["80/tcp".parse().unwrap(), "53/udp".parse().unwrap()];
        let all = wishes(&[wish("80/tcp", None, (8080, 8080))], &exposed, true);
        assert_eq!(all, [wish("80/tcp", None, (8080, 8080)), wish("53/udp", None, (0, 0))]);
        assert_eq!(wishes(&[], &exposed, false), []);
    }
}
