//! How long a start takes.

use std::time::{Duration, Instant};

use crate::lab::Lab;

/// A daemon's starts are far apart: long enough for the kernel to forget that it has just moved processes between cgroups.
const PAUSE: Duration = Duration::from_millis(100);
const RUNS: usize = 15;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn create_start_and_exit_take_less_than_runc_does() {
    let Some(lab) = Lab::new() else { return };
    let bundle = lab.bundle("warm-up", &["true"]);
    lab.run(&bundle).await;
    let (mut all, mut create, mut start, mut exec) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut runc = Vec::new();
    for n in 0..RUNS {
        let bundle = lab.bundle(&format!("c{n}"), &["true"]);
        let order = bundle.create();
        tokio::time::sleep(PAUSE).await;
        let begin = Instant::now();
        lab.runtime.create(&order).await.unwrap();
        let created = Instant::now();
        lab.runtime.start(&order.id).await.unwrap();
        let started = Instant::now();
        lab.runtime.wait(&order.id).await.unwrap();
        all.push(begin.elapsed());
        create.push(created - begin);
        start.push(started - created);
        lab.runtime.delete(&order.id).await.unwrap();
        if let Some(time) = time_runc(&lab, &bundle).await {
            runc.push(time);
        }
    }
    let bundle = lab.bundle("long", &["sleep", "100"]);
    lab.create(&bundle).await;
    lab.runtime.start("long").await.unwrap();
    for n in 0..RUNS {
        let mut process = bundle.spec.process().clone().unwrap();
        process.set_args(Some(vec!["true".to_owned()]));
        let order = sluice_runtime::Exec {
            id: "long".to_owned(),
            exec_id: format!("e{n}"),
            process,
            stdin: false,
        };
        tokio::time::sleep(PAUSE).await;
        let begin = Instant::now();
        lab.runtime.exec(&order).await.unwrap();
        lab.runtime.wait_exec("long", &order.exec_id).await.unwrap();
        exec.push(begin.elapsed());
    }
    let ours = median(all);
    eprintln!(
        "medians: create+start+exit {ours:?} (create {:?}, start {:?}); exec {:?}",
        median(create),
        median(start),
        median(exec)
    );
    if !runc.is_empty() {
        let theirs = median(runc);
        eprintln!("median of runc: {theirs:?}");
        assert!(ours < theirs, "{ours:?} against {theirs:?}");
    }
}

/// `runc run` of the same bundle; none when there is no runc.
async fn time_runc(lab: &Lab, bundle: &crate::lab::Bundle) -> Option<Duration> {
    let mut spec = bundle.spec.clone();
    spec.linux_mut()
        .as_mut()?
        .set_cgroups_path(Some(format!("/{}/runc", lab.parent).into()));
    std::fs::write(bundle.directory.join("config.json"), serde_json::to_vec(&spec).ok()?).ok()?;
    tokio::time::sleep(PAUSE).await;
    let begin = Instant::now();
    let status = std::process::Command::new("runc")
        .arg("--root")
        .arg(lab.directory.join("runc"))
        .args(["run", "--bundle"])
        .arg(&bundle.directory)
        .arg(format!("{}-runc", lab.parent))
        .stdin(std::process::Stdio::null())
        .status()
        .ok()?;
    assert!(status.success());
    Some(begin.elapsed())
}
