//! The host's own network: what changes there is followed.

use std::time::Duration;

use super::stage::{eventually, on_a_host, run};

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
