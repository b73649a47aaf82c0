//! Endpoints: how they come, reach each other, and go.

use std::time::{Duration, Instant};

use sluice_store::{Write, key};

use super::stage::{
    address, attempt, endpoint, eventually, network, on_a_host, put_endpoint, put_network, run, sandbox_id,
};
use super::witness::{flood, links_of, pins};

#[test]
fn two_endpoints_and_the_host_reach_each_other() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        let inside = host.attempt_in(1, "ip address show dev eth0").1;
        assert!(
            inside.contains("inet 172.31.0.2/16 brd 172.31.255.255 scope global eth0"),
            "{inside}"
        );
        assert!(
            inside.contains("02:42:ac:1f:00:02") && inside.contains("state UP") && !inside.contains("inet6"),
            "{inside}"
        );
        let route = host.attempt_in(1, "ip route show default").1;
        assert!(route.contains("default via 172.31.0.1 dev eth0"), "{route}");
        assert!(host.pings(1, address(2)), "endpoint to endpoint");
        assert!(host.pings(2, "172.31.0.1".parse().unwrap()), "endpoint to gateway");
        assert!(host.pings(1, "192.0.2.1".parse().unwrap()), "endpoint to host");
        assert!(attempt(&format!("ping -c 1 -W 1 {}", address(1))).0, "host to endpoint");
        let flows = agent.flows(Default::default(), Default::default(), None).await.unwrap();
        let between = flows
            .iter()
            .find(|flow| flow.from.name == "web1" && flow.to.name == "web2")
            .expect("the ping is a flow");
        assert_eq!(
            (between.protocol.as_str(), between.packets, between.reply_packets),
            ("icmp", 1, 1)
        );
        agent.stop().await;
    });
}

/// The kernel gives the host's end its queue a moment after the container's end is up, on a busy machine a long moment: an answer that needed it would
/// be lost, and the asker would ask again a second later.
#[test]
fn an_endpoint_is_answered_and_reached_while_the_host_ends_cannot_send() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        let list = run("ip -brief link show");
        let ends: Vec<&str> = list
            .split_whitespace()
            .filter(|word| word.starts_with("slc"))
            .filter_map(|word| word.split('@').next())
            .collect();
        assert_eq!(ends.len(), 2, "{list}");
        for end in ends {
            run(&format!("tc qdisc replace dev {end} root pfifo limit 0"));
        }
        assert!(host.pings(1, address(2)), "endpoint to endpoint");
        assert!(host.pings(1, "172.31.0.1".parse().unwrap()), "endpoint to gateway");
        agent.stop().await;
    });
}

#[test]
fn an_endpoint_that_cannot_be_made_is_told_and_the_others_are_made() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        let mut writes = vec![put_network(&network())];
        writes.extend(host.put(1));
        writes.extend(host.put(2));
        // No sandbox for the second.
        writes.remove(3);
        let mut lost = endpoint(2);
        lost.sandbox = sandbox_id(99);
        writes.push(Write::Put(
            key::endpoint(&lost.id),
            sluice_store::record::encode(&lost).unwrap(),
        ));
        let revision = host.commit(writes).await;
        let (well, ill) = (endpoint(1).id, lost.id);
        agent.settled(revision, &[well.as_str()]).await.unwrap();
        let error = agent.settled(revision, &[ill.as_str()]).await.unwrap_err();
        assert!(error.to_string().contains("in no known sandbox"), "{error}");
        agent.stop().await;
    });
}

#[test]
fn fifty_endpoints_at_once_are_quick() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1]).await;
        let started = Instant::now();
        host.populate(&agent, &[2]).await;
        println!("one endpoint: {:?}", started.elapsed());
        let started = Instant::now();
        let mut waiting = Vec::new();
        for number in 3..53 {
            waiting.push((host.commit(host.put(number)).await, endpoint(number).id));
        }
        for (revision, id) in &waiting {
            agent.settled(*revision, &[id.as_str()]).await.unwrap();
        }
        let took = started.elapsed();
        println!("fifty endpoints: {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        for number in [3, 27, 52] {
            assert!(host.pings(number, address(1)), "{number}");
        }
        let started = Instant::now();
        let writes = (3..53).flat_map(|number| host.delete(number)).collect();
        let revision = host.commit(writes).await;
        agent.settled(revision, &[]).await.unwrap();
        println!("fifty gone: {:?}", started.elapsed());
        agent.stop().await;
    });
}

#[test]
fn flows_of_an_endpoint_that_goes_are_deleted() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        assert!(host.pings(1, address(2)));
        assert!(
            !agent
                .flows(Default::default(), Default::default(), None)
                .await
                .unwrap()
                .is_empty()
        );
        let revision = host.commit(host.delete(1)).await;
        agent.settled(revision, &[]).await.unwrap();
        eventually(
            "flows of the gone endpoint are gone",
            Duration::from_secs(1),
            async || {
                agent
                    .flows(Default::default(), Default::default(), None)
                    .await
                    .unwrap()
                    .is_empty()
            },
        )
        .await;
        agent.stop().await;
    });
}

#[test]
fn a_sandbox_changes_its_ways_out_without_losing_a_packet() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        let routes = || host.attempt_in(1, "ip route show default").1;
        assert!(routes().contains("via 172.31.0.1"));
        let device = host.attempt_in(1, "ip -o link show eth0").1;
        let flood = flood(host);
        let turn = async |gateways: &[&str]| {
            let mut turned = endpoint(1);
            turned.gateways = gateways.iter().map(|gateway| gateway.parse().unwrap()).collect();
            let revision = host.commit(vec![put_endpoint(&turned)]).await;
            agent.settled(revision, &[turned.id.as_str()]).await.unwrap();
        };
        turn(&[]).await;
        assert_eq!(routes(), "");
        turn(&["172.31.0.1"]).await;
        assert!(routes().contains("via 172.31.0.1"));
        assert_eq!(host.attempt_in(1, "ip -o link show eth0").1, device);
        let output = tokio::task::spawn_blocking(|| flood.wait_with_output().unwrap())
            .await
            .unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.contains(" 0% packet loss"), "{output}");
        agent.stop().await;
    });
}

#[test]
fn a_veth_that_lives_on_gets_its_link_and_no_packet_is_lost_meanwhile() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        assert!(
            !pins(host).iter().any(|pin| pin.contains("from_container-")),
            "a filter is quicker"
        );
        assert!(
            agent
                .status()
                .await
                .unwrap()
                .programs
                .iter()
                // there is no overlay here
                .all(|program| !program.attached_to.is_empty() || program.name == "from_overlay")
        );
        let flood = flood(host);
        links_of(host, 2).await;
        let report = String::from_utf8(flood.wait_with_output().unwrap().stdout).unwrap();
        assert!(
            report.contains("1000 received") && report.contains(" 0% packet loss"),
            "{report}"
        );
        assert!(!run("tc qdisc show").contains("clsact"), "and nothing but these");
        agent.stop().await;
    });
}
