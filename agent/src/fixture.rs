//! Records for tests.

use std::{net::IpAddr, path::PathBuf};

use sluice_model::{
    Endpoint, Host, Id, MacAddress, Network, PortSpec, Protocol, PublishedPort, RemoteEndpoint, Sandbox,
    host::VXLAN_PORT, network::Driver, network::Subnet,
};

/// Network number `number`, 172.`15 + number`.0.0/16.
pub fn network(number: u32) -> Network {
    let second = 15 + number;
    Network {
        id: Id::from_bytes([0xa0 + number as u8; 32]),
        name: format!("net{number}"),
        driver: Driver::Bridge,
        number,
        subnets: vec![Subnet {
            subnet: format!("172.{second}.0.0/16").parse().unwrap(),
            gateway: format!("172.{second}.0.1").parse().unwrap(),
            range: None,
            auxiliary: Default::default(),
        }],
        icc: true,
        masquerade: true,
        internal: false,
        mtu: 1500,
        default_binding: "0.0.0.0".parse().unwrap(),
        gateway_mode4: Default::default(),
        gateway_mode6: Default::default(),
        mtu_follows: false,
        parent: None,
        gateway_device: None,
        host_access: None,
        multicast: false,
        vni: 0,
        direct_routing: false,
        encrypted: false,
        attachable: false,
        labels: Default::default(),
        options: Default::default(),
        created: serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap(),
    }
}

/// Endpoint number `number` of network 2, 172.17.0.`number + 1`, in its own sandbox.
pub fn endpoint(number: u32, generation: u32) -> Endpoint {
    let address: std::net::Ipv4Addr = format!("172.17.0.{}", number + 1).parse().unwrap();
    Endpoint {
        id: Id::from_bytes([number as u8; 32]),
        number,
        generation,
        network: network(2).id,
        container: Id::from_bytes([0x40 + number as u8; 32]),
        name: format!("web{number}"),
        sandbox: sandbox(number).id,
        interface: "eth0".into(),
        addresses: vec![format!("{address}/16").parse().unwrap()],
        mac: MacAddress::of_ipv4(address),
        ports: Vec::new(),
        gateways: vec!["172.17.0.1".parse().unwrap()],
        sysctls: Default::default(),
        labels: Default::default(),
        aliases: vec![],
        links: vec![],
        exposed: vec![],
        publish_from: vec![],
        publish_mesh: false,
    }
}

/// Host number `number`, at 192.0.2.`number`.
pub fn host(number: u8) -> Host {
    Host {
        id: format!("host{number}"),
        name: format!("host{number}"),
        addresses: vec![IpAddr::from([192, 0, 2, number])],
        vxlan_port: VXLAN_PORT,
        version: String::new(),
        since: serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap(),
        seal: None,
    }
}

/// Endpoint number `number` of network 2, on host number `host`.
pub fn remote_endpoint(number: u32, host: u8) -> RemoteEndpoint {
    RemoteEndpoint::of(&endpoint(number, 1), &self::host(host).id)
}

/// The sandbox of endpoint `number`.
pub fn sandbox(number: u32) -> Sandbox {
    Sandbox {
        id: Id::from_bytes([0x40 + number as u8; 32]),
        path: PathBuf::from(format!("/run/netns-test/{number}")),
        resolver: Default::default(),
    }
}

/// TCP `host_address:host_port` to `port`.
pub fn port(host_address: &str, host_port: u16, port: u16) -> PublishedPort {
    let host_address: IpAddr = host_address.parse().unwrap();
    PublishedPort {
        container: PortSpec {
            port,
            protocol: Protocol::Tcp,
        },
        host_address,
        host_port,
        count: 1,
    }
}
