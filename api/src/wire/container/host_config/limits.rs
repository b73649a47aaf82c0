//! What a container may use: the part of `HostConfig` that `POST /containers/{id}/update` changes too.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_model::{
    HostConfig,
    container::{Device, DeviceFigure, Ulimit},
};

use crate::{
    error::{Answer, ApiError},
    wire::null_if_empty,
};

/// Limits as a client sends them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Limits {
    memory: i64,
    memory_swap: i64,
    memory_reservation: i64,
    memory_swappiness: Option<i64>,
    oom_kill_disable: bool,
    oom_score_adj: i64,
    nano_cpus: i64,
    cpu_shares: i64,
    cpu_period: i64,
    cpu_quota: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    pids_limit: i64,
    ulimits: Vec<UlimitWish>,
    blkio_weight: u16,
    blkio_weight_device: Vec<Weight>,
    blkio_device_read_bps: Vec<Rate>,
    blkio_device_write_bps: Vec<Rate>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    blkio_device_read_iops: Vec<Rate>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    blkio_device_write_iops: Vec<Rate>,
    devices: Vec<DeviceWish>,
    device_cgroup_rules: Vec<String>,
    cpu_realtime_period: i64,
    cpu_realtime_runtime: i64,
    cpu_percent: i64,
    #[serde(rename = "IOMaximumIOps")]
    io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth")]
    io_maximum_bandwidth: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UlimitWish {
    name: String,
    soft: i64,
    hard: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Weight {
    path: String,
    weight: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Rate {
    path: String,
    rate: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DeviceWish {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

// === impl Limits ===

impl Limits {
    /// As the engine takes them; the rest of the wish is filled by others.
    pub(crate) fn into_model(self) -> Answer<HostConfig> {
        if self.io_maximum_iops != 0 || self.io_maximum_bandwidth != 0 {
            return Err(ApiError::invalid(
                "invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps",
            ));
        }
        if self.cpu_realtime_period != 0 || self.cpu_realtime_runtime != 0 {
            return Err(ApiError::invalid(
                "kernel does not support CPU real-time scheduler for containers; leave CpuRealtimePeriod and CpuRealtimeRuntime out",
            ));
        }
        if self.cpu_percent != 0 {
            return Err(ApiError::invalid("linux does not support CPU percent; use NanoCpus"));
        }
        Ok(HostConfig {
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            // Clients write -1 for "as it is".
            memory_swappiness: self.memory_swappiness.filter(|swappiness| *swappiness != -1),
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: self.oom_score_adj,
            nano_cpus: self.nano_cpus,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids_limit: self.pids_limit,
            ulimits: self.ulimits.into_iter().map(UlimitWish::into_model).collect(),
            blkio_weight: self.blkio_weight,
            blkio_weight_device: self.blkio_weight_device.into_iter().map(Weight::into_model).collect(),
            blkio_device_read_bps: rates(self.blkio_device_read_bps),
            blkio_device_write_bps: rates(self.blkio_device_write_bps),
            blkio_device_read_iops: rates(self.blkio_device_read_iops),
            blkio_device_write_iops: rates(self.blkio_device_write_iops),
            devices: self.devices.into_iter().map(DeviceWish::into_model).collect(),
            device_cgroup_rules: self.device_cgroup_rules,
            ..HostConfig::default()
        })
    }
}

fn rates(wishes: Vec<Rate>) -> Vec<DeviceFigure> {
    let figure = |wish: Rate| DeviceFigure {
        path: wish.path,
        figure: wish.rate,
    };
    wishes.into_iter().map(figure).collect()
}

// === impl Weight, UlimitWish, DeviceWish ===

impl Weight {
    fn into_model(self) -> DeviceFigure {
        DeviceFigure {
            path: self.path,
            figure: self.weight,
        }
    }
}

impl UlimitWish {
    fn into_model(self) -> Ulimit {
        Ulimit {
            name: self.name,
            soft: self.soft,
            hard: self.hard,
        }
    }
}

impl DeviceWish {
    fn into_model(self) -> Device {
        let or = |given: String, default: &str| if given.is_empty() { default.to_owned() } else { given };
        Device {
            in_container: or(self.path_in_container, &self.path_on_host),
            permissions: or(self.cgroup_permissions, "rwm"),
            on_host: self.path_on_host,
        }
    }
}

// === outwards ===

/// The limits of a container, as `inspect` shows them.
pub(super) fn document(config: &HostConfig) -> Map<String, Value> {
    let weights = config.blkio_weight_device.iter();
    let weights: Vec<Value> = weights
        .map(|entry| json!({ "Path": entry.path, "Weight": entry.figure }))
        .collect();
    let rates = |entries: &[DeviceFigure]| -> Vec<Value> {
        let rate = |entry: &DeviceFigure| json!({ "Path": entry.path, "Rate": entry.figure });
        entries.iter().map(rate).collect()
    };
    let ulimits = config.ulimits.iter();
    let ulimits: Vec<Value> = ulimits
        .map(|limit| json!({ "Name": limit.name, "Hard": limit.hard, "Soft": limit.soft }))
        .collect();
    let devices = config.devices.iter();
    let devices: Vec<Value> = devices
        .map(|device| {
            json!({
                "PathOnHost": device.on_host,
                "PathInContainer": device.in_container,
                "CgroupPermissions": device.permissions,
            })
        })
        .collect();
    let memory_and_cpu = json!({
        "Memory": config.memory,
        "MemorySwap": config.memory_swap,
        "MemoryReservation": config.memory_reservation,
        "MemorySwappiness": config.memory_swappiness,
        "OomKillDisable": config.oom_kill_disable,
        "OomScoreAdj": config.oom_score_adj,
        "NanoCpus": config.nano_cpus,
        "CpuShares": config.cpu_shares,
        "CpuPeriod": config.cpu_period,
        "CpuQuota": config.cpu_quota,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpuCount": 0,
        "CpuPercent": 0,
        "CpusetCpus": config.cpuset_cpus,
        "CpusetMems": config.cpuset_mems,
        "PidsLimit": if config.pids_limit == 0 { Value::Null } else { json!(config.pids_limit) },
        "Ulimits": ulimits,
    });
    let block_and_devices = json!({
        "BlkioWeight": config.blkio_weight,
        "BlkioWeightDevice": weights,
        "BlkioDeviceReadBps": rates(&config.blkio_device_read_bps),
        "BlkioDeviceWriteBps": rates(&config.blkio_device_write_bps),
        "BlkioDeviceReadIOps": rates(&config.blkio_device_read_iops),
        "BlkioDeviceWriteIOps": rates(&config.blkio_device_write_iops),
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "Devices": devices,
        "DeviceCgroupRules": null_if_empty(&config.device_cgroup_rules),
    });
    let mut document = super::members(memory_and_cpu);
    document.extend(super::members(block_and_devices));
    document
}
