//! Published ports: who reaches them, and whom the container sees.

use std::net::UdpSocket;

use lab::{HOST, Host, LAN, Lab, SECOND, patience, start};

use crate::traffic::fetch;

/// Pitfall B10.
#[test]
fn a_page_is_fetched_from_everywhere_and_the_log_shows_the_true_client_of_the_lan() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name other busybox sleep 1000");
    let address = docker.address("web");
    let hello = Ok("hello".to_owned());

    assert_eq!(
        fetch(&lab.lan, &format!("http://{HOST}:8080/from-lan")).map(drop),
        Ok(()),
        "from the LAN"
    );
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), hello, "from the LAN");
    assert_eq!(
        fetch(&lab.lan, &format!("--interface {SECOND} http://{HOST}:8080/")),
        hello,
        "from another address of the LAN"
    );
    assert_eq!(
        fetch(&lab.host, &format!("http://{HOST}:8080/")),
        hello,
        "from the host at its own address"
    );
    assert_eq!(
        fetch(&lab.host, "http://127.0.0.1:8080/"),
        hello,
        "from the host at 127.0.0.1"
    );
    assert_eq!(
        fetch(&lab.host, &format!("http://{address}/")),
        hello,
        "from the host at the container's address"
    );
    assert_eq!(
        docker.fetch_from("other", HOST, 8080),
        "hello",
        "from another container at the host's address"
    );
    assert_eq!(
        docker.fetch_from("other", &address, 80),
        "hello",
        "from another container at the container's address"
    );
    assert_eq!(
        docker.fetch_from("web", HOST, 8080),
        "hello",
        "from the container itself at the host's address"
    );

    let log = docker.run("logs web").stdout;
    let clients: Vec<&str> = log.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(clients.contains(&LAN), "the client of the LAN is in the log:\n{log}");
    assert!(clients.contains(&SECOND), "its other address too:\n{log}");
    assert!(
        clients.contains(&docker.address("other").as_str()),
        "a container is seen with its own address:\n{log}"
    );
}

/// Pitfall B1.
#[test]
fn a_port_published_at_one_address_is_closed_at_the_others() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 127.0.0.1:8080:80");
    assert_eq!(fetch(&lab.host, "http://127.0.0.1:8080/"), Ok("hello".into()));
    assert!(fetch(&lab.lan, &format!("http://{HOST}:8080/")).is_err());
    assert_eq!(docker.ok("port web"), "80/tcp -> 127.0.0.1:8080");
}

#[test]
fn a_port_is_chosen_when_none_is_named_and_all_exposed_ones_are_published_on_request() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("one", "-p 80");
    docker.run_web("all", "-P");
    for name in ["one", "all"] {
        let line = docker.ok(&format!("port {name} 80/tcp"));
        let port = line.lines().next().unwrap().rsplit(':').next().unwrap().to_owned();
        assert_eq!(
            fetch(&lab.lan, &format!("http://{HOST}:{port}/")),
            Ok("hello".into()),
            "{name} at {port}"
        );
    }
}

/// Pitfall B17.
#[test]
fn datagrams_reach_a_published_port_and_the_answer_comes_from_where_it_was_sent_to() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("run -d --name echo -p 9000:9001/udp busybox sleep 1000");
    let server = Host::within(docker.pid("echo"), || UdpSocket::bind("0.0.0.0:9001").unwrap());
    server.set_read_timeout(Some(patience(5))).unwrap();
    for (who, client, to) in [
        ("the LAN", &lab.lan, HOST),
        ("the host", &lab.host, "127.0.0.1"),
        ("the host, by its address", &lab.host, HOST),
    ] {
        let socket = client.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(patience(5))).unwrap();
        socket.send_to(b"question", (to, 9000)).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = server
            .recv_from(&mut buffer)
            .unwrap_or_else(|error| panic!("nothing came from {who}: {error}"));
        assert_eq!(&buffer[..length], b"question");
        if who == "the LAN" {
            assert_eq!(from.ip().to_string(), LAN, "the client is the true one");
        }
        server.send_to(b"answer", from).unwrap();
        let (length, from) = socket
            .recv_from(&mut buffer)
            .unwrap_or_else(|error| panic!("no answer to {who}: {error}"));
        assert_eq!(&buffer[..length], b"answer");
        assert_eq!(
            from.to_string(),
            format!("{to}:9000"),
            "the answer to {who} comes from where the question went"
        );
    }
}

/// Pitfall B3.
#[test]
fn an_unpublished_port_is_closed_to_the_lan_and_open_to_the_host() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "");
    let address = docker.address("web");
    lab.lan.run(&format!("ip route add 172.17.0.0/16 via {HOST}"));
    assert!(fetch(&lab.lan, &format!("http://{address}/")).is_err());
    assert_eq!(fetch(&lab.host, &format!("http://{address}/")), Ok("hello".into()));
    let drops = daemon.sluice("drops").ok();
    assert!(drops.contains("unpublished"), "{drops}");
}

/// Pitfall B18.
#[test]
fn a_stopped_container_gives_its_port_back() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("web", "-p 8080:80");
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
    docker
        .run("run -d --name late -p 8080:80 web")
        .fails(125, "port is already allocated");
    docker.ok("stop web");
    assert!(fetch(&lab.lan, &format!("http://{HOST}:8080/")).is_err());
    docker.run_web("next", "-p 8080:80");
    assert_eq!(fetch(&lab.lan, &format!("http://{HOST}:8080/")), Ok("hello".into()));
}

/// Pitfall B19.
#[test]
fn a_port_that_a_program_of_the_host_holds_is_refused_and_a_published_one_is_refused_to_programs() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let held = lab.host.inside(|| std::net::TcpListener::bind("0.0.0.0:8081").unwrap());
    let refused = docker.run("run -d --name late -p 8081:80 busybox sleep 1000");
    assert_eq!(refused.code(), Some(125), "{refused}");
    assert!(refused.stderr.contains("address already in use"), "{refused}");
    drop(held);
    docker.ok("rm -f late");
    docker.ok("run -d --name first -p 8081:80 busybox sleep 1000");
    let error = lab
        .host
        .inside(|| std::net::TcpListener::bind("0.0.0.0:8081").unwrap_err());
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    docker.ok("rm -f first");
    lab.host.inside(|| std::net::TcpListener::bind("0.0.0.0:8081").unwrap());
}
