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
