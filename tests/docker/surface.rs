//! What the daemon says about itself, in the versions of the API that clients speak.

use lab::{Lab, start};

#[test]
fn version_and_info_are_told() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let version = docker.ok("version --format {{.Server.APIVersion}}|{{.Server.Os}}|{{.Server.Arch}}");
    assert_eq!(version, "1.50|linux|amd64");
    docker.ok("version");
    docker.ok("info");
    docker.ok("run -d --name box busybox sleep 1000");
    let info = docker
        .words(&[
            "info",
            "--format",
            "{{.Containers}} {{.ContainersRunning}} {{.Images}} {{.OSType}} {{.Name}}",
        ])
        .ok();
    assert_eq!(info, format!("1 1 1 linux {}", lab.host.name()));
}

#[test]
fn ping_needs_no_version_and_names_ours() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    assert_eq!(daemon.request("GET", "/_ping", ""), (200, "OK".into()));
    let headers = lab
        .host
        .run(&format!(
            "curl -sS --head --unix-socket {} http://sluice/_ping",
            daemon.socket().display()
        ))
        .to_lowercase();
    assert!(
        headers.contains("api-version: 1.50") && headers.contains("ostype: linux"),
        "{headers}"
    );
}

#[test]
fn old_and_new_clients_are_served() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    for version in ["1.24", "1.43", "1.44", "1.48", "1.49", "1.50"] {
        let docker = daemon.docker().version(version);
        assert_eq!(docker.ok("run --rm busybox echo hello"), "hello", "version {version}");
        docker.ok("run -d --name box -p 8080:80 busybox sleep 1000");
        assert_eq!(docker.ok("ps --format {{.Names}}"), "box", "version {version}");
        assert_eq!(docker.ok("exec box echo hello"), "hello", "version {version}");
        assert!(docker.address("box").starts_with("172.17."), "version {version}");
        docker.ok("images");
        docker.ok("info");
        docker.ok("rm -f box");
    }
    let (status, body) = daemon.request("GET", "/v1.23/info", "");
    assert!(status == 400 && body.contains("1.24"), "too old: {status} {body}");
    let (status, body) = daemon.request("GET", "/v1.99/info", "");
    assert!(status == 400 && body.contains("1.50"), "too new: {status} {body}");
}

#[test]
fn the_three_usual_networks_are_there() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let mut names: Vec<String> = docker
        .ok("network ls --format {{.Name}}:{{.Driver}}")
        .lines()
        .map(str::to_owned)
        .collect();
    names.sort();
    assert_eq!(names, ["bridge:bridge", "host:host", "none:null"]);
    docker.ok("run -d --name box busybox sleep 1000");
    let network = docker
        .words(&[
            "network",
            "inspect",
            "bridge",
            "--format",
            "{{(index .IPAM.Config 0).Subnet}} {{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
        ])
        .ok();
    assert_eq!(network, format!("172.17.0.0/16 box {}/16", docker.address("box")));
    docker
        .run("network inspect no-such-network")
        .fails(1, "no-such-network");
}

#[test]
fn what_is_not_served_yet_is_said_in_a_sentence() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    for (method, path) in [
        ("GET", "/v1.43/swarm"),
        ("POST", "/v1.43/session"),
        ("GET", "/v1.43/plugins"),
    ] {
        let (status, body) = daemon.request(method, path, "");
        let message = serde_json::from_str::<serde_json::Value>(&body).unwrap_or_default()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            status == 501 && message.contains(' '),
            "{method} {path}: {status} {body}"
        );
    }
    let (status, body) = daemon.request("GET", "/v1.43/no/such/page", "");
    assert!(status == 404 && body.contains("page not found"), "{status} {body}");
}

#[test]
fn our_own_cli_says_the_same_things() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let id = daemon.sluice("run -d --name box -p 8080:80 busybox sleep 1000").ok();
    assert_eq!(docker.ok("ps -q --no-trunc"), id);
    assert_eq!(daemon.sluice("ps -q --no-trunc").ok(), id);
    assert!(daemon.sluice("ps").ok().starts_with("CONTAINER ID"));
    assert_eq!(daemon.sluice("exec box echo hello").ok(), "hello");
    assert_eq!(daemon.sluice("run --rm busybox sh -c 'exit 7'").code(), Some(7));
    assert_eq!(daemon.sluice("run --rm busybox /no/such/program").code(), Some(127));
    assert_eq!(daemon.sluice("inspect no-such-box").code(), Some(1));
    assert_eq!(
        daemon.sluice("inspect --format '{{.State.Status}}' box").ok(),
        "running"
    );
    assert!(daemon.sluice("status").ok().contains("sluice0"));
    daemon.sluice("flows").ok();
    daemon.sluice("drops").ok();
    daemon.sluice("rm -f box").ok();
    assert_eq!(docker.ok("ps -aq"), "");
}
