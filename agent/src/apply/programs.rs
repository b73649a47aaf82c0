//! Sees to the programs on devices that stay.

use std::time::{Duration, Instant};

use sluice_datapath_common::programs::{FROM_CONTAINER, FROM_HOST, FROM_NIC, TO_NIC};

use super::{Attention, Hands, Report};
use crate::{
    actual::{Actual, YOUTH},
    names::Names,
    program::{attach::Attacher, load::Programs},
};

/// Attaches what is missing and replaces what is of another load. What works stays as it is, also where no address is any more: an uplink that
/// loses its address for a moment keeps its programs.
pub fn see_to_all_programs(hands: &mut Hands<'_>, actual: &mut Actual, report: &mut Report, attention: Attention) {
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

/// Sees to it that each veth has its program: by a link, or by the filter that it began with, which a link takes the place of when it has outgrown it.
fn see_to_veths(hands: &mut Hands<'_>, actual: &mut Actual, report: &mut Report, attention: Attention) {
    let suspect = attention == Attention::Full;
    let (attacher, programs) = (hands.attacher, hands.programs);
    let begins_with_filter = attacher.has_tcx();
    let now = Instant::now();
    actual.forget_made();
    for ifindex in actual.veths.keys().copied() {
        let outcome = if !begins_with_filter || attacher.has_link(FROM_CONTAINER, ifindex) {
            attacher.promote(programs, hands.names, FROM_CONTAINER, ifindex, suspect)
        } else {
            // one of an earlier life, too, is as good as young: a start is no time for waiting
            actual.made.entry(ifindex).or_insert(now);
            attacher.to_new_device(programs, FROM_CONTAINER, ifindex)
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
    if !begins_with_filter {
        actual.made.clear();
    }
    report.unpromoted = actual.made.len();
}

/// Gives links to veths that have outgrown their filter, a few at a time: each keeps whoever configures a network waiting. Looks at no others, however
/// many there are.
pub fn promote_grown(attacher: &Attacher, programs: &Programs, names: &Names, actual: &mut Actual) {
    const AT_A_TIME: usize = 4;
    /// Who could not be given one waits for the usual check.
    const LATER: Duration = Duration::from_secs(10);
    actual.forget_made();
    if !attacher.has_tcx() {
        actual.made.clear();
    }
    let now = Instant::now();
    let grown: Vec<u32> = actual
        .made
        .iter()
        .filter(|(_, made)| now.saturating_duration_since(**made) >= YOUTH)
        .map(|(ifindex, _)| *ifindex)
        .take(AT_A_TIME)
        .collect();
    for ifindex in grown {
        match attacher.promote(programs, names, FROM_CONTAINER, ifindex, true) {
            Ok(()) => drop(actual.made.remove(&ifindex)),
            Err(error) => {
                tracing::warn!(ifindex, %error, "a veth keeps its filter for now");
                actual.made.insert(ifindex, now + LATER);
            }
        }
    }
}

fn reap_duplicates(hands: &Hands<'_>, ifindex: u32) {
    if let Err(error) = hands.attacher.reap_duplicates(hands.maps, ifindex) {
        tracing::warn!(ifindex, %error, "cannot look for duplicate programs");
    }
}
