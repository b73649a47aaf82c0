use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::*;
use crate::{Write, conformance};

conformance::every_test!(TemporaryStore::open());

/// A store in a directory that goes when the test ends, however it ends.
struct TemporaryStore {
    store: Option<Embedded>,
    directory: Directory,
}

struct Directory(PathBuf);

impl Directory {
    fn make() -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sluice-store-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl TemporaryStore {
    fn open() -> Self {
        let directory = Directory::make();
        Self {
            store: Some(Embedded::open(&directory.0.join("store.redb")).unwrap()),
            directory,
        }
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Embedded::open(&self.directory.0.join("store.redb")).unwrap());
    }
}

impl std::ops::Deref for TemporaryStore {
    type Target = Embedded;

    fn deref(&self) -> &Embedded {
        self.store.as_ref().unwrap()
    }
}

impl Store for TemporaryStore {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        (**self).get(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Vec<Entry>, Revision)> {
        (**self).list(prefix)
    }

    fn pages<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Pages, Revision)> {
        (**self).pages(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Revision> {
        (**self).commit(transaction)
    }

    fn commit_soon(&self, transaction: Transaction) -> Answer<'_, Revision> {
        (**self).commit_soon(transaction)
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Watch> {
        (**self).watch(prefix, after)
    }

    fn grant(&self, life: Duration) -> Answer<'_, Lease> {
        (**self).grant(life)
    }

    fn renew(&self, lease: Lease) -> Answer<'_, ()> {
        (**self).renew(lease)
    }

    fn revoke(&self, lease: Lease) -> Answer<'_, ()> {
        (**self).revoke(lease)
    }
}

fn put(key: &str, value: &str) -> Transaction {
    Transaction {
        conditions: vec![],
        writes: vec![Write::Put(key.to_owned(), value.into())],
    }
}

#[tokio::test]
async fn what_is_written_is_there_after_opening_again_and_revisions_go_on() {
    let mut store = TemporaryStore::open();
    let written = store.commit(put("/a", "1")).await.unwrap();
    store.reopen();
    assert_eq!(store.get("/a").await.unwrap().unwrap().modified, written);
    assert_eq!(store.commit(put("/b", "1")).await.unwrap(), written + 1);
}

#[tokio::test]
async fn what_may_be_durable_later_is_so_when_the_store_was_closed() {
    let mut store = TemporaryStore::open();
    store.commit(put("/a", "1")).await.unwrap();
    let written = store.commit_soon(put("/b", "1")).await.unwrap();
    store.reopen();
    assert_eq!(store.get("/b").await.unwrap().unwrap().modified, written);
    // what follows takes it along
    store.commit_soon(put("/b", "2")).await.unwrap();
    let last = store.commit(put("/a", "2")).await.unwrap();
    store.reopen();
    assert_eq!(store.get("/b").await.unwrap().unwrap().value, b"2");
    assert_eq!(store.commit(put("/c", "1")).await.unwrap(), last + 1);
}

#[tokio::test]
async fn a_watch_from_before_the_file_was_opened_is_compacted() {
    let mut store = TemporaryStore::open();
    let first = store.commit(put("/a", "1")).await.unwrap();
    let second = store.commit(put("/a", "2")).await.unwrap();
    store.reopen();
    assert!(matches!(
        store.watch("/", first).await.map(|_| ()),
        Err(StoreError::Compacted(_))
    ));
    assert!(store.watch("/", second).await.is_ok());
}

#[tokio::test]
async fn what_was_lent_in_an_earlier_life_is_gone() {
    let mut store = TemporaryStore::open();
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    let lend = Transaction {
        conditions: vec![],
        writes: vec![Write::Lend("/a".to_owned(), b"1".to_vec(), lease)],
    };
    let lent = store.commit(lend).await.unwrap();
    store.reopen();
    assert_eq!(store.get("/a").await.unwrap(), None);
    assert!(
        store.commit(put("/b", "1")).await.unwrap() > lent + 1,
        "it went in a revision of its own"
    );
}

#[tokio::test]
async fn a_second_process_is_told_that_the_file_is_in_use() {
    let store = TemporaryStore::open();
    let path = store.directory.0.join("store.redb");
    let error = Embedded::open(&path).err().unwrap().to_string();
    assert!(
        error.contains("in use by another process") && error.contains("store.redb"),
        "{error}"
    );
}

#[tokio::test]
async fn a_watch_ends_when_the_store_is_closed() {
    let mut store = TemporaryStore::open();
    let mut watch = store.watch("/", 0).await.unwrap();
    store.store = None;
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn commits_that_wait_share_a_sync() {
    let store = TemporaryStore::open();
    let alone = Instant::now();
    for n in 0..20 {
        store.commit(put("/alone", &n.to_string())).await.unwrap();
    }
    let alone = alone.elapsed();
    let together = Instant::now();
    let commits: Vec<_> = (0..20)
        .map(|n| put(&format!("/together/{n}"), "x"))
        .map(|t| store.commit(t))
        .collect();
    let mut revisions = Vec::new();
    for answer in conformance::at_once(commits).await {
        revisions.push(answer.unwrap());
    }
    let together = together.elapsed();
    println!("20 commits: one after the other {alone:?}, at once {together:?}");
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 20, "each commit has its own revision");
}

// === kill -9 ===

const FILE_OF_CHILD: &str = "SLUICE_STORE_TEST_FILE";

/// Not a test of its own: what the child of the test below does.
#[tokio::test]
#[ignore = "run by a_kill_loses_nothing_that_was_answered, in a process of its own"]
async fn child_that_commits_for_ever() {
    let Some(path) = std::env::var_os(FILE_OF_CHILD) else {
        return;
    };
    let store = Embedded::open(Path::new(&path)).unwrap();
    for n in 0.. {
        let revision = store.commit(put(&format!("/n/{n}"), &n.to_string())).await.unwrap();
        println!("\ncommitted {n} {revision}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_answered() {
    let directory = Directory::make();
    let path = directory.0.join("store.redb");
    for _ in 0..3 {
        let answered = commit_until_killed(&path);
        let store = Embedded::open(&path).unwrap();
        for (n, revision) in answered {
            let entry = store.get(&format!("/n/{n}")).await.unwrap().unwrap();
            assert_eq!((entry.value, entry.modified), (n.to_string().into_bytes(), revision));
        }
        let (entries, revision) = store.list("/n/").await.unwrap();
        let latest = entries.iter().map(|entry| entry.modified).max().unwrap();
        assert_eq!(revision, latest);
    }
}

/// Lets a child commit and kills it; what it was answered.
fn commit_until_killed(path: &Path) -> Vec<(u64, Revision)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "embedded::tests::child_that_commits_for_ever",
            "--ignored",
            "--nocapture",
        ])
        .env(FILE_OF_CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let until = Instant::now() + Duration::from_secs(20);
    let mut answered = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let mut words = line.split(' ').skip_while(|word| *word != "committed").skip(1);
        if let (Some(n), Some(revision)) = (words.next(), words.next()) {
            answered.push((n.parse().unwrap(), revision.parse().unwrap()));
        }
        if answered.len() >= 40 || Instant::now() > until {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        answered.len() >= 40,
        "the child committed only {} times",
        answered.len()
    );
    answered
}

/// Whoever waits for a revision waits for its events.
#[tokio::test]
async fn a_commit_that_changes_nothing_is_no_revision_of_its_own() {
    let store = TemporaryStore::open();
    let commit = async |writes: Vec<Write>| {
        let transaction = Transaction {
            conditions: vec![],
            writes,
        };
        store.commit(transaction).await.unwrap()
    };
    let before = commit(vec![Write::Put("/a".to_owned(), b"1".to_vec())]).await;
    assert_eq!(commit(vec![Write::Delete("/none".to_owned())]).await, before);
    assert_eq!(store.list("/").await.unwrap().1, before);
    let mut watch = store.watch("/", before).await.unwrap();
    let deletes = ["/none", "/a"].map(|key| Write::Delete(key.to_owned())).to_vec();
    let after = commit(deletes).await;
    assert_eq!(after, before + 1);
    assert_eq!(watch.next().await.unwrap().unwrap().0, after);
}
