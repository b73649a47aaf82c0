//! Carries a plan out, in an order that never opens a hole: permission is taken away first, reach is given last.
//!
//! 1. Tables lose what nobody may or can use any more, and the epoch moves: from here on no packet takes a way that is going away.
//! 2. Devices, sandboxes and addresses go; others are made. A veth is made down, with its program attached.
//! 3. Tables gain who is there now, published ports last, and the epoch moves.
//! 4. Programs are seen to, on devices that were there before.
//! 5. The new veths go up, the container's end last; sandboxes that lose a way out get another.
//!
//! One endpoint that cannot be made is told of and leaves the others alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::PathBuf,
    thread,
    time::Instant,
};

use ipnet::IpNet;
use sluice_datapath_common::{
    network::Network,
    programs::{FROM_CONTAINER, FROM_HOST, FROM_NIC, TO_NIC},
    settings::Settings,
};

use tracing::debug_span;

use crate::{
    AgentError, Tried,
    actual::{Actual, Veth},
    desired::Desired,
    kernel::{netlink::Netlink, sock_diag},
    link::{
        host_leg, sandbox,
        veth::{self, Hang},
    },
    map::{contents::Tables, pins::Maps},
    names::{MadeOf, Names},
    plan::{self, Steps, Troubles},
    program::{attach::Attacher, load::Programs},
    promise::Promises,
};

mod beside;

/// How many threads make sandboxes and furnish veths at a time. Most of their time they wait for the kernel.
const HANDS: usize = 8;

/// What works on the kernel.
pub struct Hands<'a> {
    /// A socket in the daemon's own namespace.
    pub netlink: &'a mut Netlink,
    /// The tables.
    pub maps: &'a Maps,
    /// The programs in the kernel.
    pub programs: &'a Programs,
    /// What attaches them.
    pub attacher: &'a Attacher,
    /// What things are called.
    pub names: &'a Names,
    /// The limits that the datapath is to keep.
    pub settings: Settings,
    /// Namespaces made for sandboxes to come.
    pub offers: &'a sandbox::Offers,
    /// Sandboxes that are made ahead.
    pub promises: &'a Promises,
}

/// How closely it is looked at attached programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attention {
    /// They are as we left them, or gone.
    Usual,
    /// An earlier life may have been cut short at any moment.
    Full,
}

/// What came of it.
#[derive(Default, Debug)]
pub struct Report {
    /// What could not be made, by the id of what it was for.
    pub troubles: Troubles,
    /// Endpoints are gone, and flows of theirs may be left.
    pub endpoints_gone: bool,
    /// Veths that have no link yet: they are young, or it is not their turn.
    pub unpromoted: usize,
    /// Writes to tables, devices and namespaces.
    pub changes: usize,
}

/// Makes the host agree with what is desired. `see_to_programs`: also look whether those of devices that stay are attached, and how closely.
pub fn apply(
    hands: &mut Hands<'_>,
    desired: &Desired,
    actual: &mut Actual,
    see_to_programs: Option<Attention>,
    routes_moved: bool,
) -> Result<Report, AgentError> {
    let mut report = Report {
        troubles: desired.unreadable.clone(),
        ..Report::default()
    };
    let (places, troubles) = plan::places(desired, actual, hands.names);
    report.troubles.extend(troubles);
    let devices = plan::devices(desired, &places, actual, hands.names);

    // 1
    let step = debug_span!("withdrawal").entered();
    let stays = |actual: &Actual, id: &str| {
        actual
            .veth_of(id)
            .filter(|ifindex| !devices.remove_veths.contains(ifindex))
    };
    let (mut tables, _) = plan::tables(desired, &places, actual, hands.names, |id| stays(actual, id));
    tables.set(hands.settings);
    let steps = plan::steps(&actual.tables, &tables);
    report.endpoints_gone = !steps.generations.remove.is_empty();
    report.changes += steps.count();
    withdraw(hands.maps, &steps, &mut actual.tables)?;
    part_with(hands.netlink, actual.leg.host, &steps.departed());
    if routes_moved || (steps.moves_epoch && steps.removes()) {
        move_epoch(hands.maps)?;
    }
    drop(step);

    // 2
    report.changes += devices.count();
    let step = (!devices.remove_veths.is_empty() || !devices.remove_sandboxes.is_empty())
        .then(|| debug_span!("removal").entered());
    if !devices.remove_veths.is_empty() {
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
    }
    beside::withdraw(hands, &devices.beside, actual)?;
    remove_sandboxes(&devices.remove_sandboxes, actual)?;
    drop(step);
    settle_leg(hands, &devices, actual)?;
    let step = (!devices.make_sandboxes.is_empty()).then(|| debug_span!("sandboxes").entered());
    make_sandboxes(hands, &devices.make_sandboxes, actual, &mut report.troubles);
    drop(step);
    let step = (!devices.make_veths.is_empty()).then(|| debug_span!("veths").entered());
    let made = make_veths(hands, &devices, actual, &mut report.troubles);
    drop(step);

    // 3
    let step = debug_span!("tables").entered();
    let (mut tables, troubles) = plan::tables(desired, &places, actual, hands.names, |id| actual.veth_of(id));
    tables.set(hands.settings);
    report.troubles.extend(troubles);
    let steps = plan::steps(&actual.tables, &tables);
    report.changes += steps.count();
    withdraw(hands.maps, &steps, &mut actual.tables)?;
    grant(hands.maps, &steps, &mut actual.tables)?;
    if steps.moves_epoch {
        move_epoch(hands.maps)?;
    }
    drop(step);

    // 4
    match see_to_programs {
        Some(attention) => see_to_all_programs(hands, actual, &mut report, attention),
        None => report.unpromoted = actual.made.len(),
    }

    // 5
    let _step = (!made.is_empty()).then(|| debug_span!("furnishing").entered());
    raise(hands, &made, actual, &mut report.troubles);
    beside::grant(hands, &devices.beside, actual, &mut report.troubles);
    turn(hands, &devices.turn, actual, &mut report.troubles);
    resize(hands, &devices, actual, &mut report.troubles);
    if !devices.lift.is_empty() {
        veth::lift_all(hands.netlink, &devices.lift).tried(|| "setting veths up".to_owned())?;
    }
    Ok(report)
}

/// Takes permission away: by generation at once, then entry by entry. A rule of a network that changes counts as one that is taken away.
fn withdraw(maps: &Maps, steps: &Steps, mirror: &mut Tables) -> Result<(), AgentError> {
    let mut all = || -> io::Result<()> {
        steps.generations.blank(&maps.GENERATIONS, &mut mirror.generations, 0)?;
        steps.links.withdraw(&maps.LINKS, &mut mirror.links)?;
        steps.members.withdraw(&maps.MEMBERS, &mut mirror.members)?;
        steps.published4.withdraw(&maps.PUBLISHED4, &mut mirror.published4)?;
        steps.published6.withdraw(&maps.PUBLISHED6, &mut mirror.published6)?;
        steps.attachments.withdraw(&maps.ATTACHMENTS, &mut mirror.attachments)?;
        steps.resolvers.withdraw(&maps.RESOLVERS, &mut mirror.resolvers)?;
        steps.endpoints4.withdraw(&maps.ENDPOINTS4, &mut mirror.endpoints4)?;
        steps.endpoints6.withdraw(&maps.ENDPOINTS6, &mut mirror.endpoints6)?;
        steps.ranges4.withdraw(&maps.RANGES4, &mut mirror.ranges4)?;
        steps.ranges6.withdraw(&maps.RANGES6, &mut mirror.ranges6)?;
        steps.sources4.withdraw(&maps.SOURCES4, &mut mirror.sources4)?;
        steps.sources6.withdraw(&maps.SOURCES6, &mut mirror.sources6)?;
        steps.reserved.blank(&maps.RESERVED, &mut mirror.reserved, 0)?;
        steps.networks.grant(&maps.NETWORKS, &mut mirror.networks)?;
        steps.subnets4.withdraw(&maps.SUBNETS4, &mut mirror.subnets4)?;
        steps.subnets6.withdraw(&maps.SUBNETS6, &mut mirror.subnets6)?;
        steps
            .networks
            .blank(&maps.NETWORKS, &mut mirror.networks, Network::default())?;
        steps.uplinks4.withdraw(&maps.UPLINKS4, &mut mirror.uplinks4)?;
        steps.uplinks6.withdraw(&maps.UPLINKS6, &mut mirror.uplinks6)?;
        steps.local6.withdraw(&maps.LOCAL6, &mut mirror.local6)?;
        steps.local4.withdraw(&maps.LOCAL4, &mut mirror.local4)
    };
    all().tried(|| "taking entries from the datapath's tables".to_owned())
}

/// Gives reach: first what others lean on, published ports last.
fn grant(maps: &Maps, steps: &Steps, mirror: &mut Tables) -> Result<(), AgentError> {
    let mut all = || -> io::Result<()> {
        steps.networks.grant(&maps.NETWORKS, &mut mirror.networks)?;
        steps.subnets4.grant(&maps.SUBNETS4, &mut mirror.subnets4)?;
        steps.subnets6.grant(&maps.SUBNETS6, &mut mirror.subnets6)?;
        steps.local4.grant(&maps.LOCAL4, &mut mirror.local4)?;
        steps.local6.grant(&maps.LOCAL6, &mut mirror.local6)?;
        steps.uplinks4.grant(&maps.UPLINKS4, &mut mirror.uplinks4)?;
        steps.uplinks6.grant(&maps.UPLINKS6, &mut mirror.uplinks6)?;
        steps.generations.grant(&maps.GENERATIONS, &mut mirror.generations)?;
        steps.endpoints4.grant(&maps.ENDPOINTS4, &mut mirror.endpoints4)?;
        steps.endpoints6.grant(&maps.ENDPOINTS6, &mut mirror.endpoints6)?;
        steps.attachments.grant(&maps.ATTACHMENTS, &mut mirror.attachments)?;
        steps.resolvers.grant(&maps.RESOLVERS, &mut mirror.resolvers)?;
        steps.members.grant(&maps.MEMBERS, &mut mirror.members)?;
        steps.links.grant(&maps.LINKS, &mut mirror.links)?;
        steps.sources4.grant(&maps.SOURCES4, &mut mirror.sources4)?;
        steps.sources6.grant(&maps.SOURCES6, &mut mirror.sources6)?;
        steps.reserved.grant(&maps.RESERVED, &mut mirror.reserved)?;
        steps.settings.grant(&maps.SETTINGS, &mut mirror.settings)?;
        steps.ranges4.grant(&maps.RANGES4, &mut mirror.ranges4)?;
        steps.ranges6.grant(&maps.RANGES6, &mut mirror.ranges6)?;
        steps.published6.grant(&maps.PUBLISHED6, &mut mirror.published6)?;
        steps.published4.grant(&maps.PUBLISHED4, &mut mirror.published4)
    };
    all().tried(|| "writing the datapath's tables".to_owned())
}

/// Makes the host forget endpoints that are gone: who has their addresses next is another, at another MAC. Nothing here may fail the round.
fn part_with(netlink: &mut Netlink, leg: u32, departed: &BTreeSet<IpAddr>) {
    if departed.is_empty() {
        return;
    }
    match netlink.carry_out(
        departed
            .iter()
            .map(|address| host_leg::forget_neighbour(leg, *address))
            .collect(),
    ) {
        Ok(outcomes) => {
            for error in outcomes.into_iter().filter_map(Result::err) {
                if error.raw_os_error() != Some(libc::ENOENT) {
                    tracing::debug!(%error, "cannot forget a neighbour");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot forget neighbours"),
    }
    // A process of the host that is connected to one would go on sending to nobody for ever: no hook runs on what it sends.
    match sock_diag::destroy_udp(|peer| departed.contains(&peer)) {
        Ok(0) => {}
        Ok(destroyed) => tracing::debug!(
            destroyed,
            "sockets of the host were connected to endpoints that are gone"
        ),
        Err(error) => tracing::warn!(%error, "cannot part sockets of the host from endpoints that are gone"),
    }
}

/// Every flow is judged again on its next packet.
fn move_epoch(maps: &Maps) -> Result<(), AgentError> {
    let moved = || -> io::Result<()> {
        let epoch = maps.EPOCH.get(&0)?.unwrap_or(0);
        maps.EPOCH.put(&0, &epoch.wrapping_add(1))
    };
    moved().tried(|| "moving the epoch".to_owned())
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

fn remove_sandboxes(paths: &[PathBuf], actual: &mut Actual) -> Result<(), AgentError> {
    let outcomes = in_parallel(paths, |path| {
        sandbox::remove(path).tried(|| format!("removing the sandbox {}", path.display()))
    });
    for (path, outcome) in paths.iter().zip(outcomes) {
        outcome?;
        actual.sandboxes.remove(path);
        actual.cookies.remove(path);
    }
    Ok(())
}

fn settle_leg(hands: &mut Hands<'_>, devices: &plan::Devices, actual: &mut Actual) -> Result<(), AgentError> {
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

fn make_sandboxes(hands: &Hands<'_>, sandboxes: &[(String, PathBuf)], actual: &mut Actual, troubles: &mut Troubles) {
    if sandboxes.is_empty() {
        return;
    }
    let _alone = hands.promises.alone();
    let offers = hands.offers;
    let outcomes = in_parallel(sandboxes, |(_, path)| sandbox::make(path, offers));
    for ((id, path), outcome) in sandboxes.iter().zip(outcomes) {
        actual.sandboxes.insert(path.clone(), outcome.is_ok());
        match outcome {
            Ok(cookie) => drop(actual.cookies.insert(path.clone(), cookie)),
            Err(error) => {
                let trouble = format!("making the sandbox {}: {error}", path.display());
                troubles.insert(id.clone(), trouble);
            }
        }
    }
}

/// Makes pairs, down, each with its program attached. The kernel makes one device at a time, so one thread does.
fn make_veths<'a>(
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

fn raise(hands: &mut Hands<'_>, made: &[(u32, &veth::Wish)], actual: &mut Actual, troubles: &mut Troubles) {
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
fn resize(hands: &mut Hands<'_>, devices: &plan::Devices, actual: &mut Actual, troubles: &mut Troubles) {
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
fn turn(hands: &mut Hands<'_>, turned: &[(u32, veth::Wish)], actual: &mut Actual, troubles: &mut Troubles) {
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

/// Attaches what is missing and replaces what is of another load. What works stays as it is, also where no address is any more: an uplink that
/// loses its address for a moment keeps its programs.
fn see_to_all_programs(hands: &mut Hands<'_>, actual: &mut Actual, report: &mut Report, attention: Attention) {
    let mut devices: Vec<(u32, &[&'static str])> = vec![(actual.leg.datapath, &[FROM_HOST])];
    devices.extend(
        actual
            .world
            .uplinks
            .iter()
            .map(|uplink| (uplink.ifindex, &[FROM_NIC, TO_NIC][..])),
    );
    for (ifindex, programs) in devices {
        for program in programs {
            if let Err(error) = hands.attacher.to_device(hands.programs, program, ifindex) {
                report
                    .troubles
                    .insert(format!("{program}-{ifindex}"), error.to_string());
            }
        }
        reap_duplicates(hands, ifindex);
    }
    see_to_veths(hands, actual, report, attention);
    if let Err(error) = hands.attacher.to_cgroup(hands.programs) {
        report.troubles.insert("cgroup".to_owned(), error.to_string());
    }
    if let Err(error) = hands.attacher.forget_gone() {
        tracing::warn!(%error, "cannot forget the links of devices that are gone");
    }
}

/// Gives links to those that have outgrown their filter, a few at a time: each keeps whoever configures a network waiting.
fn see_to_veths(hands: &mut Hands<'_>, actual: &mut Actual, report: &mut Report, attention: Attention) {
    const AT_A_TIME: usize = 4;
    actual.grow(Instant::now());
    let suspect = attention == Attention::Full;
    // A start is no time for waiting: filters are as good for another moment.
    let mut turns = match hands.attacher.has_tcx() {
        true if suspect => 0,
        true => AT_A_TIME,
        false => usize::MAX,
    };
    for ifindex in actual.veths.keys().copied() {
        let (attacher, programs) = (hands.attacher, hands.programs);
        let outcome = if attacher.has_link(FROM_CONTAINER, ifindex) {
            attacher.promote(programs, hands.names, FROM_CONTAINER, ifindex, suspect)
        } else if turns == 0 || actual.made.contains_key(&ifindex) {
            report.unpromoted += 1;
            attacher.to_new_device(programs, FROM_CONTAINER, ifindex)
        } else {
            turns -= 1;
            attacher.promote(programs, hands.names, FROM_CONTAINER, ifindex, true)
        };
        if let Err(error) = outcome {
            report
                .troubles
                .insert(format!("{FROM_CONTAINER}-{ifindex}"), error.to_string());
        }
        if suspect {
            reap_duplicates(hands, ifindex);
        }
    }
}

fn reap_duplicates(hands: &Hands<'_>, ifindex: u32) {
    if let Err(error) = hands.attacher.reap_duplicates(hands.maps, ifindex) {
        tracing::warn!(ifindex, %error, "cannot look for duplicate programs");
    }
}

/// Does `work` for each item by a few threads (by none for one item), answers in order.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let mut answers: BTreeMap<usize, R> = BTreeMap::new();
    let hands = HANDS.min(items.len());
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..hands)
            .map(|hand| {
                scope.spawn(move || {
                    let mine = items.iter().enumerate().skip(hand).step_by(hands);
                    mine.map(|(index, item)| (index, work(item))).collect::<Vec<_>>()
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => answers.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    answers.into_values().collect()
}

// === what counts as a change ===

impl Steps {
    fn count(&self) -> usize {
        fn of<K, V>(changes: &crate::map::contents::Changes<K, V>) -> usize {
            changes.remove.len() + changes.put.len()
        }
        of(&self.networks)
            + of(&self.subnets4)
            + of(&self.subnets6)
            + of(&self.generations)
            + of(&self.attachments)
            + of(&self.resolvers)
            + of(&self.endpoints4)
            + of(&self.endpoints6)
            + of(&self.published4)
            + of(&self.published6)
            + of(&self.ranges4)
            + of(&self.ranges6)
            + of(&self.sources4)
            + of(&self.sources6)
            + of(&self.links)
            + of(&self.members)
            + of(&self.settings)
            + of(&self.reserved)
            + of(&self.local4)
            + of(&self.local6)
            + of(&self.uplinks4)
            + of(&self.uplinks6)
    }

    /// The addresses of endpoints that are gone.
    fn departed(&self) -> BTreeSet<IpAddr> {
        let ipv4 = self
            .endpoints4
            .remove
            .iter()
            .map(|key| IpAddr::V4(key.0.address.into()));
        let ipv6 = self
            .endpoints6
            .remove
            .iter()
            .map(|key| IpAddr::V6(key.0.address.into()));
        ipv4.chain(ipv6).collect()
    }

    /// Something is taken away or becomes something else.
    fn removes(&self) -> bool {
        !(self.networks.is_empty()
            && self.subnets4.remove.is_empty()
            && self.subnets6.remove.is_empty()
            && self.published4.remove.is_empty()
            && self.published6.remove.is_empty()
            && self.ranges4.remove.is_empty()
            && self.ranges6.remove.is_empty()
            && self.sources4.remove.is_empty()
            && self.sources6.remove.is_empty()
            && self.links.remove.is_empty()
            && self.local4.remove.is_empty()
            && self.local6.remove.is_empty()
            && self.uplinks6.remove.is_empty()
            && self.uplinks4.remove.is_empty())
    }
}

impl plan::Devices {
    fn count(&self) -> usize {
        self.remove_veths.len()
            + self.remove_sandboxes.len()
            + self.remove_gateways.len()
            + usize::from(self.leg_mtu.is_some())
            + self.add_gateways.len()
            + self.make_sandboxes.len()
            + self.make_veths.len()
            + self.lift.len()
            + self.turn.len()
            + self.resize.len()
            + self.attach.len()
            + self.beside.count()
    }
}
