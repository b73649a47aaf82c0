//! What is said of a conversation.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Number;

/// What a rule says. The later goes before the earlier where several speak of one conversation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may be.
    #[default]
    Allow = 1,
    /// It may not, and who asks is told so (TCP: RST; else ICMP's "unreachable").
    Reject = 2,
    /// It may not, and nothing is said of it.
    Deny = 3,
}

/// Which end of a conversation is judged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The one that is spoken to.
    Ingress,
    /// The one that speaks first.
    Egress,
}

/// A verdict, and the rule that spoke it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Spoken {
    /// What it says.
    pub verdict: Verdict,
    /// The rule's number.
    pub rule: Number,
}

/// What is said of a conversation at one end: by the documents that are in force, and by those together with the ones that are only watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Judgement {
    /// What is done. None: nobody has said anything.
    pub enforced: Option<Spoken>,
    /// What would be done, were the documents under audit in force too.
    pub audited: Option<Spoken>,
}

// === impl Verdict ===

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Allow => "allow",
            Self::Reject => "reject",
            Self::Deny => "deny",
        })
    }
}

// === impl Direction ===

impl fmt::Display for Direction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

// === impl Judgement ===

impl Judgement {
    /// What a rule says, of a document that is in force or under audit.
    pub fn of(spoken: Spoken, audit: bool) -> Self {
        Self {
            enforced: (!audit).then_some(spoken),
            audited: Some(spoken),
        }
    }

    /// Both together: the stricter verdict, by the rule of the least number.
    pub fn and(self, other: Self) -> Self {
        Self {
            enforced: stricter(self.enforced, other.enforced),
            audited: stricter(self.audited, other.audited),
        }
    }

    /// What is said if nobody has said anything before.
    pub fn or(self, default: Self) -> Self {
        Self {
            enforced: self.enforced.or(default.enforced),
            audited: self.audited.or(default.audited),
        }
    }

    /// What is done: whoever nobody has spoken of may speak.
    pub fn verdict(&self) -> Verdict {
        self.enforced.map_or(Verdict::Allow, |spoken| spoken.verdict)
    }

    /// What would be done.
    pub fn would_be(&self) -> Verdict {
        self.audited.map_or(Verdict::Allow, |spoken| spoken.verdict)
    }
}

fn stricter(one: Option<Spoken>, other: Option<Spoken>) -> Option<Spoken> {
    match (one, other) {
        (Some(one), Some(other)) => Some(match one.verdict.cmp(&other.verdict) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => one,
            std::cmp::Ordering::Equal => one.min(other),
        }),
        (one, other) => one.or(other),
    }
}
