//! What Compose v2 asks of a daemon, written down once (`compose_v2.txt`, by `UPDATE_DOCS=1` where the plugin is installed) and asked again, in that order, of
//! the daemon under test: on machines that have no Compose v2, too.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use lab::{Daemon, Lab, eventually, patience, start};

use crate::compose::{Compose, TIERS};

/// Where it is written down: a line for each phase (`# up -d`) and each request (`POST 201 PATH`), and after those with a body one for the body.
fn place() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/compose_v2.txt")
}

/// The client's commands, in order.
const PHASES: [&str; 4] = ["up -d", "up -d --scale app=2", "up -d changed", "down -t 1"];

/// A request and the status of its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Asked {
    method: String,
    path: String,
    body: String,
    status: u16,
}

/// An HTTP message as far as it matters here: the first line, and the body where its length is said or it comes in chunks.
fn read_message(stream: &mut impl Read) -> Option<(Vec<u8>, String, Vec<u8>)> {
    let mut raw = Vec::new();
    let mut byte = [0];
    while !raw.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        raw.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&raw).into_owned();
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
    };
    let mut body = Vec::new();
    if let Some(length) = header("content-length").and_then(|length| length.parse().ok()) {
        body.resize(length, 0);
        stream.read_exact(&mut body).ok()?;
        raw.extend(&body);
    } else if header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                stream.read_exact(&mut byte).ok()?;
                line.push(byte[0]);
            }
            let length = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            stream.read_exact(&mut chunk).ok()?;
            raw.extend(line);
            raw.extend(&chunk);
            if length == 0 {
                break;
            }
            body.extend(&chunk[..length]);
        }
    }
    let first = head.lines().next().unwrap_or_default().to_owned();
    Some((raw, first, body))
}

/// Stands between a client and the daemon, and writes down what is asked.
struct Between {
    written: Arc<Mutex<Written>>,
}

#[derive(Default)]
struct Written {
    asked: Vec<Asked>,
    /// Names for what the daemon has made, by id.
    names: BTreeMap<String, String>,
}

impl Between {
    fn stand(daemon: &Daemon, at: &std::path::Path) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let written = Arc::new(Mutex::new(Written::default()));
        let (host, socket, book) = (daemon.host().clone(), daemon.socket(), written.clone());
        // ends with the program
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = host.inside(|| UnixStream::connect(&socket)) else {
                    return;
                };
                let book = book.clone();
                thread::spawn(move || pass_on(client, server, &book));
            }
        });
        Self { written }
    }
}

fn pass_on(mut client: UnixStream, mut server: UnixStream, book: &Mutex<Written>) {
    while let Some((raw, first, body)) = read_message(&mut client) {
        let mut words = first.split_whitespace();
        let (method, path) = (
            words.next().unwrap_or_default().to_owned(),
            words.next().unwrap_or_default().to_owned(),
        );
        if server.write_all(&raw).is_err() {
            return;
        }
        // what goes on for ever is not what is meant here
        if path.contains("/events") || path.contains("/attach") || path.contains("/logs") {
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            let _ = std::io::copy(&mut client, &mut server);
            return;
        }
        let Some((answer, status, told)) = read_message_of(&mut server, &method) else {
            return;
        };
        let status = status
            .split_whitespace()
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        {
            let mut book = book.lock().unwrap();
            if path.contains("/create") && status == 201 {
                let told: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
                let name = format!("{{{}}}", book.names.len());
                if let Some(id) = told["Id"].as_str() {
                    book.names.insert(id.to_owned(), name);
                }
            }
            book.asked.push(Asked {
                method,
                path,
                body: String::from_utf8_lossy(&body).trim().to_owned(),
                status,
            });
        }
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}

/// An answer; that to HEAD has no body, whatever its header says.
fn read_message_of(server: &mut UnixStream, method: &str) -> Option<(Vec<u8>, String, Vec<u8>)> {
    if method != "HEAD" {
        return read_message(server);
    }
    let mut raw = Vec::new();
    let mut byte = [0];
    while !raw.ends_with(b"\r\n\r\n") {
        server.read_exact(&mut byte).ok()?;
        raw.push(byte[0]);
    }
    let first = String::from_utf8_lossy(&raw)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    Some((raw, first, Vec::new()))
}

/// Has the plugin do all phases, and writes down what it asks.
fn write_down(lab: &Lab, daemon: &Daemon) -> String {
    let between = lab.host.directory().join("between.sock");
    let book = Between::stand(daemon, &between).written;
    let mut text = String::new();
    let changed = TIERS.replace("STAGE: one", "STAGE: two");
    let mut file = TIERS;
    for phase in PHASES {
        if phase.ends_with("changed") {
            file = &changed;
        }
        let line = phase.trim_end_matches(" changed");
        Compose::Second.run_at(daemon, &between, file, line).ok();
        let mut book = book.lock().unwrap();
        text += &format!("# {phase}\n");
        let names = book.names.clone();
        for asked in book.asked.drain(..) {
            text += &format!("{} {} {}\n", asked.method, asked.status, asked.path);
            if !asked.body.is_empty() {
                text += &format!("{}\n", asked.body);
            }
        }
        for (id, name) in &names {
            text = text.replace(id, name);
            // a container that is replaced is called by the beginning of its id for a while
            text = text.replace(&format!("name={}_", &id[..12]), &format!("name={name}_"));
        }
    }
    let image = daemon.docker().inspect("busybox", "{{.Id}}");
    let directory = lab.host.directory().display().to_string();
    let outside = daemon
        .docker()
        .words(&["network", "inspect", "-f", "{{.Id}}", "outside"])
        .ok();
    text.replace(&image, "{image}")
        .replace(&outside, "{outside}")
        .replace(&directory, "/app")
}

/// Asks, and gives names to what is made; `made` before are an image and a network, by their ids. The status of the answer.
fn ask(daemon: &Daemon, ids: &mut Vec<String>, made: [&str; 2], asked: &Asked) -> u16 {
    let [image, outside] = made;
    let fill = |text: &str| {
        let mut text = text.replace("{image}", image).replace("{outside}", outside);
        if !daemon.is_ours() {
            // the newest that the stock engine speaks
            text = text.replace("/v1.45/", "/v1.41/");
        }
        for (number, id) in ids.iter().enumerate() {
            let name = format!("{{{number}}}");
            text = text.replace(&format!("name={name}_"), &format!("name={}_", &id[..12]));
            text = text.replace(&name, id);
        }
        text
    };
    let (path, body) = (fill(&asked.path), fill(&asked.body));
    let mut stream = daemon.host().inside(|| UnixStream::connect(daemon.socket()).unwrap());
    stream.set_read_timeout(Some(patience(60))).unwrap();
    let head = format!(
        "{} {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        asked.method,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let (_, first, told) = read_message_of(&mut stream, &asked.method).unwrap_or_else(|| panic!("no answer to {path}"));
    let status = first
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    if path.contains("/create") && status == 201 {
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        ids.extend(told["Id"].as_str().map(str::to_owned));
    }
    assert_eq!(
        status,
        asked.status,
        "{} {path}: {}",
        asked.method,
        String::from_utf8_lossy(&told)
    );
    status
}

/// What is written down, by phase.
fn read(text: &str) -> Vec<(String, Vec<Asked>)> {
    let mut phases: Vec<(String, Vec<Asked>)> = Vec::new();
    for line in text.lines() {
        if let Some(phase) = line.strip_prefix("# ") {
            phases.push((phase.to_owned(), Vec::new()));
            continue;
        }
        let asked = &mut phases.last_mut().unwrap().1;
        if line.starts_with('{') {
            asked.last_mut().unwrap().body = line.to_owned();
            continue;
        }
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        asked.push(Asked {
            method: words[0].to_owned(),
            status: words[1].parse().unwrap(),
            path: words[2].to_owned(),
            body: String::new(),
        });
    }
    phases
}

#[test]
fn what_compose_v2_asks_is_done() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        // it was asked of an engine that takes several networks at a creation
        return;
    }
    let docker = daemon.docker();
    docker.ok("network create outside");
    if std::env::var_os("UPDATE_DOCS").is_some() && Compose::installed().contains(&Compose::Second) {
        let text = write_down(&lab, &daemon);
        std::fs::write(place(), text).unwrap();
    }
    let phases = read(&std::fs::read_to_string(place()).unwrap());
    let names: Vec<&str> = phases.iter().map(|(phase, _)| phase.as_str()).collect();
    assert_eq!(names, PHASES);
    let image = docker.inspect("busybox", "{{.Id}}");
    let outside = docker.words(&["network", "inspect", "-f", "{{.Id}}", "outside"]).ok();
    let mut ids = Vec::new();
    let page = || {
        lab.lan
            .shell(&format!("curl -sS -m 10 http://{}:8080/", lab::HOST))
            .stdout
    };
    for (phase, requests) in &phases {
        for asked in requests {
            ask(&daemon, &mut ids, [&image, &outside], asked);
        }
        let of = |service: &str| format!("label=com.docker.compose.service={service}");
        let count = |service: &str| docker.ok(&format!("ps -q --filter {}", of(service))).lines().count();
        if phase.starts_with("down") {
            assert_eq!(docker.ok("ps -aq"), "");
            assert_eq!(
                docker.ok("network ls --filter type=custom --format {{.Name}}"),
                "outside"
            );
            continue;
        }
        assert_eq!(count("app"), if phase.contains("scale") { 2 } else { 1 }, "{phase}");
        eventually("the application is healthy", 30, || {
            !docker
                .ok(&format!("ps -q --filter health=healthy --filter {}", of("app")))
                .is_empty()
        });
        eventually("the page is there", 30, || page() == "proxy\n");
        docker.ok("exec app-app-1 ping -c 1 -W 5 db");
        assert!(!docker.run("exec app-proxy-1 ping -c 1 -W 1 db").is_ok(), "{phase}");
        let stage = if phase.ends_with("changed") {
            "STAGE=two"
        } else {
            "STAGE=one"
        };
        assert!(docker.ok("exec app-app-1 env").contains(stage), "{phase}");
    }
}
