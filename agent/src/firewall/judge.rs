//! Walks a packet through rules, both ways wherever it is not known which.

use super::{
    Belief, Visit,
    ruleset::{Ruleset, Truth, Verdict},
};
use sluice_model::network::Family;

/// The kernel allows no deeper calls (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// What may become of packets in a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ends {
    accepted: bool,
    dropped: bool,
    /// Nothing is decided there.
    returned: bool,
    /// It depends on something that we cannot read.
    unread: bool,
}

/// What such packets meet in all chains of the ruleset that they pass.
pub fn belief(ruleset: &Ruleset, visit: &Visit) -> Belief {
    if ruleset.family.is_some_and(|family| family != Family::of(visit.address)) {
        return Belief::Open;
    }
    let beliefs = ruleset.roots.iter().map(|root| {
        let mut ends = walk(ruleset, &root.chain, visit, 0);
        if ends.returned {
            ends.accepted |= root.accepts;
            ends.dropped |= !root.accepts;
        }
        match ends {
            Ends { dropped: false, .. } => Belief::Open,
            Ends { accepted: false, .. } => Belief::Closed,
            Ends { unread: true, .. } => Belief::Unclear,
            _ => Belief::Limited,
        }
    });
    beliefs.max().unwrap_or(Belief::Open)
}

fn walk(ruleset: &Ruleset, chain: &str, visit: &Visit, depth: usize) -> Ends {
    let mut ends = Ends::default();
    if depth > DEEPEST {
        return everything();
    }
    for rule in ruleset.chains.get(chain).into_iter().flatten() {
        let truth = rule.holds(visit);
        if truth == Truth::No {
            continue;
        }
        let (mut of_rule, goes_on) = match &rule.verdict {
            Verdict::Accept => (accepted(), false),
            Verdict::Drop => (dropped(), false),
            Verdict::Return => (returned(), false),
            Verdict::Unread => (everything(), false),
            Verdict::Goto(to) => (walk(ruleset, to, visit, depth + 1), false),
            Verdict::Jump(to) => {
                let there = walk(ruleset, to, visit, depth + 1);
                let decided = Ends {
                    returned: false,
                    ..there
                };
                (decided, there.returned)
            }
        };
        // A rule that does nothing in the end is of no interest, however unreadable.
        of_rule.unread |= truth == Truth::Unread && of_rule != Ends::default();
        ends = ends.or(of_rule);
        if truth == Truth::Yes && !goes_on {
            return ends;
        }
    }
    ends.or(returned())
}

fn accepted() -> Ends {
    Ends {
        accepted: true,
        ..Ends::default()
    }
}

fn dropped() -> Ends {
    Ends {
        dropped: true,
        ..Ends::default()
    }
}

fn returned() -> Ends {
    Ends {
        returned: true,
        ..Ends::default()
    }
}

fn everything() -> Ends {
    Ends {
        accepted: true,
        dropped: true,
        returned: true,
        unread: true,
    }
}

impl Ends {
    fn or(self, other: Self) -> Self {
        Self {
            accepted: self.accepted || other.accepted,
            dropped: self.dropped || other.dropped,
            returned: self.returned || other.returned,
            unread: self.unread || other.unread,
        }
    }
}
