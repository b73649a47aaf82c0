//! A container's places in networks, for `inspect` and `ps`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use sluice_engine::ContainerView;
use sluice_model::{
    PortSpec, PublishedPort,
    container::{EndpointView, NetworkWish},
};

use super::ports as wire_ports;

/// `NetworkSettings` of `inspect`.
pub(crate) fn settings(view: &ContainerView) -> Value {
    let alive = view.container.state.is_alive();
    let exposed = if alive {
        view.container.config.exposed_ports.as_slice()
    } else {
        &[]
    };
    let published = if alive { view.ports.as_slice() } else { &[] };
    let path = view.sandbox_path.as_ref().filter(|_| alive);
    let mut settings = json!({
        "Bridge": "",
        "SandboxID": path.map_or("", |_| view.container.id.as_str()),
        "SandboxKey": path.map_or_else(String::new, |path| path.display().to_string()),
        "Ports": wire_ports::published_document(exposed, published),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "Networks": networks(view),
    });
    // The default network's place stands at the top too, as it did before there were others.
    let first = Place::of(view.endpoints.iter().find(|endpoint| endpoint.network_name == "bridge"));
    if let Value::Object(settings) = &mut settings {
        settings.extend(first.document());
    }
    settings
}

/// Exposed and published ports, none while there is no network of ours to reach them by.
pub(crate) fn ports(view: &ContainerView) -> (&[PortSpec], &[PublishedPort]) {
    if view.container.state.is_alive() && !view.endpoints.is_empty() {
        (&view.container.config.exposed_ports, &view.ports)
    } else {
        (&[], &[])
    }
}

/// `NetworkSettings.Networks`.
pub(crate) fn networks(view: &ContainerView) -> Value {
    let mut networks: Map<String, Value> = view
        .endpoints
        .iter()
        .map(|endpoint| {
            let wish = view.container.networks.get(&endpoint.network_name);
            (endpoint.network_name.clone(), place_in_network(Some(endpoint), wish))
        })
        .collect();
    // A stopped container still says where it will be; one that shares another's namespace is nowhere itself.
    for name in view.container.network_names() {
        networks
            .entry(name.clone())
            .or_insert_with(|| place_in_network(None, view.container.networks.get(&name)));
    }
    // Without a place in the network there is no endpoint: the container's own id stands for it.
    if let Some(network) = &view.placeless
        && let Some(document) = networks.values_mut().next()
    {
        document["NetworkID"] = json!(network.as_str());
        document["EndpointID"] = json!(view.container.id.as_str());
    }
    Value::Object(networks)
}

fn place_in_network(endpoint: Option<&EndpointView>, wish: Option<&NetworkWish>) -> Value {
    let mut document = Place::of(endpoint).document();
    let aliases = wish.filter(|wish| !wish.aliases.is_empty()).map(|wish| &wish.aliases);
    let options = wish
        .filter(|wish| !wish.driver_options.is_empty())
        .map(|wish| &wish.driver_options);
    document.extend([
        ("IPAMConfig".to_owned(), ipam_config(wish)),
        (
            "Links".to_owned(),
            super::host_config::links_document(wish.map_or(&[], |wish| &wish.links)),
        ),
        ("Aliases".to_owned(), json!(aliases)),
        ("DriverOpts".to_owned(), json!(options)),
        (
            "GwPriority".to_owned(),
            json!(wish.map_or(0, |wish| wish.gateway_priority)),
        ),
        (
            "NetworkID".to_owned(),
            json!(endpoint.map_or("", |endpoint| endpoint.network.as_str())),
        ),
        ("DNSNames".to_owned(), Value::Null),
    ]);
    Value::Object(document)
}

/// The addresses that were asked for.
fn ipam_config(wish: Option<&NetworkWish>) -> Value {
    let mut config = Map::new();
    if let Some(address) = wish.and_then(|wish| wish.ipv4) {
        config.insert("IPv4Address".to_owned(), json!(address));
    }
    if let Some(address) = wish.and_then(|wish| wish.ipv6) {
        config.insert("IPv6Address".to_owned(), json!(address));
    }
    if config.is_empty() {
        Value::Null
    } else {
        Value::Object(config)
    }
}

/// Addresses by family, empty and zero where there are none.
#[derive(Default)]
struct Place<'a> {
    endpoint: Option<&'a EndpointView>,
    ipv4: Option<IpNet>,
    ipv6: Option<IpNet>,
}

impl<'a> Place<'a> {
    fn of(endpoint: Option<&'a EndpointView>) -> Self {
        let find = |v4: bool| {
            endpoint?
                .addresses
                .iter()
                .find(|net| net.addr().is_ipv4() == v4)
                .copied()
        };
        Self {
            endpoint,
            ipv4: find(true),
            ipv6: find(false),
        }
    }

    fn document(&self) -> Map<String, Value> {
        let address = |net: Option<IpNet>| net.map_or_else(String::new, |net| net.addr().to_string());
        let length = |net: Option<IpNet>| net.map_or(0, |net| net.prefix_len());
        let gateway_of = |wanted: fn(&&IpAddr) -> bool| {
            self.endpoint
                .and_then(|endpoint| endpoint.gateways.iter().find(wanted))
                .map_or_else(String::new, ToString::to_string)
        };
        Map::from_iter([
            (
                "EndpointID".to_owned(),
                json!(self.endpoint.map_or("", |endpoint| endpoint.endpoint.as_str())),
            ),
            ("Gateway".to_owned(), json!(gateway_of(|address| address.is_ipv4()))),
            ("IPAddress".to_owned(), json!(address(self.ipv4))),
            ("IPPrefixLen".to_owned(), json!(length(self.ipv4))),
            ("IPv6Gateway".to_owned(), json!(gateway_of(|address| address.is_ipv6()))),
            ("GlobalIPv6Address".to_owned(), json!(address(self.ipv6))),
            ("GlobalIPv6PrefixLen".to_owned(), json!(length(self.ipv6))),
            (
                "MacAddress".to_owned(),
                json!(
                    self.endpoint
                        .map_or_else(String::new, |endpoint| endpoint.mac.to_string())
                ),
            ),
        ])
    }
}
