//! Further processes in a container.

use std::{fs, path::PathBuf};

use sluice_runtime::{Exec, RuntimeError};
use tokio::io::AsyncWriteExt;

use crate::lab::{Lab, default_spec, said};

fn exec(id: &str, args: &[&str]) -> Exec {
    let process = default_spec(args).process().clone().unwrap();
    Exec {
        id: id.to_owned(),
        exec_id: format!("exec-{}", args.join("-").len()),
        process,
        stdin: false,
    }
}

async fn sleeping(lab: &Lab) -> u32 {
    let mut bundle = lab.bundle("a", &["sleep", "1000"]);
    bundle.process().set_no_new_privileges(Some(true));
    let pid = lab.create(&bundle).await;
    lab.runtime.start("a").await.unwrap();
    pid
}

#[tokio::test]
async fn a_process_has_streams_and_an_exit_code_of_its_own() {
    let Some(lab) = Lab::new() else { return };
    sleeping(&lab).await;
    let mut wanted = exec("a", &["sh", "-c", "cat; echo err >&2; exit 5"]);
    wanted.stdin = true;
    let (pid, mut attachment) = lab.runtime.exec(&wanted).await.unwrap();
    assert!(lab.runtime.pids("a").await.unwrap().contains(&pid));
    let mut stdin = attachment.stdin.take().unwrap();
    stdin.write_all(b"in").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(said(attachment).await, ("in".to_owned(), "err\n".to_owned()));
    assert_eq!(lab.runtime.wait_exec("a", &wanted.exec_id).await.unwrap(), 5);
    assert_eq!(
        lab.runtime.wait_exec("a", &wanted.exec_id).await.unwrap(),
        5,
        "asked twice"
    );
    lab.runtime.wait_exec("a", "never").await.unwrap_err();
}

/// Its maker may hold the line to the shim for longer than the process lives: what the process said in that time belongs after the answer.
#[tokio::test]
async fn what_a_short_lived_process_says_is_never_lost() {
    let Some(lab) = Lab::new() else { return };
    sleeping(&lab).await;
    for round in 0..20 {
        let asked = (0..16).map(|number| {
            let mut wanted = exec("a", &["echo", "said"]);
            wanted.exec_id = format!("{round}-{number}");
            let runtime = &lab.runtime;
            async move {
                let (_, attachment) = runtime.exec(&wanted).await.unwrap();
                said(attachment).await
            }
        });
        for said in futures_util::future::join_all(asked).await {
            assert_eq!(said, ("said\n".to_owned(), String::new()));
        }
    }
}

#[tokio::test]
async fn a_process_is_as_confined_as_the_container() {
    let Some(lab) = Lab::new() else { return };
    let first = sleeping(&lab).await;
    let (pid, attachment) = lab
        .runtime
        .exec(&exec("a", &["sh", "-c", "cat /proc/self/status; read x < /dev/zero"]))
        .await
        .unwrap();
    let status = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        [
            "Seccomp:",
            "Seccomp_filters:",
            "NoNewPrivs:",
            "CapBnd:",
            "CapEff:",
            "CapPrm:",
            "CapInh:",
            "CapAmb:",
        ]
        .map(line)
    };
    assert_eq!(status(pid), status(first));
    assert!(status(pid)[0].ends_with('2'), "a seccomp filter");
    assert!(status(pid)[2].ends_with('1'), "no new privileges");
    let cgroups = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroups(pid), cgroups(first));
    assert!(
        cgroups(pid)
            .lines()
            .all(|line| line.ends_with(&format!("/{}/a", lab.parent))),
        "{}",
        cgroups(pid)
    );
    for namespace in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_eq!(of(pid), of(first), "{namespace}");
    }
    drop(attachment);
}

#[tokio::test]
async fn what_can_not_be_executed_is_told() {
    let Some(lab) = Lab::new() else { return };
    sleeping(&lab).await;
    let error = lab.runtime.exec(&exec("a", &["nothing"])).await.err().unwrap();
    assert_eq!(
        error,
        RuntimeError::CommandNotFound("exec: \"nothing\": executable file not found in $PATH".into())
    );
    let mut elsewhere = exec("a", &["sh", "-c", "pwd; id -u; id -g; echo $X"]);
    elsewhere.process.set_cwd(PathBuf::from("/made/here"));
    elsewhere
        .process
        .set_env(Some(vec!["PATH=/bin".to_owned(), "X=y".to_owned()]));
    elsewhere.process.user_mut().set_uid(33).set_gid(34);
    let (_, attachment) = lab.runtime.exec(&elsewhere).await.unwrap();
    assert_eq!(said(attachment).await.0, "/made/here\n33\n34\ny\n");
    lab.runtime.pause("a").await.unwrap();
    let error = lab.runtime.exec(&exec("a", &["true"])).await.err().unwrap().to_string();
    assert!(error.contains("paused"), "{error}");
    lab.runtime.resume("a").await.unwrap();
    lab.runtime.signal("a", 9).await.unwrap();
    lab.runtime.wait("a").await.unwrap();
    lab.runtime.exec(&exec("a", &["true"])).await.err().unwrap();
}

#[tokio::test]
async fn a_process_can_have_a_terminal() {
    let Some(lab) = Lab::new() else { return };
    sleeping(&lab).await;
    let mut wanted = exec("a", &["sh", "-c", "tty; read x; stty size; echo $x"]);
    wanted.stdin = true;
    wanted.process.set_terminal(Some(true));
    let (_, mut attachment) = lab.runtime.exec(&wanted).await.unwrap();
    lab.runtime.resize("a", Some(&wanted.exec_id), 30, 100).await.unwrap();
    attachment.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
    let (stdout, _) = said(attachment).await;
    let stdout = stdout.replace('\r', "");
    assert!(
        stdout.contains("/dev/pts/0\n") && stdout.ends_with("30 100\nword\n"),
        "{stdout:?}"
    );
    assert_eq!(lab.runtime.wait_exec("a", &wanted.exec_id).await.unwrap(), 0);
}

#[tokio::test]
async fn the_end_of_the_container_ends_its_processes_and_who_waits_is_told() {
    let Some(lab) = Lab::new() else { return };
    sleeping(&lab).await;
    let wanted = exec("a", &["sleep", "999"]);
    let (_, attachment) = lab.runtime.exec(&wanted).await.unwrap();
    let (code, _) = tokio::join!(lab.runtime.wait_exec("a", &wanted.exec_id), async {
        lab.runtime.signal("a", libc::SIGKILL).await.unwrap();
    });
    assert_eq!(code.unwrap(), 137);
    said(attachment).await;
    assert_eq!(lab.runtime.wait("a").await.unwrap().code, 137);
}

#[tokio::test]
async fn a_process_that_leaves_others_behind_ends_all_the_same() {
    let Some(lab) = Lab::new() else { return };
    sleeping(&lab).await;
    let wanted = exec("a", &["sh", "-c", "sleep 1000 & echo started"]);
    let (_, attachment) = lab.runtime.exec(&wanted).await.unwrap();
    assert_eq!(said(attachment).await.0, "started\n");
    assert_eq!(lab.runtime.wait_exec("a", &wanted.exec_id).await.unwrap(), 0);
}

#[tokio::test]
async fn capabilities_are_those_asked_for() {
    let Some(lab) = Lab::new() else { return };
    sleeping(&lab).await;
    let mut wanted = exec("a", &["grep", "CapEff", "/proc/self/status"]);
    let mut sets = wanted.process.capabilities().clone().unwrap();
    let mut more = sets.bounding().clone().unwrap();
    more.insert(oci_spec::runtime::Capability::SysAdmin);
    sets.set_bounding(Some(more.clone()))
        .set_effective(Some(more.clone()))
        .set_permitted(Some(more));
    wanted.process.set_capabilities(Some(sets));
    let (_, attachment) = lab.runtime.exec(&wanted).await.unwrap();
    assert_eq!(said(attachment).await.0, "CapEff:\t00000000a82425fb\n");
}
