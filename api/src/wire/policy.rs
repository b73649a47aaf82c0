//! Documents on who may speak to whom, as our own API shows them.

use serde::Serialize;
use serde_json::{Value, json};
use sluice_engine::{Applied, End, Judged, Opinion, PolicyView};
use sluice_policy::tables::Origin;

/// A document with what it does here.
pub(crate) fn document(view: &PolicyView) -> Value {
    let selects: Vec<Value> = view
        .selects
        .iter()
        .map(|(container, network)| json!({ "container": container, "network": network }))
        .collect();
    let rules: Vec<Value> = view
        .counts
        .iter()
        .map(|count| {
            json!({
                "direction": count.origin.direction,
                // from 1; none: what is said when no rule says anything
                "rule": count.origin.place.map(|place| place + 1),
                "packets": count.verdicts.done.packets,
                "bytes": count.verdicts.done.bytes,
                "audited_packets": count.verdicts.audited.packets,
                "audited_bytes": count.verdicts.audited.bytes,
            })
        })
        .collect();
    json!({
        "policy": view.policy,
        "scope": if view.shared { "cluster" } else { "host" },
        "selects": selects,
        "rules": rules,
    })
}

/// What applying documents has changed, or would.
pub(crate) fn applied(applied: &Applied) -> Value {
    let changed: Vec<Value> = applied
        .changed
        .iter()
        .map(|(before, after)| json!({ "before": before, "after": after }))
        .collect();
    json!({ "created": applied.created, "changed": changed, "unchanged": applied.unchanged })
}

/// What documents say of a conversation.
pub(crate) fn judged(judged: &Judged) -> Value {
    let end = |end: &End| json!({ "name": end.name, "address": end.address });
    let opinion = |opinion: &Opinion| {
        json!({
            "verdict": opinion.verdict,
            "rule": origin(opinion.rule.as_ref()),
            "would_be": opinion.would_be,
            "would_be_rule": origin(opinion.would_be_rule.as_ref()),
        })
    };
    json!({
        "from": end(&judged.from),
        "to": end(&judged.to),
        "verdict": judged.verdict,
        "would_be": judged.would_be,
        "egress": opinion(&judged.egress),
        "ingress": opinion(&judged.ingress),
    })
}

#[derive(Serialize)]
struct Place<'a> {
    policy: &'a str,
    direction: sluice_policy::Direction,
    rule: Option<usize>,
    words: String,
}

fn origin(origin: Option<&Origin>) -> Option<Value> {
    let origin = origin?;
    let place = Place {
        policy: origin.policy.as_str(),
        direction: origin.direction,
        rule: origin.place.map(|place| place + 1),
        words: origin.to_string(),
    };
    serde_json::to_value(place).ok()
}
