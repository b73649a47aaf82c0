//! What must be refused, with the status and the words that clients match on, and nothing half-made left behind.

use lab::{Daemon, Lab, start};

/// Sends the request and checks status and words of the answer.
#[track_caller]
fn refuses(daemon: &Daemon, request: (&str, &str, &str), status: u16, words: &str) {
    let (method, path, body) = request;
    let (got, answer) = daemon.request(method, &format!("/v1.41{path}"), body);
    let message = serde_json::from_str::<serde_json::Value>(&answer).unwrap_or_default()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert_eq!(got, status, "{method} {path} {body}: {answer}");
    assert!(
        message.to_lowercase().contains(&words.to_lowercase()),
        "\"{words}\" was expected of {method} {path} {body}: {answer}"
    );
}

#[test]
fn what_is_not_there_is_404() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    for (method, path) in [
        ("GET", "/containers/nobody/json"),
        ("POST", "/containers/nobody/start"),
        ("POST", "/containers/nobody/stop"),
        ("POST", "/containers/nobody/kill"),
        ("POST", "/containers/nobody/wait"),
        ("GET", "/containers/nobody/logs?stdout=1"),
        ("DELETE", "/containers/nobody"),
    ] {
        refuses(&daemon, (method, path, ""), 404, "No such container: nobody");
    }
    refuses(
        &daemon,
        ("POST", "/containers/nobody/exec", r#"{"Cmd":["true"]}"#),
        404,
        "No such container: nobody",
    );
    refuses(
        &daemon,
        ("POST", "/containers/create", r#"{"Image":"no-such-image"}"#),
        404,
        "No such image: no-such-image:latest",
    );
    refuses(
        &daemon,
        ("GET", "/images/no-such-image/json", ""),
        404,
        "No such image: no-such-image",
    );
    refuses(
        &daemon,
        ("DELETE", "/images/no-such-image", ""),
        404,
        "No such image: no-such-image:latest",
    );
    refuses(
        &daemon,
        ("GET", "/networks/no-such-network", ""),
        404,
        "network no-such-network not found",
    );
    refuses(
        &daemon,
        ("GET", "/exec/0123456789/json", ""),
        404,
        "No such exec instance",
    );
    refuses(
        &daemon,
        ("POST", "/exec/0123456789/start", "{}"),
        404,
        "No such exec instance",
    );
}

#[test]
fn what_is_in_use_is_409() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    refuses(
        &daemon,
        ("POST", "/containers/create?name=box", r#"{"Image":"busybox"}"#),
        409,
        "Conflict. The container name \"/box\" is already in use by container",
    );
    refuses(&daemon, ("DELETE", "/containers/box", ""), 409, "container");
    refuses(
        &daemon,
        ("DELETE", "/images/busybox", ""),
        409,
        "conflict: unable to remove repository reference \"busybox\"",
    );
    docker.ok("kill box");
    refuses(&daemon, ("POST", "/containers/box/kill", ""), 409, "is not running");
    refuses(
        &daemon,
        ("POST", "/containers/box/exec", r#"{"Cmd":["true"]}"#),
        409,
        "is not running",
    );
}

#[test]
fn what_makes_no_sense_is_400() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let create = "/containers/create";
    for (body, words) in [
        ("{", ""),
        ("[]", ""),
        (r#"{"Image":7}"#, ""),
        (
            r#"{"Image":"busybox","Env":["=nothing"]}"#,
            "invalid environment variable",
        ),
        (r#"{"Image":"busybox","ExposedPorts":{"eighty/tcp":{}}}"#, "port"),
        (
            r#"{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"70000"}]}}}"#,
            "port",
        ),
        (
            r#"{"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"not-an-address","HostPort":"80"}]}}}"#,
            "",
        ),
        (
            r#"{"Image":"busybox","HostConfig":{"Binds":["relative:/x:rw:nonsense"]}}"#,
            "invalid",
        ),
        (
            r#"{"Image":"busybox","WorkingDir":"relative"}"#,
            "needs to be an absolute path",
        ),
        (r#"{"Image":"Upper/Case"}"#, "invalid reference format"),
    ] {
        refuses(&daemon, ("POST", create, body), 400, words);
    }
    refuses(
        &daemon,
        ("POST", "/containers/create?name=bad%20name", r#"{"Image":"busybox"}"#),
        400,
        "Invalid container name (bad name)",
    );
    let docker = daemon.docker();
    assert_eq!(docker.ok("ps -aq"), "", "nothing half-made is left behind");
    assert_eq!(docker.ok("run --rm busybox echo alive"), "alive");
}

#[test]
fn a_daemon_with_a_nonsensical_flag_does_not_start_and_says_why() {
    let lab = Lab::new();
    let sluiced = lab::binary("sluiced");
    for (flag, words) in [
        ("--bip 172.17.0.1/99", "bip"),
        ("--bip nonsense", "bip"),
        ("--mtu=-5", "mtu"),
        ("--log-level shout", "log"),
        ("--ip nowhere", "ip"),
        ("--no-such-flag", "no-such-flag"),
    ] {
        let directory = lab.host.directory().display().to_string();
        let ran = lab.host.shell(&format!(
            "timeout 10 {} {flag} --data-root {directory}/data --exec-root /run/x",
            sluiced.display()
        ));
        assert!(!ran.is_ok() && ran.code() != Some(124), "{flag}: {ran}");
        assert!(
            format!("{}{}", ran.stdout, ran.stderr).to_lowercase().contains(words),
            "{flag}: {ran}"
        );
    }
}

#[test]
fn half_a_request_and_garbage_do_not_take_the_daemon_down() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let socket = daemon.socket();
    lab.host.inside(|| {
        use std::io::Write;
        for bytes in [
            &b"GET /_ping HTT"[..],
            b"\x16\x03\x01\x02\x00garbage\r\n\r\n",
            b"POST /v1.43/containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n{",
        ] {
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            stream.write_all(bytes).unwrap();
        }
    });
    assert_eq!(daemon.docker().ok("run --rm busybox echo alive"), "alive");
}

#[test]
fn a_container_whose_start_fails_halfway_leaves_nothing_but_its_record() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run --rm busybox true");
    let before = lab::Snapshot::take(&lab.host);
    for line in [
        "run --name box busybox /no/such/program",
        "run --name box -w /etc/passwd busybox true",
        "run --name box -u nobody-knows busybox true",
    ] {
        assert!(!docker.run(line).is_ok());
        docker.ok("rm -f box");
    }
    assert_eq!(before.left(&lab.host), "");
}
