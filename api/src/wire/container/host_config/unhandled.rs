//! What clients send and this version does not act on: refused where ignoring it would give the container other rights or another view than the
//! user asked for, else kept for `inspect`, with a warning.

use serde_json::{Map, Value, json};

use crate::error::{Answer, ApiError};

/// Without these a container would be another one than was asked for.
const REFUSED: &[&str] = &["DeviceRequests"];

/// Members that concern the client only, or other systems.
const OF_NO_CONSEQUENCE: &[&str] = &["ConsoleSize", "ContainerIDFile"];

/// Values that ask for what we do anyway.
const AS_WE_DO: &[(&str, &[&str])] = &[
    ("Isolation", &["default"]),
    ("Runtime", &["sluice", "runc", "io.containerd.runc.v2"]),
];

/// What is left when everything that asks for nothing is gone.
pub(super) fn sift(rest: Map<String, Value>) -> Answer<Map<String, Value>> {
    let mut left = Map::new();
    for (member, value) in rest {
        if OF_NO_CONSEQUENCE.contains(&member.as_str()) || asks_for_nothing(&value) {
            continue;
        }
        let known = AS_WE_DO.iter().find(|(name, _)| *name == member);
        let as_we_do = known.is_some_and(|(_, values)| value.as_str().is_some_and(|value| values.contains(&value)));
        if REFUSED.contains(&member.as_str()) || (known.is_some() && !as_we_do) {
            return Err(ApiError::not_offered(format!("HostConfig.{member} ({value})")));
        }
        left.insert(member, value);
    }
    Ok(left)
}

/// A sentence for each member that has no effect.
pub(super) fn warnings(left: &Map<String, Value>) -> Vec<String> {
    let known = |member: &String| AS_WE_DO.iter().any(|(name, _)| name == member);
    let without_effect = left.keys().filter(|member| !known(member));
    without_effect
        .map(|member| format!("HostConfig.{member} has no effect in this version of Sluice"))
        .collect()
}

/// Zero, empty, false: what Go sends for a member that nobody set.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) => false,
    }
}

/// The document of a container that asked for none of these.
pub(super) fn defaults() -> Map<String, Value> {
    super::members(json!({
        "ContainerIDFile": "", "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "Cgroup": "",
        "Runtime": "sluice", "Isolation": "", "DeviceRequests": null,
    }))
}
