//! Many at once, and beside each other.

use std::time::{Duration, Instant};

use lab::{Daemon, Engine, HOST, Lab, eventually, patience, start};

/// Pitfall B20.
#[test]
fn fifty_containers_started_at_once_all_work() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..50 {
            let docker = docker.clone();
            scope.spawn(move || {
                let flags = format!("run -d --name box{number} -p {}:80 busybox", 9000 + number);
                let mut words: Vec<&str> = flags.split(' ').collect();
                let script = format!("mkdir /www; echo box{number} > /www/index.html; exec httpd -f -p 80 -h /www");
                words.extend(["sh", "-c", &script]);
                docker.words(&words).ok();
            });
        }
    });
    println!("fifty containers in {:?}", begin.elapsed());
    assert_eq!(docker.ok("ps -q").lines().count(), 50);
    for number in 0..50 {
        let url = format!("http://{HOST}:{}/", 9000 + number);
        let page = lab.lan.run(&format!(
            "curl -sS --retry 5 --retry-connrefused --retry-delay 1 --max-time 5 {url}"
        ));
        assert_eq!(page, format!("box{number}"));
    }
    let mut addresses: Vec<String> = (0..50).map(|number| docker.address(&format!("box{number}"))).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 50, "no address is given twice");
    let ids = docker.ok("ps -aq");
    let mut words = vec!["rm", "-f"];
    words.extend(ids.lines());
    docker.words(&words).ok();
    assert_eq!(docker.ok("ps -aq"), "");
    eventually("all devices are gone", 10, || {
        lab.host.run("ip -o link | grep -c ' slc' || true") == "0"
    });
}

#[test]
fn a_container_is_there_and_gone_in_well_under_a_second() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        // dockerd takes longer
        return;
    }
    let docker = daemon.docker();
    let best = (0..5)
        .map(|_| {
            let begin = Instant::now();
            docker.ok("run --rm busybox true");
            begin.elapsed()
        })
        .min();
    println!("run --rm true: {best:?}");
    assert!(best < Some(patience(1)), "{best:?}");
}

#[test]
fn two_instances_live_side_by_side_and_the_end_of_one_is_nothing_to_the_other() {
    if !Engine::is_ours() {
        // two of dockerd share one set of rules
        return;
    }
    let lab = Lab::new();
    let first = start(&lab, "");
    let mut second = Daemon::start_instance(&lab.host, "two", "");
    second.docker().import(&lab::busybox(), "busybox", &[]);
    // the same names in both, on the default network and on one of their own; nobody says which subnets
    for (daemon, name, port) in [(&first, "one", 9001), (&second, "two", 9002)] {
        let docker = daemon.docker();
        docker.ok("network create mine");
        let script = format!("mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www");
        let publish = format!("{port}:80");
        for options in [
            ["--name", "box", "-p", &publish],
            ["--name", "inner", "--network", "mine"],
        ] {
            let mut words = vec!["run", "-d"];
            words.extend(options);
            words.extend(["busybox", "sh", "-c", &script]);
            docker.words(&words).ok();
        }
        docker.ok("run -d --name asker --network mine busybox sleep 1000");
    }
    let page = |url: &str| lab.host.shell(&format!("curl -sS --max-time 5 http://{url}/"));
    let by_name = |daemon: &Daemon| daemon.docker().fetch_from("asker", "inner", 80);
    let works = |daemon: &Daemon, name: &str, port: u16| {
        let by_lan = lab.lan.shell(&format!("curl -sS --max-time 5 http://{HOST}:{port}/"));
        by_lan.stdout.trim() == name
            && page(&format!("127.0.0.1:{port}")).stdout.trim() == name
            && by_name(daemon) == name
    };
    let both = |second: &Daemon, when: &str| {
        for (daemon, name, port) in [(&first, "one", 9001), (second, "two", 9002)] {
            eventually(&format!("{name} works {when}"), 30, || works(daemon, name, port));
        }
    };
    both(&second, "beside the other");
    let subnets = |daemon: &Daemon| {
        let format = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
        let shown = daemon
            .docker()
            .words(&["network", "inspect", "-f", format, "bridge", "mine"]);
        shown.ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (ours, theirs) = (subnets(&first), subnets(&second));
    assert!(
        ours.iter().all(|subnet| !theirs.contains(subnet)),
        "{ours:?} {theirs:?}"
    );
    // to each other they are networks like any other: closed, but for what is published at an address of the host
    for (here, there, name, port) in [(&first, &second, "two", 9002), (&second, &first, "one", 9001)] {
        let (docker, theirs) = (here.docker(), there.docker());
        let networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        for (asker, asked) in [("box", "inner"), ("asker", "box")] {
            let address = theirs.inspect(asked, networks);
            let script = format!(
                "(ping -c 1 -W 1 {address} > /dev/null && echo pong) & printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} 80; wait"
            );
            let heard = docker.words(&["exec", asker, "sh", "-c", &script]).stdout;
            assert_eq!(heard, "", "{asker} reaches {asked} of {name} at its own address");
            eventually(&format!("{asker} reaches what {name} publishes"), 30, || {
                docker.fetch_from(asker, HOST, port) == name
            });
        }
    }
    // a port is one's, whoever's
    let taken = second.docker().run("run --rm -p 9001:80 busybox true");
    assert!(!taken.is_ok() && taken.stderr.contains("9001"), "{taken}");

    assert_eq!(first.docker().ok("ps -q").lines().count(), 3);
    second.stop();
    assert!(works(&first, "one", 9001) && page("127.0.0.1:9002").stdout.trim() == "two");
    second.boot();
    both(&second, "after the restart of one");
    second.docker().ok("rm -f box inner asker");
    second.docker().ok("network rm mine");
    second.stop();
    second.clean_up().ok();
    assert!(works(&first, "one", 9001), "the other's clean-up");
    assert_eq!(first.docker().ok("exec box cat /www/index.html"), "one");
}

#[test]
fn two_hosts_on_one_machine_know_nothing_of_each_other() {
    let (here, there) = (Lab::new(), Lab::new());
    let (first, second) = (start(&here, ""), start(&there, ""));
    for (lab, daemon, name) in [(&here, &first, "here"), (&there, &second, "there")] {
        let script = format!("mkdir /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www");
        daemon
            .docker()
            .words(&[
                "run", "-d", "--name", "box", "-p", "8080:80", "busybox", "sh", "-c", &script,
            ])
            .ok();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(lab.host.run("curl -sS --max-time 5 http://127.0.0.1:8080/"), name);
    }
    assert_eq!(here.host.run("curl -sS --max-time 5 http://127.0.0.1:8080/"), "here");
    assert_eq!(
        here.lan.run(&format!("curl -sS --max-time 5 http://{HOST}:8080/")),
        "here"
    );
}

#[test]
fn three_hundred_containers_are_listed_and_removed() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let body = r#"{"Image":"busybox","Cmd":["sleep","1000"],"Labels":{"tier":"front"}}"#;
    for number in 0..300 {
        let (status, answer) = daemon.request("POST", &format!("/v1.41/containers/create?name=box{number}"), body);
        assert_eq!(status, 201, "{answer}");
    }
    let begin = Instant::now();
    let (status, list) = daemon.request("GET", "/v1.41/containers/json?all=1", "");
    println!("ps of three hundred, with curl: {:?}", begin.elapsed());
    assert_eq!((status, list.matches("\"/box").count()), (200, 300));
    let docker = daemon.docker();
    assert_eq!(
        docker
            .ok("ps -aq --filter label=tier=front --filter name=box29")
            .lines()
            .count(),
        11
    );
    let said = docker.ok("container prune -f");
    assert_eq!(said.matches("\n").count(), 302, "{said}");
    assert_eq!(docker.ok("ps -aq"), "");
}
