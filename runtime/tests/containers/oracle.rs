//! The same bundle under runc and under ours: an inspection from within must say the same.

use std::{fs, process::Command};

use oci_spec::runtime::{
    Capability, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceType, PosixRlimitBuilder, PosixRlimitType,
};

use crate::lab::{Lab, is_root};

/// Everything that should not depend on who made the container. (runc being in Go raises its own soft limit of open files, RLIMIT_NOFILE,
/// and passes that on.) Sorted where order means nothing.
const INSPECTION: &str = "
echo == user; id; echo == directory; pwd; echo == environment; env | sort; echo == host; hostname
echo == status; grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/self/status
echo == limits; grep -v 'open files' /proc/self/limits
echo == dev; ls -l /dev | grep -v ^total | sed 's/ [A-Z][a-z][a-z] .*[0-9][0-9]:[0-9][0-9] / /' | sort
echo == mounts; sed -E 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ //; s# /[^ ]*/(bundles/[a-z]+/rootfs) / # ROOT / #' /proc/self/mountinfo | grep -v ' /sys/fs/cgroup' | sort
echo == cgroup-mounts; sed -E 's/^[0-9]+ [0-9]+ [0-9]+:[0-9]+ [^ ]* //' /proc/self/mountinfo | grep '^/sys/fs/cgroup/' | sort
echo == masked; wc -c /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>&1; ls -a /sys/firmware /proc/scsi 2>&1
echo == read-only; for p in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/kernel/x; do (echo 1 > $p) 2>&1; done
echo == oom; cat /proc/self/oom_score_adj; echo == umask; umask
echo == namespaces; unshare -n true 2>&1; mount -t tmpfs x /tmp 2>&1
echo == session; cut -d' ' -f5,6 /proc/self/stat
";

#[tokio::test]
async fn a_container_looks_the_same_from_within_as_under_runc() {
    if !is_root() || Command::new("runc").arg("--version").output().is_err() {
        eprintln!("passed over: no runc");
        return;
    }
    let Some(lab) = Lab::new() else { return };
    for (id, prepare) in VARIANTS {
        let mut bundle = lab.bundle(id, &["sh", "-c", INSPECTION]);
        prepare(&mut bundle);
        let (ours, stderr, exit) = lab.run(&bundle).await;
        assert_eq!(exit.code, 0, "{stderr}");
        lab.runtime.delete(id).await.unwrap();
        let is_hybrid = crate::lab::unified() != std::path::Path::new("/sys/fs/cgroup");
        if !is_hybrid && matches!(id, "privileged" | "capabilities" | "devices") {
            eprintln!("{id}: runs, and is compared with runc on machines with v1 cgroups only");
            continue;
        }
        let mut spec = bundle.spec.clone();
        spec.linux_mut()
            .as_mut()
            .unwrap()
            .set_cgroups_path(Some(format!("/{}/{id}", lab.parent).into()));
        fs::write(bundle.directory.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        let output = Command::new("runc")
            .arg("--root")
            .arg(lab.directory.join("runc"))
            .args(["run", "--bundle"])
            .arg(&bundle.directory)
            .arg(format!("{}-{id}", lab.parent))
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut differences = difference(&ours, &theirs);
        if id == "privileged" {
            // what is not hidden is larger every time one looks
            differences = differences.lines().filter(|line| !line.contains("masked:")).collect();
        }
        if id == "userns" {
            // runc binds the host's devices, which are nobody's there; we make some that are the container's, and its groups its own
            let is_known = |line: &&str| {
                line.contains("dev: crw")
                    || line.contains(" /dev/")
                    || line.contains(" /proc/")
                    || line.ends_with(" mqueue")
            };
            differences = differences.lines().filter(|line| !is_known(line)).collect();
        }
        assert!(differences.is_empty(), "{id}: ours -, runc's +\n{differences}");
    }
}

type Prepare = fn(&mut crate::lab::Bundle);

const VARIANTS: [(&str, Prepare); 7] = [
    ("userns", |bundle| bundle.remap(100_000, 65_536)),
    ("default", |_| {}),
    ("user", |bundle| {
        bundle
            .process()
            .user_mut()
            .set_uid(33)
            .set_gid(33)
            .set_additional_gids(Some(vec![7]));
        bundle
            .process()
            .set_no_new_privileges(Some(true))
            .set_cwd("/var".into())
            .set_oom_score_adj(Some(100));
    }),
    ("privileged", |bundle| {
        bundle
            .linux()
            .set_seccomp(None)
            .set_masked_paths(None)
            .set_readonly_paths(None);
        let mut everything = LinuxDeviceCgroup::default();
        everything.set_allow(true).set_access(Some("rwm".to_owned()));
        bundle.resources().set_devices(Some(vec![everything]));
        for mount in bundle.spec.mounts_mut().as_mut().unwrap() {
            let options = mount
                .options()
                .iter()
                .flatten()
                .filter(|option| *option != "ro")
                .cloned();
            let options = options.collect::<Vec<_>>();
            mount.set_options(Some(options));
        }
        bundle.hold(&[Capability::SysAdmin, Capability::NetAdmin, Capability::SysPtrace]);
    }),
    ("capabilities", |bundle| {
        bundle.hold(&[Capability::Chown, Capability::NetRaw]);
        let sets = bundle.process().capabilities().clone().map(|mut sets| {
            let kept = Some([Capability::NetRaw].into());
            sets.set_inheritable(kept.clone()).set_ambient(kept);
            sets
        });
        bundle.process().set_capabilities(sets);
        bundle.process().user_mut().set_uid(33).set_umask(Some(0o27));
    }),
    ("devices", |bundle| {
        let device = |path: &str, minor: i64| {
            let device = LinuxDeviceBuilder::default()
                .path(path)
                .typ(LinuxDeviceType::C)
                .major(1)
                .minor(minor);
            device.file_mode(0o640u32).uid(33u32).gid(7u32).build().unwrap()
        };
        bundle
            .linux()
            .set_devices(Some(vec![device("/dev/deep/er", 5), device("/dev/other", 8)]));
        let limit = |typ, soft: u64, hard: u64| {
            PosixRlimitBuilder::default()
                .typ(typ)
                .soft(soft)
                .hard(hard)
                .build()
                .unwrap()
        };
        bundle.process().set_rlimits(Some(vec![
            limit(PosixRlimitType::RlimitCore, 0, 0),
            limit(PosixRlimitType::RlimitStack, 1 << 20, 4 << 20),
            limit(PosixRlimitType::RlimitCpu, 100, 200),
        ]));
    }),
    ("readonly", |bundle| {
        bundle.spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
        bundle.linux().set_seccomp(None);
    }),
];

/// Lines that only one of the two has, with the heading they stand under.
fn difference(ours: &str, theirs: &str) -> String {
    let under_headings = |text: &str| -> Vec<String> {
        let mut heading = "";
        let mut lines = Vec::new();
        for line in text.lines() {
            match line.strip_prefix("== ") {
                Some(new) => heading = new,
                None => lines.push(format!("{heading}: {line}")),
            }
        }
        lines.iter().map(|line| line.replace('\t', " ")).collect()
    };
    let (ours, theirs) = (under_headings(ours), under_headings(theirs));
    let only = |these: &[String], those: &[String], sign: char| -> String {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| format!("{sign} {line}\n"))
            .collect()
    };
    only(&ours, &theirs, '-') + &only(&theirs, &ours, '+')
}
