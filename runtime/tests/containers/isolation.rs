//! What a container sees and what it must not reach.

use std::{fs, os::unix::fs::symlink, path::Path};

use oci_spec::runtime::{Mount, PosixRlimitBuilder, PosixRlimitType};

use crate::lab::Lab;

fn bind(source: &Path, destination: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_source(Some(source.to_owned()))
        .set_destination(destination.into())
        .set_typ(Some("bind".to_owned()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

#[tokio::test]
async fn capabilities_are_dockers_default_set_and_a_filter_is_loaded() {
    let Some(lab) = Lab::new() else { return };
    let (status, _, _) = lab.run(&lab.bundle("a", &["cat", "/proc/self/status"])).await;
    let line = |name: &str| {
        status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        assert_eq!(line(set), "00000000a80425fb", "{set}");
    }
    assert_eq!(
        (line("CapInh:").as_str(), line("CapAmb:").as_str()),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!((line("Seccomp:").as_str(), line("NoNewPrivs:").as_str()), ("2", "0"));
    assert_eq!(
        (line("SigBlk:").as_str(), line("SigIgn:").as_str()),
        ("0000000000000000", "0000000000000000")
    );
}

#[tokio::test]
async fn another_user_has_no_capabilities_but_its_groups() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle(
        "a",
        &[
            "sh",
            "-c",
            "id; grep -E 'Cap(Eff|Prm)' /proc/self/status; echo x > /dev/stdout",
        ],
    );
    bundle
        .process()
        .user_mut()
        .set_uid(33)
        .set_gid(34)
        .set_additional_gids(Some(vec![5, 6]));
    let (stdout, stderr, _) = lab.run(&bundle).await;
    assert_eq!(
        stdout, "uid=33(web) gid=34 groups=5,6\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nx\n",
        "{stderr}"
    );
}

#[tokio::test]
async fn masked_paths_hold_nothing_and_read_only_ones_can_not_be_written() {
    let Some(lab) = Lab::new() else { return };
    let said = lab
        .sh(
            "a",
            "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls /proc/scsi /sys/firmware 2>/dev/null | grep -v : | tr -d '\\n'
             for path in /proc/sys/kernel/domainname /proc/sysrq-trigger /proc/irq/x /proc/bus/x /sys/x /proc/kcore/x /proc/acpi/x; do
               (echo x > $path) 2>/dev/null && echo wrote $path
             done; true",
        )
        .await;
    assert_eq!(said, "0\n");
}

#[tokio::test]
async fn no_descriptor_of_the_host_reaches_the_container() {
    let Some(lab) = Lab::new() else { return };
    // One that is not close-on-exec, as a careless library would leave it.
    // SAFETY: the path is static and NUL-terminated.
    let leaked = unsafe { libc::open(c"/".as_ptr(), libc::O_RDONLY) };
    let said = lab
        .sh(
            "a",
            "cd /proc/self/fd; for fd in *; do readlink $fd; done | grep -v -e pipe: -e /dev/null -e /proc/; true",
        )
        .await;
    // SAFETY: takes no pointers.
    unsafe { libc::close(leaked) };
    assert_eq!(said, "");
}

#[tokio::test]
async fn links_in_the_root_do_not_lead_mounts_out_of_it() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle(
        "a",
        &[
            "sh",
            "-c",
            "cat /x/etc/data/file /up/data/file; ls -d /etc/data /var/data",
        ],
    );
    let outside = lab.directory.join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("file"), "data\n").unwrap();
    symlink("/", bundle.rootfs().join("x")).unwrap();
    symlink("../../../../../../var", bundle.rootfs().join("up")).unwrap();
    let mut mounts = bundle.spec.mounts().clone().unwrap();
    mounts.push(bind(&outside, "/x/etc/data", &["rbind", "rprivate"]));
    mounts.push(bind(&outside, "/up/data", &["rbind", "rprivate"]));
    bundle.spec.set_mounts(Some(mounts));
    let (stdout, stderr, exit) = lab.run(&bundle).await;
    assert_eq!(
        (stdout.as_str(), exit.code),
        ("data\ndata\n/etc/data\n/var/data\n", 0),
        "{stderr}"
    );
    assert!(!Path::new("/etc/data").exists() && !Path::new("/var/data").exists());
    assert!(
        bundle.rootfs().join("etc/data").is_dir(),
        "made in the container's own root"
    );

    let mut bundle = lab.bundle("b", &["true"]);
    fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
    symlink("/tmp", bundle.rootfs().join("proc")).unwrap();
    let error = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(error.contains("ordinary directory"), "{error}");

    let mut bundle_with_null = lab.bundle("c", &["true"]);
    let mut mounts = bundle_with_null.spec.mounts().clone().unwrap();
    mounts.push(bind(&outside, "/dev", &["rbind", "rprivate"]));
    bundle_with_null.spec.set_mounts(Some(mounts));
    fs::write(outside.join("null"), "not the null device").unwrap();
    let error = lab
        .runtime
        .create(&bundle_with_null.create())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("not the null device"), "{error}");
    bundle.process();
}

#[tokio::test]
async fn binds_are_read_only_or_files_or_slaves_as_asked() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle(
        "a",
        &["sh", "-c", "cat /etc/hosts; (echo x > /etc/hosts) 2>/dev/null || echo refused; echo y > /data/new; grep ' /data ' /proc/self/mountinfo | grep -c -e master: -e shared: ; true"],
    );
    let hosts = lab.directory.join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let data = lab.directory.join("data");
    fs::create_dir_all(&data).unwrap();
    let mut mounts = bundle.spec.mounts().clone().unwrap();
    mounts.push(bind(&hosts, "/etc/hosts", &["bind", "ro", "rprivate"]));
    mounts.push(bind(&data, "/data", &["rbind", "rprivate"]));
    bundle.spec.set_mounts(Some(mounts));
    let (stdout, stderr, _) = lab.run(&bundle).await;
    assert_eq!(stdout, "127.0.0.1 localhost\nrefused\n0\n", "{stderr}");
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "y\n");
}

#[tokio::test]
async fn the_root_can_be_read_only_with_writable_places_in_it() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle(
        "a",
        &[
            "sh",
            "-c",
            "(echo x > /etc/x) 2>/dev/null || echo refused; echo x > /tmp/x && echo wrote; pwd",
        ],
    );
    bundle.spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
    bundle.process().set_cwd("/srv/app".into());
    let mut tmpfs = Mount::default();
    tmpfs
        .set_destination("/tmp".into())
        .set_typ(Some("tmpfs".to_owned()))
        .set_source(Some("tmpfs".into()))
        .set_options(Some(vec![
            "nosuid".to_owned(),
            "size=1m".to_owned(),
            "mode=1777".to_owned(),
        ]));
    let mut mounts = bundle.spec.mounts().clone().unwrap();
    mounts.push(tmpfs);
    bundle.spec.set_mounts(Some(mounts));
    assert_eq!(lab.run(&bundle).await.0, "refused\nwrote\n/srv/app\n");
}

#[tokio::test]
async fn host_name_limits_and_kernel_settings_are_the_containers_own() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle(
        "a",
        &["sh", "-c", "hostname; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/self/oom_score_adj; grep lo: /proc/net/dev | wc -l"],
    );
    let limit = PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(100u64)
        .hard(200u64);
    let limit = limit.build().unwrap();
    bundle
        .process()
        .set_rlimits(Some(vec![limit]))
        .set_oom_score_adj(Some(77));
    bundle.linux().set_sysctl(Some(
        [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into(),
    ));
    assert_eq!(lab.run(&bundle).await.0, "box\n100\n0\n77\n1\n");
    let mut bundle = lab.bundle("b", &["true"]);
    bundle
        .linux()
        .set_sysctl(Some([("vm.swappiness".to_owned(), "0".to_owned())].into()));
    let error = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(error.contains("would change the host"), "{error}");
}

#[tokio::test]
async fn a_network_namespace_is_joined_by_its_path() {
    let Some(lab) = Lab::new() else { return };
    let name = lab.parent.clone();
    let ip = |args: &[&str]| assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
    ip(&["netns", "add", &name]);
    let path = Path::new("/run/netns").join(&name);
    let mut bundle = lab.bundle("a", &["readlink", "/proc/self/ns/net"]);
    for namespace in bundle.linux().namespaces_mut().as_mut().unwrap() {
        if namespace.typ() == oci_spec::runtime::LinuxNamespaceType::Network {
            namespace.set_path(Some(path.clone()));
        }
    }
    let (stdout, _, _) = lab.run(&bundle).await;
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    ip(&["netns", "del", &name]);
    assert_eq!(stdout, format!("net:[{inode}]\n"));

    let mut bundle = lab.bundle("b", &["readlink", "/proc/self/ns/net"]);
    let namespaces = bundle.linux().namespaces_mut().as_mut().unwrap();
    namespaces.retain(|namespace| namespace.typ() != oci_spec::runtime::LinuxNamespaceType::Network);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(
        lab.run(&bundle).await.0.trim_end(),
        own.to_str().unwrap(),
        "the host's, when none is named"
    );
}

#[tokio::test]
async fn no_program_of_ours_can_be_written_by_a_container() {
    let Some(lab) = Lab::new() else { return };
    // The container executes itself as whoever enters it: the way of CVE-2019-5736.
    let bundle = lab.bundle("a", &["/proc/self/exe"]);
    let pid = lab.create(&bundle).await;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(exe.to_str().unwrap(), "/memfd:sluice-shim (deleted)");
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe"));
    assert!(opened.is_err(), "not even by the host's root");
}
