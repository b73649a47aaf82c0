//! The daemon ends and starts again; its containers do not notice.

use std::time::Duration;

use sluice_model::container::Phase;

use crate::house::{House, inside, list};

#[test]
fn a_restarted_daemon_finds_its_containers_as_they_are() {
    inside(
        "restart::a_restarted_daemon_finds_its_containers_as_they_are",
        || async {
            let house = House::build().await;
            house.run(house.wish("runs", &["sleep", "600"])).await.unwrap();
            house
                .run(house.wish("ends", &["sh", "-c", "echo last; sleep 1; exit 9"]))
                .await
                .unwrap();
            let mut wish = house.wish("goes", &["sleep", "1"]);
            wish.host_config.auto_remove = true;
            house.run(wish).await.unwrap();
            let before = house.engine.inspect_container("runs", false).await.unwrap();

            let directory = house.directory.clone();
            house.engine.stop().await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let house = house.reopen().await;
            assert_eq!(directory, house.directory);
            let engine = &house.engine;

            let after = engine.inspect_container("runs", false).await.unwrap();
            assert_eq!(after.container.state.phase, Phase::Running);
            assert_eq!(
                after.container.state.pid, before.container.state.pid,
                "nothing is made anew"
            );
            assert_eq!(after.endpoints, before.endpoints);
            let ended = engine.inspect_container("ends", false).await.unwrap().container.state;
            assert_eq!((ended.phase, ended.exit_code), (Phase::Exited, 9));
            assert_eq!(house.log("ends").await, "last\n");
            assert_eq!(list(engine).await.len(), 2, "the one that was to go at its end is gone");

            let id = house.run(house.wish("new", &["sleep", "600"])).await.unwrap();
            let new = engine.inspect_container(&id, false).await.unwrap();
            assert_ne!(new.endpoints[0].addresses, after.endpoints[0].addresses);
            assert!(engine.stop_container("runs", Some(0), None).await.unwrap());
            house.tear_down().await;
        },
    );
}
