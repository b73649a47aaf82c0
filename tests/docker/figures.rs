//! Figures for those who collect them: what happened is what is told.

use std::collections::BTreeMap;

use lab::{Daemon, HOST, Lab, eventually, start};

/// Samples by name and labels.
fn figures(daemon: &Daemon) -> BTreeMap<String, f64> {
    let (status, text) = daemon.request("GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
    parse(&text)
}

fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn what_happens_is_told_to_those_who_collect_figures() {
    let lab = Lab::new();
    let daemon = start(&lab, "--metrics-addr 127.0.0.1:9323");
    let docker = daemon.docker();
    docker.import_web();
    docker.ok("network create inner --internal");
    docker.run_web("web", "-p 8080:80");
    docker.ok("run -d --name shut --network inner busybox sleep 1000");
    let before = figures(&daemon);
    assert_eq!(before["sluice_containers{state=\"running\"}"], 2.0);
    assert_eq!(before["sluice_endpoints"], 2.0);
    assert_eq!(before["sluice_troubles"], 0.0);
    assert!(before["sluice_reconcile_seconds_count"] > 0.0);
    for _ in 0..20 {
        lab.lan.run(&format!("curl -sS http://{HOST}:8080/"));
    }
    let sent = "sluice_endpoint_sent_packets_total{container=\"web\",network=\"bridge\"}";
    let by_network = "sluice_network_sent_packets_total{network=\"bridge\"}";
    eventually("what the web server sent is told", 30, || {
        let now = figures(&daemon);
        now[sent] >= before[sent] + 60.0 && now[by_network] >= before[by_network] + 60.0
    });
    // what another network lets nobody do is counted by its reason
    let address = docker.ok("inspect -f {{.NetworkSettings.Networks.inner.IPAddress}} shut");
    let script = format!("ping -c 3 -W 1 {address} || true");
    docker.words(&["run", "--rm", "busybox", "sh", "-c", &script]).ok();
    let now = figures(&daemon);
    let died: f64 = now
        .iter()
        .filter(|(name, _)| name.contains("_dropped_packets_total{reason=\"i") && name.contains("_network\""))
        .map(|(_, value)| value)
        .sum();
    assert!(died >= 3.0, "{now:#?}");
    // a container that is gone takes nothing from the sum of its network
    docker.ok("rm -f web");
    let after = figures(&daemon);
    assert!(after[by_network] >= now[by_network] && !after.contains_key(sent));
    let asked = "sluice_api_seconds_count{method=\"POST\",path=\"/containers/create\"}";
    assert_eq!(after[asked], 3.0);
    // the socket for figures tells them and nothing else
    let told = lab.host.run("curl -sS http://127.0.0.1:9323/metrics");
    assert_eq!(parse(&told)["sluice_containers{state=\"running\"}"], 1.0);
    let status = lab
        .host
        .run("curl -sS -o /dev/null -w %{http_code} http://127.0.0.1:9323/containers/json");
    assert_eq!(status, "404");
}
