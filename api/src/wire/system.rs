//! The daemon itself.

use serde_json::{Value, json};
use sluice_engine::{DiskUsage, ImageUsage, Info, UsageOf};

use crate::{
    host, time,
    version::{self, Version},
    wire::{container::summary, image, volume},
};

/// This daemon's own version.
const OURS: &str = env!("CARGO_PKG_VERSION");
/// Where Docker's clients show the version of Go.
const COMPILER: &str = concat!("none (rust ", env!("CARGO_PKG_RUST_VERSION"), ")");

/// `GET /version`.
pub(crate) fn version_document() -> Value {
    let kernel = host::kernel();
    let (newest, oldest) = (version::NEWEST.to_string(), version::OLDEST.to_string());
    json!({
        "Platform": { "Name": "Sluice" },
        "Version": OURS,
        "ApiVersion": newest,
        "MinAPIVersion": oldest,
        "GitCommit": "",
        "GoVersion": COMPILER,
        "Os": "linux",
        "Arch": host::image_architecture(),
        "KernelVersion": kernel,
        "BuildTime": "",
        "Components": [{
            "Name": "Engine",
            "Version": OURS,
            "Details": {
                "ApiVersion": newest,
                "MinAPIVersion": oldest,
                "Arch": host::image_architecture(),
                "BuildTime": "",
                "Experimental": "false",
                "GitCommit": "",
                "GoVersion": COMPILER,
                "KernelVersion": kernel,
                "Os": "linux",
            },
        }],
    })
}

/// `GET /info`.
pub(crate) fn info_document(info: &Info) -> Value {
    let mut document = json!({
        "ID": info.id,
        "Name": host::name(),
        "ServerVersion": OURS,
        "Containers": info.running + info.paused + info.stopped,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Native Overlay Diff", "true"]],
        "DockerRootDir": info.data_root.display().to_string(),
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file", "local", "none"] },
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": info.cgroup_version.to_string(),
        "SystemTime": time::text(jiff::Timestamp::now()),
        "KernelVersion": host::kernel(),
        "OperatingSystem": host::system("PRETTY_NAME"),
        "OSVersion": host::system("VERSION_ID"),
        "OSType": "linux",
        "Architecture": host::architecture(),
        "NCPU": host::processors(),
        "MemTotal": host::memory(),
    });
    if let (Value::Object(document), Value::Object(rest)) = (&mut document, capabilities()) {
        document.extend(rest);
    }
    if info.remaps_users {
        document["SecurityOptions"] = json!(["name=seccomp,profile=builtin", "name=userns"]);
    }
    document
}

/// What is the same on every host.
fn capabilities() -> Value {
    json!({
        "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true, "CPUSet": true,
        "PidsLimit": true, "OomKillDisable": false, "IPv4Forwarding": host::forwards_ipv4(), "Debug": false, "NFd": 0, "NGoroutines": 0,
        "NEventsListener": 0, "IndexServerAddress": "", "RegistryConfig": registries(), "GenericResources": null, "HttpProxy": "",
        "HttpsProxy": "", "NoProxy": "", "Labels": [], "ExperimentalBuild": false, "LiveRestoreEnabled": true, "Isolation": "",
        "InitBinary": "", "SecurityOptions": ["name=seccomp,profile=builtin"], "Warnings": null,
        "Runtimes": { "sluice": { "path": "sluice-shim" } }, "DefaultRuntime": "sluice",
        "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null },
        "ContainerdCommit": { "ID": "" }, "RuncCommit": { "ID": "" }, "InitCommit": { "ID": "" },
    })
}

/// Where images may come from: this version fetches none, but clients look there for names.
fn registries() -> Value {
    json!({
        "AllowNondistributableArtifactsCIDRs": [], "AllowNondistributableArtifactsHostnames": [], "InsecureRegistryCIDRs": ["127.0.0.0/8"],
        "IndexConfigs": { "docker.io": { "Name": "docker.io", "Mirrors": [], "Secure": true, "Official": true } }, "Mirrors": [],
    })
}

/// What takes how much room. Kinds that were not asked for are left out.
pub(crate) fn usage_document(usage: &DiskUsage, of: UsageOf, build_cache: bool, version: Version) -> Value {
    let now = jiff::Timestamp::now();
    let mut document = json!({ "BuilderSize": 0 });
    if of.images {
        document["LayersSize"] = json!(usage.layers);
        document["Images"] = usage
            .images
            .iter()
            .map(|usage| image_with_usage(usage, version))
            .collect();
    }
    if of.containers {
        let containers = usage.containers.iter();
        document["Containers"] = containers.map(|view| summary::document(view, now)).collect();
    }
    if of.volumes {
        document["Volumes"] = usage.volumes.iter().map(volume::document_with_usage).collect();
    }
    if build_cache {
        document["BuildCache"] = json!([]);
    }
    document
}

fn image_with_usage(usage: &ImageUsage, version: Version) -> Value {
    let mut document = image::summary(&usage.image, version);
    document["SharedSize"] = json!(usage.shared);
    document["Containers"] = json!(usage.containers);
    document
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_and_info_are_shown_as_dockers_specification_says() {
        let version: bollard_stubs::models::SystemVersion = serde_json::from_value(version_document()).unwrap();
        assert_eq!(version.api_version.as_deref(), Some("1.50"));
        let info = Info {
            remaps_users: false,
            id: "x".to_owned(),
            running: 1,
            paused: 2,
            stopped: 3,
            images: 4,
            data_root: "/var/lib/sluice".into(),
            cgroup_version: 1,
        };
        let info: bollard_stubs::models::SystemInfo = serde_json::from_value(info_document(&info)).unwrap();
        assert_eq!((info.containers, info.ncpu.is_some_and(|n| n > 0)), (Some(6), true));
    }
}
