//! Makes, furnishes, changes and removes veths.

use std::{io, thread, time::Instant};

use sluice_datapath_common::programs::FROM_CONTAINER;

use super::{Hands, parallel::in_parallel};
use crate::{
    AgentError, Tried,
    actual::{Actual, Veth},
    kernel::netlink::Netlink,
    link::veth::{self, Hang},
    names::MadeOf,
    plan::{self, Troubles},
};

/// Removes veths, and what was attached to them.
pub fn remove_veths(hands: &Hands<'_>, devices: &plan::Devices, actual: &mut Actual) -> Result<(), AgentError> {
    if devices.remove_veths.is_empty() {
        return Ok(());
    }
    // Nobody waits for those whose sandbox goes: what is theirs is withdrawn already, and most go with their namespace anyway. One that is kept by a
    // process of another container loses its device all the same.
    let goes_along = |ifindex: &u32| {
        let sandbox = actual.veths.get(ifindex).and_then(|veth| veth.sandbox.as_ref());
        sandbox.is_some_and(|sandbox| devices.remove_sandboxes.contains(sandbox))
    };
    let (along, alone): (Vec<u32>, Vec<u32>) = devices.remove_veths.iter().partition(|ifindex| goes_along(ifindex));
    remove_unwatched(along);
    // Each waits for the kernel's readers to be done, but not for each other when asked for side by side.
    let remove = |ifindex: &u32| Netlink::open().and_then(|mut netlink| veth::remove(&mut netlink, *ifindex));
    for outcome in in_parallel(&alone, remove) {
        outcome.tried(|| "removing veths".to_owned())?;
    }
    for ifindex in &devices.remove_veths {
        hands.attacher.forget(*ifindex);
        actual.veths.remove(ifindex);
    }
    Ok(())
}

/// Makes pairs, down, each with its program attached. The kernel makes one device at a time, so one thread does.
pub fn make_veths<'a>(
    hands: &mut Hands<'_>,
    devices: &'a plan::Devices,
    actual: &mut Actual,
    troubles: &mut Troubles,
) -> Vec<(u32, &'a veth::Wish)> {
    let mut made = Vec::new();
    for wish in &devices.make_veths {
        let outcome = veth::make(hands.netlink, wish)
            .tried(|| format!("making the veth {} of endpoint {}", wish.host_end, wish.endpoint))
            .and_then(
                |ifindex| match hands.attacher.to_new_device(hands.programs, FROM_CONTAINER, ifindex) {
                    Ok(()) => Ok(ifindex),
                    Err(error) => {
                        let _ = veth::remove(hands.netlink, ifindex);
                        Err(error)
                    }
                },
            );
        match outcome {
            Ok(ifindex) => {
                // Still a draft: should the rest fail, the next round begins again.
                actual.veths.insert(
                    ifindex,
                    Veth {
                        endpoint: wish.endpoint.clone(),
                        made_of: MadeOf::default(),
                        up: true,
                        mtu: wish.mtu,
                        controller: match &wish.hang {
                            Hang::Port(bridge) => actual.bridges.get(bridge).map_or(0, |bridge| bridge.ifindex),
                            Hang::Datapath | Hang::Child(_) => 0,
                        },
                        sandbox: Some(wish.sandbox.clone()),
                    },
                );
                actual.made.insert(ifindex, Instant::now());
                made.push((ifindex, wish));
            }
            Err(error) => drop(troubles.insert(wish.endpoint.clone(), error.to_string())),
        }
    }
    made
}

/// Sets new pairs up and furnishes their sandboxes' ends.
pub fn raise(hands: &mut Hands<'_>, made: &[(u32, &veth::Wish)], actual: &mut Actual, troubles: &mut Troubles) {
    if made.is_empty() {
        return;
    }
    let host_ends: Vec<u32> = made.iter().map(|(ifindex, _)| *ifindex).collect();
    let lifted = veth::lift_all(hands.netlink, &host_ends);
    let outcomes = match lifted {
        Ok(()) => in_parallel(made, |(_, wish)| veth::furnish(wish)),
        Err(error) => made
            .iter()
            .map(|_| Err(io::Error::new(error.kind(), error.to_string())))
            .collect(),
    };
    let mut ready = Vec::new();
    for ((ifindex, wish), outcome) in made.iter().zip(outcomes) {
        match outcome {
            Ok(()) => ready.push((*ifindex, *wish)),
            Err(error) => {
                let trouble = format!("furnishing {} of endpoint {}: {error}", wish.interface, wish.endpoint);
                troubles.insert(wish.endpoint.clone(), trouble);
            }
        }
    }
    match veth::finish_all(hands.netlink, &ready) {
        Ok(()) => {
            for (ifindex, wish) in ready {
                if let (Some(veth), Some((_, made_of))) =
                    (actual.veths.get_mut(&ifindex), hands.names.read_alias(&wish.alias))
                {
                    veth.made_of = made_of;
                }
            }
        }
        Err(error) => troubles.extend(
            ready
                .iter()
                .map(|(_, wish)| (wish.endpoint.clone(), format!("naming {}: {error}", wish.host_end))),
        ),
    }
}

/// Gives devices that stay their network's MTU and their place on its bridge.
pub fn resize(hands: &mut Hands<'_>, devices: &plan::Devices, actual: &mut Actual, troubles: &mut Troubles) {
    for (ifindex, wish) in &devices.resize {
        match veth::resize(hands.netlink, *ifindex, wish) {
            Ok(()) => {
                if let Some(veth) = actual.veths.get_mut(ifindex) {
                    veth.mtu = wish.mtu;
                }
            }
            Err(error) => {
                let trouble = format!(
                    "giving {} of endpoint {} the MTU {}: {error}",
                    wish.interface, wish.endpoint, wish.mtu
                );
                troubles.insert(wish.endpoint.clone(), trouble);
            }
        }
    }
    for (ifindex, bridge) in &devices.attach {
        match veth::attach(hands.netlink, *ifindex, *bridge) {
            Ok(()) => {
                if let Some(veth) = actual.veths.get_mut(ifindex) {
                    veth.controller = *bridge;
                }
            }
            Err(error) => {
                let trouble = format!("putting device {ifindex} on its bridge: {error}");
                troubles.insert(format!("port-{ifindex}"), trouble);
            }
        }
    }
}

/// Gives sandboxes other ways out by devices that stay.
pub fn turn(hands: &mut Hands<'_>, turned: &[(u32, veth::Wish)], actual: &mut Actual, troubles: &mut Troubles) {
    for (ifindex, wish) in turned {
        let outcome = veth::turn(wish).and_then(|()| veth::finish_all(hands.netlink, &[(*ifindex, wish)]));
        match outcome {
            Ok(()) => {
                if let (Some(veth), Some((_, made_of))) =
                    (actual.veths.get_mut(ifindex), hands.names.read_alias(&wish.alias))
                {
                    veth.made_of = made_of;
                }
            }
            Err(error) => {
                let trouble = format!("giving the sandbox of endpoint {} its ways out: {error}", wish.endpoint);
                troubles.insert(wish.endpoint.clone(), trouble);
            }
        }
    }
}

/// Removes veths on a thread of its own. What fails is found by the next check.
fn remove_unwatched(veths: Vec<u32>) {
    if veths.is_empty() {
        return;
    }
    thread::spawn(move || {
        let removed = Netlink::open().and_then(|mut netlink| veth::remove_all(&mut netlink, &veths));
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove veths whose sandboxes are gone");
        }
    });
}
