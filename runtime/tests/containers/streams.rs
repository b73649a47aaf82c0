//! What goes in, what comes out, what is written down.

use std::{fs, time::Duration};

use sluice_runtime::Stream;
use tokio::io::AsyncWriteExt;

use crate::lab::{Lab, said, until};

#[tokio::test]
async fn stdout_and_stderr_stay_apart_and_both_are_logged() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "echo out; echo err >&2; printf rest"]);
    let (stdout, stderr, exit) = lab.run(&bundle).await;
    assert_eq!((stdout.as_str(), stderr.as_str(), exit.code), ("out\nrest", "err\n", 0));
    let log = fs::read_to_string(bundle.log()).unwrap();
    let mut lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["log"].as_str().unwrap().to_owned());
    let words: Vec<_> = lines
        .iter()
        .map(|line| (line["stream"].as_str().unwrap(), line["log"].as_str().unwrap()))
        .collect();
    assert_eq!(words, [("stderr", "err\n"), ("stdout", "out\n"), ("stdout", "rest")]);
}

#[tokio::test]
async fn the_end_of_a_clients_stdin_is_the_end_of_the_containers_when_asked_for() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "cat; echo after"]);
    let mut create = bundle.create();
    (create.stdin, create.stdin_once) = (true, true);
    lab.runtime.create(&create).await.unwrap();
    let mut attachment = lab.runtime.attach("a").await.unwrap();
    lab.runtime.start("a").await.unwrap();
    let mut stdin = attachment.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(said(attachment).await.0, "hello\nafter\n");
    assert_eq!(lab.runtime.wait("a").await.unwrap().code, 0);
}

#[tokio::test]
async fn a_client_that_vanishes_closes_nothing_and_the_next_one_goes_on() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle(
        "a",
        &["sh", "-c", "while read line; do echo \"got $line\"; done; echo end"],
    );
    let mut create = bundle.create();
    (create.stdin, create.stdin_once) = (true, true);
    lab.runtime.create(&create).await.unwrap();
    let mut first = lab.runtime.attach("a").await.unwrap();
    lab.runtime.start("a").await.unwrap();
    first.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
    assert_eq!(
        first.output.recv().await.unwrap(),
        (Stream::Stdout, b"got one\n".to_vec())
    );
    drop(first);
    let mut second = lab.runtime.attach("a").await.unwrap();
    let mut stdin = second.stdin.take().unwrap();
    stdin.write_all(b"two\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    assert_eq!(said(second).await.0, "got two\nend\n");
}

#[tokio::test]
async fn without_stdin_there_is_an_end_of_file_at_once() {
    let Some(lab) = Lab::new() else { return };
    assert_eq!(lab.sh("a", "cat; readlink /proc/self/fd/0").await, "/dev/null\n");
}

#[tokio::test]
async fn a_hundred_megabytes_pass_in_and_out_whole_and_in_bounded_memory() {
    const TOTAL: usize = 100 << 20;
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["cat"]);
    let mut create = bundle.create();
    (create.stdin, create.stdin_once, create.log) = (true, true, None);
    let pid = lab.runtime.create(&create).await.unwrap();
    let mut attachment = lab.runtime.attach("a").await.unwrap();
    lab.runtime.start("a").await.unwrap();
    let shim = parent_of(pid);
    let mut stdin = attachment.stdin.take().unwrap();
    let writer = tokio::spawn(async move {
        let block: Vec<u8> = (0..1 << 20).map(|n: usize| (n % 251) as u8).collect();
        for _ in 0..TOTAL >> 20 {
            stdin.write_all(&block).await.unwrap();
        }
        stdin.shutdown().await.unwrap();
    });
    let (mut total, mut peak) = (0, 0);
    while let Some((_, piece)) = attachment.output.recv().await {
        for (n, byte) in piece.iter().enumerate() {
            assert_eq!(*byte, (((total + n) % (1 << 20)) % 251) as u8);
        }
        total += piece.len();
        if total % (1 << 20) < piece.len() && total < TOTAL {
            peak = peak.max(crate::memory::own_kib(shim));
        }
    }
    writer.await.unwrap();
    assert_eq!(total, TOTAL);
    assert!(peak < 1024, "the shim's own memory: {peak} KiB");
}

fn parent_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn several_clients_hear_the_same_and_a_slow_one_loses_nothing() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "seq 1 200000; sleep 0.2"]);
    let shim = parent_of(lab.create(&bundle).await);
    let quick = lab.runtime.attach("a").await.unwrap();
    let mut slow = lab.runtime.attach("a").await.unwrap();
    lab.runtime.start("a").await.unwrap();
    let quick = tokio::spawn(said(quick));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!quick.is_finished(), "the slow one holds the container up");
    let status = fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    assert!(
        status.contains("Threads:\t1\n"),
        "one thread, however many streams: {status}"
    );
    let mut heard = Vec::new();
    while let Some((_, piece)) = slow.output.recv().await {
        heard.extend(piece);
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(String::from_utf8(heard).unwrap() == expected);
    assert!(quick.await.unwrap().0 == expected);
}

#[tokio::test]
async fn a_terminal_is_one_stream_with_a_size() {
    let Some(lab) = Lab::new() else { return };
    let mut bundle = lab.bundle(
        "a",
        &["sh", "-c", "tty; ls /dev/console; read x; stty size; echo err >&2; cat"],
    );
    bundle.process().set_terminal(Some(true));
    let mut create = bundle.create();
    create.stdin = true;
    lab.runtime.create(&create).await.unwrap();
    lab.runtime.resize("a", None, 40, 123).await.unwrap();
    let mut attachment = lab.runtime.attach("a").await.unwrap();
    lab.runtime.start("a").await.unwrap();
    let mut stdin = attachment.stdin.take().unwrap();
    // The end of a terminal's input is a character.
    stdin.write_all(b"go\n\x04").await.unwrap();
    let (stdout, stderr) = said(attachment).await;
    // What was typed is echoed, before or after the first words.
    let stdout = stdout.replace('\r', "");
    for words in ["go\n", "/dev/pts/0\n/dev/console\n", "40 123\nerr\n"] {
        assert!(stdout.contains(words), "{stdout:?}");
    }
    assert_eq!(stderr, "");
    assert_eq!(lab.runtime.wait("a").await.unwrap().code, 0);
}

#[tokio::test]
async fn the_log_cuts_long_lines_as_docker_does() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle(
        "a",
        &["sh", "-c", "head -c 20000 /dev/zero | tr '\\0' x; echo; echo '<&>'"],
    );
    lab.run(&bundle).await;
    let log = fs::read_to_string(bundle.log()).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lengths: Vec<usize> = lines.iter().map(|line| line["log"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [16_384, 20_000 - 16_384 + 1, 4]);
    assert_eq!(lines[0]["time"], lines[1]["time"]);
    assert!(log.contains("{\"log\":\"\\u003c\\u0026\\u003e\\n\",\"stream\":\"stdout\",\"time\":\""));
}

#[tokio::test]
async fn output_goes_on_into_the_log_when_nobody_listens() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("a", &["sh", "-c", "sleep 0.1; seq 1 50000"]);
    lab.create(&bundle).await;
    drop(lab.runtime.attach("a").await.unwrap());
    lab.runtime.start("a").await.unwrap();
    lab.runtime.wait("a").await.unwrap();
    assert_eq!(fs::read_to_string(bundle.log()).unwrap().lines().count(), 50_000);
    until("the end of the shim", || {
        let procs = crate::lab::unified().join(&lab.parent).join("shims/cgroup.procs");
        fs::read_to_string(procs).unwrap().is_empty()
    })
    .await;
}
