//! Containers in a user namespace: root there, and nobody on the host.

use std::{fs, os::unix::fs::MetadataExt};

use oci_spec::runtime::{
    Capability, LinuxDeviceBuilder, LinuxDeviceType, MountBuilder, PosixRlimitBuilder, PosixRlimitType,
};
use sluice_runtime::{Exec, IdMap, IdRange, make_user_namespace};
use tokio::io::AsyncWriteExt;

use crate::lab::{Bundle, Lab, default_spec, said};

const HOST: u32 = 100_000;

fn remapped(lab: &Lab, id: &str, script: &str) -> Bundle {
    let mut bundle = lab.bundle(id, &["sh", "-c", script]);
    bundle.remap(HOST, 65_536);
    bundle
}

fn give(bundle: &mut Bundle, capability: Capability) {
    let mut sets = bundle.process().capabilities().clone().unwrap();
    let mut all = sets.bounding().clone().unwrap();
    all.insert(capability);
    sets.set_bounding(Some(all.clone()))
        .set_effective(Some(all.clone()))
        .set_permitted(Some(all));
    bundle.process().set_capabilities(Some(sets));
}

#[tokio::test]
async fn root_within_is_nobody_without_and_owns_what_it_was_given() {
    let Some(lab) = Lab::new() else { return };
    let script = "tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map; id -u; touch /tmp/f
        stat -c '%n %u:%g' /dev /dev/null /dev/pts /dev/shm /proc/1 /etc/bound
        echo x >/dev/null && head -c1 /dev/zero | wc -c
        mount -t tmpfs x /root && echo mounted; mknod /dev/sda b 8 0 2>/dev/null || echo no devices
        echo 1 >/proc/sys/kernel/domainname 2>/dev/null || echo read-only
        (echo >/dev/stdout) && ulimit -H -n; cat /etc/bound 2>/dev/null || echo not mine";
    let mut bundle = remapped(&lab, "a", script);
    let secret = bundle.directory.join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // nobody but root passes by here: what is bound was opened before root was none
    fs::set_permissions(&bundle.directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let bind = MountBuilder::default()
        .destination("/etc/bound")
        .typ("bind")
        .source(&secret);
    let bind = bind.options(vec!["rbind".to_owned(), "ro".to_owned()]).build().unwrap();
    bundle.spec.mounts_mut().as_mut().unwrap().push(bind);
    let most = 456_u64;
    let limit = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(100u64)
        .hard(most)
        .build();
    bundle.process().set_rlimits(Some(vec![limit.unwrap()]));
    give(&mut bundle, Capability::SysAdmin);
    bundle.linux().set_seccomp(None);
    let (stdout, stderr, exit) = lab.run(&bundle).await;
    assert_eq!(exit.code, 0, "{stdout}{stderr}");
    let map = " 0 100000 65536\n";
    let owned = |path: &str| format!("{path} 0:0\n");
    let expected = format!(
        "{map}{map}0\n{}{}{}{}{}/etc/bound 65534:65534\n1\nmounted\nno devices\nread-only\n\n{most}\nnot mine\n",
        owned("/dev"),
        owned("/dev/null"),
        owned("/dev/pts"),
        owned("/dev/shm"),
        owned("/proc/1"),
    );
    assert_eq!(stdout, expected, "{stderr}");
    let made = fs::metadata(bundle.rootfs().join("tmp/f")).unwrap();
    assert_eq!((made.uid(), made.gid()), (HOST, HOST));
}

#[tokio::test]
async fn further_processes_join_it_with_users_devices_and_terminals() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = remapped(&lab, "a", "sleep 1000");
    let fuse = LinuxDeviceBuilder::default()
        .path("/dev/other")
        .typ(LinuxDeviceType::C)
        .major(1)
        .minor(5);
    let fuse = fuse.file_mode(0o640u32).uid(33u32).gid(33u32).build().unwrap();
    bundle.linux().set_devices(Some(vec![fuse]));
    let pid = lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), HOST);
    let script = "read go; id -u; cat /proc/self/uid_map | tr -s ' '; head -c1 /dev/other | wc -c; stat -c %u:%g:%a /dev/other; echo >/dev/stdout";
    let mut process = default_spec(&["sh", "-c", script]).process().clone().unwrap();
    process.user_mut().set_uid(33).set_gid(33);
    let mut wanted = Exec {
        id: "a".to_owned(),
        exec_id: "e".to_owned(),
        process,
        stdin: true,
    };
    let (pid, mut attachment) = lab.runtime.exec(&wanted).await.unwrap();
    assert!(lab.runtime.pids("a").await.unwrap().contains(&pid));
    let stdin = attachment.stdin.as_mut().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    stdin.flush().await.unwrap();
    assert_eq!(
        said(attachment).await,
        ("33\n 0 100000 65536\n1\n33:33:640\n\n".to_owned(), String::new())
    );

    wanted.stdin = false;
    wanted.process = default_spec(&["sh", "-c", "tty; stat -c %u $(tty)"])
        .process()
        .clone()
        .unwrap();
    wanted.process.user_mut().set_uid(33).set_gid(33);
    wanted.process.set_terminal(Some(true));
    wanted.exec_id = "t".to_owned();
    let (_, attachment) = lab.runtime.exec(&wanted).await.unwrap();
    let (said, _) = said(attachment).await;
    assert!(said.ends_with("/dev/pts/0\r\n33\r\n"), "{said}");
    assert_eq!(lab.runtime.wait_exec("a", "t").await.unwrap(), 0);

    wanted.process.user_mut().set_uid(70_000);
    wanted.process.set_terminal(Some(false));
    wanted.exec_id = "n".to_owned();
    let error = lab.runtime.exec(&wanted).await.err().unwrap().to_string();
    assert!(error.contains("70000 is not among those"), "{error}");
}

#[tokio::test]
async fn a_namespace_made_before_is_joined_and_its_network_is_the_containers_to_configure() {
    let Some(lab) = Lab::new() else { return };
    let ranges = vec![IdRange {
        container: 0,
        host: HOST,
        count: 65_536,
    }];
    let ids = IdMap {
        users: ranges.clone(),
        groups: ranges,
    };
    let made = make_user_namespace(&ids).unwrap();
    let path = |fd: &std::os::fd::OwnedFd| {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(fd)
        )
    };
    let mut bundle = remapped(
        &lab,
        "a",
        "echo 7 >/proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net",
    );
    bundle.linux().set_readonly_paths(None);
    give(&mut bundle, Capability::NetAdmin);
    for namespace in bundle.linux().namespaces_mut().as_mut().unwrap() {
        match namespace.typ() {
            oci_spec::runtime::LinuxNamespaceType::User => _ = namespace.set_path(Some(path(&made.user).into())),
            oci_spec::runtime::LinuxNamespaceType::Network => _ = namespace.set_path(Some(path(&made.network).into())),
            _ => {}
        }
    }
    let (stdout, stderr, exit) = lab.run(&bundle).await;
    assert_eq!((exit.code, stdout.as_str()), (0, "7\nlo\n"), "{stderr}");
}

#[tokio::test]
async fn a_mapping_without_a_root_is_refused() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle("a", &["true"]);
    bundle.remap(HOST, 10);
    bundle.linux().set_gid_mappings(None);
    let error = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(error.contains("needs uidMappings and gidMappings"), "{error}");
}
