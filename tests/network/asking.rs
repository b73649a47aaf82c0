//! Who asks for names, and when: every kind of client is answered, and what is answered is right as soon as the daemon says that something is done.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;

use lab::{Daemon, Host, Lab, patience, start};

use crate::dns::{A, AAAA, Connected, NO_ERROR, RESOLVER, Stream, address, answer, ask, question};

/// Asks the daemon for something over its socket, by no more than it takes. The status of the answer.
fn post(daemon: &Daemon, path: &str, body: &str) -> u16 {
    let (host, socket) = (daemon.host(), daemon.socket());
    let mut stream = host.inside(|| UnixStream::connect(&socket).unwrap());
    stream.set_read_timeout(Some(patience(60))).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: s\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut said = [0; 12];
    stream.read_exact(&mut said).unwrap();
    std::str::from_utf8(&said[9..]).unwrap().parse().unwrap()
}

/// The addresses that `asker` is told for a name now; empty also when there is no such name.
fn now(asker: u32, name: &str) -> Vec<String> {
    ask(asker, Connected, name, A).unwrap().records
}

#[test]
fn what_is_answered_is_right_when_the_call_that_changed_it_returns() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create front");
    docker.ok("network create back");
    docker.ok("run -d --name asker --network front --dns 127.0.0.1 busybox sleep 1000");
    docker.ok("run -d --name web --network back --stop-signal KILL busybox sleep 1000");
    let asker = docker.pid("asker");
    // Nobody is waited for between a call and its question.
    for round in 0..10 {
        let wish = r#"{"Container":"web","EndpointConfig":{"Aliases":["www"]}}"#;
        assert_eq!(post(&daemon, "/networks/front/connect", wish), 200);
        let told = now(asker, "www");
        assert_eq!(told.len(), 1, "connected, round {round}");
        assert_eq!(now(asker, "web"), told);
        assert_eq!(post(&daemon, "/containers/web/rename?name=shop", ""), 204);
        assert_eq!(now(asker, "shop"), told, "renamed, round {round}");
        assert_eq!(now(asker, "web"), [""; 0], "the old name, round {round}");
        assert_eq!(post(&daemon, "/containers/shop/stop?t=0", ""), 204);
        assert_eq!(now(asker, "www"), [""; 0], "stopped, round {round}");
        assert_eq!(post(&daemon, "/containers/shop/start", ""), 204);
        let told = now(asker, "www");
        assert_eq!(told.len(), 1, "started, round {round}");
        assert_eq!(post(&daemon, "/containers/shop/rename?name=web", ""), 204);
        assert_eq!(now(asker, "web"), told);
        let wish = r#"{"Container":"web"}"#;
        assert_eq!(post(&daemon, "/networks/front/disconnect", wish), 200);
        assert_eq!(now(asker, "www"), [""; 0], "disconnected, round {round}");
    }
}

/// How long an answer may be, and options.
type Edns<'a> = Option<(u16, &'a [u8])>;

/// A question as the client puts it: flags of its header, the kind, and an OPT record (EDNS0) when it says how long an answer may be.
fn put(id: u16, name: &str, kind: u16, flags: u16, edns: Edns<'_>) -> Vec<u8> {
    let mut bytes = question(id, name, kind);
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    if let Some((size, options)) = edns {
        bytes[11] = 1;
        bytes.extend([0, 0, 41]);
        bytes.extend(size.to_be_bytes());
        bytes.extend([0, 0, 0, 0]);
        bytes.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
        bytes.extend(options);
    }
    bytes
}

#[test]
fn clients_of_every_kind_are_answered() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import(&lab::getent(), "getent", &[]);
    docker.ok("network create --ipv6 front");
    docker.ok("run -d --name web --network front --network-alias www.example.com busybox sleep 1000");
    docker.ok("run -d --name asker --network front getent sleep 1000");
    let (web, asker) = (address(&docker, "web", "front"), docker.pid("asker"));
    let six = docker.inspect("web", "{{.NetworkSettings.Networks.front.GlobalIPv6Address}}");

    // the C library, by the container's own files: both families at once
    let found = docker.ok("exec asker getent ahosts web");
    assert!(found.contains(&web) && found.contains(&six), "{found}");
    assert!(docker.ok("exec asker getent ahostsv4 www.example.com").contains(&web));
    let found = docker.ok(&format!("exec asker getent hosts {web}"));
    assert!(found.contains("web.front"), "{found}");
    assert!(!docker.run("exec asker getent hosts nobody.invalid").is_ok());
    // and busybox's own resolver
    let found = docker.ok("exec asker nslookup web 127.0.0.11");
    assert!(found.contains(&web) && found.contains(&six), "{found}");

    // Flags: RD; RD and AD (glibc with trust-ad, Go); RD and CD. A cookie (RFC 7873) as c-ares sends it since 1.31.
    let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    let kinds: [(u16, Edns<'_>); 5] = [
        (0x0100, None),
        (0x0120, Some((1232, &[]))),
        (0x0110, Some((4096, &[]))),
        (0x0100, Some((1232, &cookie))),
        (0x0120, Some((512, &[]))),
    ];
    Host::within(asker, || {
        for (flags, edns) in kinds {
            // musl and Go: A and AAAA beside each other, from one socket that is not connected; case as it comes (0x20)
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(patience(30))).unwrap();
            for (id, kind) in [(7, A), (8, AAAA)] {
                socket
                    .send_to(&put(id, "wWw.ExAmple.cOm", kind, flags, edns), RESOLVER)
                    .unwrap();
            }
            let mut told = Vec::new();
            for _ in 0..2 {
                let mut buffer = [0; 4096];
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!(from.to_string(), RESOLVER);
                let said = answer(&buffer[..length], u16::from_be_bytes([buffer[0], buffer[1]]));
                assert_eq!(said.code, NO_ERROR);
                assert_eq!(&buffer[13..16], b"wWw", "the name comes back as it was asked");
                assert_eq!(
                    buffer[11],
                    u8::from(edns.is_some()),
                    "EDNS is answered where it was asked with"
                );
                told.extend(said.records);
            }
            told.sort();
            let mut expected = vec![web.clone(), six.clone()];
            expected.sort();
            assert_eq!(told, expected, "{flags:#x} {edns:?}");
        }
    });
    assert_eq!(ask(asker, Stream, "www.example.com", A).unwrap().records, [web]);
}
