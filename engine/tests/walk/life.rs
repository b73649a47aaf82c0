//! A container from its making to its removal.

use std::time::{Duration, Instant};

use sluice_engine::{CreateExec, EventFilter, Kind, WaitCondition};
use sluice_model::container::{Phase, RestartPolicy};

use crate::house::{House, inside, list};

#[test]
fn a_container_is_made_started_looked_into_stopped_and_removed() {
    inside(
        "life::a_container_is_made_started_looked_into_stopped_and_removed",
        || async {
            let house = House::build().await;
            let engine = &house.engine;
            let id = house
                .run(house.wish(
                    "web",
                    &[
                        "sh",
                        "-c",
                        "echo out; echo err >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done",
                    ],
                ))
                .await
                .unwrap();

            let view = engine.inspect_container("web", true).await.unwrap();
            assert_eq!(
                (view.container.state.phase, view.container.id.as_str()),
                (Phase::Running, id.as_str())
            );
            assert!(view.container.state.pid > 0 && view.sandbox_path.unwrap().exists());
            assert_eq!(view.endpoints[0].addresses[0].to_string(), "172.17.0.2/16");
            assert!(!engine.start_container("web").await.unwrap(), "it runs already");

            let exec = CreateExec {
                cmd: ["sh", "-c", "echo in; id -u; pwd; exit 5"].map(str::to_owned).into(),
                user: Some("app".into()),
                working_dir: Some("/srv".into()),
                attach_stdout: true,
                ..Default::default()
            };
            let exec = engine.create_exec("web", exec).await.unwrap();
            let mut attachment = engine.start_exec(&exec).await.unwrap();
            let mut said = Vec::new();
            while let Some((_, bytes)) = attachment.output.recv().await {
                said.extend(bytes);
            }
            assert_eq!(String::from_utf8(said).unwrap(), "in\n1000\n/srv\n");
            assert_eq!(
                engine.inspect_exec(&exec).await.unwrap().exit_code,
                Some(5),
                "known as soon as the output ends"
            );

            let (titles, rows) = engine.top("web", "").await.unwrap();
            assert!(titles.contains(&"PID".to_owned()) && !rows.is_empty());

            let error = engine.remove_container("web", false, false).await.unwrap_err();
            assert_eq!(error.kind, Kind::Conflict);
            assert!(error.message.contains("stop the container before removing"), "{error}");

            assert!(engine.stop_container("web", None, None).await.unwrap());
            let view = engine.inspect_container("web", false).await.unwrap();
            assert_eq!(
                (view.container.state.phase, view.container.state.exit_code),
                (Phase::Exited, 3)
            );
            assert!(view.endpoints.is_empty() && !engine.stop_container("web", None, None).await.unwrap());
            assert_eq!(house.log("web").await, "out\nerr\n");

            assert!(engine.start_container("web").await.unwrap(), "it can be started again");
            assert_eq!(engine.kill_container("web", "KILL").await, Ok(()));
            assert_eq!(
                engine
                    .inspect_container("web", false)
                    .await
                    .unwrap()
                    .container
                    .state
                    .exit_code,
                137
            );
            assert_eq!(
                engine.kill_container("web", "KILL").await.unwrap_err().kind,
                Kind::Conflict
            );
            engine.remove_container("web", false, false).await.unwrap();
            assert_eq!(
                engine.inspect_container("web", false).await.unwrap_err().kind,
                Kind::NotFound
            );
            house.tear_down().await;
        },
    );
}

#[test]
fn an_attached_container_hears_and_is_heard_from_its_first_word() {
    inside(
        "life::an_attached_container_hears_and_is_heard_from_its_first_word",
        || async {
            use tokio::io::AsyncWriteExt;
            let house = House::build().await;
            let mut wish = house.wish("cat", &["sh", "-c", "echo ready; cat; exit 7"]);
            (wish.config.open_stdin, wish.config.stdin_once) = (true, true);
            wish.host_config.auto_remove = true;
            house.engine.create_container(wish).await.unwrap();
            let mut attachment = house.engine.attach_container("cat").await.unwrap();
            let removed = house
                .engine
                .wait_container("cat", WaitCondition::Removed)
                .await
                .unwrap();
            house.engine.start_container("cat").await.unwrap();
            let mut stdin = attachment.stdin.take().unwrap();
            stdin.write_all(b"typed\n").await.unwrap();
            stdin.shutdown().await.unwrap();
            let mut said = Vec::new();
            while let Some((_, bytes)) = attachment.output.recv().await {
                said.extend(bytes);
            }
            assert_eq!(String::from_utf8(said).unwrap(), "ready\ntyped\n");
            assert_eq!(removed.await.unwrap().unwrap(), 7);
            assert!(list(&house.engine).await.is_empty());
            house.tear_down().await;
        },
    );
}

#[test]
fn the_restart_policy_starts_a_failing_container_again_until_it_is_stopped() {
    inside(
        "life::the_restart_policy_starts_a_failing_container_again_until_it_is_stopped",
        || async {
            let house = House::build().await;
            let mut wish = house.wish("twice", &["sh", "-c", "echo once; exit 1"]);
            wish.host_config.restart_policy = RestartPolicy {
                name: "on-failure".into(),
                maximum_retry_count: 2,
            };
            house.run(wish).await.unwrap();
            let thrice = async {
                while house.log("twice").await != "once\nonce\nonce\n" {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), thrice).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let state = house
                .engine
                .inspect_container("twice", false)
                .await
                .unwrap()
                .container
                .state;
            assert_eq!((state.phase, state.restart_count), (Phase::Exited, 2));
            assert_eq!(house.log("twice").await, "once\nonce\nonce\n", "two tries and no more");
            house.tear_down().await;
        },
    );
}

/// The second signal found a container that had ended and was cleared away, and took that for a failure of the removal.
#[test]
fn a_forced_removal_kills_once_and_never_stumbles_over_the_end() {
    inside(
        "life::a_forced_removal_kills_once_and_never_stumbles_over_the_end",
        || async {
            let house = House::build().await;
            let engine = &house.engine;
            let mut events = engine.events(EventFilter::default()).await.unwrap();
            for _ in 0..10 {
                house.run(house.wish("brief", &["sleep", "600"])).await.unwrap();
                engine.remove_container("brief", true, false).await.unwrap();
            }
            let mut kills = 0;
            while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(300), events.recv()).await {
                kills += usize::from(event.kind == "container" && event.action == "kill");
            }
            assert_eq!(kills, 10);
            house.tear_down().await;
        },
    );
}

#[test]
fn fifty_containers_start_at_once_and_one_starts_quickly() {
    inside(
        "life::fifty_containers_start_at_once_and_one_starts_quickly",
        || async {
            let house = House::build().await;
            for _ in 0..2 {
                let began = Instant::now();
                let mut wish = house.wish("one", &["true"]);
                wish.host_config.auto_remove = true;
                house.engine.create_container(wish).await.unwrap();
                let created = began.elapsed();
                let removed = house
                    .engine
                    .wait_container("one", WaitCondition::Removed)
                    .await
                    .unwrap();
                house.engine.start_container("one").await.unwrap();
                let started = began.elapsed();
                assert_eq!(removed.await.unwrap().unwrap(), 0);
                eprintln!(
                    "created {created:?}, started {started:?}, removed {:?}",
                    began.elapsed()
                );
            }
            let began = Instant::now();
            let all = (0..50).map(|n| house.run(house.wish(&format!("c{n}"), &["sleep", "600"])));
            for result in futures_util::future::join_all(all).await {
                result.unwrap();
            }
            eprintln!("fifty started in {:?}", began.elapsed());
            let views = list(&house.engine).await;
            let mut addresses: Vec<_> = views.iter().map(|view| view.endpoints[0].addresses[0]).collect();
            addresses.sort();
            addresses.dedup();
            assert_eq!(addresses.len(), 50);
            let began = Instant::now();
            let all = views
                .iter()
                .map(|view| house.engine.remove_container(view.container.id.as_str(), true, true));
            for result in futures_util::future::join_all(all).await {
                result.unwrap();
            }
            eprintln!("fifty removed in {:?}", began.elapsed());
            house.tear_down().await;
        },
    );
}
