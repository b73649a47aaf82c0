//! Networks: what a client asks for, and what it is shown.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_engine::{CreateNetwork, NetworkView, SubnetWish, fits};
use sluice_model::{Endpoint, Host, Id, MacAddress, Network, container::NetworkWish, network::Driver};

use crate::{
    error::{Answer, ApiError},
    filter::{Filters, label_agrees},
    time,
    wire::container::host_config::link,
};

/// Networks that are always there.
const BUILT_IN: &[&str] = &["bridge", "host", "none"];

/// What `POST /networks/create` brings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Create {
    name: String,
    driver: String,
    scope: String,
    internal: bool,
    attachable: bool,
    ingress: bool,
    config_only: bool,
    config_from: Named,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Named {
    network: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: String,
    options: BTreeMap<String, String>,
    config: Vec<Range>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Range {
    subnet: String,
    #[serde(rename = "IPRange")]
    ip_range: String,
    gateway: String,
    #[serde(alias = "AuxAddress")]
    auxiliary_addresses: BTreeMap<String, String>,
}

/// What `POST /networks/{id}/connect` brings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Connect {
    pub(crate) container: String,
    pub(crate) endpoint_config: EndpointConfig,
}

/// What `POST /networks/{id}/disconnect` brings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Disconnect {
    pub(crate) container: String,
    pub(crate) force: bool,
}

/// What a client says of a container's place in one network. Clients send the members empty when nobody asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct EndpointConfig {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Wanted,
    links: Vec<String>,
    aliases: Vec<String>,
    mac_address: String,
    gw_priority: i64,
    driver_opts: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Wanted {
    #[serde(rename = "IPv4Address")]
    ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    ipv6_address: String,
    #[serde(rename = "LinkLocalIPs")]
    link_local_ips: Vec<String>,
}

/// The driver option that names a device.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";
/// The driver option with settings of the device, which the engine reads.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

// === impl Create ===

impl Create {
    /// As the engine takes it.
    pub(crate) fn into_request(self) -> Answer<CreateNetwork> {
        for (asked, what) in [
            (self.ingress, "an ingress network"),
            (self.config_only, "a configuration-only network"),
            (
                !self.config_from.network.is_empty(),
                "a network made from another's configuration",
            ),
            (
                !self.ipam.options.is_empty(),
                "an option of the address management driver",
            ),
        ] {
            if asked {
                return Err(ApiError::not_offered(what));
            }
        }
        if !matches!(
            (self.scope.as_str(), self.driver.as_str()),
            ("" | "local", _) | ("global", "overlay")
        ) {
            return Err(ApiError::not_offered(format!("a network of scope {}", self.scope)));
        }
        if !matches!(self.ipam.driver.as_str(), "" | "default") {
            return Err(ApiError::not_offered(format!(
                "the address management driver {}",
                self.ipam.driver
            )));
        }
        Ok(CreateNetwork {
            name: self.name,
            driver: self.driver,
            internal: self.internal,
            attachable: self.attachable,
            ipv4: self.enable_ipv4,
            ipv6: self.enable_ipv6,
            subnets: self
                .ipam
                .config
                .into_iter()
                .filter(|range| !range.is_empty())
                .map(Range::into_wish)
                .collect::<Answer<_>>()?,
            labels: self.labels,
            options: self.options,
        })
    }
}

// === impl Range ===

impl Range {
    fn is_empty(&self) -> bool {
        self.subnet.is_empty()
            && self.ip_range.is_empty()
            && self.gateway.is_empty()
            && self.auxiliary_addresses.is_empty()
    }

    fn into_wish(self) -> Answer<SubnetWish> {
        Ok(SubnetWish {
            subnet: prefix("subnet", &self.subnet)?,
            range: prefix("IP range", &self.ip_range)?,
            // the CLI lets a prefix stand behind a gateway
            gateway: address("gateway", self.gateway.split('/').next().unwrap_or_default())?,
            auxiliary: self
                .auxiliary_addresses
                .into_iter()
                .filter_map(|(name, text)| {
                    Some(
                        address("auxiliary address", &text)
                            .transpose()?
                            .map(|found| (name, found)),
                    )
                })
                .collect::<Answer<_>>()?,
        })
    }
}

fn prefix(what: &str, text: &str) -> Answer<Option<IpNet>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        ApiError::invalid(format!(
            "invalid {what} {text:?}: an address and a prefix length are wanted"
        ))
    })
}

fn address<T: std::str::FromStr>(what: &str, text: &str) -> Answer<Option<T>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|_| ApiError::invalid(format!("invalid {what} {text:?}")))
}

// === impl EndpointConfig ===

impl EndpointConfig {
    /// As the engine takes it.
    pub(crate) fn into_wish(mut self, network: &str) -> Answer<NetworkWish> {
        if !self.ipam_config.link_local_ips.is_empty() {
            return Err(ApiError::not_offered(format!("LinkLocalIPs in network {network}")));
        }
        let mac = match self.mac_address.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|error: sluice_model::mac::InvalidMac| ApiError::invalid(error.to_string()))?,
            ),
        };
        let interface = self.driver_opts.remove(INTERFACE);
        if let Some(option) = self
            .driver_opts
            .keys()
            .find(|name| name.starts_with("com.docker.network.") && *name != SYSCTLS)
        {
            return Err(ApiError::not_offered(format!(
                "the driver option {option} in network {network}"
            )));
        }
        Ok(NetworkWish {
            ipv4: address("IPv4 address", &self.ipam_config.ipv4_address)?,
            ipv6: address("IPv6 address", &self.ipam_config.ipv6_address)?,
            mac,
            aliases: self.aliases,
            links: self.links.iter().map(|text| link(text)).collect::<Answer<_>>()?,
            gateway_priority: self.gw_priority,
            driver_options: self.driver_opts,
            interface,
        })
    }
}

/// A network as `inspect` and `ls` show it. The list leaves out who is on it.
pub(crate) fn document(network: &Network, endpoints: &[Endpoint], host: Option<&Host>) -> Value {
    json!({
        "Name": network.name,
        "Id": network.id.as_str(),
        "Created": time::text(network.created),
        "Scope": scope(network),
        "Driver": driver(network.driver),
        "EnableIPv4": network.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv4()),
        "EnableIPv6": network.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv6()),
        "IPAM": {
            "Driver": "default",
            "Options": if BUILT_IN.contains(&network.name.as_str()) { Value::Null } else { json!({}) },
            "Config": ranges(network),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers(endpoints, host),
        "Options": network.options,
        "Labels": network.labels,
    })
}

/// A network as `inspect` shows it. Of one that is on several hosts it tells who is on it on all of them, each with its host.
pub(crate) fn view(view: &NetworkView) -> Value {
    let mut document = document(&view.network, &view.endpoints, view.host.as_ref());
    for (id, name) in &view.placeless {
        // no endpoint is theirs: the container's own id stands for it
        document["Containers"][id.as_str()] =
            json!({ "Name": name, "EndpointID": id.as_str(), "MacAddress": "", "IPv4Address": "", "IPv6Address": "" });
    }
    if !view.network.is_shared() {
        return document;
    }
    for (endpoint, host) in &view.remote {
        document["Containers"][endpoint.container.as_str()] = place(
            &endpoint.name,
            &endpoint.id,
            endpoint.mac,
            &endpoint.addresses,
            Some(host),
        );
    }
    let own = view.host.iter().filter(|_| !view.endpoints.is_empty());
    let hosts: BTreeMap<&str, &Host> = own
        .chain(view.remote.iter().map(|(_, host)| host))
        .map(|host| (host.id.as_str(), host))
        .collect();
    let peer = |host: &&Host| json!({ "Name": host.name, "IP": host.addresses.first() });
    document["Peers"] = hosts.values().map(peer).collect();
    document
}

fn scope(network: &Network) -> &'static str {
    match network.is_shared() {
        true => "global",
        false => "local",
    }
}

/// Does a network agree with the filters of `ls`?
pub(crate) fn agrees(network: &Network, is_used: bool, filters: &Filters) -> Answer<bool> {
    filters.only(&["name", "id", "driver", "scope", "type", "label", "dangling"])?;
    let built_in = BUILT_IN.contains(&network.name.as_str());
    Ok(filters.any("name", |name| fits(name, &network.name))
        && filters.any("id", |id| fits(id, network.id.as_str()))
        && filters.any("driver", |name| driver(network.driver) == name)
        && filters.any("scope", |wanted| scope(network) == wanted)
        && filters.any("type", |kind| kind == if built_in { "builtin" } else { "custom" })
        && filters.all("label", |label| label_agrees(label, &network.labels))
        && filters
            .flag("dangling")?
            .is_none_or(|dangling| dangling != (built_in || is_used)))
}

/// A driver by the name clients know.
fn driver(driver: Driver) -> &'static str {
    match driver {
        Driver::Bridge => "bridge",
        Driver::Host => "host",
        Driver::Null => "null",
        Driver::Macvlan => "macvlan",
        Driver::Ipvlan => "ipvlan",
        Driver::Overlay => "overlay",
    }
}

fn ranges(network: &Network) -> Value {
    let range = |subnet: &sluice_model::network::Subnet| {
        let mut range = json!({ "Subnet": subnet.subnet.to_string(), "Gateway": subnet.gateway.to_string() });
        if let Some(part) = subnet.range {
            range["IPRange"] = json!(part.to_string());
        }
        if !subnet.auxiliary.is_empty() {
            range["AuxiliaryAddresses"] = json!(subnet.auxiliary);
        }
        range
    };
    network.subnets.iter().map(range).collect()
}

fn containers(endpoints: &[Endpoint], host: Option<&Host>) -> Value {
    let places: Map<String, Value> = endpoints
        .iter()
        .map(|endpoint| {
            let place = place(&endpoint.name, &endpoint.id, endpoint.mac, &endpoint.addresses, host);
            (endpoint.container.to_string(), place)
        })
        .collect();
    Value::Object(places)
}

fn place(name: &str, id: &Id, mac: MacAddress, addresses: &[IpNet], host: Option<&Host>) -> Value {
    let address = |v4: bool| {
        let found = addresses.iter().find(|net| net.addr().is_ipv4() == v4);
        found.map_or_else(String::new, ToString::to_string)
    };
    let mut place = json!({
        "Name": name,
        "EndpointID": id.as_str(),
        "MacAddress": mac.to_string(),
        "IPv4Address": address(true),
        "IPv6Address": address(false),
    });
    if let Some(host) = host {
        place["Host"] = json!(host.name);
    }
    place
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
        let document = document(&network(), &[], None);
        assert_eq!(document["Options"], json!({}));
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
                agrees(&network(), true, &Filters::parse(filters).unwrap()).unwrap(),
                wanted,
                "{filters}"
            );
        }
        assert!(agrees(&network(), true, &Filters::parse(r#"{"colour":["red"]}"#).unwrap()).is_err());
        let mine = Network {
            name: "mine".into(),
            ..network()
        };
        for (used, dangling, wanted) in [
            (false, "true", true),
            (true, "true", false),
            (true, "false", true),
            (false, "false", false),
        ] {
            let filters = Filters::parse(&format!(r#"{{"dangling":["{dangling}"]}}"#)).unwrap();
            assert_eq!(agrees(&mine, used, &filters).unwrap(), wanted, "{used} {dangling}");
        }
    }

    fn wish(body: Value) -> Result<CreateNetwork, String> {
        let body = serde_json::from_value::<Create>(body).unwrap();
        body.into_request().map_err(|error| error.message)
    }

    #[test]
    fn a_wish_of_the_cli_is_read() {
        let wish = wish(json!({
            "CheckDuplicate": true, "Driver": "bridge", "EnableIPv6": true, "Internal": false, "Attachable": true, "Ingress": false,
            "ConfigOnly": false, "ConfigFrom": {"Network": ""}, "Scope": "", "Name": "mine", "Labels": {"a": "b"},
            "IPAM": {"Driver": "default", "Options": {}, "Config": [
                {"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25", "Gateway": "10.1.0.254", "AuxiliaryAddresses": {"router": "10.1.0.5"}},
                {"Subnet": "fd00:1::/64"}
            ]},
            "Options": {"com.docker.network.driver.mtu": "1400"}
        }))
        .unwrap();
        assert!(wish.ipv6 && wish.attachable && wish.ipv4.is_none());
        assert_eq!(wish.subnets[0].gateway, "10.1.0.254".parse().ok());
        assert_eq!(wish.subnets[0].auxiliary["router"].to_string(), "10.1.0.5");
        assert_eq!(wish.subnets[1].subnet, "fd00:1::/64".parse().ok());
        assert_eq!(wish.options.len(), 1);
    }

    #[test]
    fn what_is_no_address_or_not_offered_is_refused() {
        for (body, words) in [
            (
                json!({"IPAM": {"Config": [{"Subnet": "10.1.0.0/33"}]}}),
                "invalid subnet \"10.1.0.0/33\"",
            ),
            (
                json!({"IPAM": {"Config": [{"Gateway": "here"}]}}),
                "invalid gateway \"here\"",
            ),
            (json!({"IPAM": {"Driver": "null"}}), "is not supported by this version"),
            (json!({"Ingress": true}), "is not supported by this version"),
            (
                json!({"ConfigFrom": {"Network": "x"}}),
                "is not supported by this version",
            ),
            (json!({"Scope": "swarm"}), "is not supported by this version"),
        ] {
            let message = wish(body).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_place_in_a_network_is_read_and_what_cannot_be_is_refused() {
        let read = |body: Value| {
            serde_json::from_value::<EndpointConfig>(body)
                .unwrap()
                .into_wish("mine")
                .map_err(|error| error.message)
        };
        assert_eq!(
            read(json!({"IPAMConfig": {}, "Aliases": [], "MacAddress": ""})),
            Ok(NetworkWish::default())
        );
        let wish = read(json!({
            "IPAMConfig": {"IPv4Address": "10.1.0.9", "IPv6Address": "fd00:1::9"}, "Aliases": ["db"], "Links": ["redis:cache"],
            "MacAddress": "02:42:0a:01:00:09", "GwPriority": 5, "DriverOpts": {(INTERFACE): "lan0"}
        }))
        .unwrap();
        assert_eq!(
            (wish.ipv4, wish.ipv6),
            ("10.1.0.9".parse().ok(), "fd00:1::9".parse().ok())
        );
        assert_eq!(
            (wish.links[0].target.as_str(), wish.links[0].alias.as_str()),
            ("redis", "cache")
        );
        assert_eq!((wish.gateway_priority, wish.interface.as_deref()), (5, Some("lan0")));
        assert!(
            read(json!({"IPAMConfig": {"IPv4Address": "fd00::1"}}))
                .unwrap_err()
                .contains("invalid IPv4 address")
        );
        assert!(
            read(json!({"Links": ["a:b:c"]}))
                .unwrap_err()
                .contains("bad format for links: a:b:c")
        );
    }
}
