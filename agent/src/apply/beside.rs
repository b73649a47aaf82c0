//! Carries out what is planned beside the datapath: parents, devices on them, and devices that bear gateway addresses.

use crate::{
    AgentError, Tried,
    actual::Actual,
    link::{
        child::{self, Child},
        gateway_device::{self, GatewayDevice},
        parent,
        veth::{self, Hang, Wish},
    },
    plan::{Beside, Troubles},
};

use super::Hands;

/// Takes away what is wanted no more, before the sandboxes go.
pub fn withdraw(hands: &mut Hands<'_>, beside: &Beside, actual: &mut Actual) -> Result<(), AgentError> {
    for gone in &beside.remove_children {
        child::remove(gone).tried(|| format!("removing {} of endpoint {}", gone.interface, gone.endpoint))?;
        actual.children.retain(|child| child != gone);
    }
    let devices = [&beside.remove_gateway_devices[..], &beside.remove_parents[..]].concat();
    if !devices.is_empty() {
        veth::remove_all(hands.netlink, &devices).tried(|| "removing devices of networks".to_owned())?;
        actual.parents.retain(|_, index| !devices.contains(index));
        actual
            .gateway_devices
            .retain(|_, device| !devices.contains(&device.ifindex));
    }
    Ok(())
}

/// Makes what is wanted, once the sandboxes are there.
pub fn grant(hands: &mut Hands<'_>, beside: &Beside, actual: &mut Actual, troubles: &mut Troubles) {
    for wish in &beside.make_parents {
        match parent::make(hands.netlink, wish) {
            Ok(index) => drop(actual.parents.insert(wish.name.clone(), index)),
            Err(error) => {
                let trouble = format!("making the device {} of network {}: {error}", wish.name, wish.network);
                troubles.insert(wish.network.clone(), trouble);
            }
        }
    }
    for wish in &beside.make_gateway_devices {
        match gateway_device::make(hands.netlink, wish) {
            Ok(ifindex) => {
                let device = GatewayDevice {
                    ifindex,
                    alias: wish.alias.clone(),
                    addresses: wish.addresses.clone(),
                };
                actual.gateway_devices.insert(wish.name.clone(), device);
            }
            Err(error) => {
                let trouble = format!("making the device {} of network {}: {error}", wish.name, wish.network);
                troubles.insert(wish.network.clone(), trouble);
            }
        }
    }
    for wish in &beside.make_children {
        let Hang::Child(parent) = &wish.hang else { continue };
        match child::make(hands.netlink, wish, parent) {
            Ok(()) => enter(hands, wish, actual),
            Err(error) => {
                let trouble = format!("making {} of endpoint {}: {error}", wish.interface, wish.endpoint);
                troubles.insert(wish.endpoint.clone(), trouble);
            }
        }
    }
    for wish in &beside.turn_children {
        match child::turn(wish) {
            Ok(()) => enter(hands, wish, actual),
            Err(error) => {
                let trouble = format!("giving the sandbox of endpoint {} its ways out: {error}", wish.endpoint);
                troubles.insert(wish.endpoint.clone(), trouble);
            }
        }
    }
}

fn enter(hands: &Hands<'_>, wish: &Wish, actual: &mut Actual) {
    actual.children.retain(|child| child.endpoint != wish.endpoint);
    if let Some((_, made_of)) = hands.names.read_alias(&wish.alias) {
        actual.children.push(Child {
            endpoint: wish.endpoint.clone(),
            sandbox: wish.sandbox.clone(),
            interface: wish.interface.clone(),
            made_of,
        });
    }
}
