//! Ports: what a client asks to publish, and what it is shown.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_model::{PortBinding, PortSpec, PublishedPort};

use crate::error::{Answer, ApiError};

/// `{"HostIp": "127.0.0.1", "HostPort": "8080"}`; the port may be empty (any), or a range.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Binding {
    host_ip: String,
    host_port: String,
}

/// `80/tcp` to its bindings.
pub(crate) type Bindings = BTreeMap<String, Vec<Binding>>;

/// What is to be published. Consecutive ports are one binding.
pub(crate) fn bindings(given: &Bindings) -> Answer<Vec<PortBinding>> {
    let mut bindings = Vec::new();
    for (port, places) in given {
        let container = spec(port)?;
        for place in places {
            bindings.push(PortBinding {
                container,
                host_address: host_address(&place.host_ip)?,
                host_ports: host_ports(&place.host_port)?,
                count: 1,
            });
        }
    }
    // they come in the order of their names
    bindings.sort_by_key(|binding| binding.container);
    Ok(PortBinding::ranges(bindings))
}

/// `80/tcp`, or `80`.
pub(crate) fn spec(text: &str) -> Answer<PortSpec> {
    text.parse()
        .map_err(|_| ApiError::invalid(format!("invalid port specification: {text:?}")))
}

fn host_address(text: &str) -> Answer<Option<std::net::IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .map(Some)
        .map_err(|_| ApiError::invalid(format!("invalid IP address in port binding: {text:?}")))
}

fn host_ports(text: &str) -> Answer<(u16, u16)> {
    let invalid = || ApiError::invalid(format!("invalid port specification: {text:?}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    if text.is_empty() || text == "0" {
        return Ok((0, 0));
    }
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(invalid);
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(invalid());
    }
    Ok((first, last))
}

/// `HostConfig.PortBindings`, as it was asked for.
pub(crate) fn bindings_document(bindings: &[PortBinding]) -> Value {
    let mut document = Map::new();
    for binding in bindings.iter().flat_map(PortBinding::singles) {
        let host_port = match binding.host_ports {
            (0, 0) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host_address = binding
            .host_address
            .map_or_else(String::new, |address| address.to_string());
        push(
            &mut document,
            binding.container,
            json!({ "HostIp": host_address, "HostPort": host_port }),
        );
    }
    Value::Object(document)
}

/// `NetworkSettings.Ports`: what is published now, and null for what is only exposed.
pub(crate) fn published_document(exposed: &[PortSpec], published: &[PublishedPort]) -> Value {
    let mut document: Map<String, Value> = exposed.iter().map(|port| (port.to_string(), Value::Null)).collect();
    for port in published {
        let place = json!({ "HostIp": port.host_address.to_string(), "HostPort": port.host_port.to_string() });
        push(&mut document, port.container, place);
    }
    Value::Object(document)
}

/// `Ports` in `ps`.
pub(crate) fn summary_document(exposed: &[PortSpec], published: &[PublishedPort]) -> Value {
    let bound: HashSet<PortSpec> = published.iter().map(|published| published.container).collect();
    let only_exposed = exposed.iter().filter(|port| !bound.contains(port));
    let exposed = only_exposed.map(|port| json!({ "PrivatePort": port.port, "Type": port.protocol.as_str() }));
    let published = published.iter().map(|port| {
        json!({
            "IP": port.host_address.to_string(),
            "PrivatePort": port.container.port,
            "PublicPort": port.host_port,
            "Type": port.container.protocol.as_str(),
        })
    });
    exposed.chain(published).collect()
}

fn push(document: &mut Map<String, Value>, port: PortSpec, place: Value) {
    match document.entry(port.to_string()).or_insert(Value::Null) {
        Value::Array(places) => places.push(place),
        nothing => *nothing = Value::Array(vec![place]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Vec<PortBinding>, String> {
        bindings(&serde_json::from_str(json).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn bindings_are_read_with_address_range_and_nothing() {
        let bindings = parsed(
            r#"{"80/tcp":[{"HostIp":"","HostPort":"8080"},{"HostIp":"127.0.0.1","HostPort":""}],"53/udp":[{"HostPort":"5000-5010"}],"9/tcp":[]}"#,
        )
        .unwrap();
        let told: Vec<_> = bindings
            .iter()
            .map(|b| (b.container.to_string(), b.host_address, b.host_ports))
            .collect();
        assert_eq!(
            told,
            [
                ("53/udp".to_owned(), None, (5000, 5010)),
                ("80/tcp".to_owned(), None, (8080, 8080)),
                ("80/tcp".to_owned(), Some("127.0.0.1".parse().unwrap()), (0, 0)),
            ]
        );
    }

    #[test]
    fn consecutive_ports_are_one_binding_and_shown_as_they_were_asked_for() {
        let asked: Map<String, Value> = (1..=2_000)
            .map(|port: u32| {
                (
                    format!("{port}/tcp"),
                    json!([{ "HostIp": "", "HostPort": (20_000 + port).to_string() }]),
                )
            })
            .collect();
        let bindings = parsed(&Value::Object(asked.clone()).to_string()).unwrap();
        let told: Vec<_> = bindings
            .iter()
            .map(|binding| (binding.host_ports, binding.count))
            .collect();
        assert_eq!(told, [((20_001, 20_001), 2_000)]);
        assert_eq!(bindings_document(&bindings), Value::Object(asked));
    }

    #[test]
    fn what_is_no_port_is_refused_in_dockers_words() {
        for (json, message) in [
            (r#"{"http/tcp":[]}"#, "invalid port specification: \"http/tcp\""),
            (r#"{"0/tcp":[]}"#, "invalid port specification: \"0/tcp\""),
            (r#"{"80/icmp":[]}"#, "invalid port specification: \"80/icmp\""),
            (
                r#"{"80/tcp":[{"HostPort":"70000"}]}"#,
                "invalid port specification: \"70000\"",
            ),
            (
                r#"{"80/tcp":[{"HostPort":"90-80"}]}"#,
                "invalid port specification: \"90-80\"",
            ),
            (
                r#"{"80/tcp":[{"HostIp":"300.1.1.1"}]}"#,
                "invalid IP address in port binding: \"300.1.1.1\"",
            ),
        ] {
            assert_eq!(parsed(json).unwrap_err(), message, "{json}");
        }
    }

    #[test]
    fn exposed_ports_are_null_until_they_are_published() {
        let exposed = ["80/tcp".parse().unwrap(), "443/tcp".parse().unwrap()];
        let address = "0.0.0.0".parse().unwrap();
        let published = [PublishedPort {
            container: exposed[0],
            host_address: address,
            host_port: 8080,
            count: 1,
        }];
        assert_eq!(
            published_document(&exposed, &published),
            json!({"443/tcp": null, "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]})
        );
        assert_eq!(
            summary_document(&exposed, &published),
            json!([
                {"PrivatePort": 443, "Type": "tcp"},
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}
            ])
        );
    }
}
