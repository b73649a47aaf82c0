//! What every store must do, as tests that each implementation runs.
//!
//! Each function is one test. It is handed a store that may hold other things already and may be used by other tests meanwhile, so it works
//! below a prefix of its own. [`every_test`] makes tests of them.

use std::{task::Poll, time::Duration};

use crate::{Condition, Entry, Event, Lease, Revision, Store, StoreError, Transaction, Write};

/// Makes a test of each function of this module: `$store` is an expression that opens a store. Or, in a test, runs all of them one after the other:
/// `all of $store`, a reference to one.
macro_rules! every_test {
    (all of $store:expr) => {
        $crate::conformance::every_test!(@ (all of $store))
    };
    ($store:expr) => {
        $crate::conformance::every_test!(@ ($store));
    };
    (@ ($($how:tt)+)) => {
        $crate::conformance::every_test!($($how)+;
            what_is_put_is_got,
            what_is_deleted_is_gone,
            an_absent_key_is_none,
            a_later_commit_has_a_greater_revision,
            an_entry_names_the_revision_that_wrote_it,
            a_list_is_in_order_and_keeps_to_its_prefix,
            a_list_tells_the_revision_it_was_read_at,
            pages_are_a_list_of_one_moment,
            what_may_be_durable_later_is_there_at_once,
            a_broken_condition_is_named_and_nothing_is_written,
            a_key_is_made_only_once,
            an_unchanged_condition_fails_after_another_write,
            of_two_who_want_a_key_one_gets_it,
            a_watch_tells_what_comes,
            a_watch_replays_what_happened_after_its_revision,
            a_watch_hears_only_its_prefix,
            a_watch_tells_a_commit_at_a_time_in_order,
            deleting_nothing_is_fine_and_tells_nobody,
            a_watch_that_falls_behind_is_told_to_list_again,
            a_value_may_be_empty_or_large,
            a_condition_on_a_value_fails_when_the_key_holds_another,
            nothing_under_a_prefix_is_a_condition,
            what_is_lent_goes_when_its_lease_ends,
            a_lease_that_is_renewed_lives_on,
            what_was_lent_and_is_put_stays,
            nothing_is_lent_to_a_lease_that_has_ended,
        );
    };
    (all of $store:expr; $($name:ident),+ $(,)?) => {
        $($crate::conformance::$name($store).await;)+
    };
    ($store:expr; $($name:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $name() {
            let store = $store;
            $crate::conformance::$name(&store).await;
        })+
    };
}
pub(crate) use every_test;

pub(crate) async fn what_is_put_is_got(store: &dyn Store) {
    put(store, "/t/got/a", "1").await;
    assert_eq!(value(store, "/t/got/a").await.as_deref(), Some("1"));
    put(store, "/t/got/a", "2").await;
    assert_eq!(value(store, "/t/got/a").await.as_deref(), Some("2"));
}

pub(crate) async fn what_is_deleted_is_gone(store: &dyn Store) {
    put(store, "/t/gone/a", "1").await;
    delete(store, "/t/gone/a").await;
    assert_eq!(store.get("/t/gone/a").await.unwrap(), None);
    assert!(store.list("/t/gone/").await.unwrap().0.is_empty());
}

pub(crate) async fn an_absent_key_is_none(store: &dyn Store) {
    assert_eq!(store.get("/t/absent/a").await.unwrap(), None);
}

pub(crate) async fn a_later_commit_has_a_greater_revision(store: &dyn Store) {
    let first = put(store, "/t/later/a", "1").await;
    let second = put(store, "/t/later/b", "1").await;
    assert!(first > 0 && second > first, "{first} {second}");
}

pub(crate) async fn an_entry_names_the_revision_that_wrote_it(store: &dyn Store) {
    let first = put(store, "/t/wrote/a", "1").await;
    put(store, "/t/wrote/b", "1").await;
    assert_eq!(store.get("/t/wrote/a").await.unwrap().unwrap().modified, first);
    let second = put(store, "/t/wrote/a", "2").await;
    assert_eq!(store.get("/t/wrote/a").await.unwrap().unwrap().modified, second);
}

pub(crate) async fn a_list_is_in_order_and_keeps_to_its_prefix(store: &dyn Store) {
    for key in [
        "/t/order/b",
        "/t/order/a/x",
        "/t/order/a",
        "/t/orderly",
        "/t/orde",
        "/t/order/ä",
    ] {
        put(store, key, key).await;
    }
    let (entries, _) = store.list("/t/order/").await.unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["/t/order/a", "/t/order/a/x", "/t/order/b", "/t/order/ä"]);
}

pub(crate) async fn a_list_tells_the_revision_it_was_read_at(store: &dyn Store) {
    let written = put(store, "/t/at/a", "1").await;
    let (_, read_at) = store.list("/t/at/").await.unwrap();
    assert!(read_at >= written);
    let next = put(store, "/t/at/b", "1").await;
    assert!(next > read_at || store.list("/t/at/").await.unwrap().0.len() == 2);
}

pub(crate) async fn pages_are_a_list_of_one_moment(store: &dyn Store) {
    for first in (0..1200).step_by(100) {
        let writes = (first..first + 100).map(|number| Write::Put(format!("/t/pages/{number:04}"), b"x".to_vec()));
        let transaction = Transaction {
            conditions: vec![],
            writes: writes.collect(),
        };
        store.commit(transaction).await.unwrap();
    }
    put(store, "/t/pages-of-others", "x").await;
    let (mut pages, at) = store.pages("/t/pages/").await.unwrap();
    assert_eq!(at, store.list("/t/pages/").await.unwrap().1);
    let mut keys = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert!(page.len() < 1200);
        keys.extend(page.into_iter().map(|entry| entry.key));
        // of what happens meanwhile nothing is seen
        delete(store, "/t/pages/1199").await;
        put(store, &format!("/t/pages/{}", 2000 + keys.len()), "x").await;
    }
    assert_eq!(keys.len(), 1200);
    assert!(keys.is_sorted() && keys.last().unwrap() == "/t/pages/1199");
    let (mut none, _) = store.pages("/t/no-pages/").await.unwrap();
    while let Some(page) = none.next().await {
        assert_eq!(page.unwrap(), []);
    }
}

pub(crate) async fn what_may_be_durable_later_is_there_at_once(store: &dyn Store) {
    let now = put(store, "/t/later-durable/a", "1").await;
    let mut watch = store.watch("/t/later-durable/", now).await.unwrap();
    let soon = |condition: Condition| {
        let writes = vec![Write::Put("/t/later-durable/a".to_owned(), b"2".to_vec())];
        store.commit_soon(Transaction {
            conditions: vec![condition],
            writes,
        })
    };
    let key = "/t/later-durable/a".to_owned();
    let refused = soon(Condition::Absent(key.clone())).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    let written = soon(Condition::Present(key)).await.unwrap();
    assert!(written > now);
    assert_eq!(value(store, "/t/later-durable/a").await.as_deref(), Some("2"));
    assert_eq!(
        watch.next().await.unwrap().unwrap(),
        (written, vec![told("/t/later-durable/a", "2", written)])
    );
}

pub(crate) async fn a_broken_condition_is_named_and_nothing_is_written(store: &dyn Store) {
    let condition = Condition::Present("/t/broken/none".to_owned());
    let transaction = Transaction {
        conditions: vec![Condition::Absent("/t/broken/a".to_owned()), condition.clone()],
        writes: vec![Write::Put("/t/broken/a".to_owned(), b"1".to_vec())],
    };
    match store.commit(transaction).await {
        Err(StoreError::Conflict(named)) => assert_eq!(named, condition),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get("/t/broken/a").await.unwrap(), None);
}

pub(crate) async fn a_key_is_made_only_once(store: &dyn Store) {
    assert!(make(store, "/t/once/a", "1").await.is_ok());
    assert!(matches!(
        make(store, "/t/once/a", "2").await,
        Err(StoreError::Conflict(Condition::Absent(_)))
    ));
    delete(store, "/t/once/a").await;
    assert!(make(store, "/t/once/a", "3").await.is_ok());
}

pub(crate) async fn an_unchanged_condition_fails_after_another_write(store: &dyn Store) {
    let read = put(store, "/t/unchanged/a", "1").await;
    let update = |seen: Revision| Transaction {
        conditions: vec![Condition::Unchanged("/t/unchanged/a".to_owned(), seen)],
        writes: vec![Write::Put("/t/unchanged/a".to_owned(), b"2".to_vec())],
    };
    store.commit(update(read)).await.unwrap();
    assert!(matches!(
        store.commit(update(read)).await,
        Err(StoreError::Conflict(Condition::Unchanged(..)))
    ));
}

pub(crate) async fn of_two_who_want_a_key_one_gets_it(store: &dyn Store) {
    let (one, two) = tokio::join!(make(store, "/t/two/a", "one"), make(store, "/t/two/a", "two"));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let winner = if one.is_ok() { "one" } else { "two" };
    assert_eq!(value(store, "/t/two/a").await.as_deref(), Some(winner));
}

pub(crate) async fn a_watch_tells_what_comes(store: &dyn Store) {
    let (_, now) = store.list("/t/comes/").await.unwrap();
    let mut watch = store.watch("/t/comes/", now).await.unwrap();
    let written = put(store, "/t/comes/a", "1").await;
    let deleted = delete(store, "/t/comes/a").await;
    assert_eq!(
        watch.next().await.unwrap().unwrap(),
        (written, vec![told("/t/comes/a", "1", written)])
    );
    let gone = Event::Deleted("/t/comes/a".to_owned(), deleted);
    assert_eq!(watch.next().await.unwrap().unwrap(), (deleted, vec![gone]));
}

pub(crate) async fn a_watch_replays_what_happened_after_its_revision(store: &dyn Store) {
    let before = put(store, "/t/replays/a", "1").await;
    let after = put(store, "/t/replays/b", "2").await;
    let mut watch = store.watch("/t/replays/", before).await.unwrap();
    let later = put(store, "/t/replays/c", "3").await;
    assert_eq!(
        watch.next().await.unwrap().unwrap(),
        (after, vec![told("/t/replays/b", "2", after)])
    );
    assert_eq!(
        watch.next().await.unwrap().unwrap(),
        (later, vec![told("/t/replays/c", "3", later)])
    );
}

pub(crate) async fn a_watch_hears_only_its_prefix(store: &dyn Store) {
    let now = put(store, "/t/hears/a", "1").await;
    let mut watch = store.watch("/t/hears/mine/", now).await.unwrap();
    let both = [("/t/hears/other/a", "x"), ("/t/hears/mine/a", "1")];
    let writes = both
        .map(|(key, value)| Write::Put(key.to_owned(), value.into()))
        .to_vec();
    put(store, "/t/hears/other/b", "x").await;
    let revision = store
        .commit(Transaction {
            conditions: vec![],
            writes,
        })
        .await
        .unwrap();
    assert_eq!(
        watch.next().await.unwrap().unwrap(),
        (revision, vec![told("/t/hears/mine/a", "1", revision)])
    );
}

pub(crate) async fn a_watch_tells_a_commit_at_a_time_in_order(store: &dyn Store) {
    let now = put(store, "/t/time/a", "0").await;
    let mut watch = store.watch("/t/time/", now).await.unwrap();
    let mut expected = Vec::new();
    for round in 1..=20 {
        let writes = ["/t/time/a", "/t/time/b"]
            .map(|key| Write::Put(key.to_owned(), round.to_string().into()))
            .to_vec();
        let revision = store
            .commit(Transaction {
                conditions: vec![],
                writes,
            })
            .await
            .unwrap();
        expected.push((
            revision,
            ["/t/time/a", "/t/time/b"]
                .map(|key| told(key, &round.to_string(), revision))
                .to_vec(),
        ));
    }
    for change in expected {
        assert_eq!(watch.next().await.unwrap().unwrap(), change);
    }
}

pub(crate) async fn deleting_nothing_is_fine_and_tells_nobody(store: &dyn Store) {
    let now = put(store, "/t/nothing/a", "1").await;
    let mut watch = store.watch("/t/nothing/", now).await.unwrap();
    delete(store, "/t/nothing/none").await;
    let next = put(store, "/t/nothing/b", "1").await;
    assert_eq!(watch.next().await.unwrap().unwrap().0, next);
}

pub(crate) async fn a_watch_that_falls_behind_is_told_to_list_again(store: &dyn Store) {
    let now = put(store, "/t/behind/a", "0").await;
    let mut slow = store.watch("/t/behind/", now).await.unwrap();
    // More than any implementation keeps for one watcher, in batches so that it takes no minutes.
    for round in 0..40 {
        let commits = (0..50).map(|n| put_later(store, "/t/behind/a", format!("{round} {n}")));
        at_once(commits.collect()).await;
    }
    let (mut first, mut last) = (0, now);
    loop {
        match slow.next().await {
            Some(Ok((revision, _))) => {
                assert!(revision > last);
                if first == 0 {
                    first = revision;
                }
                last = revision;
            }
            Some(Err(StoreError::Compacted(_))) => break,
            other => panic!("after revision {last}: {other:?}"),
        }
    }
    // Whoever remembers so much may begin again from there; nobody leaves something out.
    match store.watch("/t/behind/", now).await {
        Err(StoreError::Compacted(_)) => {}
        Err(other) => panic!("{other}"),
        Ok(mut again) => match again.next().await.unwrap() {
            Ok((revision, _)) => assert_eq!(revision, first),
            Err(error) => assert!(matches!(error, StoreError::Compacted(_)), "{error}"),
        },
    }
    let (entries, read_at) = store.list("/t/behind/").await.unwrap();
    assert_eq!(entries.len(), 1);
    assert!(store.watch("/t/behind/", read_at).await.is_ok());
}

pub(crate) async fn a_value_may_be_empty_or_large(store: &dyn Store) {
    put(store, "/t/size/empty", "").await;
    let large = "x".repeat(300_000);
    put(store, "/t/size/large", &large).await;
    assert_eq!(value(store, "/t/size/empty").await.as_deref(), Some(""));
    assert_eq!(value(store, "/t/size/large").await, Some(large));
}

pub(crate) async fn a_condition_on_a_value_fails_when_the_key_holds_another(store: &dyn Store) {
    put(store, "/t/holds/a", "1").await;
    let take = |value: &str| Transaction {
        conditions: vec![Condition::Holds("/t/holds/a".to_owned(), value.into())],
        writes: vec![Write::Delete("/t/holds/a".to_owned())],
    };
    for other in ["2", ""] {
        match store.commit(take(other)).await {
            Err(StoreError::Conflict(Condition::Holds(key, value))) => {
                assert_eq!((key.as_str(), value), ("/t/holds/a", other.into()));
            }
            other => panic!("{other:?}"),
        }
    }
    store.commit(take("1")).await.unwrap();
    assert!(matches!(
        store.commit(take("1")).await,
        Err(StoreError::Conflict(Condition::Holds(..)))
    ));
}

pub(crate) async fn nothing_under_a_prefix_is_a_condition(store: &dyn Store) {
    put(store, "/t/under-b/a", "1").await;
    let make = |key: &str| Transaction {
        conditions: vec![Condition::NoneUnder("/t/under/".to_owned())],
        writes: vec![Write::Put(key.to_owned(), b"1".to_vec())],
    };
    store.commit(make("/t/under/a/b")).await.unwrap();
    match store.commit(make("/t/under/c")).await {
        Err(StoreError::Conflict(Condition::NoneUnder(prefix))) => assert_eq!(prefix, "/t/under/"),
        other => panic!("{other:?}"),
    }
    delete(store, "/t/under/a/b").await;
    store.commit(make("/t/under/c")).await.unwrap();
}

pub(crate) async fn what_is_lent_goes_when_its_lease_ends(store: &dyn Store) {
    let lease = store.grant(Duration::from_secs(1)).await.unwrap();
    let lent = lend(store, "/t/lent/a", lease).await.unwrap();
    let mut watch = store.watch("/t/lent/", lent).await.unwrap();
    assert_eq!(value(store, "/t/lent/a").await.as_deref(), Some("lent"));
    let (revision, events) = watch.next().await.unwrap().unwrap();
    assert_eq!(events, [Event::Deleted("/t/lent/a".to_owned(), revision)]);
    assert_eq!(value(store, "/t/lent/a").await, None);
    assert!(matches!(store.renew(lease).await, Err(StoreError::LeaseLost(lost)) if lost == lease));
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    lend(store, "/t/lent/b", lease).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(value(store, "/t/lent/b").await, None);
    store.revoke(lease).await.unwrap();
}

pub(crate) async fn a_lease_that_is_renewed_lives_on(store: &dyn Store) {
    let lease = store.grant(Duration::from_secs(5)).await.unwrap();
    lend(store, "/t/renewed/a", lease).await.unwrap();
    for _ in 0..7 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        store.renew(lease).await.unwrap();
    }
    assert_eq!(value(store, "/t/renewed/a").await.as_deref(), Some("lent"));
}

pub(crate) async fn what_was_lent_and_is_put_stays(store: &dyn Store) {
    let (one, two) = tokio::join!(
        store.grant(Duration::from_secs(60)),
        store.grant(Duration::from_secs(60))
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    for key in ["/t/kept/a", "/t/kept/b", "/t/kept/c"] {
        lend(store, key, one).await.unwrap();
    }
    put(store, "/t/kept/a", "kept").await;
    lend(store, "/t/kept/b", two).await.unwrap();
    store.revoke(one).await.unwrap();
    assert_eq!(value(store, "/t/kept/a").await.as_deref(), Some("kept"));
    assert_eq!(value(store, "/t/kept/b").await.as_deref(), Some("lent"));
    assert_eq!(value(store, "/t/kept/c").await, None);
    store.revoke(two).await.unwrap();
    assert_eq!(value(store, "/t/kept/b").await, None);
}

pub(crate) async fn nothing_is_lent_to_a_lease_that_has_ended(store: &dyn Store) {
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    store.revoke(lease).await.unwrap();
    match lend(store, "/t/ended/a", lease).await {
        Err(StoreError::LeaseLost(lost)) => assert_eq!(lost, lease),
        other => panic!("{other:?}"),
    }
    assert_eq!(value(store, "/t/ended/a").await, None);
}

// === words of the tests ===

async fn lend(store: &dyn Store, key: &str, lease: Lease) -> Result<Revision, StoreError> {
    store
        .commit(Transaction {
            conditions: vec![],
            writes: vec![Write::Lend(key.to_owned(), b"lent".to_vec(), lease)],
        })
        .await
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    put_later(store, key, value.to_owned()).await
}

fn put_later<'a>(store: &'a dyn Store, key: &str, value: String) -> impl Future<Output = Revision> + use<'a> {
    let writes = vec![Write::Put(key.to_owned(), value.into_bytes())];
    let commit = store.commit(Transaction {
        conditions: vec![],
        writes,
    });
    async move { commit.await.unwrap() }
}

async fn make(store: &dyn Store, key: &str, value: &str) -> Result<Revision, StoreError> {
    let conditions = vec![Condition::Absent(key.to_owned())];
    store
        .commit(Transaction {
            conditions,
            writes: vec![Write::Put(key.to_owned(), value.into())],
        })
        .await
}

async fn delete(store: &dyn Store, key: &str) -> Revision {
    store
        .commit(Transaction {
            conditions: vec![],
            writes: vec![Write::Delete(key.to_owned())],
        })
        .await
        .unwrap()
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    store
        .get(key)
        .await
        .unwrap()
        .map(|entry| String::from_utf8(entry.value).unwrap())
}

fn told(key: &str, value: &str, modified: Revision) -> Event {
    Event::Put(Entry {
        key: key.to_owned(),
        value: value.into(),
        modified,
    })
}

/// What all of them answer, in the order in which they do; all go on at once.
pub(crate) async fn at_once<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut answers = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(answer) => {
                answers.push(answer);
                false
            }
            Poll::Pending => true,
        });
        if waiting.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    answers
}
