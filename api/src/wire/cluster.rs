//! The cluster, as `sluice cluster status` shows it.

use serde_json::{Value, json};
use sluice_engine::ClusterStatus;

use crate::time;

/// The whole answer.
pub(crate) fn document(status: &ClusterStatus) -> Value {
    let hosts: Vec<Value> = status
        .hosts
        .iter()
        .map(|(host, endpoints)| {
            json!({
                "id": host.id,
                "name": host.name,
                "addresses": host.addresses,
                "vxlan_port": host.vxlan_port,
                "wireguard": host.seal.as_ref().map(|seal| json!({ "key": seal.key, "address": seal.address, "port": seal.port })),
                "version": host.version,
                "since": time::text(host.since),
                "endpoints": endpoints,
            })
        })
        .collect();
    let members: Vec<Value> = status
        .members
        .iter()
        .map(|member| match &member.state {
            Ok(state) => json!({
                "address": member.address,
                "version": state.version,
                "leads": state.leads,
                "has_leader": state.has_leader,
                "bytes": state.bytes,
                "alarms": state.alarms,
            }),
            Err(why) => json!({ "address": member.address, "error": why }),
        })
        .collect();
    json!({
        "id": status.id,
        "lease": status.lease.map(|lease| format!("{lease:x}")),
        "lease_seconds": status.lease_seconds,
        "prefix": status.prefix,
        "revision": status.revision,
        "reached": status.reached.map(time::text),
        "present": status.present,
        "behind": status.behind,
        "trouble": status.trouble,
        "hosts": hosts,
        "members": members,
    })
}
