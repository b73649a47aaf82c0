//! `-p`: `[ADDRESS:][HOST PORT:]CONTAINER PORT[/PROTOCOL]`, each port maybe a range.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use bollard_stubs::models::PortBinding;

use crate::failure::Failure;

/// Ports as the API takes them: what is exposed, and where it is published.
#[derive(Debug, Default)]
pub struct Published {
    /// `80/tcp`.
    pub exposed: Vec<String>,
    /// The same, to be asked whether one is among them: there may be ten thousand.
    seen: HashSet<String>,
    /// By exposed port.
    pub bindings: HashMap<String, Option<Vec<PortBinding>>>,
}

impl Published {
    /// Reads all `-p` and `--expose`.
    pub fn parse(published: &[String], exposed: &[String]) -> Result<Self, Failure> {
        let mut all = Self::default();
        for text in published {
            all.publish(text)?;
        }
        for text in exposed {
            let (range, protocol) = protocol(text)?;
            let (first, last) =
                ports(range).ok_or_else(|| wrong(format!("invalid range format for --expose: {text}")))?;
            for port in first..=last {
                all.expose(format!("{port}/{protocol}"));
            }
        }
        Ok(all)
    }

    fn publish(&mut self, text: &str) -> Result<(), Failure> {
        let (text, protocol) = protocol(text)?;
        let (rest, container) = text.rsplit_once(':').unwrap_or(("", text));
        if container.is_empty() {
            return Err(wrong(format!("no port specified: {text}<empty>")));
        }
        let (first, last) = ports(container).ok_or_else(|| wrong(format!("invalid containerPort: {container}")))?;
        let (address, host) = rest.rsplit_once(':').unwrap_or(("", rest));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if !address.is_empty() && address.parse::<IpAddr>().is_err() {
            return Err(wrong(format!("invalid IP address: {address}")));
        }
        let host_range = match host {
            "" => None,
            host => Some(ports(host).ok_or_else(|| wrong(format!("invalid hostPort: {host}")))?),
        };
        if let Some((host_first, host_last)) = host_range {
            // one container port may take any of a range of the host
            if host_last - host_first != last - first && first != last {
                let what = "invalid ranges specified for container and host Ports";
                return Err(wrong(format!("{what}: {container} and {host}")));
            }
        }
        for port in first..=last {
            let host_port = match host_range {
                None => String::new(),
                Some((host_first, host_last)) if first == last && host_first != host_last => {
                    format!("{host_first}-{host_last}")
                }
                Some((host_first, _)) => (host_first + (port - first)).to_string(),
            };
            let name = format!("{port}/{protocol}");
            let binding = PortBinding {
                host_ip: Some(address.to_owned()),
                host_port: Some(host_port),
            };
            self.bindings
                .entry(name.clone())
                .or_default()
                .get_or_insert_default()
                .push(binding);
            self.expose(name);
        }
        Ok(())
    }

    fn expose(&mut self, port: String) {
        if self.seen.insert(port.clone()) {
            self.exposed.push(port);
        }
    }
}

fn protocol(text: &str) -> Result<(&str, String), Failure> {
    let (rest, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    match matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        true => Ok((rest, protocol)),
        false => Err(wrong(format!("invalid proto: {protocol}"))),
    }
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

fn wrong(sentence: String) -> Failure {
    Failure::Usage(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(text: &str) -> Vec<(String, String, String)> {
        let published = Published::parse(&[text.to_owned()], &[]).unwrap();
        let mut all: Vec<_> = published
            .bindings
            .into_iter()
            .flat_map(|(port, bindings)| {
                let bindings = bindings.unwrap().into_iter();
                bindings.map(move |binding| (port.clone(), binding.host_ip.unwrap(), binding.host_port.unwrap()))
            })
            .collect();
        all.sort();
        all
    }

    fn one(port: &str, address: &str, host: &str) -> Vec<(String, String, String)> {
        vec![(port.into(), address.into(), host.into())]
    }

    #[test]
    fn every_form_is_understood() {
        assert_eq!(bindings("80"), one("80/tcp", "", ""));
        assert_eq!(bindings("8080:80"), one("80/tcp", "", "8080"));
        assert_eq!(bindings("8080:80/UDP"), one("80/udp", "", "8080"));
        assert_eq!(bindings("127.0.0.1:8080:80"), one("80/tcp", "127.0.0.1", "8080"));
        assert_eq!(bindings("127.0.0.1::80"), one("80/tcp", "127.0.0.1", ""));
        assert_eq!(bindings("[::1]:8080:80"), one("80/tcp", "::1", "8080"));
        assert_eq!(bindings("8000-8010:80"), one("80/tcp", "", "8000-8010"));
        let range = bindings("7000-7001:8000-8001");
        assert_eq!(
            range,
            [one("8000/tcp", "", "7000"), one("8001/tcp", "", "7001")].concat()
        );
    }

    #[test]
    fn what_is_no_port_is_refused_in_dockers_words() {
        for (text, words) in [
            ("x", "invalid containerPort: x"),
            ("80:x", "invalid containerPort: x"),
            ("x:80", "invalid hostPort: x"),
            ("70000:80", "invalid hostPort: 70000"),
            ("80/icmp", "invalid proto: icmp"),
            ("300.0.0.1:80:80", "invalid IP address: 300.0.0.1"),
            (
                "7000-7005:80-81",
                "invalid ranges specified for container and host Ports: 80-81 and 7000-7005",
            ),
            ("8080:", "no port specified: 8080:<empty>"),
        ] {
            assert_eq!(
                Published::parse(&[text.into()], &[]).unwrap_err().to_string(),
                words,
                "{text}"
            );
        }
    }

    #[test]
    fn exposed_ports_may_be_ranges() {
        assert_eq!(
            Published::parse(&[], &["80".into(), "90-91/udp".into()])
                .unwrap()
                .exposed,
            ["80/tcp", "90/udp", "91/udp"]
        );
    }
}
