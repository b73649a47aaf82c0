//! Names: what containers are told at 127.0.0.11, over every road that resolvers take.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{Host, Lab, eventually, patience, start};

use crate::dns::{
    A, AAAA, Answer, Connected, NO_ERROR, PTR, RESOLVER, SERVER_FAILURE, Stream, WAYS, address, answer, ask, ask_for,
    question, told,
};

/// A server that answers every question with one address, by both roads, or says nothing.
struct Upstream<'a> {
    ends: &'a AtomicBool,
}

impl<'a> Upstream<'a> {
    fn start<'scope>(
        scope: &'scope thread::Scope<'scope, '_>,
        host: &Host,
        at: &str,
        says: Option<Ipv4Addr>,
        ends: &'scope AtomicBool,
    ) -> Upstream<'scope> {
        let (datagrams, streams) =
            host.inside(|| (UdpSocket::bind((at, 53)).unwrap(), TcpListener::bind((at, 53)).unwrap()));
        datagrams.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        streams.set_nonblocking(true).unwrap();
        let reply = move |question: &[u8]| {
            let mut bytes = question.to_vec();
            bytes[2] |= 0x80;
            bytes[7] = 1;
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            bytes.extend(says.unwrap().octets());
            bytes
        };
        scope.spawn(move || {
            let mut buffer = [0; 1024];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((length, from)) = datagrams.recv_from(&mut buffer)
                    && says.is_some()
                {
                    let _ = datagrams.send_to(&reply(&buffer[..length]), from);
                }
                if let Ok((mut stream, _)) = streams.accept()
                    && says.is_some()
                {
                    stream.set_nonblocking(false).unwrap();
                    let mut length = [0; 2];
                    if stream.read_exact(&mut length).is_ok() {
                        let length = usize::from(u16::from_be_bytes(length));
                        stream.read_exact(&mut buffer[..length]).unwrap();
                        let bytes = reply(&buffer[..length]);
                        let framed = [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
                        stream.write_all(&framed).unwrap();
                    }
                }
            }
        });
        Upstream { ends }
    }
}

impl Drop for Upstream<'_> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

#[test]
fn names_are_told_by_every_road_and_to_those_of_the_network_alone() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --internal --opt com.docker.network.bridge.enable_icc=false front");
    docker.ok("network create --ipv6 --subnet fd99::/64 back");
    docker.ok("run -d --name web --network front --network-alias www busybox sleep 1000");
    docker.ok("run -d --name both --network front --network-alias www busybox sleep 1000");
    docker.ok("network connect back both");
    docker.ok("run -d --name db --network back busybox sleep 1000");
    docker.ok("run -d --name plain busybox sleep 1000");
    let [web, both, db, plain] = ["web", "both", "db", "plain"].map(|name| docker.pid(name));
    let at = address(&docker, "web", "front");
    for way in WAYS {
        let answer = ask(both, way, "web", A).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        assert_eq!(answer.records.join(" "), at, "{way:?}");
    }
    let id = docker.inspect("web", "{{.Id}}");
    for name in ["WEB", "web.front", &id[..12]] {
        assert_eq!(told(both, name, A).join(" "), at, "{name}");
    }
    let mut shared = told(web, "www", A);
    shared.sort();
    let mut expected = vec![at.clone(), address(&docker, "both", "front")];
    expected.sort();
    assert_eq!(shared, expected);
    // in turn
    eventually("the other comes first", 5, || {
        told(web, "www", A)[0] != told(web, "www", A)[0]
    });

    // it has no IPv6, but it is there
    let none = Answer {
        code: NO_ERROR,
        truncated: false,
        records: vec![],
    };
    assert_eq!(ask(both, Connected, "web", AAAA).unwrap(), none);
    assert_eq!(told(db, "both", AAAA).len(), 1);
    let reversed = address(&docker, "db", "back")
        .split('.')
        .rev()
        .collect::<Vec<_>>()
        .join(".");
    assert_eq!(told(both, &format!("{reversed}.in-addr.arpa"), PTR), ["db.back"]);

    // who is on internal networks alone is not helped by others
    assert_eq!(ask(web, Connected, "db", A).unwrap().code, SERVER_FAILURE);
    assert_eq!(ask(web, Stream, "example.com", A).unwrap().code, SERVER_FAILURE);
    // on the default network the address is as good as any of loopback
    assert!(ask_for(plain, Connected, "web", A, Duration::from_secs(1)).is_err());

    // names change at once with what is done
    docker.ok("rename web shop");
    assert_eq!(told(both, "shop", A).join(" "), at);
    docker.ok("network disconnect front both");
    assert_eq!(told(web, "www", A).join(" "), at);
    assert_eq!(told(both, "db", A), [address(&docker, "db", "back")]);
    docker.ok("rm -f db");
    assert_ne!(
        ask(both, Connected, "db", A).map(|answer| answer.records.len()).ok(),
        Some(1)
    );

    // and outlive the daemon's life
    daemon.kill();
    daemon.boot();
    assert_eq!(told(web, "www", A), [at]);
}

#[test]
fn names_are_told_by_ipv6_where_there_is_nothing_else() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --ipv6 --subnet fd98::/64 --ipv4=false six");
    docker.ok("run -d --name one --network six busybox sleep 1000");
    docker.ok("run -d --name two --network six busybox sleep 1000");
    let text = docker.ok("exec one cat /etc/resolv.conf");
    let server = text.lines().find_map(|line| line.strip_prefix("nameserver ")).unwrap();
    let to: SocketAddr = format!("[{server}]:53").parse().unwrap();
    let bytes = question(7, "two", AAAA);
    let records = Host::within(docker.pid("one"), || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.set_read_timeout(Some(patience(10))).unwrap();
        socket.send_to(&bytes, to).unwrap();
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, to);
        answer(&buffer[..length], 7).records
    });
    assert_eq!(records.len(), 1);
    assert!(records[0].starts_with("fd98::"), "{records:?}");
}

/// Pitfall B24.
#[test]
fn what_is_no_name_of_ours_is_asked_of_the_servers_and_none_of_them_holds_others_up() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        // on the host's loopback: it is the daemon that asks
        let _answering = Upstream::start(
            scope,
            &lab.host,
            "127.0.0.53",
            Some(Ipv4Addr::new(192, 0, 2, 77)),
            &ends,
        );
        let _silent = Upstream::start(scope, &lab.host, "127.0.0.54", None, &ends);
        docker.ok("network create front");
        docker.ok("run -d --name well --network front --dns 127.0.0.53 busybox sleep 1000");
        docker.ok("run -d --name slow --network front --dns 127.0.0.54 --dns 127.0.0.53 busybox sleep 1000");
        docker.ok("run -d --name dead --network front --dns 127.0.0.54 busybox sleep 1000");
        let [well, slow, dead] = ["well", "slow", "dead"].map(|name| docker.pid(name));
        for way in WAYS {
            let answer = ask(well, way, "example.com", A).unwrap_or_else(|error| panic!("{way:?}: {error}"));
            assert_eq!(answer.records, ["192.0.2.77"], "{way:?}");
        }
        assert_eq!(
            told(slow, "example.com", A),
            ["192.0.2.77"],
            "the second one is asked when the first is silent"
        );
        // many that wait for an answer that never comes, and one that does not
        let waiting = scope.spawn(move || ask(dead, Connected, "example.com", A).map(|answer| answer.code));
        Host::within(dead, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for id in 0..2000 {
                let _ = socket.send_to(&question(id, "example.com", A), RESOLVER);
            }
        });
        assert_eq!(told(well, "example.com", A), ["192.0.2.77"]);
        assert_eq!(told(well, "slow", A), [address(&docker, "slow", "front")]);
        assert_eq!(waiting.join().unwrap().unwrap(), SERVER_FAILURE);
    });
}

/// Pitfall B24.
#[test]
fn a_flood_of_questions_from_one_container_keeps_no_other_from_an_answer() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create front");
    docker.ok("run -d --name liar --network front busybox sleep 1000");
    docker.ok("run -d --name calm --network front busybox sleep 1000");
    let [liar, calm] = ["liar", "calm"].map(|name| docker.pid(name));
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            Host::within(liar, || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let bytes = question(1, "calm", A);
                let begun = Instant::now();
                while !ends.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
                    let _ = socket.send_to(&bytes, RESOLVER);
                }
            });
        });
        let expected = address(&docker, "liar", "front");
        for _ in 0..50 {
            let records = told(calm, "liar", A);
            if records.join(" ") != expected {
                ends.store(true, Ordering::Relaxed);
            }
            assert_eq!(records.join(" "), expected);
        }
        ends.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
}
