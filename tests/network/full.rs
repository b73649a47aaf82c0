//! A table of flows that has no room left.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lab::{Daemon, Host, LAN, Lab, eventually, patience, start};

const CONNECTIONS: u16 = 1024;
const OF_ONE: u16 = 900;
/// The first of the ports that connections are opened from.
const FIRST: u16 = 10_000;

/// Ends the server, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Is there an answer to a question from this port?
fn asks(pid: u32, port: u16, limit: Duration) -> bool {
    Host::within(pid, || {
        let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        let server: SocketAddr = format!("{LAN}:7777").parse().unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(limit)).unwrap();
        socket.send(b"?").is_ok() && socket.recv(&mut [0; 8]).is_ok()
    })
}

/// Asks from one port after the other until there is no answer, by the counter of drops `refused`; how often there was one.
fn fill(daemon: &Daemon, name: &str, refused: &str) -> u16 {
    let pid = daemon.docker().pid(name);
    let is_refused = || {
        let drops = daemon.sluice("drops").ok();
        let of_it = |line: &&str| line.starts_with(refused) && line.contains(&format!(" {name} "));
        drops.lines().any(|line| of_it(&line))
    };
    for answered in 0..=CONNECTIONS {
        let mut is_over = false;
        // One that is lost on a busy machine is asked again, and is the same connection.
        let is_settled = (0..20).any(|_| {
            asks(pid, FIRST + answered, Duration::from_millis(500)) || {
                is_over = is_refused();
                is_over
            }
        });
        assert!(is_settled, "{answered}: neither answered nor refused");
        if is_over {
            return answered;
        }
    }
    panic!("{name} was never refused");
}

/// Pitfall B22.
#[test]
fn a_full_table_refuses_new_connections_and_says_who_fills_it() {
    let lab = Lab::new();
    let daemon = start(&lab, &format!("--flows {CONNECTIONS} --flows-per-container {OF_ONE}"));
    let docker = daemon.docker();
    docker.ok("run -d --name hog busybox sleep 1000");
    docker.ok("run -d --name other busybox sleep 1000");
    let server = lab.lan.inside(|| UdpSocket::bind(format!("{LAN}:7777")).unwrap());
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 8];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = server.recv_from(&mut buffer) {
                    let _ = server.send_to(b"!", peer);
                }
            }
        });
        let _end = End(&ends);
        say_who_fills_it(&daemon);
    });
}

fn say_who_fills_it(daemon: &Daemon) {
    let docker = daemon.docker();
    let (hogs, others) = (
        fill(daemon, "hog", "flow_limit"),
        fill(daemon, "other", "flow_table_full"),
    );
    assert!((OF_ONE - 5..=OF_ONE).contains(&hogs), "{hogs}");
    assert!(
        (CONNECTIONS - OF_ONE - 10..=CONNECTIONS - OF_ONE).contains(&others),
        "{others}"
    );

    // Whoever looks is told, in words and as JSON.
    let told = format!("hog holds {hogs}, other holds {others}");
    eventually("status says who fills the table", 30, || {
        let status = daemon.sluice("status").ok();
        status.contains("the table of flows FLOWS4 is full with ") && status.contains(&told)
    });
    let status: serde_json::Value = serde_json::from_str(&daemon.sluice("status --json").ok()).unwrap();
    assert_eq!(
        (&status["shares"][0]["endpoint"], &status["shares"][0]["connections"]),
        (&"hog".into(), &hogs.into()),
        "{status}"
    );
    let drops = daemon.sluice("drops").ok();
    assert!(
        drops.contains(&format!("Connections are held by: hog {hogs}, other {others}")),
        "{drops}"
    );
    eventually("the daemon's log says it, too", 30, || daemon.log().contains(&told));

    // What was there goes on, and there is room as soon as the one who filled it is gone.
    let pid = docker.pid("other");
    assert!(asks(pid, FIRST, patience(10)), "a connection that was there");
    assert!(!asks(pid, FIRST + CONNECTIONS, Duration::from_millis(500)), "a new one");
    docker.ok("rm -f hog");
    eventually("there is room again", 30, || {
        asks(pid, FIRST + CONNECTIONS, Duration::from_millis(500))
    });
    let status = daemon.sluice("status").ok();
    assert!(status.contains("Troubles: none"), "{status}");
}
