//! What programs read: our documents beside those of the stock engine, member by member. The same commands are given to both; what the stock
//! engine answered is written down in `shapes.txt` (by this very test, when it runs against that). Where we differ and mean to, it says so here.

use std::collections::{BTreeMap, BTreeSet};

use lab::{Daemon, Docker, Lab, eventually, start};
use serde_json::Value;

/// The version both speak.
const API: &str = "/v1.41";

/// Where we differ from Docker 20.10 and mean to: a part of what is found, and why.
const INTENDED: &[(&str, &str)] = &[
    ("HostConfig.MaskedPaths =: ", "later versions cover more, too"),
    (
        "GwPriority: nothing is wanted",
        "since 1.48 a place in a network has one",
    ),
    (
        "DNSNames: nothing is wanted",
        "since 1.44 a place in a network has them",
    ),
    ("EnableIPv4: nothing is wanted", "since 1.48 a network says so"),
    (
        "HostConfig.KernelMemory",
        "gone since 1.42: the kernel has no such limit",
    ),
    ("info.KernelMemory", "the same"),
    (
        "HostConfig.NetworkMode =: \"default\" is wanted",
        "since 1.47 it is called by its name, bridge",
    ),
    ("HostConfig.Runtime =: \"runc\" is wanted", "ours is called sluice"),
    ("info.Runtimes.", "the same"),
    (
        "HostConfig.SecurityOpt",
        "label=disable is for hosts with SELinux, which labels of ours do not know",
    ),
    (
        "json.GraphDriver.Data.MergedDir:",
        "an image is mounted for containers only",
    ),
    ("json.GraphDriver.Data.WorkDir:", "the same"),
    (".Aliases", "1.41 leaves them out of lists, later versions do not"),
    ("Networks.mine.IPAMConfig", "an empty wish is none"),
    ("Networks.mine.DriverOpts", "the same"),
    ("VolumeOptions.DriverConfig: ", "the same"),
    ("HostConfig.Mounts =: ", "the same"),
    ("memory_stats.stats.", "all that the kernel counts"),
    (
        "json.ContainerConfig.",
        "that of the image, for Compose 1.29; gone since 1.45 elsewhere",
    ),
    ("RepoDigests: ", "none is a list of none"),
    ("BuildCache: ", "the same"),
    (
        "info.BridgeNf",
        "gone since 1.50: no packet of ours goes through a bridge's netfilter",
    ),
    ("Commit.Expected: ", "gone since 1.50"),
    ("com.docker.network.bridge.name: ", "there is no bridge"),
    ("networks/bridge.IPAM.Config[].Gateway", "later versions tell it too"),
    (
        "Labels.com.docker.volume.anonymous: nothing is wanted",
        "later versions label them too",
    ),
    ("Volumes[].Labels: ", "so all of these have labels"),
    ("execDuration: nothing is wanted", "later versions tell it too"),
    (
        "takes.Mounts =: ",
        "Docker forgets the mode of a volume that comes from another container",
    ),
];

/// What is done on both engines, a line of the CLI each; a quoted word may hold blanks.
const LIFE: &[&str] = &[
    "volume create --label a=b data",
    "network create --subnet 10.9.0.0/24 --ip-range 10.9.0.128/25 --gateway 10.9.0.1 --aux-address spare=10.9.0.2 --label a=b mine",
    "run -d --name plain busybox sleep 1000",
    "run -d --name limits -m 64m --memory-reservation 32m --memory-swap 128m --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 50 \
     --ulimit nofile=100:200 --ulimit nproc=99 --oom-score-adj 100 --shm-size 16m busybox sleep 1000",
    "run -d --name quota --cpu-period 50000 --cpu-quota 25000 --cpuset-mems 0 --memory-swappiness 5 -m 32m busybox sleep 1000",
    "run -d --name rights --cap-add NET_ADMIN --cap-drop MKNOD --security-opt no-new-privileges --device /dev/null:/dev/zilch:r --group-add 5 \
     --sysctl net.ipv4.ip_unprivileged_port_start=80 --read-only --device-cgroup-rule 'c 1:3 rwm' busybox sleep 1000",
    "run -d --name hosts --pid host --ipc host --uts host --net host --cgroupns host busybox sleep 1000",
    "run -dit --name words --hostname h --domainname d -e A=b -e C -u 1000:1000 -w /tmp --label a=b --label c --entrypoint sleep --stop-signal INT \
     --stop-timeout 5 --init --restart on-failure:3 busybox 1000",
    "run -d --name mounts -v /tmp:/a:ro -v data:/b -v /c --mount type=tmpfs,dst=/d,tmpfs-size=1m,tmpfs-mode=700 --tmpfs /e:size=1m \
     --mount type=bind,src=/tmp,dst=/f,bind-propagation=private --mount type=volume,src=other,dst=/g,volume-nocopy,volume-label=x=y busybox sleep 1000",
    "create --name gives -v data:/b -v /c -v /tmp:/a busybox true",
    "run -d --name takes --volumes-from gives:ro busybox sleep 1000",
    "run -d --name ports -p 8080:80 -p 127.0.0.1:8081:81/udp -p 7000-7001:7000-7001 --expose 90 --expose 100-101 busybox sleep 1000",
    "run -d --name all -P --expose 90 busybox sleep 1000",
    "run -d --name placed --network mine --ip 10.9.0.5 --network-alias alias --dns 1.1.1.1 --dns-search x \
     --dns-option ndots:1 --add-host a:1.2.3.4 busybox sleep 1000",
    "run -d --name alone --network none --log-driver local --log-opt max-size=1m busybox sleep 1000",
    "run -d --name shared --network container:plain --pid container:plain busybox sleep 1000",
    "run -d --name checked --health-cmd true --health-interval 1s --health-retries 2 busybox sleep 1000",
    "run --name ended --log-opt max-size=1m --log-opt max-file=2 busybox sh -c 'echo said; exit 3'",
    "run --name unstartable busybox nosuchcommand",
    "create -i --name made -a stdin -a stdout --rm busybox cat -",
    "pause shared",
    "exec plain sh -c 'echo more > /file; rm -r /home'",
    "commit -a me -m why -c 'ENV A=b' -c 'EXPOSE 80' -c 'LABEL x=y' -c 'VOLUME /v' -c 'HEALTHCHECK --interval=5s CMD true' -c 'USER ada' \
     -c 'WORKDIR /tmp' -c 'ENTRYPOINT [\"sleep\"]' -c 'CMD [\"5\"]' -c 'ONBUILD RUN true' plain committed:1",
    "tag committed:1 again:2",
    "rename all every",
    "update --restart always --cpu-shares 300 plain",
    "network connect --alias second mine plain",
];

/// What both are asked afterwards.
const QUESTIONS: &[&str] = &[
    "/version",
    "/info",
    "/containers/json?all=1&size=1",
    "/images/json?all=1",
    "/images/busybox/json",
    "/images/busybox/history",
    "/images/committed:1/json",
    "/images/committed:1/history",
    "/networks",
    "/networks/bridge",
    "/networks/host",
    "/networks/none",
    "/networks/mine",
    "/volumes",
    "/volumes/data",
    "/volumes/other",
    "/system/df",
    "/containers/plain/changes",
    "/containers/plain/top",
    "/containers/plain/stats?stream=0",
    "/containers/made/stats?stream=0",
    "/containers/plain/json?size=1",
];

/// Containers whose `inspect` is compared, with values where both must have the same.
const CONTAINERS: &[&str] = &[
    "plain",
    "limits",
    "quota",
    "rights",
    "hosts",
    "words",
    "mounts",
    "takes",
    "ports",
    "every",
    "placed",
    "alone",
    "shared",
    "checked",
    "ended",
    "unstartable",
    "made",
];

/// Members whose values must be the same.
const SAME: [&str; 9] = [
    "Config",
    "HostConfig",
    "Mounts",
    "Path",
    "Args",
    "Name",
    "RestartCount",
    "Driver",
    "Platform",
];

/// The words of a line; a quoted one may hold blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

fn live(docker: &Docker) {
    for line in LIFE {
        let words = words(line);
        let ran = docker.words(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let wanted = match line.split_whitespace().nth(2) {
            Some("ended") => 3,
            Some("unstartable") => 127,
            _ => 0,
        };
        assert_eq!(ran.code(), Some(wanted), "{ran}");
    }
    eventually("the check has found it healthy", 20, || {
        docker.inspect("checked", "{{.State.Health.Status}}") == "healthy"
    });
}

/// Every answer, by question.
fn answers(daemon: &Daemon) -> BTreeMap<String, Value> {
    let docker = daemon.docker();
    live(&docker);
    let ask = |method: &str, path: &str, body: &str| {
        let (status, answer) = daemon.request(method, &format!("{API}{path}"), body);
        assert!(status < 300, "{path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|why| panic!("{path}: {why}: {answer}"))
    };
    let mut answers: BTreeMap<String, Value> = BTreeMap::new();
    for question in QUESTIONS {
        answers.insert((*question).to_owned(), ask("GET", question, ""));
    }
    for name in CONTAINERS {
        answers.insert(
            format!("inspect {name}"),
            ask("GET", &format!("/containers/{name}/json"), ""),
        );
    }
    let session = ask(
        "POST",
        "/containers/plain/exec",
        r#"{"AttachStdout": true, "Tty": true, "Cmd": ["sh", "-c", "exit 4"], "User": "ada", "Env": ["A=b"], "WorkingDir": "/tmp"}"#,
    );
    let id = session["Id"].as_str().unwrap_or_default().to_owned();
    answers.insert("exec made".to_owned(), ask("GET", &format!("/exec/{id}/json"), ""));
    daemon.request("POST", &format!("{API}/exec/{id}/start"), r#"{"Tty": true}"#);
    eventually("the session has ended", 10, || {
        ask("GET", &format!("/exec/{id}/json"), "")["Running"] == false
    });
    answers.insert("exec ended".to_owned(), ask("GET", &format!("/exec/{id}/json"), ""));
    let events = docker
        .words(&["events", "--since", "1h", "--until", "0s", "--format", "{{json .}}"])
        .ok();
    for event in events.lines() {
        let event: Value = serde_json::from_str(event).unwrap();
        // one of each kind, those with a command in them as one
        let action = event["Action"].as_str().unwrap_or_default();
        let action = action.split(':').next().unwrap_or_default();
        let kind = event["Type"].as_str().unwrap_or_default();
        answers.entry(format!("event {kind} {action}")).or_insert(event);
    }
    for name in answers.keys().cloned().collect::<Vec<_>>() {
        if let Some(answer) = answers.get_mut(&name) {
            forget_chance(answer);
        }
    }
    answers
}

/// Replaces what differs from run to run: ids, times, places.
fn forget_chance(value: &mut Value) {
    match value {
        Value::Array(values) => {
            values.iter_mut().for_each(forget_chance);
            // mounts come in any order
            values.sort_by_key(|value| value["Destination"].as_str().map(str::to_owned));
        }
        Value::Object(members) => {
            let old = std::mem::take(members);
            for (name, mut member) in old {
                // a check may run just now
                if name == "ExecIDs" {
                    continue;
                }
                forget_chance(&mut member);
                // the CLI sends these in any order
                if let (true, Value::Array(values)) = (matches!(name.as_str(), "Binds" | "Env"), &mut member) {
                    values.sort_by_key(Value::to_string);
                }
                let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
                members.insert(if is_id { "<id>".to_owned() } else { name }, member);
            }
        }
        Value::String(text) => *text = without_chance(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn without_chance(text: &str) -> String {
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let shown = words.map(|word| {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
        match &word[..end] {
            id if matches!(id.len(), 12 | 64) && is_hex(id) => format!("<id>{}", &word[end..]),
            // a host of the lab: lab-PID-NUMBER
            number
                if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && text.contains("lab-") =>
            {
                format!("<number>{}", &word[end..])
            }
            _ => word.to_owned(),
        }
    });
    shown.collect()
}

/// The kinds of value at every path; elements of a list are one.
fn shape(path: &str, value: &Value, shapes: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(values) => {
            values
                .iter()
                .for_each(|value| shape(&format!("{path}[]"), value, shapes));
            "a list"
        }
        Value::Object(members) => {
            for (name, value) in members {
                shape(&format!("{path}.{name}"), value, shapes);
            }
            "an object"
        }
    };
    shapes.entry(path.to_owned()).or_default().insert(kind);
}

/// Values that must be the same: all of what was asked for, and what became of it without chance.
fn values(path: &str, value: &Value, values_at: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                values(&format!("{path}.{name}"), value, values_at);
            }
        }
        other => {
            values_at.insert(path.to_owned(), other.clone());
        }
    }
}

/// What is to be compared, a line each: the kinds of value at a path, those of all containers together; and values of single containers where
/// chance has no part, unless they are nothing.
fn told(answers: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let (mut shapes, mut found) = (BTreeMap::new(), BTreeMap::new());
    for (question, answer) in answers {
        let of_container = question.starts_with("inspect ");
        shape(if of_container { "inspect" } else { question }, answer, &mut shapes);
        let members: &[&str] = if of_container { &SAME } else { &[] };
        for member in members {
            values(&format!("{question}.{member}"), &answer[*member], &mut found);
        }
    }
    let shapes = shapes
        .into_iter()
        .map(|(path, kinds)| (path, kinds.into_iter().collect::<Vec<_>>().join(" or ")));
    let found = found.into_iter().filter(|(_, value)| !is_nothing(value));
    let found = found.map(|(path, value)| (format!("{path} ="), value.to_string()));
    shapes.chain(found).collect()
}

/// Nobody asked for it, and nothing came of it.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) => false,
    }
}

/// What the stock engine told, as it was written down.
fn written() -> BTreeMap<String, String> {
    let lines = include_str!("shapes.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(path, what)| (path.to_owned(), what.to_owned()))
        .collect()
}

#[test]
fn our_documents_have_the_members_of_dockers() {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return lab::skipped("what the stock engine tells was written down on a host with cgroup v1");
    }
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let told = told(&answers(&daemon));
    if !daemon.is_ours() {
        let lines: String = told.iter().map(|(path, what)| format!("{path}\t{what}\n")).collect();
        let text = format!(
            "# What Docker 20.10 answers to the questions of shapes.rs. To write it anew: SLUICE_LAB_ENGINE=docker UPDATE_DOCS=1 cargo test … shapes\n{lines}"
        );
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/shapes.txt"), &text).unwrap();
        } else {
            assert_eq!(
                text,
                include_str!("shapes.txt"),
                "the stock engine tells something else than was written down"
            );
        }
        return;
    }
    let wanted = written();
    let mut differences = Vec::new();
    for path in wanted.keys().chain(told.keys()).collect::<BTreeSet<_>>() {
        match (wanted.get(path), told.get(path)) {
            (Some(wanted), Some(given)) if wanted == given => {}
            (wanted, given) => {
                let or_nothing = |told: Option<&String>| told.map_or("nothing", String::as_str).to_owned();
                differences.push(format!(
                    "{path}: {} is wanted, {} is given",
                    or_nothing(wanted),
                    or_nothing(given)
                ));
            }
        }
    }
    let found = |part: &str| differences.iter().any(|difference| difference.contains(part));
    let gone: Vec<_> = INTENDED.iter().filter(|(part, _)| !found(part)).collect();
    assert!(gone.is_empty(), "these differences are gone: {gone:?}");
    differences.retain(|found| !INTENDED.iter().any(|(part, _)| found.contains(part)));
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
