//! The paths that are measured, and what must be reached on them.

use std::fmt;

use super::figure::Figure;

/// From where to where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Path {
    /// Between two containers of a host, at the container's address.
    Containers,
    /// From another machine to a published port, at the host's address.
    Published,
    /// From the host to a published port, at 127.0.0.1.
    Local,
    /// From a container to another machine, masqueraded.
    Outward,
}

impl Path {
    /// All, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Containers, Self::Published, Self::Local, Self::Outward];

    /// As on the command line and in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::Containers => "container-to-container",
            Self::Published => "lan-to-published",
            Self::Local => "host-to-published",
            Self::Outward => "container-to-lan",
        }
    }

    /// What is measured on it.
    pub fn figures(self) -> &'static [Figure] {
        match self {
            Self::Containers => &Figure::ALL,
            _ => &[Figure::Stream, Figure::RoundTrip, Figure::Connections],
        }
    }

    /// The ratio to a bare veth pair that Sluice is to reach.
    pub fn target(self, figure: Figure) -> Option<f64> {
        let [stream, round_trip, connections] = match self {
            Self::Containers => [0.95, 1.05, 0.90],
            Self::Published | Self::Outward => [0.93, 1.10, 0.85],
            Self::Local => [0.95, 1.05, 0.95],
        };
        match figure {
            Figure::Stream => Some(stream),
            Figure::RoundTrip => Some(round_trip),
            Figure::Connections => Some(connections),
            Figure::Datagrams => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Containers => "container → container",
            Self::Published => "LAN → published port",
            Self::Local => "host → 127.0.0.1:published",
            Self::Outward => "container → LAN, masqueraded",
        })
    }
}
