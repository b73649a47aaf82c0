//! `/etc/resolv.conf` of a container: the host's without what only works on the host, or what the user says; on a network with names our resolver, which
//! asks the servers that would else stand there.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use sluice_model::{Container, ResolverWish};

use crate::Config;

/// What containers get when the host has no server that they could reach.
const DEFAULT_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The host's file.
pub(crate) const HOST: &str = "/etc/resolv.conf";
/// Where our resolver answers, and where by IPv6 alone.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
pub(crate) const RESOLVER6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0x11);

/// What a user or the daemon's options say; empty lists say nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wish {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Wish {
    /// The container's, and the daemon's where it has none.
    pub fn of(config: &Config, container: &Container) -> Self {
        let host = &container.host_config;
        let own = Self {
            servers: host.dns.clone(),
            search: host.dns_search.clone(),
            options: host.dns_options.clone(),
        };
        own.or(Self {
            servers: config.dns.clone(),
            search: config.dns_search.clone(),
            options: config.dns_options.clone(),
        })
    }

    /// What of it is the resolver's to know.
    pub fn of_resolver(&self, host: &str) -> ResolverWish {
        let options = match self.options.is_empty() {
            true => read(host).options,
            false => self.options.clone(),
        };
        let ndots = options.iter().find_map(|option| option.strip_prefix("ndots:"));
        ResolverWish {
            servers: self.servers.clone(),
            keeps_single_labels: ndots.is_some_and(|dots| dots.parse::<u32>().is_ok_and(|dots| dots > 0)),
        }
    }

    /// Each list of this one, or of the other where this one is empty.
    pub fn or(self, other: Self) -> Self {
        let first = |one: Vec<String>, other: Vec<String>| if one.is_empty() { other } else { one };
        Self {
            servers: if self.servers.is_empty() {
                other.servers
            } else {
                self.servers
            },
            search: first(self.search, other.search),
            options: first(self.options, other.options),
        }
    }
}

/// The text on a network with names: our resolver is asked, at once and for every name.
pub(crate) fn named_text(host: &str, wish: &Wish, resolver: IpAddr) -> String {
    let theirs = read(host);
    let wished = |wish: &Vec<String>, theirs| if wish.is_empty() { theirs } else { wish.clone() };
    let (search, mut options) = (
        wished(&wish.search, theirs.search),
        wished(&wish.options, theirs.options),
    );
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    lines(&[resolver.to_string()], &search, &options)
}

/// Does the text name our resolver?
pub(crate) fn names_resolver(text: &str) -> bool {
    let ours = [RESOLVER.to_string(), RESOLVER6.to_string()];
    read(text).servers.iter().any(|server| ours.contains(server))
}

/// The text elsewhere, made of the host's and a wish.
pub(crate) fn text(host: &str, wish: &Wish) -> String {
    let theirs = read(host);
    let servers: Vec<String> = if wish.servers.is_empty() {
        // a server on the host's loopback is out of reach, and there is no IPv6 to reach the others by
        let reachable: Vec<String> = theirs
            .servers
            .into_iter()
            .filter(|server| {
                server
                    .parse::<IpAddr>()
                    .is_ok_and(|address| address.is_ipv4() && !address.is_loopback())
            })
            .collect();
        if reachable.is_empty() {
            DEFAULT_SERVERS.map(str::to_owned).into()
        } else {
            reachable
        }
    } else {
        wish.servers.iter().map(IpAddr::to_string).collect()
    };
    let search = if wish.search.is_empty() {
        theirs.search
    } else {
        wish.search.clone()
    };
    let options = if wish.options.is_empty() {
        theirs.options
    } else {
        wish.options.clone()
    };
    lines(&servers, &search, &options)
}

fn lines(servers: &[String], search: &[String], options: &[String]) -> String {
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    // a single dot is Docker's word for: none
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

/// The host's file. Where it only names systemd's stub on the loopback, the file with the real servers stands elsewhere.
pub(crate) fn of_host() -> String {
    let text = std::fs::read_to_string(HOST).unwrap_or_default();
    let real = Path::new("/run/systemd/resolve/resolv.conf");
    if read(&text).servers == ["127.0.0.53"] {
        std::fs::read_to_string(real).unwrap_or(text)
    } else {
        text
    }
}

#[derive(Default)]
struct Read {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

fn read(text: &str) -> Read {
    let mut found = Read::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => found.servers.extend(words.next()),
            // the last of these counts
            Some("search" | "domain") => found.search = words.collect(),
            Some("options") => found.options.extend(words),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_servers_are_taken_over_but_for_those_on_its_loopback() {
        let host = "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1 # near\nnameserver ::1\nsearch a.example b.example\noptions ndots:2 edns0\n";
        let expected = "nameserver 192.0.2.1\nsearch a.example b.example\noptions ndots:2 edns0\n";
        assert_eq!(text(host, &Wish::default()), expected);
    }

    #[test]
    fn with_no_server_left_the_defaults_stand_in() {
        for host in [
            "",
            "nameserver 127.0.0.1\n",
            "nameserver ::1\n",
            "nameserver fe80::1%eth0\n",
        ] {
            assert_eq!(
                text(host, &Wish::default()),
                "nameserver 8.8.8.8\nnameserver 8.8.4.4\n",
                "{host:?}"
            );
        }
    }

    #[test]
    fn each_part_can_be_overridden() {
        let host = "nameserver 192.0.2.1\nsearch a.example\noptions ndots:2\n";
        let wish = Wish {
            servers: vec!["127.0.0.1".parse().unwrap()],
            search: vec![".".into()],
            options: vec![],
        };
        assert_eq!(text(host, &wish), "nameserver 127.0.0.1\noptions ndots:2\n");
    }

    #[test]
    fn on_a_network_with_names_our_resolver_stands_for_all_servers() {
        let host = "nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch a.example\noptions edns0\n";
        let ours = |wish: &Wish| named_text(host, wish, RESOLVER.into());
        assert_eq!(
            ours(&Wish::default()),
            "nameserver 127.0.0.11\nsearch a.example\noptions edns0 ndots:0\n"
        );
        let wish = Wish {
            servers: vec!["192.0.2.9".parse().unwrap()],
            search: vec![".".into()],
            options: vec!["ndots:2".into()],
        };
        assert_eq!(ours(&wish), "nameserver 127.0.0.11\noptions ndots:2\n");
        assert!(names_resolver(&ours(&wish)) && !names_resolver(host));
        let resolver = wish.of_resolver(host);
        assert_eq!((resolver.servers, resolver.keeps_single_labels), (wish.servers, true));
        assert!(!Wish::default().of_resolver("options ndots:0\n").keeps_single_labels);
        assert!(Wish::default().of_resolver("options ndots:1\n").keeps_single_labels);
    }

    #[test]
    fn the_resolver_is_where_the_datapath_turns_questions_from() {
        use sluice_agent::resolver_addresses;
        assert_eq!(resolver_addresses(), [IpAddr::from(RESOLVER), IpAddr::from(RESOLVER6)]);
    }

    #[test]
    fn a_containers_word_goes_before_the_daemons() {
        let own = Wish {
            servers: vec!["192.0.2.9".parse().unwrap()],
            ..Default::default()
        };
        let daemon = Wish {
            servers: vec!["192.0.2.1".parse().unwrap()],
            search: vec!["d".into()],
            ..Default::default()
        };
        let both = own.clone().or(daemon);
        assert_eq!((both.servers, both.search), (own.servers, vec!["d".to_owned()]));
    }
}
