//! Networks as objects: made, shown, joined, left and removed.

use lab::{Docker, Lab, start};

/// What `network inspect --format` says.
fn look(docker: &Docker, network: &str, format: &str) -> String {
    docker.words(&["network", "inspect", "--format", format, network]).ok()
}

/// A container's address in a network.
fn address(docker: &Docker, container: &str, network: &str) -> String {
    docker.inspect(
        container,
        &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"),
    )
}

/// What a command that must fail says.
#[track_caller]
fn refusal(docker: &Docker, line: &str) -> String {
    let ran = docker.run(line);
    assert!(!ran.is_ok(), "`docker {line}` must fail: {ran}");
    ran.stderr.trim().to_owned()
}

#[test]
fn a_network_is_made_with_what_was_said_shown_and_removed() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let id = docker.ok(
        "network create --driver bridge --subnet 10.99.0.0/24 --ip-range 10.99.0.128/25 --gateway 10.99.0.254 \
         --aux-address router=10.99.0.5 --label tier=front --opt com.docker.network.driver.mtu=1400 mine",
    );
    assert_eq!(id.len(), 64);
    assert_eq!(
        docker.ok("network ls --filter label=tier=front --no-trunc --format {{.ID}}:{{.Name}}:{{.Driver}}:{{.Scope}}"),
        format!("{id}:mine:bridge:local")
    );
    assert_eq!(
        look(
            &docker,
            "mine",
            "{{range .IPAM.Config}}{{.Subnet}} {{.IPRange}} {{.Gateway}} {{.AuxiliaryAddresses}}{{end}}"
        ),
        "10.99.0.0/24 10.99.0.128/25 10.99.0.254 map[router:10.99.0.5]"
    );
    assert_eq!(
        look(
            &docker,
            "mine",
            "{{.Internal}} {{.EnableIPv6}} {{.Options}} {{.Labels}}"
        ),
        "false false map[com.docker.network.driver.mtu:1400] map[tier:front]"
    );
    docker.ok("run -d --name one --network mine busybox sleep 1000");
    assert_eq!(address(&docker, "one", "mine"), "10.99.0.128");
    assert_eq!(docker.ok("exec one cat /sys/class/net/eth0/mtu"), "1400");
    assert!(
        docker
            .ok("exec one ip route")
            .contains("default via 10.99.0.254 dev eth0")
    );
    assert_eq!(
        look(
            &docker,
            "mine",
            "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}"
        ),
        "one 10.99.0.128/24"
    );
    let words = refusal(&docker, "network rm mine");
    assert!(words.contains("has active endpoints"), "{words}");
    docker.ok("rm -f one");
    assert_eq!(docker.ok("network rm mine"), "mine");
    let words = refusal(&docker, "network rm mine");
    assert!(
        words.contains("No such network: mine") || words.contains("network mine not found"),
        "{words}"
    );
}

#[test]
fn what_cannot_be_is_refused_in_words_that_people_look_for() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --subnet 10.99.0.0/24 mine");
    for (line, words) in [
        ("network create mine", "network with name mine already exists"),
        (
            "network create --subnet 10.99.0.128/25 other",
            "Pool overlaps with other one on this address space",
        ),
        (
            "network create --subnet 10.0.0.0/8 other",
            "Pool overlaps with other one on this address space",
        ),
        (
            "network create bridge",
            "operation is not permitted on predefined bridge network",
        ),
        (
            "network create --driver host other",
            "only one instance of \"host\" network is allowed",
        ),
        (
            "network rm bridge",
            "bridge is a pre-defined network and cannot be removed",
        ),
        ("network rm host", "host is a pre-defined network and cannot be removed"),
        ("run --rm --network nowhere busybox true", "network nowhere not found"),
        ("run --rm --network mine --ip 10.98.0.9 busybox true", "10.98.0.9"),
        (
            "run --rm --ip 172.17.0.9 busybox true",
            "user specified IP address is supported on user defined networks only",
        ),
        ("network connect mine nobody", "No such container: nobody"),
    ] {
        let said = refusal(&docker, line);
        assert!(said.contains(words), "`docker {line}` says: {said}");
    }
    assert_eq!(docker.ok("network ls --filter type=custom --format {{.Name}}"), "mine");
}

#[test]
fn containers_of_different_networks_do_not_meet_until_one_is_put_on_both() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create red");
    docker.ok("network create blue");
    docker.ok("run -d --name one --network red busybox sleep 1000");
    docker.ok("run -d --name two --network blue busybox sleep 1000");
    docker.ok("run -d --name plain busybox sleep 1000");
    let pings = |from: &str, to: &str| docker.run(&format!("exec {from} ping -c 1 -W 1 {to}")).is_ok();
    let (one, two) = (address(&docker, "one", "red"), address(&docker, "two", "blue"));
    assert!(!pings("one", &two) && !pings("two", &one) && !pings("plain", &one));

    docker.ok("network connect red two");
    let here = address(&docker, "two", "red");
    assert!(
        pings("two", &one) && pings("one", &here),
        "two is on red now, at {here}"
    );
    assert!(docker.ok("exec two ip -o link").contains("eth1"));
    assert!(docker.ok("exec two cat /etc/hosts").contains(&here));
    assert!(pings("two", lab::LAN));
    assert_eq!(docker.inspect("two", "{{len .NetworkSettings.Networks}}"), "2");
    let words = refusal(&docker, "network connect red two");
    assert!(words.contains("already exists in network red"), "{words}");

    docker.ok("network disconnect red two");
    assert!(!pings("two", &one) && !docker.ok("exec two ip -o link").contains("eth1"));
    assert!(!docker.ok("exec two cat /etc/hosts").contains(&here));
    assert!(pings("two", lab::LAN));
    let words = refusal(&docker, "network disconnect red two");
    assert!(words.contains("is not connected to"), "{words}");
}

#[test]
fn who_loses_the_network_that_leads_out_is_led_out_by_another_with_its_ports() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("network create alpha");
    docker.ok("network create beta");
    docker.run_web("web", "--network alpha -p 8080:80");
    docker.ok("network connect beta web");
    let page = || crate_fetch(&lab);
    assert_eq!(page(), "hello");
    docker.ok("network disconnect alpha web");
    assert!(
        docker.ok("exec web ip route").contains("default via"),
        "{}",
        docker.ok("exec web ip route")
    );
    docker.ok(&format!("exec web ping -c 1 -W 2 {}", lab::LAN));
    assert_eq!(page(), "hello");
    assert!(docker.ok("port web").contains("80/tcp -> 0.0.0.0:8080"));
    docker.ok("network disconnect beta web");
    assert!(!docker.ok("exec web ip -o link").contains("eth"));
    docker.ok("network connect alpha web");
    assert_eq!(page(), "hello");
}

fn crate_fetch(lab: &Lab) -> String {
    lab.lan
        .run(&format!("curl -sS --max-time 10 http://{}:8080/", lab::HOST))
}

#[test]
fn a_stopped_container_is_put_on_networks_that_it_has_when_it_starts() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --subnet 10.98.0.0/24 alpha");
    docker.ok("network create --subnet 10.99.0.0/24 beta");
    docker.ok("create --name one --network beta --ip 10.99.0.77 busybox sleep 1000");
    docker.ok("network connect --ip 10.98.0.66 alpha one");
    docker.ok("start one");
    assert_eq!(
        (address(&docker, "one", "alpha"), address(&docker, "one", "beta")),
        ("10.98.0.66".into(), "10.99.0.77".into())
    );
    assert!(
        docker.ok("exec one ip route").contains("default via 10.98.0.1"),
        "the first network by name leads out"
    );
    let said = refusal(&docker, "run --rm --network beta --ip 10.99.0.77 busybox true");
    assert!(said.contains("Address already in use"), "{said}");
    docker.ok("stop -t 0 one");
    docker.ok("run --rm --network beta --ip 10.99.0.77 busybox true");
    docker.ok("network disconnect beta one");
    docker.ok("start one");
    assert_eq!(docker.inspect("one", "{{len .NetworkSettings.Networks}}"), "1");
    docker.ok("rm -f one");
    docker.ok("network rm alpha beta");
}

#[test]
fn who_is_taken_off_the_last_network_is_on_none_until_it_is_put_on_one() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create mine");
    docker.ok("run -d --name one --network mine busybox sleep 1000");
    docker.ok("create --name idle busybox sleep 1000");
    let networks = |name: &str| {
        docker.inspect(
            name,
            "{{range $name, $place := .NetworkSettings.Networks}}{{$name}} {{end}}",
        )
    };
    docker.ok("network disconnect mine one");
    docker.ok("network disconnect bridge idle");
    assert_eq!((networks("one"), networks("idle")), Default::default());
    docker.ok("stop -t 0 one");
    daemon.stop();
    daemon.boot();
    for name in ["one", "idle"] {
        docker.ok(&format!("start {name}"));
        assert_eq!(networks(name), "");
        let devices = docker.ok(&format!("exec {name} ip -o link"));
        assert!(devices.contains("lo:") && !devices.contains("eth"), "{devices}");
    }
    docker.ok("network rm mine");
    docker.ok("network connect bridge one");
    docker.ok("restart -t 0 one");
    assert_eq!(networks("one"), "bridge");
    docker.ok(&format!("exec one ping -c 1 -W 2 {}", lab::LAN));
}

#[test]
fn an_internal_network_has_no_way_out_and_its_containers_meet() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --internal within");
    docker.ok("run -d --name one --network within busybox sleep 1000");
    docker.ok("run -d --name two --network within busybox sleep 1000");
    docker.ok(&format!(
        "exec one ping -c 1 -W 2 {}",
        address(&docker, "two", "within")
    ));
    // dockerd 20.10 gives it one that leads to nobody
    assert!(!daemon.is_ours() || !docker.ok("exec one ip route").contains("default"));
    assert!(!docker.run(&format!("exec one ping -c 1 -W 1 {}", lab::LAN)).is_ok());
}

#[test]
fn networks_and_who_is_on_them_outlive_the_daemon() {
    let lab = Lab::new();
    let mut daemon = start(&lab, "");
    if !daemon.is_ours() {
        // containers of dockerd end with it, unless it was told otherwise
        return;
    }
    let docker = daemon.docker();
    docker.ok("network create --label keep=yes alpha");
    docker.ok("network create beta");
    docker.ok("run -d --name one --network alpha busybox sleep 1000");
    docker.ok("run -d --name two --network beta busybox sleep 1000");
    docker.ok("network connect beta one");
    let shown = |docker: &Docker| {
        let networks = "{{range $name, $place := .NetworkSettings.Networks}}{{$name}} {{$place.IPAddress}} {{end}}";
        (docker.inspect("one", networks), docker.ok("network ls --no-trunc"))
    };
    let before = shown(&docker);
    daemon.kill();
    daemon.boot();
    assert_eq!(shown(&docker), before);
    docker.ok(&format!("exec one ping -c 1 -W 2 {}", address(&docker, "two", "beta")));
    docker.ok("network disconnect alpha one");
    docker.ok(&format!("exec one ping -c 1 -W 2 {}", lab::LAN));
    assert_eq!(docker.ok("network rm alpha"), "alpha");
}

#[test]
fn pruning_takes_the_networks_that_nobody_is_on() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    for name in ["used", "kept", "loose"] {
        let label = if name == "kept" { "--label keep=yes" } else { "" };
        docker.ok(&format!("network create {label} {name}"));
    }
    docker.ok("run -d --name one --network used busybox sleep 1000");
    assert!(docker.ok("network prune -f --filter until=1h").is_empty());
    let removed = docker.ok("network prune -f --filter label!=keep");
    assert!(
        removed.contains("loose") && !removed.contains("used") && !removed.contains("kept"),
        "{removed}"
    );
    assert_eq!(docker.ok("network ls -q --filter type=custom").lines().count(), 2);
}

#[test]
fn what_happens_to_networks_is_told() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let id = docker.ok("network create mine");
    docker.ok("run -d --name one busybox sleep 1000");
    docker.ok("network connect mine one");
    docker.ok("network disconnect mine one");
    docker.ok("network rm mine");
    let now: u64 = lab.host.run("date +%s").trim().parse().unwrap();
    let now = now + 1;
    let told = docker.ok(&format!(
        "events --since 0 --until {now} --filter type=network --format {{{{.Action}}}}:{{{{.Actor.ID}}}}"
    ));
    let mut of_it: Vec<&str> = told.lines().filter(|line| line.ends_with(&id)).collect();
    if !daemon.is_ours() {
        // dockerd 20.10 tells a disconnect twice
        of_it.dedup();
    }
    let wanted = ["create", "connect", "disconnect", "destroy"].map(|action| format!("{action}:{id}"));
    assert_eq!(of_it, wanted, "{told}");
}

#[test]
fn a_container_shares_the_network_of_another() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("network create mine");
    docker.run_web("web", "--network mine");
    docker.ok("run -d --name guest --network container:web busybox sleep 1000");
    assert_eq!(docker.fetch_from("guest", "127.0.0.1", 80), "hello");
    assert_eq!(
        docker.ok("exec guest cat /etc/hosts"),
        docker.ok("exec web cat /etc/hosts")
    );
    assert_eq!(
        docker.ok("exec guest ip -o -4 address show eth0"),
        docker.ok("exec web ip -o -4 address show eth0")
    );
    let words = refusal(&docker, "network connect mine guest");
    assert!(
        words.contains("container sharing network namespace with another container"),
        "{words}"
    );
    let words = refusal(&docker, "run --rm --network container:web -p 80:80 busybox true");
    assert!(words.contains("conflicting options"), "{words}");
}

/// Pitfall B26.
#[test]
fn a_hundred_networks_find_a_subnet_each() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        // dockerd has 31 subnets
        return;
    }
    let docker = daemon.docker();
    let mut subnets = std::collections::BTreeSet::new();
    for number in 0..100 {
        let (status, answer) = daemon.request("POST", "/networks/create", &format!(r#"{{"Name":"net{number}"}}"#));
        assert_eq!(status, 201, "{answer}");
    }
    for number in 0..100 {
        subnets.insert(look(
            &docker,
            &format!("net{number}"),
            "{{range .IPAM.Config}}{{.Subnet}}{{end}}",
        ));
    }
    assert_eq!(subnets.len(), 100, "{subnets:?}");
}

#[test]
fn a_container_begins_on_several_networks_with_what_it_wants_of_each() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        // one network at a creation before API 1.44, and no names of devices before 28
        return;
    }
    let docker = daemon.docker();
    docker.ok("network create --subnet 10.98.0.0/24 alpha");
    docker.ok("network create --ipv6 --subnet 10.99.0.0/24 --subnet fd00:99::/64 beta");
    let (status, answer) = daemon.request(
        "POST",
        "/v1.44/containers/create?name=one",
        r#"{"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "beta"}, "NetworkingConfig": {"EndpointsConfig": {
            "alpha": {"IPAMConfig": {"IPv4Address": "10.98.0.9"}, "GwPriority": 1, "DriverOpts": {"com.docker.network.endpoint.ifname": "lan0"}},
            "beta": {"IPAMConfig": {"IPv6Address": "fd00:99::9"}, "MacAddress": "02:00:00:00:00:99"}}}}"#,
    );
    assert_eq!(status, 201, "{answer}");
    docker.ok("start one");
    let links = docker.ok("exec one ip -o address");
    assert!(
        links.contains("lan0    inet 10.98.0.9/24") && links.contains("eth0    inet6 fd00:99::9/64"),
        "{links}"
    );
    assert_eq!(
        docker.ok("exec one cat /sys/class/net/eth0/address"),
        "02:00:00:00:00:99"
    );
    let routes = docker.ok("exec one ip route") + &docker.ok("exec one ip -6 route");
    assert!(
        routes.contains("default via 10.98.0.1 dev lan0") && routes.contains("default via fd00:99::1 dev eth0"),
        "{routes}"
    );
    docker.ok(&format!("exec one ping -c 1 -W 2 {}", lab::LAN));
}

#[test]
fn a_network_may_have_ipv6_alone() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        // EnableIPv4 is of API 1.48
        return;
    }
    let docker = daemon.docker();
    let (status, answer) = daemon.request(
        "POST",
        "/networks/create",
        r#"{"Name": "six", "EnableIPv4": false, "EnableIPv6": true}"#,
    );
    assert_eq!(status, 201, "{answer}");
    docker.ok("run -d --name one --network six busybox sleep 1000");
    docker.ok("run -d --name two --network six busybox sleep 1000");
    let two = docker.inspect("two", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}");
    docker.ok(&format!("exec one ping -6 -c 1 -W 2 {two}"));
    assert!(!docker.ok("exec one ip -o -4 address").contains("eth0"));
    assert_eq!(look(&docker, "six", "{{.EnableIPv6}}"), "true");
}

#[test]
fn our_own_cli_has_the_same_words() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        // our own CLI speaks of what older engines do not know
        return;
    }
    let sluice = |line: &str| daemon.sluice(line).ok();
    let id = sluice(
        "network create --subnet 10.99.0.0/24 --ip-range 10.99.0.64/26 --aux-address a=10.99.0.64 -o com.docker.network.driver.mtu=1400 mine",
    );
    assert_eq!(id.trim().len(), 64);
    sluice("run -d --name one --network mine --ip 10.99.0.77 --mac-address 02:00:00:00:00:77 busybox sleep 1000");
    sluice("run -d --name two busybox sleep 1000");
    sluice("network connect --ip 10.99.0.78 mine two");
    sluice("exec two ping -c 1 -W 2 10.99.0.77");
    let refused = daemon.sluice("network rm mine");
    assert!(
        !refused.is_ok() && refused.stderr.contains("has active endpoints"),
        "{refused}"
    );
    sluice("network disconnect mine two");
    sluice("rm -f one two");
    assert_eq!(sluice("network rm mine").trim(), "mine");
    sluice("network create loose");
    assert!(sluice("network prune -f").contains("loose"));
}

#[test]
fn networks_are_listed_by_what_is_asked() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --label tier=front front");
    let id = docker.ok("network create --label tier=back --label db back");
    docker.ok("run -d --name one --network back busybox sleep 1000");
    for (filters, wanted) in [
        ("--filter driver=bridge", "back bridge front"),
        ("--filter driver=null", "none"),
        ("--filter scope=local --filter type=builtin", "bridge host none"),
        ("--filter scope=swarm", ""),
        ("--filter type=custom", "back front"),
        ("--filter label=tier", "back front"),
        ("--filter label=tier=back", "back"),
        ("--filter label=tier=back --filter label=db", "back"),
        ("--filter name=ron", "front"),
        ("--filter name=back --filter name=front", "back front"),
        ("--filter dangling=true", "front"),
        ("--filter dangling=false --filter type=custom", "back"),
    ] {
        // dockerd 20.10 takes a network for dangling when its containers were put on it at their start
        if filters.contains("dangling") && !daemon.is_ours() {
            continue;
        }
        let listed = docker.ok(&format!("network ls {filters} --format {{{{.Name}}}}"));
        let mut names: Vec<&str> = listed.lines().collect();
        names.sort_unstable();
        assert_eq!(names.join(" "), wanted, "{filters}");
    }
    assert_eq!(docker.ok(&format!("network ls -q --filter id={}", &id[..12])), id[..12]);
    assert_eq!(
        docker
            .words(&[
                "network",
                "ls",
                "--filter",
                "name=front",
                "--format",
                "{{.Name}} {{.Driver}} {{.Scope}} {{.Internal}} {{.Labels}}"
            ])
            .ok(),
        "front bridge local false tier=front"
    );
    let said = refusal(&docker, "network ls --filter colour=red");
    assert!(said.contains("colour"), "{said}");
    assert!(docker.ok("network prune -f").contains("front"));
    assert_eq!(docker.ok("network ls --filter type=custom --format {{.Name}}"), "back");
}
