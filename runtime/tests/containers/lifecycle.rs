//! From create to delete.

use std::{fs, path::PathBuf, time::Duration};

use sluice_runtime::{RuntimeError, Status};

use crate::lab::{Lab, until};

#[tokio::test]
async fn a_container_is_created_started_waited_for_and_deleted() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "echo hello; exit 42"]);
    let pid = lab.create(&bundle).await;
    let state = lab.runtime.state("a").await.unwrap();
    assert_eq!((state.status, state.pid), (Status::Created, Some(pid)));
    assert_eq!(lab.runtime.list().unwrap(), ["a"]);
    lab.runtime.start("a").await.unwrap();
    let exit = lab.runtime.wait("a").await.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (42, false));
    let state = lab.runtime.state("a").await.unwrap();
    assert_eq!(
        (state.status, state.pid, state.exit),
        (Status::Stopped, None, Some(exit))
    );
    assert!(
        fs::read_to_string(bundle.log())
            .unwrap()
            .starts_with("{\"log\":\"hello\\n\",\"stream\":\"stdout\",\"time\":\"20")
    );
    let cgroup = lab.cgroup("pids", "a");
    assert!(cgroup.exists());
    lab.runtime.delete("a").await.unwrap();
    assert!(!cgroup.exists());
    assert!(lab.runtime.list().unwrap().is_empty());
    lab.runtime.delete("a").await.unwrap();
    assert_eq!(
        lab.runtime.state("a").await.unwrap_err(),
        RuntimeError::NoSuchContainer("a".to_owned())
    );
}

#[tokio::test]
async fn a_signal_ends_a_process_with_128_and_its_number() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle(
        "a",
        &["sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.1; done"],
    );
    lab.create(&bundle).await;
    let mut attachment = lab.runtime.attach("a").await.unwrap();
    lab.runtime.start("a").await.unwrap();
    attachment.output.recv().await.unwrap();
    lab.runtime.signal("a", libc::SIGUSR1).await.unwrap();
    assert_eq!(lab.runtime.wait("a").await.unwrap().code, 9, "a handler of its own");
    lab.runtime.signal("a", libc::SIGKILL).await.unwrap_err();

    let bundle = lab.bundle("b", &["sleep", "1000"]);
    lab.create(&bundle).await;
    lab.runtime.start("b").await.unwrap();
    lab.runtime.signal("b", libc::SIGKILL).await.unwrap();
    assert_eq!(lab.runtime.wait("b").await.unwrap().code, 137);
}

#[tokio::test]
async fn a_program_that_is_not_there_or_not_one_is_told_at_start_in_dockers_words() {
    let Some(lab) = Lab::new() else { return };
    let cases = [
        (
            "a",
            "nothing",
            RuntimeError::CommandNotFound("exec: \"nothing\": executable file not found in $PATH".into()),
            127,
        ),
        (
            "b",
            "/bin/nothing",
            RuntimeError::CommandNotFound(
                "exec: \"/bin/nothing\": stat /bin/nothing: no such file or directory".into(),
            ),
            127,
        ),
        (
            "c",
            "/etc/passwd",
            RuntimeError::CommandNotExecutable("exec: \"/etc/passwd\": permission denied".into()),
            126,
        ),
        (
            "d",
            "/etc",
            RuntimeError::CommandNotExecutable("exec: \"/etc\": is a directory".into()),
            126,
        ),
        (
            "e",
            "/bin/text",
            RuntimeError::CommandNotExecutable("exec /bin/text: exec format error".into()),
            126,
        ),
    ];
    for (id, program, expected, code) in cases {
        let bundle = lab.bundle(id, &[program]);
        fs::write(bundle.rootfs().join("bin/text"), "no program\n").unwrap();
        std::process::Command::new("chmod")
            .arg("755")
            .arg(bundle.rootfs().join("bin/text"))
            .status()
            .unwrap();
        lab.create(&bundle).await;
        assert_eq!(lab.runtime.start(id).await.unwrap_err(), expected);
        assert_eq!(lab.runtime.wait(id).await.unwrap().code, code);
    }
}

#[tokio::test]
async fn what_can_not_be_made_leaves_nothing_behind() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle("a", &["true"]);
    let mut mounts = bundle.spec.mounts().clone().unwrap();
    mounts[3].set_typ(Some("nofs".to_owned()));
    bundle.spec.set_mounts(Some(mounts));
    let error = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(error.contains("(nofs) at /sys"), "{error}");
    assert!(lab.runtime.list().unwrap().is_empty());
    assert!(!lab.cgroup("pids", "a").exists());
    let bundle = lab.bundle("a", &["true"]);
    lab.create(&bundle).await;
    let again = lab.runtime.create(&bundle.create()).await.unwrap_err().to_string();
    assert!(again.contains("made before"), "{again}");
    assert_eq!(lab.runtime.state("a").await.unwrap().status, Status::Created);
}

#[tokio::test]
async fn a_restarted_daemon_finds_its_containers_and_hears_of_their_ends() {
    let Some(mut lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "sleep 0.5; echo late; exit 3"]);
    let pid = lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    drop(lab.runtime.attach("a").await.unwrap());
    lab.reopen();
    let state = lab.runtime.state("a").await.unwrap();
    assert_eq!((state.status, state.pid), (Status::Running, Some(pid)));
    assert_eq!(lab.runtime.wait("a").await.unwrap().code, 3);
    lab.reopen();
    let shim_is_gone = || fs::read_to_string("/proc/self/mountinfo").is_ok() && shims(&lab).is_empty();
    until("the end of the shim", shim_is_gone).await;
    assert_eq!(lab.runtime.wait("a").await.unwrap().code, 3);
    assert!(fs::read_to_string(bundle.log()).unwrap().contains("late"));
    let mut attachment = lab.runtime.attach("a").await.unwrap();
    assert!(attachment.output.recv().await.is_none());
}

/// The pids of the lab's shims.
fn shims(lab: &Lab) -> Vec<i32> {
    let cgroup = crate::lab::unified().join(&lab.parent).join("shims/cgroup.procs");
    fs::read_to_string(cgroup)
        .unwrap_or_default()
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[tokio::test]
async fn a_shim_has_nothing_in_common_with_who_started_it() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sleep", "1000"]);
    lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    let [shim] = shims(&lab)[..] else { panic!("one shim") };
    let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let own = std::process::id().to_string();
    assert_ne!(fields[1], own, "its parent");
    // SAFETY: takes no pointers.
    let (group, session) = unsafe { (libc::getpgid(0), libc::getsid(0)) };
    assert_ne!(fields[2], group.to_string(), "its process group");
    assert_ne!(fields[3], session.to_string(), "its session");
    let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{shim}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    assert!(open.len() <= 10, "{open:?}");
    // SAFETY: takes no pointers; the shim is ours.
    unsafe { libc::kill(shim, libc::SIGKILL) };
    let exit = lab.runtime.wait("a").await.unwrap();
    assert_eq!(exit.code, 137, "a container without a shim is ended");
    until("the end of the container", || {
        lab.cgroup("pids", "a").join("cgroup.procs").exists() && {
            fs::read_to_string(lab.cgroup("pids", "a").join("cgroup.procs"))
                .unwrap()
                .is_empty()
        }
    })
    .await;
    assert_eq!(lab.runtime.state("a").await.unwrap().status, Status::Stopped);
}

fn stop(pid: i32) {
    // SAFETY: takes no pointers; the process is a shim of ours.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
}

#[tokio::test]
async fn a_shim_that_is_stuck_holds_nobody_up_and_goes_with_its_container() {
    let Some(lab) = Lab::new() else { return };
    for id in ["killed", "deleted"] {
        let bundle = lab.bundle(id, &["sleep", "1000"]);
        let pid = lab.create(&bundle).await;
        lab.runtime.start(id).await.unwrap();
        let [shim] = shims(&lab)[..] else { panic!("one shim") };
        stop(shim);
        let stuck = RuntimeError::Unanswered(id.to_owned());
        if id == "killed" {
            assert_eq!(lab.runtime.state(id).await.unwrap_err(), stuck);
            assert_eq!(lab.runtime.recorded_pid(id).unwrap(), Some(pid));
            assert_eq!(lab.runtime.signal(id, libc::SIGTERM).await.unwrap_err(), stuck);
            lab.runtime.signal(id, libc::SIGKILL).await.unwrap();
            assert_eq!(lab.runtime.wait(id).await.unwrap().code, 137);
        }
        lab.runtime.delete(id).await.unwrap();
        assert!(!lab.cgroup("pids", id).exists());
        until("the end of the shim", || shims(&lab).is_empty()).await;
    }
    assert!(lab.runtime.list().unwrap().is_empty());
}

#[tokio::test]
async fn a_paused_container_stands_still_until_it_is_resumed() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "while :; do echo tick; sleep 0.02; done"]);
    lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    until("a tick", || {
        fs::read_to_string(bundle.log()).is_ok_and(|log| log.contains("tick"))
    })
    .await;
    lab.runtime.pause("a").await.unwrap();
    assert_eq!(lab.runtime.state("a").await.unwrap().status, Status::Paused);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = fs::metadata(bundle.log()).unwrap().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(fs::metadata(bundle.log()).unwrap().len(), before);
    lab.runtime.resume("a").await.unwrap();
    assert_eq!(lab.runtime.state("a").await.unwrap().status, Status::Running);
    until("more ticks", || fs::metadata(bundle.log()).unwrap().len() > before).await;
    lab.runtime.pause("a").await.unwrap();
    lab.runtime.delete("a").await.unwrap();
}

#[tokio::test]
async fn orphans_are_reaped_and_the_end_of_the_first_process_ends_all() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "sleep 1000 & (sleep 0.01 &) ; sleep 0.2; exit 5"]);
    lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    assert_eq!(lab.runtime.wait("a").await.unwrap().code, 5);
    until("an empty container", || {
        fs::read_to_string(lab.cgroup("pids", "a").join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())
    })
    .await;
    assert!(lab.runtime.pids("a").await.unwrap().is_empty());
}

#[tokio::test]
async fn many_containers_start_at_once() {
    let Some(lab) = Lab::new() else { return };
    let bundles: Vec<_> = (0..20)
        .map(|n| lab.bundle(&format!("c{n}"), &["sh", "-c", "echo $$; exit 7"]))
        .collect();
    let runs = bundles.iter().map(|bundle| async {
        lab.create(bundle).await;
        lab.runtime.start(&bundle.id).await.unwrap();
        lab.runtime.wait(&bundle.id).await.unwrap().code
    });
    let mut codes = Vec::new();
    let mut runs: Vec<_> = runs.map(Box::pin).collect();
    // Polled together, without a crate for it.
    std::future::poll_fn(|context| {
        runs.retain_mut(|run| match run.as_mut().poll(context) {
            std::task::Poll::Ready(code) => {
                codes.push(code);
                false
            }
            std::task::Poll::Pending => true,
        });
        if runs.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    assert_eq!(codes, [7; 20]);
}

fn with_init(bundle: &mut crate::lab::Bundle) {
    bundle.spec.set_annotations(Some(
        [(sluice_runtime::spec::INIT.to_owned(), "true".to_owned())].into(),
    ));
}

/// The shim that cargo makes for tests is linked to libraries a container does not have; the delivered one is not.
fn shim_is_static() -> bool {
    let program = fs::read(crate::lab::shim()).unwrap();
    let is_dynamic = program.windows(19).any(|bytes| bytes == b"ld-linux-x86-64.so.");
    if is_dynamic {
        eprintln!("passed over: the shim under test is not static, see SLUICE_SHIM");
    }
    !is_dynamic
}

#[tokio::test]
async fn an_init_is_the_first_process_when_asked_for() {
    let Some(lab) = Lab::new().filter(|_| shim_is_static()) else {
        return;
    };
    let mut bundle = lab.bundle(
        "a",
        &["sh", "-c", "ps -o pid,args; (true &); sleep 0.2; ps -o stat; exit 9"],
    );
    with_init(&mut bundle);
    let (stdout, stderr, exit) = lab.run(&bundle).await;
    assert!(stdout.contains("1 /sbin/docker-init -- sh -c"), "{stdout}{stderr}");
    assert!(!stdout.contains('Z'), "{stdout}");
    assert_eq!(exit.code, 9);
    let mut bundle = lab.bundle("b", &["sleep", "1000"]);
    with_init(&mut bundle);
    lab.create(&bundle).await;
    lab.runtime.start("b").await.unwrap();
    let waiting = lab.runtime.wait("b");
    // The init may not have its child yet: what comes before is passed on when it is there.
    let (exit, ()) = tokio::join!(waiting, async {
        lab.runtime.signal("b", libc::SIGTERM).await.unwrap();
    });
    assert_eq!(exit.unwrap().code, 128 + libc::SIGTERM);
    let mut bundle = lab.bundle("c", &["no-such-program"]);
    with_init(&mut bundle);
    lab.create(&bundle).await;
    let error = lab.runtime.start("c").await.unwrap_err();
    assert!(
        matches!(error, sluice_runtime::RuntimeError::CommandNotFound(_)),
        "{error}"
    );
}
