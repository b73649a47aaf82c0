//! What is taken away again.

use std::time::Duration;

use super::stage::{Host, address, eventually, on_a_host, run};
use super::witness::{devices, pins};

#[test]
fn what_goes_is_gone_and_cleanup_leaves_nothing() {
    on_a_host(async |host| {
        let (before, mounts) = (devices(), run("mount"));
        let agent = host.agent().await;
        host.populate(&agent, &[1, 2]).await;
        let mut writes = host.delete(1);
        writes.extend(host.delete(2));
        let revision = host.commit(writes).await;
        agent.settled(revision, &[]).await.unwrap();
        // those that go with their sandboxes nobody waits for
        let gone = async || !devices().contains("slc");
        eventually("the veths are gone", Duration::from_secs(15), gone).await;
        assert!(!host.sandbox(1).exists() && !host.sandbox(2).exists());
        assert!(!pins(host).iter().any(|pin| pin.contains("from_container-")));
        let status = agent.status().await.unwrap();
        for table in ["ENDPOINTS4", "ATTACHMENTS", "GENERATIONS", "PUBLISHED4", "RESERVED"] {
            let table = status.tables.iter().find(|candidate| candidate.name == table).unwrap();
            assert_eq!(table.entries, 0, "{}", table.name);
        }
        host.populate(&agent, &[3]).await;
        agent.stop().await;
        sluice_agent::cleanup(&host.config).await.unwrap();
        assert_eq!(devices(), before);
        assert_eq!(run("mount"), mounts);
        assert_eq!(pins(host), Vec::<String>::new());
        assert!(!host.config.netns_dir.exists());
        sluice_agent::cleanup(&host.config).await.unwrap();
    });
}

#[test]
fn bpffs_is_mounted_where_there_is_none_and_goes_with_the_last_pin() {
    on_a_host(async |host| {
        run("umount /sys/fs/bpf");
        let mounts = run("mount");
        let agent = host.agent().await;
        assert!(run("mount").contains("sluice on /sys/fs/bpf type bpf"));
        agent.stop().await;
        sluice_agent::cleanup(&host.config).await.unwrap();
        assert_eq!(run("mount"), mounts);
    });
}

#[test]
fn two_instances_live_side_by_side_in_one_namespace() {
    on_a_host(async |host| {
        let ours = host.agent().await;
        host.populate(&ours, &[1, 2]).await;
        let other = Host {
            directory: host.directory.join("other"),
            store: std::sync::Arc::new(
                sluice_store::embedded::Embedded::open(&host.directory.join("other.redb")).unwrap(),
            ),
            config: sluice_agent::Config {
                instance: "other".into(),
                netns_dir: host.directory.join("other-netns"),
                ..host.config.clone()
            },
        };
        let theirs = other.agent().await;
        assert!(devices().contains("sl-other-dp"));
        theirs.stop().await;
        sluice_agent::cleanup(&other.config).await.unwrap();
        assert!(!devices().contains("sl-other"));
        assert!(host.pings(1, address(2)), "the other's end is not ours");
        let status = ours.status().await.unwrap();
        assert!(
            status
                .programs
                .iter()
                // there is no overlay here
                .all(|program| !program.attached_to.is_empty() || program.name == "from_overlay"),
            "{:?}",
            status.programs
        );
        ours.stop().await;
    });
}
