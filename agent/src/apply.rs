//! Carries a plan out, in an order that never opens a hole: permission is taken away first, reach is given last.
//!
//! 1. Tables lose what nobody may or can use any more, and the epoch moves: from here on no packet takes a way that is going away.
//! 2. Devices, sandboxes and addresses go; others are made. A veth is made down, with its program attached.
//! 3. Tables learn what documents say, then gain who is there now, published ports last, and the epoch moves.
//! 4. Programs are seen to, on devices that were there before.
//! 5. The new veths go up, the container's end last; sandboxes that lose a way out get another.
//!
//! One endpoint that cannot be made is told of and leaves the others alone.

use std::collections::BTreeSet;

use sluice_datapath_common::settings::Settings;
use tracing::debug_span;

use crate::{
    AgentError, Tried,
    actual::Actual,
    desired::Desired,
    kernel::netlink::Netlink,
    link::{sandbox, veth},
    map::pins::Maps,
    names::Names,
    plan::{self, Steps, Troubles},
    program::{attach::Attacher, load::Programs},
    promise::Promises,
};

mod beside;
mod departed;
mod leg;
mod parallel;
mod programs;
mod rules;
mod sandboxes;
mod tables;
mod veths;

pub use programs::promote_grown;

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
    /// Veths that have no link yet.
    pub unpromoted: usize,
    /// Writes to tables, devices and namespaces.
    pub changes: usize,
}

/// Makes the tables agree with the records of endpoints on other hosts, where nothing else has changed; none: a whole round is needed. Answers the number
/// of writes.
pub fn follow_remotes(maps: &Maps, desired: &Desired, actual: &mut Actual) -> Result<Option<usize>, AgentError> {
    // What documents say of them is found with all that there is.
    if !desired.policies.is_empty() || !actual.rules.is_empty() {
        return Ok(None);
    }
    let Some(steps) = actual.settled.steps_alone(&desired.remotes, &actual.tables) else {
        return Ok(None);
    };
    tables::withdraw_remotes(maps, &steps, &mut actual.tables)?;
    tables::grant_remotes(maps, &steps, &mut actual.tables)?;
    if steps.moves_epoch {
        tables::move_epoch(maps)?;
    }
    Ok(Some(steps.count()))
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

    // 1. Where devices only come, none of which can end the round, it is done with the rest in 3: tables are planned once.
    let only_come = devices.only_come();
    let mut planned = None;
    if !only_come {
        let _step = debug_span!("withdrawal").entered();
        let goes: BTreeSet<&u32> = devices.remove_veths.iter().collect();
        let mut stays = actual.veths_by_endpoint();
        stays.retain(|_, ifindex| !goes.contains(ifindex));
        let (mut wanted, ground, troubles) =
            plan::tables(desired, &places, actual, hands.names, |id| stays.get(id).copied());
        wanted.set(hands.settings);
        let steps = plan::steps(&actual.tables, &wanted);
        report.changes += steps.count();
        withdraw(hands, &steps, actual, &mut report)?;
        if routes_moved || (steps.moves_epoch && steps.removes()) {
            tables::move_epoch(hands.maps)?;
        }
        // they stay as planned unless somebody comes
        planned = (!devices.come()).then_some((wanted, ground, troubles));
    }

    // 2
    report.changes += devices.count();
    let step = (!devices.remove_veths.is_empty() || !devices.remove_sandboxes.is_empty())
        .then(|| debug_span!("removal").entered());
    veths::remove_veths(hands, &devices, actual)?;
    beside::withdraw(hands, &devices.beside, actual)?;
    sandboxes::remove_sandboxes(&devices.remove_sandboxes, actual)?;
    drop(step);
    leg::settle_leg(hands, &devices, actual)?;
    let step = (!devices.make_sandboxes.is_empty()).then(|| debug_span!("sandboxes").entered());
    sandboxes::make_sandboxes(hands, &devices.make_sandboxes, actual, &mut report.troubles);
    drop(step);
    let step = (!devices.make_veths.is_empty()).then(|| debug_span!("veths").entered());
    let made = veths::make_veths(hands, &devices, actual, &mut report.troubles);
    drop(step);

    // 3
    let step = debug_span!("tables").entered();
    let (wanted, ground, troubles) = planned.unwrap_or_else(|| {
        let veths = actual.veths_by_endpoint();
        let (mut wanted, ground, troubles) =
            plan::tables(desired, &places, actual, hands.names, |id| veths.get(id).copied());
        wanted.set(hands.settings);
        (wanted, ground, troubles)
    });
    report.troubles.extend(troubles);
    let steps = plan::steps(&actual.tables, &wanted);
    let elsewhere = actual.settled.steps(&desired.remotes, &ground, &actual.tables);
    report.changes += steps.count() + elsewhere.count();
    // Before anybody is there whom documents speak of.
    let rules_moved = rules::settle(hands.maps, desired, &places, actual, &mut report)?;
    // Before another host can have the number of one that is gone.
    tables::withdraw_remotes(hands.maps, &elsewhere, &mut actual.tables)?;
    withdraw(hands, &steps, actual, &mut report)?;
    tables::grant(hands.maps, &steps, &mut actual.tables)?;
    tables::grant_remotes(hands.maps, &elsewhere, &mut actual.tables)?;
    if steps.moves_epoch || elsewhere.moves_epoch || rules_moved || (routes_moved && only_come) {
        tables::move_epoch(hands.maps)?;
    }
    report.troubles.extend(elsewhere.troubles.clone());
    actual.settled.settle(ground, elsewhere);
    drop(step);

    // 4
    match see_to_programs {
        Some(attention) => programs::see_to_all_programs(hands, actual, &mut report, attention),
        None => report.unpromoted = actual.made.len(),
    }

    // 5
    let _step = (!made.is_empty()).then(|| debug_span!("furnishing").entered());
    veths::raise(hands, &made, actual, &mut report.troubles);
    beside::grant(hands, &devices.beside, actual, &mut report.troubles);
    veths::turn(hands, &devices.turn, actual, &mut report.troubles);
    veths::resize(hands, &devices, actual, &mut report.troubles);
    if !devices.lift.is_empty() {
        veth::lift_all(hands.netlink, &devices.lift).tried(|| "setting veths up".to_owned())?;
    }
    Ok(report)
}

/// Takes permission away, and parts the host from those who are gone.
fn withdraw(hands: &mut Hands<'_>, steps: &Steps, actual: &mut Actual, report: &mut Report) -> Result<(), AgentError> {
    report.endpoints_gone |= !steps.generations.remove.is_empty();
    tables::withdraw(hands.maps, steps, &mut actual.tables)?;
    departed::part_with(hands.netlink, actual.leg.host, &steps.departed());
    Ok(())
}
