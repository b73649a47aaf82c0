//! Published ports: which are taken, which are free, and whether another program of the host has one.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use nix::errno::Errno;
use rand::RngExt;
use sluice_model::{Id, PortBinding, Protocol, PublishedPort};

use crate::EngineError;

pub(crate) use trial::{Trial, ephemeral_range, trial};
pub(crate) use wish::{Binding, wishes};

mod trial;
mod wish;

/// Ports taken by the containers of this host.
#[derive(Default)]
pub(crate) struct Ports {
    /// By protocol and address. There are few, and no port is taken twice at one.
    taken: HashMap<(Protocol, IpAddr), Bits>,
    of_endpoints: HashMap<Id, Vec<PublishedPort>>,
}

/// A bit for each port.
struct Bits(Box<[u64; 1024]>);

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
            match self.take_one(wish, &wish::addresses(wish, binding), ephemeral, trial) {
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

    /// One port at all these addresses, or as many in a row as the wish has.
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
                count: wish.count,
            };
            addresses.iter().map(at).collect()
        };
        let (first, last) = match wish.host_ports {
            (0, 0) => ephemeral,
            range => range,
        };
        if wish.count > 1 {
            for port in first..=first.saturating_add(wish.count - 1) {
                self.is_free(protocol, addresses, port, trial)
                    .map_err(|refusal| refusal.told(protocol, port))?;
            }
            return Ok(published(first));
        }
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
                Err(refusal) if !wanted && refusal.is_somebodys() => {}
                Err(refusal) => return Err(refusal.told(protocol, port)),
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

/// A port that cannot be had at an address: the kernel says why, or it is another container's.
struct Refusal {
    address: IpAddr,
    why: Option<Errno>,
}

// === impl Refusal ===

impl Refusal {
    /// Somebody has it, and another may be free?
    fn is_somebodys(&self) -> bool {
        matches!(self.why, None | Some(Errno::EADDRINUSE | Errno::EACCES))
    }

    /// In Docker's words.
    fn told(self, protocol: Protocol, port: u16) -> EngineError {
        let place = SocketAddr::new(self.address, port);
        let why = match self.why {
            None => {
                return EngineError::conflict(format!("Bind for {place} failed: port is already allocated"));
            }
            Some(Errno::EADDRINUSE) => "address already in use".to_owned(),
            Some(Errno::EADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
            Some(other) => other.desc().to_lowercase(),
        };
        EngineError::failed(format!("failed to bind host port for {place}/{protocol}: {why}"))
    }
}

#[cfg(test)]
mod tests;
