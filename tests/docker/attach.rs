//! Terminals, and clients that come and go.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use lab::{Daemon, Docker, Lab, Ran, Terminal, eventually, patience, start};

/// ctrl-p ctrl-q
const LEAVE: &str = "\x10\x11";

fn at_terminal(docker: &Docker, words: &[&str]) -> Terminal {
    Terminal::start(&mut docker.command(words), 24, 80)
}

#[test]
fn a_client_leaves_by_its_keys_and_comes_back() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let mut first = at_terminal(&docker, &["run", "-it", "--name", "box", "busybox", "sh"]);
    first.shows("/ #");
    first.types("echo one$((40+2))\n");
    first.shows("one42");
    first.types(LEAVE);
    assert_eq!(first.end(), Some(0));
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
    let mut second = at_terminal(&docker, &["attach", "--detach-keys", "ctrl-a,d", "box"]);
    second.types("echo two$((40+2))\n");
    second.shows("two42");
    second.types("\x01d");
    second.end();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
    let mut third = at_terminal(&docker, &["attach", "box"]);
    third.types("exit 5\n");
    assert_eq!(third.end(), Some(5));
    eventually("it has ended", 5, || {
        docker.inspect("box", "{{.State.Status}}") == "exited"
    });
    docker.run("attach box").fails(1, "stopped container");
}

#[test]
fn a_session_beside_the_program_is_left_by_keys_too_and_ends_with_its_own_code() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    let mut session = at_terminal(
        &docker,
        &["exec", "-it", "-u", "ada", "-w", "/tmp", "-e", "A=b", "box", "sh"],
    );
    session.types("echo $(id -un) $PWD $A\n");
    session.shows("ada /tmp b");
    session.types("exit 7\n");
    assert_eq!(session.end(), Some(7));
    let mut session = at_terminal(&docker, &["exec", "-it", "box", "sh"]);
    session.types("echo up$((40+2))\n");
    session.shows("up42");
    session.types(LEAVE);
    session.end();
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
}

#[test]
fn the_program_sees_the_size_of_the_terminal_and_ctrl_c() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let words = ["run", "-it", "--rm", "--name", "box", "busybox", "sh"];
    let mut terminal = Terminal::start(&mut docker.command(&words), 40, 100);
    terminal.shows("/ #");
    let sizes = |terminal: &mut Terminal, wanted: &str| {
        eventually(&format!("the size is {wanted}"), 10, || {
            terminal.types("echo =$(stty size)=\n");
            std::thread::sleep(std::time::Duration::from_millis(300));
            terminal.screen().contains(&format!("={wanted}="))
        });
    };
    sizes(&mut terminal, "40 100");
    terminal.resize(50, 120);
    sizes(&mut terminal, "50 120");
    terminal.types("sleep 1000\n");
    std::thread::sleep(std::time::Duration::from_millis(500));
    terminal.types("\x03");
    terminal.types("echo back$((40+2))\n");
    terminal.shows("back42");
    terminal.types("exit\n");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_session_beside_the_program_has_a_terminal_with_a_size_of_its_own_or_an_input_that_ends() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name box busybox sleep 1000");
    let mut terminal = Terminal::start(&mut docker.command(&["exec", "-it", "box", "sh"]), 40, 100);
    terminal.shows("#");
    let sizes = |terminal: &mut Terminal, wanted: &str| {
        eventually(&format!("the size is {wanted}"), 10, || {
            terminal.types("echo =$(stty size)=\n");
            std::thread::sleep(std::time::Duration::from_millis(300));
            terminal.screen().contains(&format!("={wanted}="))
        });
    };
    sizes(&mut terminal, "40 100");
    terminal.resize(50, 120);
    sizes(&mut terminal, "50 120");
    terminal.types("\x04");
    assert_eq!(terminal.end(), Some(0), "ctrl-d ends the shell");
    let said = docker.fed(&["exec", "-i", "box", "sort"], b"b\na\n");
    assert_eq!(said.ok(), "a\nb");
    let (none, all) = (
        docker.fed(&["exec", "box", "cat"], b"typed\n"),
        docker.fed(&["exec", "-i", "box", "cat"], b"typed\n"),
    );
    assert_eq!(
        (none.ok(), all.ok()),
        (String::new(), "typed".to_owned()),
        "without -i nothing is passed on"
    );
    docker.run("exec -it box sh").fails(1, "the input device is not a TTY");
    docker.run("exec box nosuch").fails(127, "");
    docker.run("exec box /etc").fails(126, "");
}

fn listener(docker: &Docker, words: &[&str]) -> Child {
    let mut command = docker.command(words);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn several_clients_hear_the_same_and_one_that_goes_disturbs_nobody() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done";
    docker.sh("-d --name box", script).ok();
    let mut all: Vec<Child> = (0..3)
        .map(|_| listener(&docker, &["attach", "--no-stdin", "--sig-proxy=false", "box"]))
        .collect();
    for child in &mut all {
        let line = BufReader::new(child.stdout.as_mut().unwrap())
            .lines()
            .next()
            .unwrap()
            .unwrap();
        assert!(line.starts_with("line "), "{line}");
    }
    all[0].kill().unwrap();
    all[0].wait().unwrap();
    for child in &mut all[1..] {
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().take(5);
        assert_eq!(lines.count(), 5);
    }
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
    docker.ok("kill box");
    for mut child in all.into_iter().skip(1) {
        assert_eq!(child.wait().unwrap().code(), Some(137));
    }
}

#[test]
fn signals_of_the_client_reach_the_program_unless_they_are_not_to() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done";
    docker.sh("-d --name box", script).ok();
    eventually("it is ready", 10, || docker.run("logs box").stdout.contains("ready"));
    let interrupt = |child: &Child| {
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::SIGINT).unwrap();
    };
    let mut deaf = listener(&docker, &["attach", "--no-stdin", "--sig-proxy=false", "box"]);
    std::thread::sleep(patience(1));
    interrupt(&deaf);
    std::thread::sleep(patience(1));
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
    deaf.kill().unwrap();
    deaf.wait().unwrap();
    let mut proxy = listener(&docker, &["attach", "--no-stdin", "box"]);
    std::thread::sleep(patience(1));
    interrupt(&proxy);
    assert_eq!(proxy.wait().unwrap().code(), Some(9));
}

#[test]
fn the_end_of_what_a_client_says_reaches_the_program() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("create -i --name box busybox sort");
    let ran = docker.fed(&["start", "-ai", "box"], b"b\na\n");
    assert_eq!(ran.ok(), "a\nb");
    let (status, past) = daemon.request("POST", "/v1.41/containers/box/attach?logs=1&stdout=1&stream=0", "");
    assert!(
        matches!(status, 101 | 200) && past.contains("a\n") && past.contains("b\n"),
        "{status} {past:?}"
    );
}

#[test]
fn a_websocket_carries_the_streams_as_they_are() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -di --name box busybox cat");
    let mut socket = WebSocket::open(
        &daemon,
        "/v1.41/containers/box/attach/ws?stream=1&stdin=1&stdout=1&stderr=1",
    );
    socket.say(b"hello\n");
    assert_eq!(socket.hear(6), b"hello\n");
    socket.say(b"again\n");
    assert_eq!(socket.hear(6), b"again\n");
    drop(socket);
    assert_eq!(docker.inspect("box", "{{.State.Status}}"), "running");
    assert!(docker.ok("logs box").contains("hello\nagain"));
    docker.ok("rm -f box");
}

/// A client as in RFC 6455, with small messages.
struct WebSocket(UnixStream);

impl WebSocket {
    fn open(daemon: &Daemon, path: &str) -> Self {
        let at = daemon.socket();
        let mut stream = daemon.host().inside(|| UnixStream::connect(&at).unwrap());
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://x\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.set_read_timeout(Some(patience(20))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // the answer to this key, from the RFC
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self(stream)
    }

    fn say(&mut self, text: &[u8]) {
        let mut frame = vec![0x82, 0x80 | u8::try_from(text.len()).unwrap(), 1, 2, 3, 4];
        frame.extend(
            text.iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.0.write_all(&frame).unwrap();
    }

    /// So many bytes, in however many messages.
    fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < count {
            let mut head = [0; 2];
            self.0.read_exact(&mut head).unwrap();
            let mut piece = vec![0; usize::from(head[1])];
            assert!(head[1] < 126, "a short message that is not masked");
            self.0.read_exact(&mut piece).unwrap();
            heard.extend(piece);
        }
        heard
    }
}

/// Resident memory of a process, without what it shares with files: bytes.
fn anonymous_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

#[test]
fn a_gigabyte_goes_through_a_container_intact_and_nobody_keeps_it_in_memory() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let stream = "seq 1 200000000 | head -c 1073741824";
    let script = format!(
        "export DOCKER_HOST=unix://{}; {stream} | docker run -i --name box --log-driver none busybox cat | sha256sum",
        daemon.socket().display()
    );
    let before = anonymous_memory(daemon.pid());
    let mut most = (0, 0);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let mut command = lab.host.command("/bin/sh");
            Ran::command(command.arg("-c").arg(&script), &[], patience(500)).ok()
        });
        while !sent.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(100));
            let shims = lab
                .host
                .processes()
                .into_iter()
                .filter(|(_, line)| line.contains("shim"));
            let shim = shims.map(|(pid, _)| anonymous_memory(pid)).max().unwrap_or(0);
            most = (most.0.max(anonymous_memory(daemon.pid())), most.1.max(shim));
        }
        let expected = lab.host.run(&format!("{stream} | sha256sum"));
        assert_eq!(sent.join().unwrap(), expected);
    });
    println!(
        "daemon {} KiB more, shim {} KiB",
        most.0.saturating_sub(before) >> 10,
        most.1 >> 10
    );
    if daemon.is_ours() {
        assert!(
            most.0.saturating_sub(before) < 16 << 20,
            "the daemon grew by {} bytes",
            most.0 - before
        );
        assert!(most.1 < 2 << 20, "a shim grew to {} bytes", most.1);
    }
}
