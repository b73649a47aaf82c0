//! What goes wrong leaves nothing half-made behind.

use std::fs;

use sluice_engine::{Kind, WaitCondition};
use sluice_model::{
    PortBinding,
    container::{NetworkMode, Phase},
};

use crate::house::{House, inside, list};

#[test]
fn a_wish_that_cannot_be_granted_makes_nothing() {
    inside("failure::a_wish_that_cannot_be_granted_makes_nothing", || async {
        let house = House::build().await;
        let engine = &house.engine;
        let mut wish = house.wish("web", &["true"]);
        wish.config.image = "nobody".into();
        let error = engine.create_container(wish).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::NotFound, "No such image: nobody:latest")
        );

        let mut wish = house.wish("web", &["true"]);
        // As with Docker it is the start that misses a network: it may be made until then.
        wish.host_config.network_mode = NetworkMode::Network("foo".into());
        let id = engine.create_container(wish).await.unwrap().id;
        let error = engine.start_container(&id).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::NotFound, "network foo not found")
        );
        engine.remove_container(&id, false, false).await.unwrap();

        let error = engine
            .create_container(house.wish("-bad", &["true"]))
            .await
            .unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(
            error
                .message
                .starts_with("Invalid container name (-bad), only [a-zA-Z0-9]")
        );

        engine.create_container(house.wish("web", &["true"])).await.unwrap();
        let error = engine.create_container(house.wish("web", &["true"])).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(
            error
                .message
                .contains("The container name \"/web\" is already in use by container")
        );
        let directories = fs::read_dir(house.directory.join("data/containers")).unwrap().count();
        assert_eq!((list(engine).await.len(), directories), (1, 1));
        house.tear_down().await;
    });
}

#[test]
fn a_command_that_is_not_there_leaves_a_created_container_and_nothing_else() {
    inside(
        "failure::a_command_that_is_not_there_leaves_a_created_container_and_nothing_else",
        || async {
            let house = House::build().await;
            let engine = &house.engine;
            for (command, code, words) in [
                ("nowhere", 127, "executable file not found in $PATH"),
                ("/nowhere", 127, "no such file or directory"),
                ("/etc/passwd", 126, "permission denied"),
            ] {
                let id = engine.create_container(house.wish("web", &[command])).await.unwrap().id;
                let error = engine.start_container(&id).await.unwrap_err();
                assert_eq!(error.kind, Kind::Command, "{error}");
                assert!(error.message.contains(words), "{error}");
                let view = engine.inspect_container(&id, false).await.unwrap();
                assert_eq!(
                    (view.container.state.phase, view.container.state.exit_code),
                    (Phase::Created, code)
                );
                assert!(view.container.state.error.contains(words) && view.endpoints.is_empty());
                let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
                assert!(
                    !mounts.contains(house.directory.to_str().unwrap()),
                    "the root is still mounted"
                );
                engine.remove_container(&id, false, false).await.unwrap();
            }
            let mut wish = house.wish("gone", &["nowhere"]);
            wish.host_config.auto_remove = true;
            engine.create_container(wish).await.unwrap();
            let removed = engine.wait_container("gone", WaitCondition::Removed).await.unwrap();
            engine.start_container("gone").await.unwrap_err();
            assert_eq!(removed.await.unwrap().unwrap(), 127);
            assert!(list(engine).await.is_empty());
            house.tear_down().await;
        },
    );
}

#[test]
fn a_port_is_refused_while_another_has_it_and_free_when_it_ends() {
    inside(
        "failure::a_port_is_refused_while_another_has_it_and_free_when_it_ends",
        || async {
            let house = House::build().await;
            let engine = &house.engine;
            let published = |name: &str, port: u16| {
                let mut wish = house.wish(name, &["sleep", "600"]);
                let container = "80/tcp".parse().unwrap();
                wish.host_config.port_bindings = vec![PortBinding {
                    container,
                    host_address: None,
                    host_ports: (port, port),
                    count: 1,
                }];
                wish
            };
            house.run(published("first", 8080)).await.unwrap();
            engine.create_container(published("second", 8080)).await.unwrap();
            let error = engine.start_container("second").await.unwrap_err();
            assert_eq!(error.kind, Kind::Conflict);
            assert!(
                error
                    .message
                    .contains("Bind for 0.0.0.0:8080 failed: port is already allocated"),
                "{error}"
            );
            assert!(
                std::net::TcpListener::bind("127.0.0.1:8080").is_err(),
                "the host can't take it either"
            );
            for _ in 0..3 {
                engine.restart_container("first", Some(0), None).await.unwrap();
            }
            engine.stop_container("first", Some(0), None).await.unwrap();
            assert!(engine.start_container("second").await.unwrap());
            let listener = std::net::TcpListener::bind("0.0.0.0:9090").unwrap();
            let error = house.run(published("third", 9090)).await.unwrap_err();
            assert!(error.message.contains("address already in use"), "{error}");
            drop(listener);
            assert!(engine.start_container("third").await.unwrap());
            house.tear_down().await;
        },
    );
}
