//! Options of networks, by the names that Docker's users know.

use std::{collections::BTreeMap, net::Ipv4Addr};

use sluice_model::{
    Network,
    network::{HostAccess, UnknownHostAccess},
};

use crate::{EngineError, cluster::network::GREATEST_VNI, network::create};

/// What all of them begin with.
const OURS: &str = "com.docker.network.";
/// The MTU of a network's devices.
pub(crate) const MTU: &str = "com.docker.network.driver.mtu";

/// The number on the wire of a network on several hosts.
const VXLAN_ID: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// What ours begin with.
const SLUICE: &str = "sluice.";

/// Takes in what labels say of the network: clients that have no options of ours have labels. What they do not know is the user's own.
pub(crate) fn apply_labels(network: &mut Network) -> Result<(), EngineError> {
    for name in ["host-access", "multicast"] {
        if let Some(value) = network.labels.get(&format!("{SLUICE}{name}")).cloned() {
            set(network, name, &value)
                .map_err(|why| EngineError::invalid(format!("invalid label {SLUICE}{name}={value}: {why}")))?;
        }
    }
    Ok(())
}

/// Sets one of ours.
fn set(network: &mut Network, name: &str, value: &str) -> Result<(), String> {
    match name {
        "host-access" => {
            let access: HostAccess = value.parse().map_err(|error: UnknownHostAccess| error.to_string())?;
            network.host_access = Some(access);
        }
        "multicast" => network.multicast = boolean(value)?,
        _ => return Err("this version of Sluice does not know it".to_owned()),
    }
    Ok(())
}

/// Takes the user's options in. They stay in the record as they were given. One of Docker's that we do not know is refused: it would be
/// without effect; those of others (labels in disguise) are kept.
pub(crate) fn apply(network: &mut Network, options: BTreeMap<String, String>) -> Result<(), EngineError> {
    for (name, value) in &options {
        let invalid = |why: String| EngineError::invalid(format!("invalid option {name}={value}: {why}"));
        match name.as_str() {
            "encrypted" if network.is_shared() => {
                network.encrypted = value.is_empty() || boolean(value).map_err(invalid)?;
            }
            "direct-routing" if network.is_shared() => {
                network.direct_routing = value.is_empty() || boolean(value).map_err(invalid)?;
            }
            VXLAN_ID if network.is_shared() => {
                network.vni = value
                    .parse()
                    .ok()
                    .filter(|vni| (1..=GREATEST_VNI).contains(vni))
                    .ok_or_else(|| invalid(format!("one number of 1 to {GREATEST_VNI} is wanted")))?;
                continue;
            }
            _ => {}
        }
        if let Some(ours) = name.strip_prefix(SLUICE) {
            set(network, ours, value).map_err(invalid)?;
        }
        let Some(ours) = name.strip_prefix(OURS) else { continue };
        if !network.is_placed() && (ours.starts_with("bridge.") || ours == "container_iface_prefix") {
            return Err(invalid("it is one of the driver bridge".to_owned()));
        }
        match ours {
            "bridge.enable_icc" => network.icc = boolean(value).map_err(invalid)?,
            "bridge.enable_ip_masquerade" => network.masquerade = boolean(value).map_err(invalid)?,
            "bridge.host_binding_ipv4" => {
                let address: Ipv4Addr = value
                    .parse()
                    .map_err(|_| invalid("an IPv4 address is wanted".to_owned()))?;
                network.default_binding = address.into();
            }
            "bridge.gateway_mode_ipv4" => network.gateway_mode4 = mode(value).map_err(invalid)?,
            "bridge.gateway_mode_ipv6" => network.gateway_mode6 = mode(value).map_err(invalid)?,
            // no other words would be understood by a network on several hosts
            "bridge.name" if network.is_shared() => {
                return Err(invalid(
                    "a network on several hosts has no device of its own on one".to_owned(),
                ));
            }
            "driver.mtu" => {
                network.mtu = value
                    .parse()
                    .ok()
                    .filter(|mtu| (68..=65_535).contains(mtu))
                    .ok_or_else(|| invalid("68 to 65535 bytes are wanted".to_owned()))?;
                network.mtu_follows = false;
            }
            "bridge.name" => {
                check_device(value, 15).map_err(invalid)?;
                network.gateway_device = Some(value.clone());
            }
            // a number comes behind it
            "container_iface_prefix" => check_device(value, 12).map_err(invalid)?,
            _ => return Err(invalid("this version of Sluice does not know it".to_owned())),
        }
    }
    network.options = options;
    if network.encrypted && network.direct_routing {
        return Err(EngineError::invalid(
            "encrypted and direct-routing: what goes without VXLAN is not encrypted",
        ));
    }
    create::check_modes(network)
}

/// What devices of its containers are called, before the number.
pub(crate) fn interface_prefix(network: &Network) -> &str {
    network
        .options
        .get("com.docker.network.container_iface_prefix")
        .map_or("eth", String::as_str)
}

fn check_device(name: &str, longest: usize) -> Result<(), String> {
    let fits = !name.is_empty() && name.len() <= longest && name != "." && name != "..";
    match fits && !name.contains(['/', ' ', ':', '\0']) {
        true => Ok(()),
        false => Err("the name of a device is wanted".to_owned()),
    }
}

fn mode(value: &str) -> Result<sluice_model::network::GatewayMode, String> {
    value
        .parse()
        .map_err(|error: sluice_model::network::UnknownGatewayMode| error.to_string())
}

fn boolean(value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::network::{Driver, GatewayMode};

    use super::*;
    use crate::network::defaults::bare;

    fn with(options: &[(&str, &str)]) -> Result<Network, EngineError> {
        let mut network = bare("net", Driver::Bridge);
        let options = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        apply(&mut network, options).map(|()| network)
    }

    #[test]
    fn options_become_rules_and_stay_as_they_were_given() {
        let network = with(&[
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "0"),
            ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "routed"),
            ("com.docker.network.bridge.name", "br-mine"),
            ("com.docker.network.container_iface_prefix", "lan"),
            ("com.docker.network.driver.mtu", "1400"),
            ("sluice.host-access", "gateway"),
            ("sluice.multicast", "true"),
            ("mine", "yes"),
        ])
        .unwrap();
        assert!(!network.icc && !network.masquerade);
        assert_eq!(
            (network.default_binding.to_string(), network.mtu),
            ("127.0.0.1".into(), 1400)
        );
        assert_eq!(network.gateway_mode6, GatewayMode::Routed);
        assert_eq!((network.host_access(), network.multicast), (HostAccess::Gateway, true));
        assert_eq!((interface_prefix(&network), network.options.len()), ("lan", 10));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (name, value) in [
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.bridge.host_binding_ipv4", "::1"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "bridged"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "isolated"),
            ("com.docker.network.driver.mtu", "12"),
            ("sluice.host-access", "some"),
            ("sluice.multicast", "maybe"),
            ("sluice.colour", "red"),
            ("com.docker.network.driver.colour", "red"),
            ("com.docker.network.container_iface_prefix", "a/b"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind, crate::Kind::Invalid, "{name}={value}");
        }
    }

    #[test]
    fn a_label_says_what_an_option_says_and_the_option_goes_first() {
        let mut network = bare("net", Driver::Bridge);
        network.internal = true;
        assert_eq!(
            network.host_access(),
            HostAccess::None,
            "nothing is said of an internal network"
        );
        let label = |value: &str| ("sluice.host-access".to_owned(), value.to_owned());
        network.labels = [label("gateway"), ("sluice.mine".into(), "x".into())].into();
        apply_labels(&mut network).unwrap();
        assert_eq!(network.host_access(), HostAccess::Gateway);
        apply(&mut network, [label("all")].into()).unwrap();
        assert_eq!(network.host_access(), HostAccess::All);
        network.labels = [label("some")].into();
        assert!(
            apply_labels(&mut network)
                .unwrap_err()
                .message
                .contains("label sluice.host-access=some")
        );
    }

    #[test]
    fn every_gateway_mode_is_one_of_ours() {
        for mode in ["nat", "nat-unprotected", "routed"] {
            let network = with(&[("com.docker.network.bridge.gateway_mode_ipv4", mode)]).unwrap();
            assert_eq!(network.gateway_mode4.as_str(), mode);
        }
    }
}
