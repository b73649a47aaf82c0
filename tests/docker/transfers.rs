//! Images on their way: what a person sees of it, what breaks it, and through what it goes.

use std::fs;

use lab::{Daemon, Engine, Guard, HOST, Lab, Proxy, Registry, Terminal, eventually, start};

/// An image with a layer that does not shrink, of this name.
fn noise(daemon: &Daemon, name: &str) {
    let docker = daemon.docker();
    docker
        .sh("--name maker --network none", "head -c 3000000 /dev/urandom > /noise")
        .ok();
    docker.ok(&format!("commit maker {name}"));
    docker.ok("rm maker");
}

#[test]
fn bars_move_and_a_push_that_broke_off_gets_there() {
    if !Registry::is_installed() {
        return lab::skipped("docker-registry is not installed");
    }
    let lab = Lab::new();
    let registry = Registry::start(&lab.host, 5000, Guard::Open);
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let name = registry.name("noise:1");
    noise(&daemon, &name);
    let sum = docker.ok(&format!("run --rm --network none {name} md5sum /noise"));

    // two connections die, after a megabyte and the rest's beginning
    let way = registry.dying_upwards(5001, 1_000_000, 2);
    docker.ok(&format!("tag {name} 127.0.0.1:5001/noise:1"));
    let said = docker.ok("push 127.0.0.1:5001/noise:1");
    assert!(said.contains("Pushed") && said.contains("1: digest: sha256:"), "{said}");
    // Debian's registry loses what broke off, so it all goes again
    assert!(way.upwards() > 3_000_000);
    docker.ok(&format!("rmi 127.0.0.1:5001/noise:1 {name}"));

    let terminal = Terminal::start(&mut docker.command(&["pull", "127.0.0.1:5001/noise:1"]), 40, 160);
    terminal.shows("Downloaded newer image");
    let shown = terminal.screen();
    assert!(shown.contains("Downloading") && shown.contains("=>"), "{shown}");
    assert_eq!(
        docker.ok("run --rm --network none 127.0.0.1:5001/noise:1 md5sum /noise"),
        sum
    );

    docker.ok("rmi 127.0.0.1:5001/noise:1");
    let (_, stream) = daemon.request("POST", "/images/create?fromImage=127.0.0.1%3A5000%2Fnoise&tag=1", "");
    let bars = stream
        .lines()
        .filter(|line| line.contains("\"progressDetail\":{\"current\":"));
    assert!(bars.count() > 0 && stream.contains("\"total\":"), "{stream}");
}

#[test]
fn a_daemon_that_is_killed_in_a_pull_leaves_a_store_that_is_whole() {
    if Engine::under_test() == Engine::Docker {
        return lab::skipped("the stock engine, killed in the lab, was not seen to answer again in half a minute");
    }
    if !Registry::is_installed() {
        return lab::skipped("docker-registry is not installed");
    }
    let lab = Lab::new();
    let registry = Registry::start(&lab.host, 5000, Guard::Open);
    let mut daemon = start(&lab, "");
    let name = registry.name("noise:1");
    noise(&daemon, &name);
    daemon.docker().ok(&format!("push {name}"));
    daemon.docker().ok(&format!("rmi {name}"));
    let _way = registry.stalling(5001, 1_000_000);
    let pull = format!(
        "docker -H unix://{} pull 127.0.0.1:5001/noise:1",
        daemon.socket().display()
    );
    let pulling = lab.host.spawn("pull.log", &pull);
    let staging = daemon.data_root().join("image/staging");
    let is_under_way = || fs::read_dir(&staging).map_or(0, Iterator::count) > 0;
    eventually("something of it has come", 30, is_under_way);
    daemon.kill();
    drop(pulling);
    daemon.boot();
    let docker = daemon.docker();
    assert_eq!(docker.ok("images --format {{.Repository}}"), "busybox");
    assert!(!is_under_way(), "what was half-made is gone");
    lab.host.run(&format!(
        "docker -H unix://{} save busybox > /dev/null",
        daemon.socket().display()
    ));
    docker.ok(&format!("pull {name}"));
    docker.ok(&format!("run --rm --network none {name} true"));
}

#[test]
fn a_certificate_may_be_its_own_authority_and_the_client_may_need_one() {
    if Engine::under_test() == Engine::Docker {
        return lab::skipped("the stock engine's certificates are in /etc, which belongs to the machine");
    }
    if !Registry::is_installed() {
        return lab::skipped("docker-registry is not installed");
    }
    let lab = Lab::new();
    let registry = Registry::start(&lab.host, 5000, Guard::Known);
    let certificates = lab.host.directory().join("certs.d");
    let daemon = start(&lab, &format!("--registry-certs {}", certificates.display()));
    let docker = daemon.docker();
    let name = registry.name("known/box:1");
    docker.ok(&format!("tag busybox {name}"));
    docker.run(&format!("push {name}")).fails(1, "x509");
    let own = certificates.join(format!("{HOST}:5000"));
    fs::create_dir_all(&own).unwrap();
    let keep = |file: &str| _ = fs::copy(registry.file(file), own.join(file)).unwrap();
    keep("ca.crt");
    assert!(
        !docker.run(&format!("push {name}")).is_ok(),
        "the registry does not know us"
    );
    keep("client.cert");
    docker.run(&format!("push {name}")).fails(1, "client.key");
    keep("client.key");
    docker.ok(&format!("push {name}"));
    docker.ok(&format!("rmi {name}"));
    docker.ok(&format!("pull {name}"));
    // the same certificate under another name is not that registry's
    let other = certificates.join("127.0.0.2:5000");
    fs::rename(&own, &other).unwrap();
    docker.run(&format!("push {name}")).fails(1, "x509");
}

#[test]
fn a_registry_is_reached_through_the_proxy_of_the_environment() {
    if !Registry::is_installed() {
        return lab::skipped("docker-registry is not installed");
    }
    let lab = Lab::new();
    let registry = Registry::everywhere(&lab.host, 5000);
    let proxy = Proxy::start(&lab.host, 3128);
    let mut daemon = start(&lab, &format!("--insecure-registry {HOST}:5000"));
    if !daemon.is_ours() {
        return lab::skipped("Go's library sends plain requests to proxies in another form");
    }
    daemon.boot_with("HTTP_PROXY=http://127.0.0.1:3128 HTTPS_PROXY=http://127.0.0.1:3128");
    let docker = daemon.docker();
    let name = format!("{HOST}:5000/box:1");
    docker.ok(&format!("tag busybox {name}"));
    docker.ok(&format!("push {name}"));
    assert!(proxy.asked().contains(&format!("{HOST}:5000")), "{:?}", proxy.asked());
    let before = proxy.asked().len();
    // this machine is near
    docker.ok(&format!("pull {}", registry.name("box:1")));
    assert_eq!(proxy.asked().len(), before);
    daemon.boot_with(&format!("ALL_PROXY=http://127.0.0.1:3128 NO_PROXY={HOST}/24"));
    daemon.docker().ok(&format!("pull {name}"));
    assert_eq!(proxy.asked().len(), before);
}
