//! What not every machine's kernel has, and Debian's does: endpoints on devices of the host (macvlan and ipvlan devices, on a NIC, on VLANs and on nothing),
//! and encryption between hosts. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

#[allow(dead_code, reason = "the stage is that of the agent's other tests")]
#[path = "../host/stage.rs"]
mod stage;

mod seals;
mod wire;

use std::time::Duration;

use sluice_agent::DeviceKind;
use sluice_model::{
    Network,
    network::{Driver, Hold, IpvlanFlag, IpvlanMode, MacvlanMode, MadeParent, Parent},
};
use sluice_store::{Write, key};
use stage::{Host, attempt, endpoint, eventually, network, on_a_host, put_network, run};

/// A network of another driver, on this device.
fn on_parent(driver: Driver, device: &str, made_of: Option<MadeParent>, hold: Hold) -> Network {
    Network {
        driver,
        number: 0,
        mtu: 0,
        parent: Some(Parent {
            device: device.into(),
            made_of,
            hold,
        }),
        ..network()
    }
}

/// A device that has just come up may lose what is said at once; those who must not meet never do.
async fn assert_meet(host: &Host, network: &Network, meets: bool) {
    let meet = async || host.pings(1, stage::address(2));
    if meets {
        eventually("the endpoints meet", Duration::from_secs(30), meet).await;
    } else {
        assert!(!meet().await, "{:?}", network.parent);
    }
}

/// Puts endpoints 1 and 2 on the network, sees whether they meet, and takes everything away again.
async fn meet(host: &Host, network: &Network, meets: bool) {
    let agent = host.agent().await;
    let mut writes = vec![put_network(network)];
    for number in [1, 2] {
        writes.extend(host.put(number));
    }
    let revision = host.commit(writes).await;
    let ids = [endpoint(1).id.to_string(), endpoint(2).id.to_string()];
    agent
        .settled(revision, &[ids[0].as_str(), ids[1].as_str()])
        .await
        .unwrap();
    let kind = host.attempt_in(1, "ip -d link show eth0").1;
    assert!(
        kind.contains(if network.driver == Driver::Macvlan {
            "macvlan"
        } else {
            "ipvlan"
        }),
        "{kind}"
    );
    assert_meet(host, network, meets).await;

    // an agent that comes back finds them and leaves them alone
    let index = |number| host.attempt_in(number, "cat /proc/net/dev").1.contains("eth0");
    agent.stop().await;
    let agent = host.agent().await;
    assert!(index(1) && index(2));
    assert_meet(host, network, meets).await;

    // one leaves and its namespace stays
    let gone = host.commit(vec![Write::Delete(key::endpoint(&endpoint(1).id))]).await;
    agent.settled(gone, &[]).await.unwrap();
    assert!(!index(1) && index(2));
    let mut writes = host.delete(2);
    writes.extend(host.delete(1));
    writes.push(Write::Delete(key::network(&network.id)));
    let revision = host.commit(writes).await;
    agent.settled(revision, &[]).await.unwrap();
    agent.stop().await;
}

/// Can this kernel make such devices? Asked of an agent that is gone when the answer comes: two of them would make each device twice.
async fn can_make(host: &Host, kind: DeviceKind) -> bool {
    let agent = host.agent().await;
    let answer = agent.can_make(kind).await.unwrap();
    agent.stop().await;
    if !answer {
        println!("skipped: this kernel cannot make {kind:?}");
    }
    answer
}

#[test]
fn endpoints_of_each_kind_stand_on_a_nic_and_meet_as_their_mode_says() {
    on_a_host(async |host| {
        for (driver, hold, meets) in [
            (Driver::Macvlan, Hold::Macvlan(MacvlanMode::Bridge), true),
            (Driver::Macvlan, Hold::Macvlan(MacvlanMode::Private), false),
            (Driver::Macvlan, Hold::Macvlan(MacvlanMode::Vepa), false),
            (Driver::Ipvlan, Hold::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge), true),
            (Driver::Ipvlan, Hold::Ipvlan(IpvlanMode::L2, IpvlanFlag::Private), false),
            (Driver::Ipvlan, Hold::Ipvlan(IpvlanMode::L3, IpvlanFlag::Bridge), true),
        ] {
            if can_make(host, DeviceKind::Child(hold)).await {
                meet(host, &on_parent(driver, "up0", None, hold), meets).await;
            }
        }
    });
}

#[test]
fn a_vlan_comes_and_goes_with_its_network_and_a_network_may_stand_on_nothing() {
    on_a_host(async |host| {
        let hold = Hold::Macvlan(MacvlanMode::Bridge);
        let vlan = MadeParent::Vlan {
            of: "up0".into(),
            tag: 50,
        };
        for (device, kind, made_of) in [
            ("up0.50", DeviceKind::Vlan, vlan),
            ("dm-nothing", DeviceKind::Dummy, MadeParent::Dummy),
        ] {
            if can_make(host, kind).await {
                let network = on_parent(Driver::Macvlan, device, Some(made_of), hold);
                meet(host, &network, true).await;
                assert!(
                    !attempt(&format!("ip link show {device}")).0,
                    "{device} went with the network"
                );
            }
        }
    });
}

/// Whether the kernel can make the devices makes no difference to this.
#[test]
fn who_stands_on_a_device_of_the_host_asks_for_names_in_its_own_sandbox() {
    on_a_host(async |host| {
        let mut agent = host.agent().await;
        let hold = Hold::Macvlan(MacvlanMode::Bridge);
        let mine = Network {
            name: "lan".into(),
            ..on_parent(Driver::Macvlan, "up0", None, hold)
        };
        let mut writes = vec![put_network(&mine)];
        for number in [1, 2] {
            writes.extend(host.put(number));
        }
        let revision = host.commit(writes).await;
        agent.settled(revision, &[]).await.unwrap();
        let found = |asker: u32, name: &str| {
            let (_, said) = host.attempt_in(asker, &format!("busybox nslookup -type=a {name} 127.0.0.11"));
            said.lines()
                .skip_while(|line| !line.starts_with("Name:"))
                .filter_map(|line| line.strip_prefix("Address"))
                .filter_map(|line| line.split_whitespace().last()?.parse().ok())
                .collect::<Vec<std::net::Ipv4Addr>>()
        };
        let two = stage::address(2);
        assert_eq!((found(1, "web2"), found(1, "web2.lan")), (vec![two], vec![two]));
        assert_eq!(found(2, "web1"), [stage::address(1)]);
        // a resolver of the container's own has port 53 for itself
        let sandbox = std::fs::File::open(host.sandbox(1)).unwrap();
        let bound = std::thread::spawn(move || {
            nix::sched::setns(sandbox, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            std::net::UdpSocket::bind("0.0.0.0:53").map(drop)
        });
        bound.join().unwrap().unwrap();

        // an agent that comes back opens the doors again
        agent.stop().await;
        agent = host.agent().await;
        eventually("names are told again", Duration::from_secs(30), async || {
            found(1, "web2") == [two]
        })
        .await;

        // one that goes and comes again at once is answered in the sandbox that it has now
        let gone = host.delete(1);
        host.commit(gone).await;
        let revision = host.commit(host.put(1)).await;
        agent.settled(revision, &[]).await.unwrap();
        assert_eq!(found(1, "web2"), [two]);
        assert!(!found(2, "web1").is_empty());
        let mut writes = host.delete(1);
        writes.extend(host.delete(2));
        writes.push(Write::Delete(key::network(&mine.id)));
        let revision = host.commit(writes).await;
        agent.settled(revision, &[]).await.unwrap();
        agent.stop().await;
    });
}

#[test]
fn frames_of_a_vlan_bear_its_tag() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        if !agent.can_make(DeviceKind::Vlan).await.unwrap() {
            println!("skipped: this kernel has no VLANs");
            return;
        }
        // who is on the other side, in a namespace of its own
        let name = format!("parents-{}", std::process::id());
        run(&format!("ip netns add {name}"));
        run(&format!("ip link set up1 netns {name}"));
        for line in [
            "link set up1 up",
            "link add up1.50 link up1 type vlan id 50",
            "address add 172.31.9.9/16 dev up1.50",
            "link set up1.50 up",
        ] {
            run(&format!("ip -n {name} {line}"));
        }
        let made_of = MadeParent::Vlan {
            of: "up0".into(),
            tag: 50,
        };
        let network = on_parent(
            Driver::Macvlan,
            "up0.50",
            Some(made_of),
            Hold::Macvlan(MacvlanMode::Bridge),
        );
        let mut writes = vec![put_network(&network)];
        writes.extend(host.put(1));
        let revision = host.commit(writes).await;
        agent.settled(revision, &[endpoint(1).id.as_str()]).await.unwrap();
        let other = "172.31.9.9".parse().unwrap();
        eventually(
            "the other side of the VLAN answers",
            Duration::from_secs(20),
            async || host.pings(1, other),
        )
        .await;
        run(&format!("ip netns del {name}"));
        agent.stop().await;
    });
}
