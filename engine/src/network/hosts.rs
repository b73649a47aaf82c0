//! `/etc/hosts` of a container.

use std::{fmt::Write as _, net::IpAddr};

/// What every container reads there.
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// A line about another container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub address: IpAddr,
    /// Its names, separated by spaces.
    pub names: String,
}

/// The text with those addresses of a container that has got others: its lines are known by the name that comes first. Everything else stays,
/// also what has been written there since.
pub(crate) fn follow(text: &str, lines: &[Line]) -> String {
    let mut after = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let told = line.split_once('\t').and_then(|(address, names)| {
            let was: IpAddr = address.parse().ok()?;
            let first = names.split_whitespace().next()?;
            let now = lines
                .iter()
                .find(|line| line.address.is_ipv4() == was.is_ipv4() && line.names.split(' ').next() == Some(first))?;
            Some(format!("{}\t{names}", now.address))
        });
        after.push_str(told.as_deref().unwrap_or(line));
    }
    after
}

/// The text: loopback (or the host's own file, in the host's network), what the user adds, those it is linked to, then the container's own address and name.
pub(crate) fn text(
    base: Option<&str>,
    extra: &[String],
    gateway: Option<IpAddr>,
    linked: &[Line],
    own: &[IpAddr],
    host_name: &str,
    domain: Option<&str>,
) -> String {
    let mut text = base.unwrap_or(LOOPBACK).to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in extra {
        let Some((name, address)) = entry.split_once([':', '=']) else {
            continue;
        };
        let address = match (address, gateway) {
            ("host-gateway", Some(gateway)) => gateway.to_string(),
            ("host-gateway", None) => "127.0.0.1".to_owned(),
            (address, _) => address.trim_start_matches('[').trim_end_matches(']').to_owned(),
        };
        let _ = writeln!(text, "{address}\t{name}");
    }
    for Line { address, names } in linked {
        let _ = writeln!(text, "{address}\t{names}");
    }
    let names = match domain.filter(|domain| !domain.is_empty()) {
        Some(domain) => format!("{host_name}.{domain} {host_name}"),
        None => match host_name.split_once('.') {
            Some((short, _)) => format!("{host_name} {short}"),
            None => host_name.to_owned(),
        },
    };
    for address in own {
        let _ = writeln!(text, "{address}\t{names}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_own_address_has_the_host_name_and_the_domain() {
        let own = [address("172.17.0.2")];
        let lines = text(None, &[], None, &[], &own, "web", None);
        assert!(lines.starts_with("127.0.0.1\tlocalhost\n") && lines.ends_with("\n172.17.0.2\tweb\n"));
        assert!(text(None, &[], None, &[], &own, "web", Some("example")).ends_with("172.17.0.2\tweb.example web\n"));
        assert!(text(None, &[], None, &[], &own, "web.example", None).ends_with("172.17.0.2\tweb.example web\n"));
    }

    #[test]
    fn added_hosts_may_be_the_gateway_and_ipv6() {
        let extra = ["db:10.0.0.1".to_owned(), "v6:[::2]".into(), "up:host-gateway".into()];
        let lines = text(None, &extra, Some(address("172.17.0.1")), &[], &[], "web", None);
        assert!(lines.ends_with("10.0.0.1\tdb\n::2\tv6\n172.17.0.1\tup\n"));
    }

    #[test]
    fn a_linked_container_stands_before_the_own_address_and_is_followed_to_its_next_address() {
        let line = |of: &str| Line {
            address: address(of),
            names: "cache abababababab redis".into(),
        };
        let own = [address("172.17.0.3")];
        let before = text(
            None,
            &[],
            None,
            &[line("172.17.0.2"), line("fd00::2")],
            &own,
            "web",
            None,
        );
        assert!(
            before.ends_with(
                "\n172.17.0.2\tcache abababababab redis\nfd00::2\tcache abababababab redis\n172.17.0.3\tweb\n"
            )
        );
        let before = before + "10.0.0.1 mine\n";
        let after = follow(&before, &[line("172.17.0.9"), line("fd00::9")]);
        let expected = before
            .replace("172.17.0.2\t", "172.17.0.9\t")
            .replace("fd00::2\t", "fd00::9\t");
        assert_eq!(after, expected);
        assert_eq!(follow(&before, &[]), before);
    }
}
