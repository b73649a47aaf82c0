//! Gives the host's leg its addresses and its MTU.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Hands;
use crate::{AgentError, Tried, actual::Actual, link::host_leg, plan};

/// Makes the host's leg bear the gateways that are wanted, and no others.
pub fn settle_leg(hands: &mut Hands<'_>, devices: &plan::Devices, actual: &mut Actual) -> Result<(), AgentError> {
    let leg = &hands.names.host_leg;
    for gateway in &devices.remove_gateways {
        host_leg::remove_gateway(hands.netlink, actual.leg, *gateway)
            .tried(|| format!("taking {gateway} from {leg}"))?;
        actual.gateways.remove(gateway);
    }
    if let Some(mtu) = devices.leg_mtu {
        host_leg::set_mtu(hands.netlink, actual.leg, mtu).tried(|| format!("giving {leg} the MTU {mtu}"))?;
        actual.leg_mtu = mtu;
    }
    let has_ipv6 = |gateways: &BTreeSet<IpNet>| gateways.iter().any(|gateway| gateway.addr().is_ipv6());
    let wants_ipv6 = devices.add_gateways.iter().any(|gateway| gateway.addr().is_ipv6());
    if wants_ipv6
        || (devices.remove_gateways.iter().any(|gateway| gateway.addr().is_ipv6()) && !has_ipv6(&actual.gateways))
    {
        host_leg::set_ipv6(hands.names, wants_ipv6).tried(|| format!("setting IPv6 on {leg}"))?;
    }
    for gateway in &devices.add_gateways {
        host_leg::add_gateway(hands.netlink, actual.leg, *gateway).tried(|| format!("giving {gateway} to {leg}"))?;
        actual.gateways.insert(*gateway);
    }
    Ok(())
}
