//! What a container uses, as `GET /containers/{id}/stats` shows it.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sluice_engine::{Traffic, Usage, UsageView};

use crate::{host, time};

/// A measurement as a line.
pub(crate) fn line(view: &UsageView) -> Bytes {
    let mut line = document(view).to_string();
    line.push('\n');
    line.into()
}

/// A measurement. What is not counted here has Docker's zero.
pub(crate) fn document(view: &UsageView) -> Value {
    let before = view.before.as_ref();
    let mut document = json!({
        "read": time::text_or_never(view.now.as_ref().map(|now| now.at)),
        "preread": time::text_or_never(before.map(|before| before.at)),
        "id": view.id,
        "name": format!("/{}", view.name),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(view.now.as_ref()),
        "precpu_stats": cpu(before),
        "pids_stats": {},
        "memory_stats": {},
        "blkio_stats": block(view.now.as_ref()),
    });
    if let Some(now) = &view.now {
        let pids = &now.stats.pids;
        document["pids_stats"] = json!({ "current": pids.current });
        // on cgroup2 Docker writes the largest number there is for no limit, on v1 nothing
        if let Some(limit) = pids.limit.or(now.stats.is_unified.then_some(u64::MAX)) {
            document["pids_stats"]["limit"] = json!(limit);
        }
        document["memory_stats"] = memory(now);
        if !now.traffic.is_empty() {
            document["networks"] = now
                .traffic
                .iter()
                .map(|(device, traffic)| (device.clone(), network(traffic)))
                .collect::<Map<_, _>>()
                .into();
        }
    }
    document
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn cpu(usage: Option<&Usage>) -> Value {
    let throttling = |periods: u64, throttled: u64, time: u64| json!({ "periods": periods, "throttled_periods": throttled, "throttled_time": time });
    let Some(usage) = usage else {
        return json!({
            "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
            "throttling_data": throttling(0, 0, 0),
        });
    };
    let cpu = &usage.stats.cpu;
    let mut time = json!({
        "total_usage": nanoseconds(cpu.total),
        "usage_in_kernelmode": nanoseconds(cpu.system),
        "usage_in_usermode": nanoseconds(cpu.user),
    });
    if !cpu.per_cpu.is_empty() {
        time["percpu_usage"] = cpu.per_cpu.iter().map(|time| nanoseconds(*time)).collect();
    }
    json!({
        "cpu_usage": time,
        "system_cpu_usage": nanoseconds(usage.host_cpu),
        "online_cpus": usage.cpus,
        "throttling_data": throttling(cpu.periods, cpu.throttled_periods, nanoseconds(cpu.throttled)),
    })
}

fn memory(usage: &Usage) -> Value {
    let memory = &usage.stats.memory;
    let mut document = json!({
        "usage": memory.usage,
        "stats": memory.detail,
        // without a limit of its own, the host is the limit
        "limit": memory.limit.unwrap_or_else(host::memory),
    });
    if let Some(most) = memory.most.filter(|_| !usage.stats.is_unified) {
        document["max_usage"] = json!(most);
    }
    if memory.failures != 0 {
        document["failcnt"] = json!(memory.failures);
    }
    document
}

fn block(usage: Option<&Usage>) -> Value {
    let entry = |device: &sluice_runtime::BlockStats, op: &str, value: u64| json!({ "major": device.major, "minor": device.minor, "op": op, "value": value });
    let devices = usage.map(|usage| usage.stats.block.as_slice()).unwrap_or_default();
    let bytes: Vec<Value> = devices
        .iter()
        .flat_map(|device| {
            [
                entry(device, "read", device.read_bytes),
                entry(device, "write", device.written_bytes),
            ]
        })
        .collect();
    let operations: Vec<Value> = devices
        .iter()
        .flat_map(|device| {
            [
                entry(device, "read", device.reads),
                entry(device, "write", device.writes),
            ]
        })
        .collect();
    // what there is none of is null on cgroup2, a list of nothing on v1
    let is_unified = usage.is_none_or(|usage| usage.stats.is_unified);
    let or_null = |entries: Vec<Value>| match entries.is_empty() && is_unified {
        true => Value::Null,
        false => entries.into(),
    };
    let none = or_null(Vec::new());
    json!({
        "io_service_bytes_recursive": or_null(bytes),
        "io_serviced_recursive": or_null(operations),
        "io_queue_recursive": none,
        "io_service_time_recursive": none,
        "io_wait_time_recursive": none,
        "io_merged_recursive": none,
        "io_time_recursive": none,
        "sectors_recursive": none,
    })
}

fn network(traffic: &Traffic) -> Value {
    let (received, sent) = (&traffic.received, &traffic.sent);
    json!({
        "rx_bytes": received.bytes,
        "rx_packets": received.packets,
        "rx_errors": received.errors,
        "rx_dropped": received.dropped,
        "tx_bytes": sent.bytes,
        "tx_packets": sent.packets,
        "tx_errors": sent.errors,
        "tx_dropped": sent.dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_does_not_run_uses_nothing() {
        let view = UsageView {
            id: "abc".to_owned(),
            name: "web".to_owned(),
            now: None,
            before: None,
        };
        let document = document(&view);
        assert_eq!(document["read"], time::NEVER);
        assert_eq!(
            (&document["name"], &document["memory_stats"]),
            (&json!("/web"), &json!({}))
        );
        let _: bollard_stubs::models::ContainerStatsResponse = serde_json::from_value(document).unwrap();
    }
}
