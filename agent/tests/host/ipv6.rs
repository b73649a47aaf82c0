//! Networks with IPv6.

use std::{
    fs,
    process::{Command, Stdio},
};

use super::stage::{address, attempt, endpoint, network, on_a_host, put_endpoint, put_network, run};

#[test]
fn ipv6_stands_beside_ipv4_and_stays_through_a_restart() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        let mut writes = vec![put_network(&dual())];
        for number in [1, 2] {
            writes.extend(host.put(number));
            writes.push(put_endpoint(&dual_endpoint(number)));
        }
        let revision = host.commit(writes).await;
        let ids = [1, 2].map(|number| endpoint(number).id.to_string());
        agent.settled(revision, &[&ids[0], &ids[1]]).await.unwrap();
        let pings = |to: &str| host.attempt_in(1, &format!("ping -6 -c 1 -W 2 {to}"));
        for to in ["fd00:31::1", "fd00:31::3"] {
            assert!(pings(to).0, "{to}: {}", pings(to).1);
        }
        assert!(attempt("ping -6 -c 1 -W 2 fd00:31::2").0, "the host reaches it");
        let addresses = || run("ip -6 -o address show dev sluice0 scope global");
        let before = addresses();
        assert!(
            before.contains("fd00:31::1/64") && !before.contains("tentative"),
            "{before}"
        );
        assert_eq!(
            fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding")
                .unwrap()
                .trim(),
            "0"
        );

        let mut flood = Command::new("nsenter")
            .arg(format!("--net={}", host.sandbox(1).display()))
            .args(["ping", "-6", "-q", "-i", "0.01", "-c", "200", "-W", "1", "fd00:31::1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        agent.stop().await;
        let agent = host.agent().await;
        let lost = tokio::task::spawn_blocking(move || {
            let _ = flood.wait();
            std::io::read_to_string(flood.stdout.take().unwrap()).unwrap()
        });
        assert_eq!(addresses(), before);
        let lost = lost.await.unwrap();
        assert!(lost.contains(" 0% packet loss"), "{lost}");

        // Without IPv6 again, the host's leg has none.
        let revision = host
            .commit(vec![
                put_network(&network()),
                put_endpoint(&endpoint(1)),
                put_endpoint(&endpoint(2)),
            ])
            .await;
        agent.settled(revision, &[&ids[0], &ids[1]]).await.unwrap();
        assert_eq!(addresses(), "");
        assert!(host.pings(1, address(2)));
        agent.stop().await;
    });
}

/// Network 2 with IPv6 besides.
fn dual() -> sluice_model::Network {
    let mut network = network();
    network.subnets.push(sluice_model::network::Subnet {
        subnet: "fd00:31::/64".parse().unwrap(),
        gateway: "fd00:31::1".parse().unwrap(),
        range: None,
        auxiliary: Default::default(),
    });
    network
}

/// An endpoint with IPv6 besides, fd00:31::`1 + number`.
fn dual_endpoint(number: u32) -> sluice_model::Endpoint {
    let mut endpoint = endpoint(number);
    endpoint
        .addresses
        .push(format!("fd00:31::{}/64", 1 + number).parse().unwrap());
    endpoint.gateways.push("fd00:31::1".parse().unwrap());
    endpoint
}
