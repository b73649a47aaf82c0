//! What would become of a packet, step by step.

use serde::{Deserialize, Serialize};

use super::{Outcome, Reason, Side};

/// What the programs made of a packet that nobody has sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What was decided on the way, in order.
    pub steps: Vec<Step>,
    /// What becomes of it.
    pub verdict: Outcome,
    /// Why it would be dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<Reason>,
    /// Who speaks.
    pub source: Option<Side>,
    /// To whom.
    pub destination: Option<Side>,
    /// `tcp`, `udp` …
    pub protocol: String,
    /// `container`, `host`, `overlay` or `world`: where it is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub towards: Option<String>,
    /// The device that it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// Something that was decided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// `packet`, `socket`, `program`, `translation`, `policy`, `route` or `verdict`.
    pub what: String,
    /// In a sentence.
    pub told: String,
}
