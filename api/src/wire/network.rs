//! Networks.

use serde_json::{Map, Value, json};
use sluice_model::{Endpoint, Network, network::Driver};

use crate::{
    error::Answer,
    filter::{Filters, label_agrees},
    time,
};

/// Networks that are always there.
const BUILT_IN: &[&str] = &["bridge", "host", "none"];

/// A network as `inspect` and `ls` show it. The list leaves out who is on it.
pub(crate) fn document(network: &Network, endpoints: &[Endpoint]) -> Value {
    json!({
        "Name": network.name,
        "Id": network.id.as_str(),
        "Created": time::text(network.created),
        "Scope": "local",
        "Driver": driver(network.driver),
        "EnableIPv4": network.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv4()),
        "EnableIPv6": network.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6()),
        "IPAM": { "Driver": "default", "Options": null, "Config": ranges(network) },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers(endpoints),
        "Options": options(network),
        "Labels": network.labels,
    })
}

/// Does a network agree with the filters of `ls`?
pub(crate) fn agrees(network: &Network, filters: &Filters) -> Answer<bool> {
    filters.only(&["name", "id", "driver", "scope", "type", "label", "dangling"])?;
    let built_in = BUILT_IN.contains(&network.name.as_str());
    Ok(filters.any("name", |name| network.name.contains(name))
        && filters.any("id", |id| network.id.as_str().starts_with(id))
        && filters.any("driver", |name| driver(network.driver) == name)
        && filters.any("scope", |scope| scope == "local")
        && filters.any("type", |kind| kind == if built_in { "builtin" } else { "custom" })
        && filters.all("label", |label| label_agrees(label, &network.labels))
        && filters.flag("dangling")?.is_none_or(|dangling| !dangling))
}

/// A driver by the name clients know.
fn driver(driver: Driver) -> &'static str {
    match driver {
        Driver::Bridge => "bridge",
        Driver::Host => "host",
        Driver::Null => "null",
    }
}

fn ranges(network: &Network) -> Value {
    let range = |subnet: &sluice_model::network::Subnet| {
        let mut range = json!({ "Subnet": subnet.subnet.to_string(), "Gateway": subnet.gateway.to_string() });
        if let Some(part) = subnet.range {
            range["IPRange"] = json!(part.to_string());
        }
        range
    };
    network.subnets.iter().map(range).collect()
}

fn containers(endpoints: &[Endpoint]) -> Value {
    let address = |endpoint: &Endpoint, v4: bool| {
        let found = endpoint.addresses.iter().find(|net| net.addr().is_ipv4() == v4);
        found.map_or_else(String::new, ToString::to_string)
    };
    let place = |endpoint: &Endpoint| {
        json!({
            "Name": endpoint.name,
            "EndpointID": endpoint.id.as_str(),
            "MacAddress": endpoint.mac.to_string(),
            "IPv4Address": address(endpoint, true),
            "IPv6Address": address(endpoint, false),
        })
    };
    let places: Map<String, Value> = endpoints
        .iter()
        .map(|endpoint| (endpoint.container.to_string(), place(endpoint)))
        .collect();
    Value::Object(places)
}

/// Options as Docker's users know them, with those the user gave on top.
fn options(network: &Network) -> Value {
    if network.driver != Driver::Bridge {
        return json!({});
    }
    let mut options = json!({
        "com.docker.network.bridge.enable_icc": network.icc.to_string(),
        "com.docker.network.bridge.enable_ip_masquerade": network.masquerade.to_string(),
        "com.docker.network.bridge.host_binding_ipv4": network.default_binding.to_string(),
        "com.docker.network.driver.mtu": network.mtu.to_string(),
    });
    if network.name == "bridge" {
        options["com.docker.network.bridge.default_bridge"] = json!("true");
    }
    for (key, value) in &network.options {
        options[key] = json!(value);
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        serde_json::from_value(json!({
            "id": "ab".repeat(32), "name": "bridge", "driver": "bridge", "number": 2,
            "subnets": [{"subnet": "172.17.0.0/16", "gateway": "172.17.0.1", "range": null}],
            "icc": true, "masquerade": true, "internal": false, "mtu": 1500, "default_binding": "0.0.0.0",
            "labels": {"a": "b"}, "options": {}, "created": "2026-01-01T00:00:00Z"
        }))
        .unwrap()
    }

    #[test]
    fn a_network_is_shown_as_dockers_specification_says() {
        let document = document(&network(), &[]);
        assert_eq!(
            document["IPAM"]["Config"],
            json!([{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}])
        );
        assert_eq!(document["Containers"], json!({}));
        let read: bollard_stubs::models::NetworkInspect = serde_json::from_value(document).unwrap();
        assert_eq!(read.driver.as_deref(), Some("bridge"));
    }

    #[test]
    fn filters_choose_networks() {
        for (filters, wanted) in [
            (r#"{}"#, true),
            (r#"{"name":["rid"]}"#, true),
            (r#"{"name":["host"]}"#, false),
            (r#"{"driver":{"bridge":true}}"#, true),
            (r#"{"type":["custom"]}"#, false),
            (r#"{"label":["a=b"]}"#, true),
            (r#"{"label":["a=b","c"]}"#, false),
            (r#"{"id":["abab"]}"#, true),
            (r#"{"dangling":["true"]}"#, false),
        ] {
            assert_eq!(
                agrees(&network(), &Filters::parse(filters).unwrap()).unwrap(),
                wanted,
                "{filters}"
            );
        }
        assert!(agrees(&network(), &Filters::parse(r#"{"colour":["red"]}"#).unwrap()).is_err());
    }
}
