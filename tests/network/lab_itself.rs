//! The lab the other tests stand on.

use std::path::PathBuf;

use lab::{HOST, Host, INTERNET, LAN, Lab};

#[test]
fn a_host_reaches_its_lan_and_what_is_behind_and_is_reached() {
    let lab = Lab::new();
    lab.host
        .run(&format!("ping -c 1 -W 2 {LAN}; ping -c 1 -W 2 {INTERNET}"));
    lab.lan.run(&format!("ping -c 1 -W 2 {HOST}"));
    assert_eq!(lab.host.run("hostname"), lab.host.name());
    assert_eq!(lab.host.run("ls /sys/class/net"), "eth0\nlo");
    assert_eq!(
        lab.host
            .inside(|| std::fs::read_dir("/run/netns").map(Iterator::count).ok()),
        Some(0)
    );
}

#[test]
fn a_host_that_goes_takes_its_processes_and_cgroups_along() {
    let host = Host::new();
    let sleeper = host.spawn("sleep.log", "sleep 1000");
    let (pid, directory, cgroups) = (sleeper.pid(), host.directory().to_owned(), host.cgroups());
    assert!(!cgroups.is_empty());
    drop(host);
    let is_there = |path: PathBuf| path.exists();
    assert!(!is_there(directory));
    assert!(!cgroups.into_iter().any(is_there));
    drop(sleeper);
    assert!(!is_there(PathBuf::from(format!("/proc/{pid}"))));
}

#[test]
fn the_watch_of_the_lan_catches_a_containers_address_and_nothing_else() {
    let lab = Lab::new();
    lab.host
        .run("ip address add 172.17.0.9/32 dev lo; ip address add fd00::9/128 dev lo");
    lab.host.run("ip -6 address add 2001:db8::1/64 dev eth0 nodad");
    lab.lan.run("ip -6 address add 2001:db8::2/64 dev eth0 nodad");
    lab.host
        .run(&format!("ping -c 2 -W 2 {LAN}; ping -c 2 -W 2 2001:db8::2"));
    assert_eq!(lab.watch.caught(), Vec::<String>::new());
    for (from, to) in [("172.17.0.9", LAN), ("fd00::9", "2001:db8::2")] {
        lab.host.shell(&format!("ping -c 1 -W 1 -I {from} {to}"));
        assert_eq!(lab.watch.caught().len(), 1, "{from}");
    }
}
