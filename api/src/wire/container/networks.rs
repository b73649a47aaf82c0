//! A container's places in networks, for `inspect` and `ps`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use sluice_engine::ContainerView;
use sluice_model::{
    PortSpec, PublishedPort,
    container::{EndpointView, NetworkMode},
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
    let first = Place::of(view.endpoints.first());
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
        .map(|endpoint| (endpoint.network_name.clone(), place_in_network(Some(endpoint))))
        .collect();
    if networks.is_empty() {
        // A stopped container still says where it will be.
        let name = match &view.container.host_config.network_mode {
            NetworkMode::Default => "bridge",
            NetworkMode::Host => "host",
            NetworkMode::None => "none",
            NetworkMode::Network(name) => name,
        };
        networks.insert(name.to_owned(), place_in_network(None));
    }
    Value::Object(networks)
}

fn place_in_network(endpoint: Option<&EndpointView>) -> Value {
    let mut document = Place::of(endpoint).document();
    document.extend([
        ("IPAMConfig".to_owned(), Value::Null),
        ("Links".to_owned(), Value::Null),
        ("Aliases".to_owned(), Value::Null),
        ("DriverOpts".to_owned(), Value::Null),
        ("GwPriority".to_owned(), json!(0)),
        (
            "NetworkID".to_owned(),
            json!(endpoint.map_or("", |endpoint| endpoint.network.as_str())),
        ),
        ("DNSNames".to_owned(), Value::Null),
    ]);
    Value::Object(document)
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
        let gateway = self.endpoint.and_then(|endpoint| endpoint.gateway);
        let gateway_of = |wanted: fn(&IpAddr) -> bool| {
            gateway
                .filter(wanted)
                .map_or_else(String::new, |address| address.to_string())
        };
        Map::from_iter([
            (
                "EndpointID".to_owned(),
                json!(self.endpoint.map_or("", |endpoint| endpoint.endpoint.as_str())),
            ),
            ("Gateway".to_owned(), json!(gateway_of(IpAddr::is_ipv4))),
            ("IPAddress".to_owned(), json!(address(self.ipv4))),
            ("IPPrefixLen".to_owned(), json!(length(self.ipv4))),
            ("IPv6Gateway".to_owned(), json!(gateway_of(IpAddr::is_ipv6))),
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
