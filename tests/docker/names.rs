//! Names and resolver files as Docker has them.

use lab::{Docker, Lab, start};

/// The addresses that a container's own resolver finds for a name.
fn found(docker: &Docker, container: &str, name: &str) -> Vec<String> {
    let said = docker.run(&format!("exec {container} nslookup -type=a {name} 127.0.0.11"));
    let mut addresses: Vec<String> = said
        .stdout
        .lines()
        .skip_while(|line| !line.starts_with("Name:"))
        .filter_map(|line| line.strip_prefix("Address"))
        .filter_map(|rest| rest.split_whitespace().last().map(str::to_owned))
        .collect();
    addresses.sort();
    addresses
}

fn address(docker: &Docker, container: &str, network: &str) -> String {
    docker.inspect(
        container,
        &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"),
    )
}

/// The lines of a container's file that say something, in any order.
fn resolv(docker: &Docker, container: &str) -> Vec<String> {
    let mut lines: Vec<String> = docker
        .ok(&format!("exec {container} cat /etc/resolv.conf"))
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn containers_of_a_network_find_each_other_by_name_alias_and_id() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create front");
    docker.ok("network create back");
    docker.ok("run -d --name web --network front --network-alias www busybox sleep 1000");
    docker.ok("run -d --name other --network front --network-alias www busybox sleep 1000");
    docker.ok("run -d --name alone --network back busybox sleep 1000");
    let (web, other) = (address(&docker, "web", "front"), address(&docker, "other", "front"));
    let id = docker.inspect("web", "{{.Id}}");
    for name in ["web", "web.front", &id[..12]] {
        assert_eq!(found(&docker, "other", name).join(" "), web, "{name}");
    }
    let mut both = vec![web.clone(), other];
    both.sort();
    assert_eq!(found(&docker, "web", "www"), both);
    assert_eq!(found(&docker, "alone", "web"), [""; 0]);
    docker.ok("network connect --alias guest back web");
    assert_eq!(found(&docker, "alone", "guest"), [address(&docker, "web", "back")]);
    assert_eq!(found(&docker, "alone", "web"), [address(&docker, "web", "back")]);
    docker.ok("network disconnect back web");
    assert_eq!(found(&docker, "alone", "guest"), [""; 0]);
    docker.ok("rename web shop");
    assert_eq!(found(&docker, "other", "shop"), [web]);
    assert_eq!(found(&docker, "other", "web"), [""; 0]);
    docker.ok("rm -f shop");
    assert_eq!(found(&docker, "other", "shop"), [""; 0]);
}

#[test]
fn resolver_files_say_who_is_asked_and_how() {
    let lab = Lab::new();
    let daemon = start(&lab, "--dns 192.0.2.1 --dns-search from.example");
    let docker = daemon.docker();
    docker.ok("network create front");
    for (flags, expected) in [
        ("", vec!["nameserver 192.0.2.1", "search from.example"]),
        (
            "--dns 192.0.2.9 --dns-search a.example --dns-search b.example --dns-option ndots:2",
            vec!["nameserver 192.0.2.9", "options ndots:2", "search a.example b.example"],
        ),
        ("--dns-search .", vec!["nameserver 192.0.2.1"]),
    ] {
        docker.ok(&format!("run -d --name one {flags} busybox sleep 1000"));
        let mut lines = resolv(&docker, "one");
        // what the host's own file has besides
        lines.retain(|line| !line.starts_with("options") || flags.contains("option"));
        assert_eq!(lines, expected, "{flags}");
        docker.ok("rm -f one");
    }
    for (flags, expected) in [
        (
            "",
            vec!["nameserver 127.0.0.11", "options ndots:0", "search from.example"],
        ),
        (
            "--dns 192.0.2.9 --dns-search a.example --dns-option ndots:2 --dns-option timeout:3",
            vec!["nameserver 127.0.0.11", "options ndots:2 timeout:3", "search a.example"],
        ),
    ] {
        docker.ok(&format!("run -d --name one --network front {flags} busybox sleep 1000"));
        let mut lines = resolv(&docker, "one");
        for line in &mut lines {
            if flags.is_empty() && line.starts_with("options") {
                *line = format!("options {}", line.rsplit(' ').next().unwrap());
            }
        }
        assert_eq!(lines, expected, "{flags}");
        docker.ok("rm -f one");
    }
    // whoever comes to its first network with names asks there from then on
    docker.ok("run -d --name one busybox sleep 1000");
    docker.ok("run -d --name two --network front busybox sleep 1000");
    docker.ok("network connect front one");
    assert!(resolv(&docker, "one").contains(&"nameserver 127.0.0.11".to_owned()));
    assert_eq!(found(&docker, "one", "two"), [address(&docker, "two", "front")]);
}
