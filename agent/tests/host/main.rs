//! The agent on a host of its own, with the real programs. Needs root; says so and passes without.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod stage;

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sluice_store::{Write, key};
use stage::{Host, address, attempt, endpoint, eventually, network, on_a_host, put_network, run, sandbox_id};

fn pins(host: &Host) -> Vec<String> {
    fn walk(directory: &std::path::Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            into.push(entry.path().display().to_string());
            if entry.path().is_dir() {
                walk(&entry.path(), into);
            }
        }
    }
    let mut pins = Vec::new();
    walk(&host.config.bpffs.join("sluice"), &mut pins);
    pins.sort();
    pins
}

/// Devices with their indices, addresses, and everything that changes when one is touched.
fn devices() -> String {
    run("ip -details address show")
        .lines()
        .filter(|line| !line.contains("valid_lft") && !line.contains("inet6"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A thousand pings from one endpoint to the other, over some seconds.
fn flood(host: &Host) -> Child {
    Command::new("nsenter")
        .arg(format!("--net={}", host.sandbox(1).display()))
        .args([
            "ping",
            "-q",
            "-i",
            "0.005",
            "-c",
            "1000",
            "-W",
            "1",
            &address(2).to_string(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until so many veths have their links.
async fn links_of(host: &Host, veths: usize) {
    let promoted = async || pins(host).iter().filter(|pin| pin.contains("from_container-")).count() == veths;
    eventually("the veths have their links", Duration::from_secs(5), promoted).await;
}

/// A fact that programs are loaded with.
fn set_ephemeral_ports(first: u16) {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{first} 60000")).unwrap();
}

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
        let flows = agent.flows().await.unwrap();
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

/// Pitfall B71.
#[test]
fn a_restart_with_nothing_changed_writes_nothing() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        links_of(host, 2).await;
        let status = agent.status().await.unwrap();
        let (before_pins, before_devices, before_links) = (pins(host), devices(), run("bpftool link show"));
        agent.stop().await;
        let agent = host.agent().await;
        assert_eq!(pins(host), before_pins);
        assert_eq!(devices(), before_devices);
        assert_eq!(run("bpftool link show"), before_links, "links and their programs stay");
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
                .all(|program| !program.attached_to.is_empty())
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

#[test]
fn what_goes_is_gone_and_cleanup_leaves_nothing() {
    on_a_host(async |host| {
        let (before, mounts) = (devices(), run("mount"));
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        let mut writes = host.delete(1);
        writes.extend(host.delete(2));
        let revision = host.commit(writes).await;
        agent.settled(revision, &[]).await.unwrap();
        assert!(!devices().contains("slc"), "{}", devices());
        assert!(!host.sandbox(1).exists() && !host.sandbox(2).exists());
        assert!(!pins(host).iter().any(|pin| pin.contains("from_container-")));
        let status = agent.status().await.unwrap();
        for table in ["ENDPOINTS4", "ATTACHMENTS", "GENERATIONS", "PUBLISHED4", "RESERVED"] {
            let table = status.tables.iter().find(|candidate| candidate.name == table).unwrap();
            assert_eq!(table.entries, 0, "{}", table.name);
        }
        host.populate(&agent, &[3]).await;
        agent.stop().await;
        sluice_agent::cleanup(&host.config).await.unwrap();
        assert_eq!(devices(), before);
        assert_eq!(run("mount"), mounts);
        assert_eq!(pins(host), Vec::<String>::new());
        assert!(!host.config.netns_dir.exists());
        sluice_agent::cleanup(&host.config).await.unwrap();
    });
}

#[test]
fn bpffs_is_mounted_where_there_is_none_and_goes_with_the_last_pin() {
    on_a_host(async |host| {
        run("umount /sys/fs/bpf");
        let mounts = run("mount");
        let agent = host.agent().await;
        assert!(run("mount").contains("sluice on /sys/fs/bpf type bpf"));
        agent.stop().await;
        sluice_agent::cleanup(&host.config).await.unwrap();
        assert_eq!(run("mount"), mounts);
    });
}

#[test]
fn flows_of_an_endpoint_that_goes_are_deleted() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        assert!(host.pings(1, address(2)));
        assert!(!agent.flows().await.unwrap().is_empty());
        let revision = host.commit(host.delete(1)).await;
        agent.settled(revision, &[]).await.unwrap();
        eventually(
            "flows of the gone endpoint are gone",
            Duration::from_secs(1),
            async || agent.flows().await.unwrap().is_empty(),
        )
        .await;
        agent.stop().await;
    });
}

#[test]
fn another_address_of_an_uplink_is_followed_within_a_second() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1]).await;
        let epoch = agent.status().await.unwrap().epoch;
        run("ip address add 198.51.100.1/24 dev up1");
        let attached = async || {
            let status = agent.status().await.unwrap();
            let to_nic = status.programs.iter().find(|program| program.name == "to_nic").unwrap();
            to_nic.attached_to.contains(&"up1".to_owned()) && status.epoch != epoch
        };
        let took = eventually("the programs are at the new uplink", Duration::from_secs(1), attached).await;
        println!("followed in {took:?}");
        assert!(
            host.pings(1, "198.51.100.1".parse().unwrap()),
            "it is an address of the host now"
        );
        agent.stop().await;
    });
}

#[test]
fn a_route_that_comes_moves_the_epoch() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        let epoch = agent.status().await.unwrap().epoch;
        run("ip route add 203.0.113.0/24 via 192.0.2.254");
        let moved = async || agent.status().await.unwrap().epoch != epoch;
        eventually("the epoch moves", Duration::from_secs(1), moved).await;
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

#[test]
fn two_instances_live_side_by_side_in_one_namespace() {
    on_a_host(async |host| {
        let ours = host.agent().await;
        host.populate(&ours, &[1, 2]).await;
        let other = Host {
            directory: host.directory.join("other"),
            store: std::sync::Arc::new(
                sluice_store::embedded::Embedded::open(&host.directory.join("other.redb")).unwrap(),
            ),
            config: sluice_agent::Config {
                instance: "other".into(),
                netns_dir: host.directory.join("other-netns"),
                ..host.config.clone()
            },
        };
        let theirs = other.agent().await;
        assert!(devices().contains("sl-other-dp"));
        theirs.stop().await;
        sluice_agent::cleanup(&other.config).await.unwrap();
        assert!(!devices().contains("sl-other"));
        assert!(host.pings(1, address(2)), "the other's end is not ours");
        let status = ours.status().await.unwrap();
        assert!(
            status.programs.iter().all(|program| !program.attached_to.is_empty()),
            "{:?}",
            status.programs
        );
        ours.stop().await;
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

fn put_endpoint(endpoint: &sluice_model::Endpoint) -> Write {
    Write::Put(
        key::endpoint(&endpoint.id),
        sluice_store::record::encode(endpoint).unwrap(),
    )
}

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
fn addresses_of_ipv6_are_followed_and_temporary_ones_are_not_spoken_from() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        host.populate(&agent, &[1]).await;
        let dump = |map: &str| {
            let pin = host.config.bpffs.join(format!("sluice/default/maps-v1/{map}"));
            run(&format!("bpftool -j map dump pinned {}", pin.display()))
        };
        let empty = dump("LOCAL6");
        run("ip -6 address add 2001:db8:31::1/64 dev up0 nodad");
        eventually("the address is known", Duration::from_secs(5), async || {
            dump("LOCAL6") != empty
        })
        .await;
        let spoken = dump("UPLINKS6");
        assert!(spoken.contains("\"0x20\",\"0x01\",\"0x0d\",\"0xb8\""), "{spoken}");
        // One that nobody should begin to speak from any more changes nothing.
        run("ip -6 address add 2001:db8:31::2/64 dev up0 nodad preferred_lft 0 valid_lft 1000");
        let known = dump("LOCAL6");
        eventually("it is known too", Duration::from_secs(5), async || {
            dump("LOCAL6") != known || known.matches("0xb8").count() == 2
        })
        .await;
        assert_eq!(dump("UPLINKS6"), spoken);
        run("ip -6 address flush dev up0 scope global");
        eventually("they are forgotten", Duration::from_secs(5), async || {
            dump("LOCAL6") == empty
        })
        .await;
        agent.stop().await;
    });
}
