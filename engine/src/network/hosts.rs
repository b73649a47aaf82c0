//! `/etc/hosts` of a container.

use std::{fmt::Write as _, net::IpAddr};

/// What every container reads there.
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The text: loopback (or the host's own file, in the host's network), what the user adds, then the container's own address and name.
pub(crate) fn text(
    base: Option<&str>,
    extra: &[String],
    gateway: Option<IpAddr>,
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
        let lines = text(None, &[], None, &own, "web", None);
        assert!(lines.starts_with("127.0.0.1\tlocalhost\n") && lines.ends_with("\n172.17.0.2\tweb\n"));
        assert!(text(None, &[], None, &own, "web", Some("example")).ends_with("172.17.0.2\tweb.example web\n"));
        assert!(text(None, &[], None, &own, "web.example", None).ends_with("172.17.0.2\tweb.example web\n"));
    }

    #[test]
    fn added_hosts_may_be_the_gateway_and_ipv6() {
        let extra = ["db:10.0.0.1".to_owned(), "v6:[::2]".into(), "up:host-gateway".into()];
        let lines = text(None, &extra, Some(address("172.17.0.1")), &[], "web", None);
        assert!(lines.ends_with("10.0.0.1\tdb\n::2\tv6\n172.17.0.1\tup\n"));
    }
}
