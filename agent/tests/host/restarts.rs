//! Another agent takes over what one has left: no packet is lost, and what is missing is made.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::stage::{address, attempt, eventually, on_a_host, run};
use super::witness::{devices, flood, links_of, pinned_links, pins};

/// Pitfall B71.
#[test]
fn a_restart_with_nothing_changed_writes_nothing() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        links_of(host, 2).await;
        let status = agent.status().await.unwrap();
        let (before_pins, before_devices, before_links) = (pins(host), devices(), pinned_links(host));
        assert!(before_links.len() >= 2, "those of the veths: {before_links:?}");
        agent.stop().await;
        let agent = host.agent().await;
        assert_eq!(pins(host), before_pins);
        assert_eq!(devices(), before_devices);
        assert_eq!(pinned_links(host), before_links, "links and their programs stay");
        assert_eq!(
            without_traffic(agent.status().await.unwrap()),
            without_traffic(status),
            "not even the epoch moves"
        );
        assert!(host.pings(1, address(2)));
        agent.stop().await;
    });
}

/// The status without what packets and the walk through their flows write by themselves.
fn without_traffic(mut status: sluice_agent::view::Status) -> sluice_agent::view::Status {
    const THEIRS: [&str; 7] = ["FLOWS", "OPENING", "FRAGMENTS", "PEERS", "TALLIES", "SWEPT", "DROPS"];
    status.shares.clear();
    status
        .tables
        .retain(|table| !THEIRS.iter().any(|theirs| table.name.starts_with(theirs)));
    status
}

/// Pitfalls B54, B56.
#[test]
fn a_restart_loses_no_packet_even_when_programs_are_replaced() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        let flood = flood(host);
        drop(agent);
        for round in 0..3 {
            // Other facts, so other programs: they are loaded anew and put behind the links that are there.
            set_ephemeral_ports(30_000 + round);
            let agent = host.agent().await;
            agent.stop().await;
        }
        let report = String::from_utf8(flood.wait_with_output().unwrap().stdout).unwrap();
        assert!(
            report.contains("1000 received") && report.contains(" 0% packet loss"),
            "{report}"
        );
        let agent = host.agent().await;
        let of_programs = |pin: &&String| {
            let last = pin.rsplit('/').next();
            last.is_some_and(|name| name.starts_with("programs-"))
        };
        let pins = pins(host);
        let sets: Vec<&String> = pins.iter().filter(of_programs).collect();
        assert_eq!(sets.len(), 1, "programs of earlier configurations are gone: {sets:?}");
        agent.stop().await;
    });
}

/// A fact that programs are loaded with.
fn set_ephemeral_ports(first: u16) {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} 60000")).unwrap();
}

/// Pitfall B21.
#[test]
fn a_restart_takes_over_what_is_there_in_a_moment() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &(1..=20).collect::<Vec<_>>()).await;
        agent.stop().await;
        let started = Instant::now();
        let agent = host.agent().await;
        println!("restart with 20 endpoints: {:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        agent.stop().await;
    });
}

/// Pitfall B57.
#[test]
fn a_pinned_table_of_another_size_is_made_anew_and_filled_before_programs_use_it() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        agent.stop().await;
        let pin = host.config.bpffs.join("sluice/default/maps-v1/ENDPOINTS4");
        fs::remove_file(&pin).unwrap();
        run(&format!(
            "bpftool map create {} type hash key 8 value 24 entries 16 name ENDPOINTS4",
            pin.display()
        ));
        let agent = host.agent().await;
        assert!(host.pings(1, address(2)));
        agent.stop().await;
    });
}

/// Pitfall B54.
#[test]
fn below_linux_6_6_clsact_does_the_same_and_is_replaced_in_place() {
    on_a_host(async |host| {
        let start = async || {
            sluice_agent::Agent::start_on_clsact(host.config.clone(), host.store.clone())
                .await
                .unwrap()
        };
        let agent = start().await;
        host.populate(&agent, &[1, 2]).await;
        assert!(host.pings(1, address(2)));
        assert!(host.pings(1, "192.0.2.1".parse().unwrap()));
        agent.stop().await;
        set_ephemeral_ports(31_000);
        let agent = start().await;
        assert!(host.pings(1, address(2)));
        let filters = run("tc filter show dev up0 ingress");
        assert_eq!(filters.matches("direct-action").count(), 1, "{filters}");
        let status = agent.status().await.unwrap();
        let from_nic = status
            .programs
            .iter()
            .find(|program| program.name == "from_nic")
            .unwrap();
        assert_eq!(
            (from_nic.by.as_str(), &from_nic.attached_to[..]),
            ("clsact", &["up0".to_owned()][..])
        );
        agent.stop().await;
        sluice_agent::cleanup(&host.config).await.unwrap();
        assert!(!run("tc qdisc show dev up0").contains("clsact"));
    });
}

/// Pitfall B72.
#[test]
fn what_somebody_removed_is_made_again() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        run("ip link delete slc00000001");
        run("ip address add 198.51.100.7/24 dev up1");
        let again = async || host.pings(1, address(2));
        eventually("the veth is there again", Duration::from_secs(15), again).await;
        run("ip link delete sluice0");
        run("ip address add 198.51.100.8/24 dev up1");
        let again = async || attempt(&format!("ping -c 1 -W 1 {}", address(1))).0;
        eventually("the host's leg is there again", Duration::from_secs(15), again).await;
        agent.stop().await;
    });
}
