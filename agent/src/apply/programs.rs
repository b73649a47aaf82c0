//! Sees to the programs on devices that stay.

use std::time::Instant;

use sluice_datapath_common::programs::{FROM_CONTAINER, FROM_HOST, FROM_NIC, TO_NIC};

use super::{Attention, Hands, Report};
use crate::actual::Actual;

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
