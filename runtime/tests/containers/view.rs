//! The container's view of itself, compared with its spec point by point, as the OCI's runtime-tools do: from inside.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxPids, PosixRlimitBuilder, PosixRlimitType};
use sluice_runtime::spec::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};

use crate::lab::Lab;

/// Prints what is asked below, a heading before each.
const LOOK: &str = r#"
echo '== namespaces'; for n in mnt pid net ipc uts; do echo "$n $(readlink /proc/self/ns/$n)"; done
echo '== mounts'; cut -d' ' -f2,3,4 /proc/self/mounts
echo '== status'; grep -E 'Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups' /proc/self/status | tr '\t' ' '
echo '== limits'; ulimit -n; ulimit -H -n; cat /proc/self/oom_score_adj
echo '== devices'; for d in null zero full random urandom tty; do stat -c '%n %t:%T %a %F' /dev/$d; done
echo '== links'; for l in fd stdin stdout stderr ptmx; do echo "$l $(readlink /dev/$l)"; done
echo '== written'; for p in READONLY; do [ -e $p ] && (: > $p/x || echo 1 > $p) 2>/dev/null && echo $p; done
echo '== read'; for p in MASKED; do [ -f $p ] && head -c 1 $p; [ -d $p ] && ls $p; done 2>/dev/null
echo '== cgroups'; for f in pids/pids.max .$(sed -n 's/^0:://p' /proc/self/cgroup)/pids.max; do cat /sys/fs/cgroup/$f 2>/dev/null; done
echo '== process'; pwd; hostname; echo "$A"; umask; echo $$
"#;

fn sections(said: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut heading = "";
    for line in said.lines() {
        match line.strip_prefix("== ") {
            Some(new) => {
                heading = new;
                all.entry(heading).or_default();
            }
            None => all.entry(heading).or_default().push(line),
        }
    }
    all
}

#[tokio::test]
async fn all_that_the_spec_says_is_so_from_inside() {
    let Some(lab) = Lab::new() else { return };
    let look = LOOK
        .replace("READONLY", &DEFAULT_READONLY_PATHS.join(" "))
        .replace("MASKED", &DEFAULT_MASKED_PATHS.join(" "));
    let mut bundle = lab.bundle("a", &["sh", "-c", &look]);
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
    let limit = limit.soft(123u64).hard(456u64).build().unwrap();
    bundle
        .process()
        .set_rlimits(Some(vec![limit]))
        .set_oom_score_adj(Some(33))
        .set_no_new_privileges(Some(true))
        .set_cwd("/var".into())
        .set_env(Some(vec!["PATH=/bin".to_owned(), "A=b c".to_owned()]));
    bundle.process().user_mut().set_additional_gids(Some(vec![7, 8]));
    let mut pids = LinuxPids::default();
    pids.set_limit(55);
    bundle.resources().set_pids(Some(pids));
    let mounts: Vec<(String, String)> = bundle
        .spec
        .mounts()
        .iter()
        .flatten()
        .map(|mount| (mount.destination().display().to_string(), mount.typ().clone().unwrap()))
        .collect();
    let (said, stderr, exit) = lab.run(&bundle).await;
    assert_eq!(exit.code, 0, "{said}{stderr}");
    let seen = sections(&said);

    for line in &seen["namespaces"] {
        let (name, inside) = line.split_once(' ').unwrap();
        let outside = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), inside, "{name}");
    }
    for (destination, kind) in mounts {
        // On v1 hosts the cgroups are a tmpfs with a mount for each hierarchy in it.
        let kinds = match kind.as_str() {
            "cgroup" => vec!["tmpfs", "cgroup2"],
            kind => vec![kind],
        };
        let is_there = seen["mounts"].iter().any(|line| {
            let mut words = line.split(' ');
            words.next() == Some(&destination) && words.next().is_some_and(|kind| kinds.contains(&kind))
        });
        assert!(is_there, "{destination} {kind}: {:?}", seen["mounts"]);
    }
    for line in seen["mounts"].iter().filter(|line| line.starts_with("/sys")) {
        let options = line.rsplit(' ').next().unwrap();
        assert!(options.split(',').any(|option| option == "ro"), "{line}");
    }
    let status = |name: &str| {
        let line = seen["status"].iter().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        assert_eq!(status(set), "00000000a80425fb", "{set}");
    }
    assert_eq!((status("NoNewPrivs:"), status("Seccomp:")), ("1".into(), "2".into()));
    assert_eq!((status("Uid:"), status("Groups:")), ("0 0 0 0".into(), "7 8".into()));
    assert_eq!(seen["limits"], ["123", "456", "33"]);
    let devices = [
        "null 1:3",
        "zero 1:5",
        "full 1:7",
        "random 1:8",
        "urandom 1:9",
        "tty 5:0",
    ];
    let devices = devices.map(|device| format!("/dev/{device} 666 character special file"));
    assert_eq!(seen["devices"], devices);
    let links = [
        "fd /proc/self/fd",
        "stdin /proc/self/fd/0",
        "stdout /proc/self/fd/1",
        "stderr /proc/self/fd/2",
        "ptmx pts/ptmx",
    ];
    assert_eq!(seen["links"], links);
    assert!(seen["written"].is_empty(), "{:?}", seen["written"]);
    assert!(seen["read"].is_empty(), "{:?}", seen["read"]);
    assert_eq!(seen["cgroups"], ["55"]);
    assert_eq!(seen["process"], ["/var", "box", "b c", "0022", "1"]);
}
