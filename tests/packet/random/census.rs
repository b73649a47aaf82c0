//! What has become of all packets.

use std::collections::BTreeMap;
use std::fmt;

use sluice_datapath_common::DropReason;

use super::trial::Trial;
use crate::reference::{Fate, Hook};

/// What has become of a packet, in a word or two.
pub fn name(hook: Hook, fate: &Fate, told: bool) -> String {
    match fate {
        Fate::Heard if told => TOLD.to_owned(),
        Fate::Stays(_) => format!("{hook:?} stays"),
        Fate::Sent(_) => format!("{hook:?} sent"),
        Fate::Wrapped(_) => format!("{hook:?} {WRAPPED}"),
        Fate::Heard => format!("{hook:?} heard"),
        Fate::Dropped(reason) => format!("{hook:?} dropped: {reason:?}"),
    }
}

/// What becomes of what is said to many, and somebody hears.
const TOLD: &str = "FromContainer told to many";

/// What is sent to another host.
const WRAPPED: &str = "wrapped up for another host";

/// What has become of all packets: a test that only ever sees one kind of them proves little.
#[derive(Default)]
pub struct Census(BTreeMap<String, u64>);

impl Census {
    pub fn add(&mut self, trial: &Trial<'_>) {
        for (fate, count) in &trial.fates {
            *self.0.entry(fate.clone()).or_default() += count;
        }
    }

    /// Given enough packets, every reason for a drop that can be met by chance has been met.
    pub fn assert_variety(&self) {
        if self.0.values().sum::<u64>() < 200_000 {
            return;
        }
        assert!(self.0.contains_key(TOLD), "nobody spoke to many");
        for hook in [Hook::FromContainer, Hook::FromHost, Hook::FromNic] {
            let word = format!("{hook:?} {WRAPPED}");
            assert!(self.0.contains_key(&word), "nothing was {word}");
        }
        use DropReason::*;
        let met = [
            Truncated,
            UnknownDevice,
            ForgedMac,
            ForgedSource,
            UnknownEtherType,
            Multicast,
            NotRoutable,
            NoSuchEndpoint,
            IsolatedNetwork,
            InternalNetwork,
            IccDisabled,
            Unpublished,
            NoRoute,
            NoMasquerade,
            CannotTranslate,
            FlowTableFull,
            FlowLimit,
            TinyFragment,
            NotAnOpening,
            UnrelatedError,
            UnmasqueradedSource,
            ForgedArp,
            SourceRouted,
            ExtensionHeaders,
            FragmentAlone,
            UnknownVni,
            NotAMember,
            ForgedRemote,
            NoOverlay,
        ];
        for reason in met {
            let word = format!("dropped: {reason:?}");
            assert!(
                self.0.keys().any(|fate| fate.ends_with(&word)),
                "no packet met {reason:?}; the steps are not various enough"
            );
        }
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|(fate, count)| writeln!(f, "{count:>9} {fate}"))
    }
}
