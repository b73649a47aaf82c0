//! Bodies as clients send them, documents as clients read them.

use bollard_stubs::models::{ContainerInspectResponse, ContainerSummary};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sluice_engine::{ContainerView, CreateContainer};
use sluice_model::{
    Container, Id,
    container::{ContainerState, EndpointView, NetworkMode, Phase},
};

use crate::body;

use super::{create::Create, host_config, inspect, summary};

fn request(body: impl ToString) -> Result<(CreateContainer, Vec<String>), String> {
    let read = body::read::<Create>(Some("application/json"), body.to_string().as_bytes());
    let wish = read.map_err(|error| error.message)?;
    wish.into_request(Some("web".to_owned())).map_err(|error| error.message)
}

/// What docker 28 sends for `docker run -d --name web -p 127.0.0.1:8080:80 -e A=b -v /srv:/data:ro nginx`.
const BODY_OF_THE_CLI: &str = r#"{
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
    "ExposedPorts": {"80/tcp": {}}, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": ["A=b"], "Cmd": null,
    "Image": "nginx", "Volumes": {}, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
    "HostConfig": {
        "Binds": ["/srv:/data:ro"], "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}},
        "NetworkMode": "default", "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false, "VolumeDriver": "",
        "VolumesFrom": null, "ConsoleSize": [24, 80], "CapAdd": null, "CapDrop": null, "CgroupnsMode": "", "Dns": [],
        "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null, "IpcMode": "", "Cgroup": "",
        "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
        "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "", "ShmSize": 0, "Isolation": "",
        "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [],
        "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "",
        "CpusetMems": "", "Devices": [], "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0,
        "MemorySwap": 0, "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0,
        "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null
    },
    "NetworkingConfig": {"EndpointsConfig": {"default": {
        "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "", "DriverOpts": null, "GwPriority": 0,
        "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null
    }}}
}"#;

fn view() -> ContainerView {
    let (request, _) = request(BODY_OF_THE_CLI).unwrap();
    let id = Id::from_bytes([0xab; 32]);
    let started = Timestamp::from_second(1_700_000_000).unwrap();
    let state = ContainerState {
        phase: Phase::Running,
        pid: 77,
        started_at: Some(started),
        ..ContainerState::default()
    };
    let endpoint = EndpointView {
        endpoint: Id::from_bytes([1; 32]),
        network_name: "bridge".to_owned(),
        network: Id::from_bytes([2; 32]),
        addresses: vec!["172.17.0.2/16".parse().unwrap(), "fd00::2/64".parse().unwrap()],
        gateways: vec!["172.17.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        mac: "02:42:ac:11:00:02".parse().unwrap(),
        interface: "eth0".to_owned(),
    };
    ContainerView {
        placeless: None,
        host_name: "abababababab".to_owned(),
        link_names: vec![],
        ports: vec![
            serde_json::from_value(json!({"container": "80/tcp", "host_address": "127.0.0.1", "host_port": 8080}))
                .unwrap(),
        ],
        mounts: request
            .host_config
            .binds
            .iter()
            .map(|bind| (bind.clone(), bind.source.clone().into()))
            .collect(),
        container: Container {
            id_map: None,
            id,
            name: "web".to_owned(),
            created: started,
            config: request.config,
            host_config: request.host_config,
            networks: request.networks,
            image_id: format!("sha256:{}", "cd".repeat(32)),
            mounts: vec![],
            state,
        },
        image_name: "nginx".to_owned(),
        endpoints: vec![endpoint],
        sandbox_path: Some("/run/sluice/netns/abab".into()),
        log_path: "/log".into(),
        resolv_conf_path: "/resolv.conf".into(),
        hostname_path: "/hostname".into(),
        hosts_path: "/hosts".into(),
        graph: vec![("MergedDir".to_owned(), "/merged".to_owned())],
        exec_ids: vec![],
        health: None,
        size: None,
    }
}

#[test]
fn the_body_of_the_docker_cli_is_read_without_a_warning() {
    let (request, warnings) = request(BODY_OF_THE_CLI).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(request.host_config.unhandled, "");
    assert_eq!(request.host_config.network_mode, NetworkMode::Default);
    assert_eq!(request.host_config.port_bindings[0].host_ports, (8080, 8080));
    assert_eq!(request.host_config.binds[0].target, "/data");
    assert!(request.host_config.binds[0].read_only);
    assert_eq!(request.config.env, ["A=b"]);
    assert_eq!(request.config.entrypoint, None);
}

#[test]
fn an_empty_body_is_a_wish_of_defaults() {
    assert!(request(json!({})).is_ok());
}

#[test]
fn words_come_alone_or_as_a_list() {
    let (request, _) = request(json!({"Cmd": "sh", "Entrypoint": ["/a", "b"]})).unwrap();
    assert_eq!(
        (request.config.cmd, request.config.entrypoint),
        (vec!["sh".to_owned()], Some(vec!["/a".to_owned(), "b".to_owned()]))
    );
}

#[test]
fn what_makes_no_sense_is_refused_in_dockers_words() {
    for (body, message) in [
        (json!({"Env": ["=x"]}), "invalid environment variable: =x"),
        (json!({"Env": [""]}), "invalid environment variable: "),
        (
            json!({"ExposedPorts": {"x/tcp": {}}}),
            "invalid port specification: \"x/tcp\"",
        ),
        (
            json!({"HostConfig": {"RestartPolicy": {"Name": "often"}}}),
            "invalid restart policy: unknown policy 'often'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            json!({"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}}),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            json!({"HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}}),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            json!({"HostConfig": {"Binds": ["/a:b"]}}),
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute",
        ),
        (
            json!({"HostConfig": {"Binds": ["/a:/"]}}),
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
        ),
        (json!({"HostConfig": {"Binds": ["/a:/b:fast"]}}), "invalid mode: fast"),
        (
            json!({"HostConfig": {"Binds": ["/a:/b", "/c:/b"]}}),
            "Duplicate mount point: /b",
        ),
        (json!({"HostConfig": {"Dns": ["one"]}}), "one is not an ip address"),
        (
            json!({"HostConfig": {"ExtraHosts": ["x"]}}),
            "bad format for add-host: \"x\"",
        ),
    ] {
        assert_eq!(request(body.clone()).unwrap_err(), message, "{body}");
    }
}

#[test]
fn what_would_make_another_container_is_refused_and_the_rest_is_warned_of() {
    for host_config in [
        json!({"DeviceRequests": [{"Driver": "x"}]}),
        json!({"Runtime": "kata"}),
        json!({"Mounts": [{"Type": "cluster", "Source": "x", "Target": "/y"}]}),
    ] {
        let message = request(json!({"HostConfig": host_config})).unwrap_err();
        assert!(message.contains("is not supported by this version"), "{message}");
    }
    let (request, warnings) =
        request(json!({"HostConfig": {"Made": "up", "CgroupParent": "/x", "Runtime": "runc"}})).unwrap();
    assert_eq!(warnings, ["HostConfig.Made has no effect in this version of Sluice"]);
    assert_eq!(host_config::document(&request.host_config)["CgroupParent"], "/x");
}

#[test]
fn every_limit_is_read_and_shown_again() {
    let wish = json!({
        "Memory": 64 << 20, "MemorySwap": -1, "MemoryReservation": 32 << 20, "MemorySwappiness": 10, "OomKillDisable": true,
        "OomScoreAdj": 5, "NanoCpus": 0, "CpuShares": 512, "CpuPeriod": 100_000, "CpuQuota": 50_000, "CpusetCpus": "0",
        "CpusetMems": "0", "PidsLimit": 7, "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}], "BlkioWeight": 300,
        "BlkioWeightDevice": [{"Path": "/dev/vda", "Weight": 200}],
        "BlkioDeviceReadBps": [{"Path": "/dev/vda", "Rate": 1}], "BlkioDeviceWriteBps": [{"Path": "/dev/vda", "Rate": 2}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/vda", "Rate": 3}], "BlkioDeviceWriteIOps": [{"Path": "/dev/vda", "Rate": 4}],
        "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}],
        "DeviceCgroupRules": ["c 1:3 r"], "GroupAdd": ["5"], "IpcMode": "host", "PidMode": "host", "UTSMode": "host",
        "UsernsMode": "host", "CgroupnsMode": "private", "MaskedPaths": [], "ReadonlyPaths": ["/proc/sys"],
    });
    let (request, warnings) = request(json!({ "HostConfig": wish })).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let document = host_config::document(&request.host_config);
    for (member, value) in wish.as_object().unwrap() {
        assert_eq!(document[member], *value, "{member}");
    }
}

#[test]
fn wishes_about_places_in_networks_are_read() {
    let with = |mode: &str, endpoint: Value| {
        request(json!({"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": {mode: endpoint}}}))
    };
    let wish = |mode: &str, endpoint: Value| with(mode, endpoint).unwrap().0.networks;
    let mine = wish(
        "mine",
        json!({"IPAMConfig": {"IPv4Address": "10.1.0.9"}, "Aliases": [], "MacAddress": ""}),
    );
    assert_eq!(mine["mine"].ipv4, "10.1.0.9".parse().ok());
    assert!(wish("default", json!({})).contains_key("bridge"));
    assert!(wish("host", json!({})).is_empty());
    assert!(with("host", json!({"IPAMConfig": {"IPv4Address": "10.1.0.9"}})).is_err());
    let (request, _) =
        request(json!({"MacAddress": "02:00:00:00:00:09", "HostConfig": {"NetworkMode": "mine"}})).unwrap();
    assert_eq!(request.networks["mine"].mac, "02:00:00:00:00:09".parse().ok());
}

#[test]
fn a_container_is_shown_as_dockers_specification_says() {
    let document = inspect::document(&view());
    let settings = &document["NetworkSettings"];
    assert_eq!(settings["IPAddress"], "172.17.0.2");
    assert_eq!(
        (
            &settings["GlobalIPv6Address"],
            &settings["GlobalIPv6PrefixLen"],
            &settings["IPv6Gateway"]
        ),
        (&json!("fd00::2"), &json!(64), &json!("fd00::1"))
    );
    assert_eq!(settings["Networks"]["bridge"]["IPPrefixLen"], 16);
    assert_eq!(settings["Networks"]["bridge"]["MacAddress"], "02:42:ac:11:00:02");
    assert_eq!(
        settings["Ports"],
        json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]})
    );
    assert_eq!(settings["SandboxKey"], "/run/sluice/netns/abab");
    assert_eq!(document["State"]["Status"], "running");
    assert_eq!(document["State"]["StartedAt"], "2023-11-14T22:13:20Z");
    assert_eq!(document["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(document["State"].get("Health"), None);
    assert_eq!(document["Config"]["Labels"], json!({}));
    assert_eq!(document["Config"]["Hostname"], "abababababab");
    assert_eq!(
        document["HostConfig"]["PortBindings"],
        json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]})
    );
    assert_eq!(document["HostConfig"]["NetworkMode"], "bridge");
    assert_eq!(
        document["HostConfig"]["LogConfig"],
        json!({"Type": "json-file", "Config": {}})
    );
    assert_eq!(document["Mounts"][0]["Mode"], "ro");
    let read: ContainerInspectResponse = serde_json::from_value(document).unwrap();
    assert_eq!(read.state.unwrap().pid, Some(77));
}

#[test]
fn a_line_of_ps_is_as_dockers_specification_says() {
    let now = Timestamp::from_second(1_700_000_003).unwrap();
    let document = summary::document(&view(), now);
    assert_eq!(document["Status"], "Up 3 seconds");
    assert_eq!(document["Names"], json!(["/web"]));
    assert_eq!(
        document["Ports"],
        json!([{"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}])
    );
    let read: ContainerSummary = serde_json::from_value(document).unwrap();
    assert_eq!(read.image.as_deref(), Some("nginx"));
}

#[test]
fn a_stopped_container_has_no_ports_and_no_addresses() {
    let mut view = view();
    view.container.state.phase = Phase::Exited;
    view.endpoints.clear();
    let settings = &inspect::document(&view)["NetworkSettings"];
    assert_eq!((&settings["Ports"], &settings["IPAddress"]), (&json!({}), &json!("")));
    assert_eq!(settings["Networks"]["bridge"]["IPAddress"], "");
    assert_eq!(summary::document(&view, Timestamp::now())["Ports"], json!([]));
}

#[test]
fn the_status_is_told_in_dockers_words() {
    let now = Timestamp::from_second(1_700_000_000).unwrap();
    let ago = |seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok();
    let told = |phase, state: ContainerState| summary::status(&ContainerState { phase, ..state }, None, now);
    let state = || ContainerState {
        started_at: ago(7200),
        finished_at: ago(120),
        exit_code: 137,
        ..ContainerState::default()
    };
    assert_eq!(told(Phase::Created, state()), "Created");
    assert_eq!(told(Phase::Running, state()), "Up 2 hours");
    assert_eq!(told(Phase::Paused, state()), "Up 2 hours (Paused)");
    assert_eq!(told(Phase::Exited, state()), "Exited (137) 2 minutes ago");
    assert_eq!(told(Phase::Dead, state()), "Dead");
}
