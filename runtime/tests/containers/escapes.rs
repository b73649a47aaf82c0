//! The ways out of a container that other runtimes had, one after another.

use std::{
    fs,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, symlink},
    },
    path::Path,
};

use oci_spec::runtime::Mount;
use sluice_runtime::Exec;

use crate::lab::{Bundle, Lab, said};

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_source(Some(source.into()))
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

fn with_mount(bundle: &mut Bundle, mount: Mount) {
    let mut mounts = bundle.spec.mounts().clone().unwrap();
    mounts.push(mount);
    bundle.spec.set_mounts(Some(mounts));
}

fn process(bundle: &Bundle, args: &[&str], cwd: &str) -> Exec {
    let mut process = bundle.spec.process().clone().unwrap();
    process
        .set_args(Some(args.iter().map(|arg| (*arg).to_owned()).collect()))
        .set_cwd(cwd.into());
    Exec {
        id: bundle.id.clone(),
        exec_id: format!("exec-{}", args.len()),
        process,
        stdin: false,
    }
}

/// CVE-2024-21626: a descriptor of the host's that the container inherits, or is in while it is made, as its working directory.
#[tokio::test]
async fn no_descriptor_of_the_hosts_is_a_working_directory() {
    let Some(lab) = Lab::new() else { return };
    // One the daemon forgot to mark: close-on-exec is off.
    let leaked = fs::File::open("/").unwrap();
    // SAFETY: takes no pointers.
    assert_eq!(unsafe { libc::fcntl(leaked.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    for number in 3..20 {
        for (id, cwd) in [
            ("f", format!("/proc/self/fd/{number}")),
            ("g", format!("/proc/self/fd/{number}/..")),
        ] {
            let mut bundle = lab.bundle(&format!("{id}{number}"), &["ls", "/proc/self/cwd/proc/1/root"]);
            bundle.process().set_cwd(cwd.into());
            if lab.runtime.create(&bundle.create()).await.is_ok() {
                let attachment = lab.runtime.attach(&bundle.id).await.unwrap();
                if lab.runtime.start(&bundle.id).await.is_ok() {
                    let own = fs::metadata("/").unwrap().ino();
                    let (stdout, _) = said(attachment).await;
                    assert!(
                        !stdout.contains("var"),
                        "descriptor {number} leads to the host ({own}): {stdout}"
                    );
                }
                lab.runtime.delete(&bundle.id).await.unwrap();
            }
        }
    }
    // The same for who is executed later, and nothing but 0, 1, 2 is open.
    let bundle = lab.bundle("a", &["sleep", "1000"]);
    lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    for number in 3..12 {
        let wanted = process(&bundle, &["pwd"], &format!("/proc/self/fd/{number}"));
        if let Ok((_, attachment)) = lab.runtime.exec(&wanted).await {
            let (stdout, _) = said(attachment).await;
            assert!(
                !stdout.starts_with('/') || stdout.starts_with("/proc"),
                "{number}: {stdout}"
            );
        }
    }
    let wanted = process(&bundle, &["sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"], "/");
    let (_, attachment) = lab.runtime.exec(&wanted).await.unwrap();
    // 3 is the directory that ls reads.
    assert_eq!(said(attachment).await.0, "0 1 2 3 ");
    drop(leaked);
}

/// CVE-2019-5736: what enters a container is executed again from there, and its file is overwritten.
#[tokio::test]
async fn who_enters_a_container_can_not_be_overwritten_there() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sleep", "1000"]);
    lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    // The container's root lies in wait for whoever comes, to write to the file it came from.
    let trap = "for n in $(seq 1 400); do for p in /proc/[0-9]*; do
        (echo x >> $p/exe) 2>/dev/null && readlink $p/exe; done; done | grep -v busybox | head -n 1";
    let mut waiting = process(&bundle, &["sh", "-c", trap], "/");
    waiting.exec_id = "trap".to_owned();
    let (_, trapped) = lab.runtime.exec(&waiting).await.unwrap();
    let before = fs::read(crate::lab::shim()).unwrap();
    for number in 0..20 {
        let mut wanted = process(&bundle, &["/proc/self/exe"], "/");
        wanted.exec_id = format!("e{number}");
        if let Ok((_, attachment)) = lab.runtime.exec(&wanted).await {
            said(attachment).await;
        }
    }
    assert_eq!(said(trapped).await.0, "");
    assert!(fs::read(crate::lab::shim()).unwrap() == before);
}

/// CVE-2021-30465: a mount's target is exchanged for a symbolic link while the mount is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_exchanged_while_it_is_mounted_on_leads_nowhere_else() {
    let Some(lab) = Lab::new() else { return };
    let outside = lab.directory.join("outside");
    fs::create_dir_all(&outside).unwrap();
    let volume = lab.directory.join("volume");
    fs::create_dir_all(volume.join("real")).unwrap();
    // What is mounted first is shared with an attacker, who turns a directory in it into a link and back.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let attacker = std::thread::spawn({
        let (volume, outside, stop) = (volume.clone(), outside.clone(), stop.clone());
        move || {
            symlink("/", volume.join("link")).unwrap();
            let _ = outside;
            let (a, b) = (c_path(&volume.join("real")), c_path(&volume.join("link")));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // SAFETY: both paths are NUL-terminated and outlive the call.
                unsafe {
                    libc::renameat2(
                        libc::AT_FDCWD,
                        a.as_ptr(),
                        libc::AT_FDCWD,
                        b.as_ptr(),
                        libc::RENAME_EXCHANGE,
                    )
                };
            }
        }
    });
    for number in 0..40 {
        let mut bundle = lab.bundle(&format!("c{number}"), &["true"]);
        with_mount(
            &mut bundle,
            mount("bind", &volume.display().to_string(), "/volume", &["rbind", "rprivate"]),
        );
        with_mount(&mut bundle, mount("tmpfs", "tmpfs", "/volume/real/deep", &["size=1m"]));
        // It may fail; it may not reach the host.
        if lab.runtime.create(&bundle.create()).await.is_ok() {
            lab.runtime.delete(&bundle.id).await.unwrap();
        }
        assert!(!Path::new("/deep").exists(), "made in the host's root");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    attacker.join().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/deep "), "{mounts}");
}

fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.to_str().unwrap()).unwrap()
}

/// CVE-2025-31133: masks are made of what stands at the container's /dev/null.
#[tokio::test]
async fn a_dev_null_that_is_none_masks_nothing_and_is_refused() {
    let Some(lab) = Lab::new() else { return };
    // /dev comes from a volume, in which null leads to a file that would be opened up for writing.
    let dev = lab.directory.join("dev");
    for directory in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(directory)).unwrap();
    }
    symlink("/proc/sys/kernel/core_pattern", dev.join("null")).unwrap();
    let with_dev = |id: &str| {
        let mut bundle = lab.bundle(id, &["true"]);
        let mut mounts = bundle.spec.mounts().clone().unwrap();
        mounts.retain(|mount| !mount.destination().starts_with("/dev"));
        mounts.push(mount(
            "bind",
            &dev.display().to_string(),
            "/dev",
            &["rbind", "rprivate"],
        ));
        bundle.spec.set_mounts(Some(mounts));
        bundle
    };
    let refused = lab
        .runtime
        .create(&with_dev("a").create())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("/dev/null"), "{refused}");
    fs::remove_file(dev.join("null")).unwrap();
    fs::write(dev.join("null"), "").unwrap();
    let refused = lab
        .runtime
        .create(&with_dev("b").create())
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("not the null device"), "{refused}");
}

/// CVE-2025-52565: the console is mounted over what an image put at /dev/pts or /dev/console.
#[tokio::test]
async fn a_console_is_put_only_on_a_terminal_of_the_containers_own() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle("a", &["sh", "-c", "readlink /dev/console; stat -c %t /dev/console"]);
    bundle.process().set_terminal(Some(true));
    let mut mounts = bundle.spec.mounts().clone().unwrap();
    // No devpts: what is at /dev/pts then is a directory of the image's making.
    mounts.retain(|mount| mount.destination() != Path::new("/dev/pts"));
    bundle.spec.set_mounts(Some(mounts));
    let refused = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(refused.contains("/dev/pts"), "{refused}");
    // A link at /dev/console of a /dev that a volume brings is followed inside the root only.
    let dev = lab.directory.join("dev");
    for directory in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(dev.join(directory)).unwrap();
    }
    symlink("../../../../../../etc/hostname-of-the-container", dev.join("console")).unwrap();
    let mut bundle = lab.bundle("b", &["sh", "-c", "echo started"]);
    bundle.process().set_terminal(Some(true));
    bundle.linux().set_masked_paths(Some(vec![]));
    let mut mounts = bundle.spec.mounts().clone().unwrap();
    mounts.insert(
        1,
        mount("bind", &dev.display().to_string(), "/dev", &["rbind", "rprivate"]),
    );
    mounts.retain(|mount| mount.destination() != Path::new("/dev") || mount.typ().as_deref() == Some("bind"));
    bundle.spec.set_mounts(Some(mounts));
    // A mount that gets through the link would be on the host's /etc.
    let _ = lab.runtime.create(&bundle.create()).await;
    assert!(!Path::new("/etc/hostname-of-the-container").exists());
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2025-52881: /proc is a mount of the image's or a link, so that what is written to it goes elsewhere.
#[tokio::test]
async fn proc_is_ours_or_there_is_no_container() {
    let Some(lab) = Lab::new() else { return };
    for (id, target) in [("a", "/tmp"), ("b", "/sys"), ("c", "self")] {
        let bundle = lab.bundle(id, &["true"]);
        fs::remove_dir(bundle.rootfs().join("proc")).unwrap();
        symlink(target, bundle.rootfs().join("proc")).unwrap();
        let refused = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
        assert!(
            refused.contains("ordinary directory") || refused.contains("/proc"),
            "{refused}"
        );
    }
    // A volume over a part of /proc can't catch a setting that is written while the container is made.
    let fake = lab.directory.join("fake");
    fs::create_dir_all(fake.join("net/ipv4")).unwrap();
    fs::write(fake.join("net/ipv4/ip_forward"), "untouched").unwrap();
    let mut bundle = lab.bundle("over", &["true"]);
    with_mount(
        &mut bundle,
        mount("bind", &fake.display().to_string(), "/proc/sys", &["rbind", "rprivate"]),
    );
    bundle
        .linux()
        .set_readonly_paths(Some(vec![]))
        .set_sysctl(Some([("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into()));
    if lab.runtime.create(&bundle.create()).await.is_ok() {
        lab.runtime.delete("over").await.unwrap();
    }
    assert_eq!(
        fs::read_to_string(fake.join("net/ipv4/ip_forward")).unwrap(),
        "untouched"
    );
}

/// CVE-2023-27561, CVE-2023-28642: /proc or /sys reached through links between volumes.
#[tokio::test]
async fn links_in_the_root_do_not_lead_mounts_out() {
    let Some(lab) = Lab::new() else { return };
    let target = lab.directory.join("host-target");
    fs::create_dir_all(&target).unwrap();
    let source = lab.directory.join("host-source");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("file"), "x").unwrap();
    let mut bundle = lab.bundle(
        "a",
        &["sh", "-c", "cat /escape/file; ls -d /var/tmp/*/host-target 2>/dev/null"],
    );
    // Absolute and relative, both of which the host would follow to its own.
    symlink(&target, bundle.rootfs().join("escape")).unwrap();
    with_mount(
        &mut bundle,
        mount("bind", &source.display().to_string(), "/escape", &["rbind", "rprivate"]),
    );
    let (stdout, _, _) = lab.run(&bundle).await;
    assert!(stdout.starts_with('x'), "{stdout}");
    assert_eq!(
        fs::read_dir(&target).unwrap().count(),
        0,
        "the host's directory is untouched"
    );
}

/// CVE-2022-29162: capabilities that are inheritable would outlive a change of user.
#[tokio::test]
async fn no_capability_is_inheritable() {
    let Some(lab) = Lab::new() else { return };
    let said = lab.sh("a", "grep -E 'CapInh|CapAmb' /proc/self/status").await;
    assert!(said.lines().all(|line| line.ends_with("0000000000000000")), "{said}");
}
