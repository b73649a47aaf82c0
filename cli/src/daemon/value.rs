//! Values of options, read the same from flags and file, and refused with a sentence that says what is wanted.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Deserializer, de::Error as _};
use sluice_engine::AddressPool;
use sluice_model::network::{HostAccess, UnknownHostAccess};
use tracing::level_filters::LevelFilter;

/// `--bip`: the default network's gateway and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Bip(pub(crate) Ipv4Net);

/// `--host`: where clients come in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Host {
    /// `unix:///path`
    Unix(PathBuf),
    /// `tcp://address:port`
    Tcp(SocketAddr),
}

/// `--log-level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct LogLevel(pub(crate) LevelFilter);

/// `--instance`: part of names of devices and directories.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Instance(pub(crate) String);

/// `--default-address-pool`: `base=10.10.0.0/16,size=24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pool(pub(crate) AddressPool);

/// A flag that is on when it is only named: `--icc`, `--icc=false`.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false is wanted".to_owned()),
    }
}

/// `--host-access`.
pub(crate) fn host_access(text: &str) -> Result<HostAccess, String> {
    text.parse().map_err(|error: UnknownHostAccess| error.to_string())
}

/// `--publish-from`: a prefix, or an address alone.
pub(crate) fn source(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| net.trunc())
        .map_err(|_| "a prefix is wanted, as in 192.0.2.0/24, or an address".to_owned())
}

/// The same in the file.
pub(crate) fn sources<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let read =
        |text: &String| source(text).map_err(|why| D::Error::custom(format!("invalid publish-from {text:?}: {why}")));
    texts.iter().map(read).collect()
}

// === impl Bip ===

impl FromStr for Bip {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "the gateway's IPv4 address and the length of its prefix are wanted, as in 172.17.0.1/16";
        if !text.contains('/') {
            return Err(wanted.to_owned());
        }
        let net: Ipv4Net = text.parse().map_err(|_| wanted.to_owned())?;
        if !(8..=30).contains(&net.prefix_len()) {
            return Err(format!(
                "a prefix of {} bits leaves no sensible room for containers; {wanted}",
                net.prefix_len()
            ));
        }
        if net.addr() == net.network() || net.addr() == net.broadcast() {
            return Err(format!(
                "{} is the first or the last address of {}, no host can bear it; {wanted}",
                net.addr(),
                net.trunc()
            ));
        }
        Ok(Self(net))
    }
}

// === impl Pool ===

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "a range and the prefix length of its subnets are wanted, as in base=10.10.0.0/16,size=24";
        let (mut base, mut size) = (None, None);
        for part in text.split(',') {
            match part.trim().split_once('=') {
                Some(("base", value)) => base = value.parse::<IpNet>().ok(),
                Some(("size", value)) => size = value.parse::<u8>().ok(),
                _ => return Err(wanted.to_owned()),
            }
        }
        let (base, size) = base.zip(size).ok_or(wanted)?;
        let most = if base.addr().is_ipv4() { 30 } else { 126 };
        if size < base.prefix_len() || size > most {
            return Err(format!("subnets of {size} bits cannot be cut from {base}; {wanted}"));
        }
        Ok(Self(AddressPool {
            base: base.trunc(),
            size,
        }))
    }
}

// === impl Host ===

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path))
            } else {
                Err("an absolute path is wanted, as in unix:///run/sluice/sluice.sock".to_owned())
            };
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            let named = address.replacen("localhost", "127.0.0.1", 1);
            let named = if named.starts_with(':') {
                format!("127.0.0.1{named}")
            } else {
                named
            };
            return named
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "an address and a port are wanted, as in tcp://127.0.0.1:2375".to_owned());
        }
        Err("unix:///path or tcp://address:port is wanted".to_owned())
    }
}

// === impl LogLevel ===

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = match text {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" | "warning" => LevelFilter::WARN,
            "error" | "fatal" => LevelFilter::ERROR,
            _ => return Err("one of debug, info, warn, error is wanted".to_owned()),
        };
        Ok(Self(level))
    }
}

// === impl Instance ===

impl FromStr for Instance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > 32 || !text.chars().all(fits) || text.starts_with('-') {
            return Err("up to 32 lower-case letters, digits and hyphens are wanted".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A server of names.
pub(crate) fn server(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "an IP address is wanted".to_owned())
}

macro_rules! from_file {
    ($($value:ty),+) => {
        $(impl TryFrom<String> for $value {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse().map_err(|why| format!("invalid value '{text}': {why}"))
            }
        })+
    };
}
from_file!(Bip, Host, LogLevel, Instance, Pool);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bip_is_an_address_a_host_can_bear() {
        assert_eq!("172.17.0.1/16".parse::<Bip>().unwrap().0.to_string(), "172.17.0.1/16");
        for (given, why) in [
            ("172.17.0.1", "the gateway's IPv4 address"),
            ("172.17.0.1/33", "the gateway's IPv4 address"),
            ("fd00::1/64", "the gateway's IPv4 address"),
            (
                "172.17.0.0/16",
                "172.17.0.0 is the first or the last address of 172.17.0.0/16",
            ),
            ("172.17.255.255/16", "is the first or the last address"),
            ("172.17.0.1/31", "a prefix of 31 bits"),
        ] {
            let error = given.parse::<Bip>().unwrap_err();
            assert!(
                error.contains(why) && error.contains("as in 172.17.0.1/16"),
                "{given}: {error}"
            );
        }
    }

    #[test]
    fn a_pool_is_a_range_and_a_size() {
        let pool: Pool = "base=10.10.0.0/16,size=24".parse().unwrap();
        assert_eq!((pool.0.base.to_string(), pool.0.size), ("10.10.0.0/16".into(), 24));
        assert!("size=64,base=fd00::/48".parse::<Pool>().is_ok());
        for given in [
            "10.10.0.0/16",
            "base=10.10.0.0/16",
            "base=10.10.0.0/16,size=8",
            "base=10.0.0.0/8,size=31",
            "base=x,size=24",
            "",
        ] {
            assert!(given.parse::<Pool>().is_err(), "{given}");
        }
    }

    #[test]
    fn hosts_are_paths_or_addresses() {
        assert_eq!("unix:///x/y".parse(), Ok(Host::Unix("/x/y".into())));
        assert_eq!(
            "tcp://localhost:2375".parse(),
            Ok(Host::Tcp("127.0.0.1:2375".parse().unwrap()))
        );
        assert_eq!("tcp://[::1]:2375".parse(), Ok(Host::Tcp("[::1]:2375".parse().unwrap())));
        for given in ["unix://x", "tcp://1.2.3.4", "http://x", "/x"] {
            assert!(given.parse::<Host>().unwrap_err().contains("wanted"), "{given}");
        }
    }

    #[test]
    fn an_instance_fits_into_names_of_devices() {
        assert!("blue-2".parse::<Instance>().is_ok());
        for given in ["", "Blue", "a/b", "-x", &"x".repeat(33)] {
            assert!(given.parse::<Instance>().is_err(), "{given}");
        }
    }
}
