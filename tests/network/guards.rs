//! What a network lets its containers reach besides each other: the host itself, and all of them at once; and whom a published port lets in.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use lab::{Docker, HOST, Host, LAN, Lab, SECOND, start};

const A_MOMENT: Duration = Duration::from_secs(5);
/// For what must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// Does a process in this namespace connect there?
fn connects(pid: u32, to: SocketAddr, patience: Duration) -> bool {
    Host::within(pid, || TcpStream::connect_timeout(&to, patience).is_ok())
}

fn gateway(docker: &Docker, network: &str) -> IpAddr {
    let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
    docker
        .words(&["network", "inspect", "--format", format, network])
        .ok()
        .parse()
        .unwrap()
}

/// Pitfall B7.
#[test]
fn containers_reach_the_host_itself_where_their_network_lets_them() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let _service = lab
        .host
        .inside(|| TcpListener::bind(("0.0.0.0", 4321)).expect("listen on the host"));
    let host: IpAddr = HOST.parse().unwrap();
    for (flags, at_gateway, elsewhere) in [
        ("", true, true),
        ("-o sluice.host-access=all", true, true),
        ("-o sluice.host-access=gateway", true, false),
        ("--label sluice.host-access=none", false, false),
        ("--internal", false, false),
        ("--internal -o sluice.host-access=gateway", true, false),
    ] {
        docker.ok(&format!("network create {flags} guarded"));
        docker.ok("run -d --name one --network guarded busybox sleep 1000");
        let (pid, gateway) = (docker.pid("one"), gateway(&docker, "guarded"));
        let reached = [gateway, host].map(|address| {
            let expected = if address == gateway { at_gateway } else { elsewhere };
            let patience = if expected { A_MOMENT } else { SILENCE };
            connects(pid, (address, 4321).into(), patience)
        });
        assert_eq!(reached, [at_gateway, elsewhere], "{flags}");
        docker.ok("rm -f one");
        docker.ok("network rm guarded");
    }
}

#[test]
fn a_published_port_lets_in_whom_it_is_for() {
    let lab = Lab::new();
    let daemon = start(&lab, &format!("--publish-from {SECOND}"));
    let docker = daemon.docker();
    docker.import_web();
    docker.run_web("usual", "-p 8080:80");
    docker.run_web(
        "own",
        &format!("-p 8081:80 --label sluice.publish-from={LAN}/32,192.0.2.0/24"),
    );
    docker.run_web("open", "-p 8082:80 --label sluice.publish-from=all");
    let from = |address: &str, port: u16, patience: Duration| {
        let script = format!(
            "curl --silent --output /dev/null --interface {address} --max-time {} http://{HOST}:{port}/",
            patience.as_secs_f32()
        );
        lab.lan.shell(&script).is_ok()
    };
    for (client, port, expected) in [
        (LAN, 8080, false),
        (SECOND, 8080, true),
        (LAN, 8081, true),
        (SECOND, 8081, false),
        (LAN, 8082, true),
        (SECOND, 8082, true),
    ] {
        let patience = if expected { A_MOMENT } else { SILENCE };
        assert_eq!(from(client, port, patience), expected, "{client} at {port}");
    }
    // Processes of the host are not asked.
    let by_host = |port: u16| {
        let to: SocketAddr = ([127, 0, 0, 1], port).into();
        lab.host.inside(|| TcpStream::connect_timeout(&to, A_MOMENT).is_ok())
    };
    assert!(by_host(8080) && by_host(8081));
    let drops = daemon.sluice("drops").stdout;
    assert!(drops.contains("publish_from"), "{drops}");
    daemon
        .sluice("create --name said --publish-from 192.0.2.0/24 busybox true")
        .ok();
    assert_eq!(
        docker.inspect("said", "{{index .Config.Labels \"sluice.publish-from\"}}"),
        "192.0.2.0/24"
    );
    let refused = docker.run("create --label sluice.publish-from=lan busybox true");
    assert!(
        !refused.is_ok() && refused.stderr.contains("neither an address nor a prefix"),
        "{refused}"
    );
}

/// A socket in the namespace of this process that hears the port, and the groups of mDNS.
fn listener(pid: u32, port: u16) -> UdpSocket {
    Host::within(pid, || {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).expect("listen");
        socket
            .join_multicast_v6(&MDNS6, 2)
            .or_else(|_| socket.join_multicast_v6(&MDNS6, 0))
            .expect("join ff02::fb");
        socket
    })
}

const MDNS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const MDNS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);

#[test]
fn what_is_said_to_many_reaches_the_others_where_the_network_carries_it() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --ipv6 --subnet 10.99.0.0/24 -o sluice.multicast=true loud");
    docker.ok("network create --ipv6 --subnet 10.98.0.0/24 quiet");
    for network in ["loud", "quiet"] {
        for name in ["one", "two", "three"] {
            docker.ok(&format!(
                "run -d --name {network}-{name} --network {network} busybox sleep 1000"
            ));
        }
        let pid = |name: &str| docker.pid(&format!("{network}-{name}"));
        let hears4 = ["one", "two", "three"].map(|name| {
            Host::within(pid(name), || {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).expect("listen");
                socket
                    .join_multicast_v4(&MDNS, &Ipv4Addr::UNSPECIFIED)
                    .expect("join 224.0.0.251");
                socket
            })
        });
        let hears6 = ["one", "two", "three"].map(|name| listener(pid(name), 5354));
        let says = Host::within(pid("one"), || {
            let four = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
            four.set_broadcast(true).expect("broadcast");
            // What comes back would come from the network.
            four.set_multicast_loop_v4(false).expect("no loop");
            let six = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("bind");
            six.set_multicast_loop_v6(false).expect("no loop");
            (four, six)
        });
        let broadcast: Ipv4Addr = if network == "loud" {
            [10, 99, 0, 255]
        } else {
            [10, 98, 0, 255]
        }
        .into();
        let expected = network == "loud";
        for to in [MDNS, Ipv4Addr::BROADCAST, broadcast] {
            says.0.send_to(to.to_string().as_bytes(), (to, 5353)).expect("send");
            for (hearer, socket) in ["one", "two", "three"].iter().zip(&hears4) {
                let hears = expected && *hearer != "one";
                socket
                    .set_read_timeout(Some(if hears { A_MOMENT } else { SILENCE }))
                    .expect("patience");
                let mut heard = [0; 64];
                // A broadcast comes back by the sender's own kernel, which a socket cannot ask it not to do.
                if *hearer == "one" && to != MDNS {
                    let _ = socket.recv_from(&mut heard);
                    continue;
                }
                let outcome = socket.recv_from(&mut heard);
                assert_eq!(outcome.is_ok(), hears, "{network}: {hearer} hears {to}: {outcome:?}");
            }
        }
        says.1
            .send_to(b"who is there?", (MDNS6, 5354))
            .expect("send to ff02::fb");
        for (hearer, socket) in ["one", "two", "three"].iter().zip(&hears6) {
            let hears = expected && *hearer != "one";
            socket
                .set_read_timeout(Some(if hears { A_MOMENT } else { SILENCE }))
                .expect("patience");
            let outcome = socket.recv_from(&mut [0; 64]);
            assert_eq!(
                outcome.is_ok(),
                hears,
                "{network}: {hearer} hears ff02::fb: {outcome:?}"
            );
        }
    }
}
