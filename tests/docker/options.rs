//! Options of `create` and `run`: each is shown by `inspect`, felt within, and asked for by our own CLI as by docker's.

use lab::{Daemon, Docker, Lab, start};
use serde_json::Value;

/// Prints a limit by its name in a v1 hierarchy, else by that in the unified tree.
const LIMIT: &str = "limit() { for f in $1 $2; do cat /sys/fs/cgroup/$f 2>/dev/null && return; done; };";

/// Flags, what `inspect` shows of them (a format, and what comes of it), what is done within, and what that says. `DIR` is a directory of the host.
const FELT: &[(&str, &str, &str, &str, &str)] = &[
    (
        "-e A=b -e C= --env-file DIR/env",
        "{{json .Config.Env}}",
        r#"["D=from a file","A=b","C="]"#,
        r#"echo "$A,$C,$D,${E-none}""#,
        "b,,from a file,none",
    ),
    (
        "--label x=y --label-file DIR/labels",
        "{{json .Config.Labels}}",
        r#"{"from":"a file","x":"y"}"#,
        "",
        "",
    ),
    (
        "-h front --domainname example.org",
        "{{.Config.Hostname}} {{.Config.Domainname}}",
        "front example.org",
        "hostname; cat /proc/sys/kernel/domainname; grep -o 'front.example.org front' /etc/hosts",
        "front\nexample.org\nfront.example.org front",
    ),
    (
        "--dns 192.0.2.9 --dns-search a.example --dns-option ndots:3 --add-host db:10.0.0.1",
        "{{.HostConfig.Dns}} {{.HostConfig.DnsSearch}} {{.HostConfig.DnsOptions}} {{.HostConfig.ExtraHosts}}",
        "[192.0.2.9] [a.example] [ndots:3] [db:10.0.0.1]",
        "grep -v '^#' /etc/resolv.conf | sort; grep -c '10.0.0.1.db$' /etc/hosts",
        "nameserver 192.0.2.9\noptions ndots:3\nsearch a.example\n1",
    ),
    (
        "--cpu-period 50000 --cpu-quota 25000 --cpuset-mems 0",
        "{{.HostConfig.CpuPeriod}} {{.HostConfig.CpuQuota}} {{.HostConfig.CpusetMems}}",
        "50000 25000 0",
        "limit cpu/cpu.cfs_quota_us cpu.max | cut -d' ' -f1; limit cpuset/cpuset.mems cpuset.mems",
        "25000\n0",
    ),
    (
        "--mac-address 02:00:00:00:00:77 --expose 90 --expose 100-101/udp",
        "{{json .Config.ExposedPorts}} {{.NetworkSettings.MacAddress}}",
        r#"{"100/udp":{},"101/udp":{},"90/tcp":{}} 02:00:00:00:00:77"#,
        "cat /sys/class/net/eth0/address",
        "02:00:00:00:00:77",
    ),
    (
        "--network mine --ip 10.99.0.5 --ip6 fd00:99::5",
        "{{with .NetworkSettings.Networks.mine}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}",
        "10.99.0.5 fd00:99::5",
        "ip -o addr show dev eth0 scope global | awk '{print $4}' | sort",
        "10.99.0.5/24\nfd00:99::5/64",
    ),
    (
        "-w /var/tmp -u ada --group-add 777 --tmpfs /t:size=64k,mode=1777 --shm-size 2m --read-only",
        "{{.Config.WorkingDir}} {{.Config.User}} {{.HostConfig.GroupAdd}} {{.HostConfig.Tmpfs}} {{.HostConfig.ShmSize}} {{.HostConfig.ReadonlyRootfs}}",
        "/var/tmp ada [777] map[/t:size=64k,mode=1777] 2097152 true",
        "pwd; id -un; id -G; echo x >/t/x && echo wrote; df -k /dev/shm | awk 'END{print $2}'; echo x >/home/ada/x || echo refused",
        "/var/tmp\nada\n1000 777 2000\nwrote\n2048\nrefused",
    ),
    (
        "--health-cmd true --health-interval 7s --health-timeout 8s --health-start-period 9s --health-retries 4",
        "{{json .Config.Healthcheck}}",
        r#"{"Test":["CMD-SHELL","true"],"Interval":7000000000,"Timeout":8000000000,"StartPeriod":9000000000,"Retries":4}"#,
        "",
        "",
    ),
    (
        "--ulimit nproc=99:111 --oom-score-adj 55 --sysctl net.ipv4.ip_default_ttl=9 --pids-limit 33 -c 512 --cpus 1.5",
        "{{with .HostConfig}}{{range .Ulimits}}{{.Name}}={{.Soft}}:{{.Hard}}{{end}} {{.OomScoreAdj}} {{.Sysctls}} {{.PidsLimit}} {{.CpuShares}} {{.NanoCpus}}{{end}}",
        "nproc=99:111 55 map[net.ipv4.ip_default_ttl:9] 33 512 1500000000",
        "grep -E 'Max processes' /proc/self/limits | awk '{print $3, $4}'; cat /proc/1/oom_score_adj /proc/sys/net/ipv4/ip_default_ttl; limit pids/pids.max pids.max",
        "99 111\n55\n9\n33",
    ),
    (
        "--cap-add NET_ADMIN --cap-drop ALL --security-opt no-new-privileges --device /dev/null:/dev/zilch:r --ipc private --cgroupns private",
        "{{.HostConfig.CapAdd}} {{.HostConfig.CapDrop}} {{.HostConfig.IpcMode}} {{.HostConfig.CgroupnsMode}} {{range .HostConfig.Devices}}{{.PathInContainer}}{{end}}",
        "[CAP_NET_ADMIN] [ALL] private private /dev/zilch",
        "grep -E 'CapEff|NoNewPrivs' /proc/self/status | awk '{print $2}'; ls /dev/zilch; cut -d: -f3 /proc/self/cgroup | sort -u",
        "0000000000001000\n1\n/dev/zilch\n/",
    ),
    (
        "--stop-signal USR1 --stop-timeout 5 --restart on-failure:3 --init --runtime runc --log-opt max-size=1m --cidfile DIR/cid",
        "{{.Config.StopSignal}} {{.Config.StopTimeout}} {{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}} {{.HostConfig.Init}} {{.HostConfig.Runtime}} {{.HostConfig.LogConfig}}",
        "USR1 5 on-failure:3 true runc {json-file map[max-size:1m]}",
        "cat /proc/1/comm",
        "docker-init",
    ),
];

/// The files that options name.
fn files(lab: &Lab) -> String {
    let directory = lab.host.directory();
    std::fs::write(directory.join("env"), "# not this\nD=from a file\nE\n").unwrap();
    std::fs::write(directory.join("labels"), "from=a file\n").unwrap();
    std::fs::create_dir_all(directory.join("bound")).unwrap();
    directory.display().to_string()
}

fn network(docker: &Docker) {
    docker.ok("network create --subnet 10.99.0.0/24 --ipv6 --subnet fd00:99::/64 mine");
}

#[test]
fn each_option_is_shown_and_felt_within() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let directory = files(&lab);
    network(&docker);
    let mut wrong = Vec::new();
    for (flags, format, shown, script, said) in FELT {
        // what the CLI asks of API 1.44 alone
        if flags.contains("--mac-address") && !daemon.is_ours() {
            continue;
        }
        let flags = flags.replace("DIR", &directory);
        docker
            .run(&format!("run -d --name box {flags} busybox sleep 1000"))
            .ok();
        let found = docker.inspect("box", format);
        if found != *shown {
            wrong.push(format!("{flags}: {shown} is wanted, {found} is shown"));
        }
        if !script.is_empty() {
            let ran = docker.words(&["exec", "box", "sh", "-c", &format!("{LIMIT} {script}")]);
            if ran.stdout.trim_end() != *said {
                wrong.push(format!("{flags}: {said:?} is wanted, {ran}"));
            }
        }
        if flags.contains("--cidfile") {
            let id = std::fs::read_to_string(format!("{directory}/cid")).unwrap();
            assert_eq!(id, docker.inspect("box", "{{.Id}}"));
        }
        docker.ok("rm -f box");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn limits_that_only_one_kind_of_cgroup_has_are_felt_there_and_named_elsewhere() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let ran = docker.run("run -d --name box -m 32m --memory-swappiness 5 --oom-kill-disable busybox sleep 1000");
    assert!(ran.is_ok(), "{ran}");
    let inside = |file: &str| docker.run(&format!("exec box cat /sys/fs/cgroup/{file}"));
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert!(ran.stderr.contains("OomKillDisable"), "{ran}");
    } else {
        assert_eq!(inside("memory/memory.swappiness").ok(), "5");
        assert!(inside("memory/memory.oom_control").ok().contains("oom_kill_disable 1"));
        assert_eq!(
            docker.inspect("box", "{{.HostConfig.MemorySwappiness}} {{.HostConfig.OomKillDisable}}"),
            "5 true"
        );
    }
    docker.ok("rm -f box");
    if !daemon.is_ours() {
        // dockerd 20.10 does not know the weights of BFQ
        return;
    }
    // a weight of block devices, where the kernel has a scheduler that knows weights
    let ran = docker.run("run -d --name box --blkio-weight 300 busybox sleep 1000");
    let weight = [
        "blkio/blkio.weight",
        "blkio/blkio.bfq.weight",
        "io.bfq.weight",
        "io.weight",
    ]
    .iter()
    .map(|file| inside(file))
    .find(|read| read.is_ok());
    let shown = docker.inspect("box", "{{.HostConfig.BlkioWeight}}");
    match weight {
        Some(weight) => {
            assert_eq!(shown, "300");
            let weight = weight.ok();
            assert!(
                weight.contains("300") || weight.contains(&(1 + (300 - 10) * 9999 / 990).to_string()),
                "{weight}"
            );
        }
        None => {
            assert_eq!(shown, "0");
            assert!(ran.stderr.to_lowercase().contains("weight"), "{ran}");
        }
    }
    docker.ok("rm -f box");
}

/// What both CLIs are given: all options of `create`.
const ASKED: &[&str] = &[
    "busybox",
    "-it --rm -e A=b -e C= --env-file DIR/env -w /tmp -u 1000:1000 -h front --domainname d -l a=b --label-file DIR/labels busybox sh -c 'echo one two'",
    "--entrypoint sleep --restart on-failure:3 --stop-signal INT --stop-timeout 5 --init busybox 1000",
    "--entrypoint '' --restart unless-stopped busybox true",
    "-m 64m --memory-swap 128m --memory-reservation 32m --cpus 0.5 -c 512 --cpuset-cpus 0 --cpuset-mems 0 --pids-limit 50 --oom-score-adj 77 busybox",
    "-m 64m --memory-swap -1 --cpu-period 50000 --cpu-quota 25000 --pids-limit -1 busybox",
    "--ulimit nofile=100:200 --ulimit core=0 --shm-size 1m --sysctl net.core.somaxconn=99 busybox",
    "--cap-add NET_ADMIN --cap-add SYS_TIME --cap-drop ALL --privileged --read-only --group-add 5 --group-add audio busybox",
    "--tmpfs /t --tmpfs /u:size=1m,mode=700 --security-opt no-new-privileges --security-opt seccomp=unconfined busybox",
    "--device /dev/null --device /dev/null:/dev/zilch --device /dev/zero:/dev/nil:r --device-cgroup-rule 'c 1:3 rwm' busybox",
    "--health-cmd 'test -e /x' --health-interval 7s --health-timeout 1m30s --health-start-period 500ms --health-retries 4 busybox",
    "--no-healthcheck --log-driver local --log-opt max-size=1m --log-opt max-file=3 busybox",
    "--add-host db:10.0.0.1 --add-host gate:host-gateway --dns 192.0.2.9 --dns-search a.example --dns-option ndots:3 busybox",
    "--network mine --ip 10.99.0.5 --ip6 fd00:99::5 --mac-address 02:00:00:00:00:77 --network-alias www --network-alias web busybox",
    "-p 8080:80 -p 127.0.0.1:53:53/udp -p 7000-7002:7000-7002 -p 90 --expose 100 --expose 200-201/udp -P busybox",
    "-v data:/d -v /own -v DIR/bound:/b:ro -v more:/m:nocopy --volumes-from giver:ro busybox",
    "--mount type=bind,source=DIR/bound,target=/b,readonly,bind-propagation=rslave --mount type=volume,src=vol,dst=/v,volume-nocopy,volume-label=a=b \
     --mount type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700 busybox",
    "--ipc shareable --pid host --uts host --cgroupns host --userns host --network host busybox",
    "--ipc container:giver --pid container:giver --network container:giver busybox",
    "-i -a stdin -a stdout busybox cat",
    "--cgroup-parent /some/where --link giver:friend busybox",
];

/// The container as `inspect` shows it, without what differs from one to the next.
fn document(daemon: &Daemon, name: &str) -> Value {
    let (status, text) = daemon.request("GET", &format!("/containers/{name}/json"), "");
    assert_eq!(status, 200, "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    let id = shown["Id"].as_str().unwrap();
    let text = text
        .replace(id, "<id>")
        .replace(&id[..12], "<id>")
        .replace(name, "<name>");
    let mut shown: Value = serde_json::from_str(&text).unwrap();
    shown["Created"] = Value::Null;
    // volumes without a name have a name of their own, and all come in any order
    for mount in shown["Mounts"].as_array_mut().unwrap() {
        if mount["Name"].as_str().is_some_and(|name| name.len() == 64) {
            mount["Name"] = Value::Null;
            mount["Source"] = Value::Null;
        }
    }
    for list in ["/Mounts", "/HostConfig/Binds", "/HostConfig/Mounts", "/Config/Env"] {
        if let Some(Value::Array(members)) = shown.pointer_mut(list) {
            members.sort_by_key(Value::to_string);
        }
    }
    shown
}

/// Where two documents differ, by path.
fn differences(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
                let of = |members: &serde_json::Map<String, Value>| members.get(name).cloned().unwrap_or_default();
                differences(&format!("{path}.{name}"), &of(one), &of(other), found);
            }
        }
        (one, other) if one != other => found.push(format!("{path}: {one} by docker, {other} by ours")),
        _ => {}
    }
}

#[test]
fn our_own_cli_asks_for_the_same_container_as_dockers() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let docker = daemon.docker();
    let directory = files(&lab);
    network(&docker);
    docker.ok("run -d --name giver --ipc shareable -v data:/given busybox sleep 1000");
    let mut found = Vec::new();
    for line in ASKED {
        let line = line.replace("DIR", &directory);
        let socket = daemon.socket();
        let theirs = format!("exec docker -H unix://{} create --name theirs {line}", socket.display());
        lab.host.shell(&theirs).ok();
        daemon.sluice(&format!("create --name ours {line}")).ok();
        differences(
            &line,
            &document(&daemon, "theirs"),
            &document(&daemon, "ours"),
            &mut found,
        );
        docker.ok("rm theirs ours");
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
