//! Pulls: what comes, how it breaks off, who lies.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Ear,
    fake::{Answer, Asked, Fake},
    here, images, layer, pull_from,
    stored::{LIST, MANIFEST, Stored},
};
use crate::{ImageError, Images, Listener, News, Pull, RegistryOptions, testing::Scratch};

#[test]
fn an_image_is_pulled_and_known_by_its_tag_and_its_digest() {
    let mut stored = Stored::default();
    let digest = stored.image("1", &[layer("a", 1000), layer("b", 70_000)], here());
    let fake = Fake::serve(move |asked| stored.answer(asked));
    let scratch = Scratch::new("pull");
    let (images, ear) = (images(scratch.path()), Ear::default());
    let image = pull_from(&images, &fake.name("team/app:1"), &ear).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.tags, [fake.name("team/app:1")]);
    assert_eq!(image.digests, [fake.name(&format!("team/app@{digest}"))]);
    assert!(ear.heard("Pulling from team/app") && ear.heard("Pull complete") && ear.heard("Downloaded newer image"));

    let (before, ear) = (fake.count("/blobs/"), Ear::default());
    let name = fake.name(&format!("team/app@{digest}"));
    assert_eq!(pull_from(&images, &name, &ear).unwrap().id, image.id);
    assert!(ear.heard("Already exists") && ear.heard("Image is up to date"));
    assert_eq!(fake.count("/blobs/"), before + 1, "only the configuration came again");
    assert_eq!(images.find(&name).unwrap().id, image.id);

    let reopened = Images::open(scratch.path()).unwrap();
    assert_eq!(reopened.find(&name).unwrap().digests, image.digests);
    reopened.remove(&fake.name("team/app:1"), false, &[]).unwrap();
    assert!(reopened.find(&name).is_err(), "the last tag takes the digest along");
}

#[test]
fn a_blob_that_breaks_off_goes_on_where_it_broke() {
    for knows_ranges in [true, false] {
        let mut stored = Stored::default();
        stored.image("1", &[layer("big", 400_000)], here());
        let cuts = Mutex::new(3);
        let fake = Fake::serve(move |asked| {
            let asked = match knows_ranges {
                true => asked,
                false => &Asked {
                    method: asked.method.clone(),
                    path: asked.path.clone(),
                    headers: BTreeMap::new(),
                    body: Vec::new(),
                },
            };
            let answer = stored.answer(asked);
            let mut cuts = cuts.lock().unwrap();
            match answer.body.len() > 20_000 && *cuts > 0 {
                true => {
                    *cuts -= 1;
                    let half = answer.body.len() / 2;
                    answer.cut(half)
                }
                false => answer,
            }
        });
        let scratch = Scratch::new("resume");
        pull_from(&images(scratch.path()), &fake.name("a:1"), &Ear::default()).unwrap();
    }
}

#[test]
fn a_registry_that_is_gone_in_the_middle_leaves_nothing() {
    let mut stored = Stored::default();
    stored.image("1", &[layer("small", 100), layer("big", 400_000)], here());
    let fake = Fake::serve(move |asked| {
        let answer = stored.answer(asked);
        // the big one never gets anywhere
        if asked.path.contains("/blobs/") && answer.body.len() > 20_000 || asked.headers.contains_key("range") {
            return answer.cut(0);
        }
        answer
    });
    let scratch = Scratch::new("gone");
    let images = images(scratch.path());
    let error = pull_from(&images, &fake.name("a:1"), &Ear::default()).unwrap_err();
    assert!(matches!(error, ImageError::Unreachable(_)), "{error}");
    assert!(images.list().unwrap().is_empty());
    let left = |name: &str| {
        std::fs::read_dir(scratch.path().join("image").join(name))
            .unwrap()
            .count()
    };
    assert_eq!((left("layers"), left("staging"), left("content")), (0, 0, 0));
}

#[test]
fn a_registry_that_lies_is_caught() {
    // each lie, and what is said of it
    type Lie = fn(&Asked, Answer) -> Answer;
    let lies: [(&str, Lie); 5] = [
        (
            "filesystem layer verification failed for digest",
            |asked, mut answer| {
                if asked.path.contains("/blobs/") && answer.body.len() > 20_000 {
                    let middle = answer.body.len() / 2;
                    answer.body[middle] ^= 1;
                }
                answer
            },
        ),
        ("longer than the", |asked, mut answer| {
            if asked.path.contains("/blobs/") && answer.body.len() > 20_000 {
                answer.body.extend_from_slice(b"more");
            }
            answer
        }),
        ("image config verification failed for digest", |asked, mut answer| {
            if asked.path.contains("/blobs/") && answer.body.starts_with(b"{") {
                answer.body.push(b' ');
            }
            answer
        }),
        ("manifest verification failed for digest", |asked, mut answer| {
            if asked.path.contains("/manifests/") {
                answer.body.push(b' ');
            }
            answer
        }),
        ("layers length mismatch", |asked, answer| {
            match asked.path.contains("/manifests/") {
                true => {
                    let mut manifest: Value = serde_json::from_slice(&answer.body).unwrap();
                    manifest["layers"] = json!([]);
                    Answer::of(200, manifest.to_string()).header("content-type", MANIFEST)
                }
                false => answer,
            }
        }),
    ];
    for (said, lie) in lies {
        let mut stored = Stored::default();
        stored.image("1", &[layer("big", 100_000)], here());
        let fake = Fake::serve(move |asked| lie(asked, stored.answer(asked)));
        let scratch = Scratch::new("lies");
        let images = images(scratch.path());
        let error = pull_from(&images, &fake.name("a:1"), &Ear::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{error} does not say {said}");
        assert!(images.list().unwrap().is_empty(), "{said}");
    }
}

#[test]
fn of_a_list_the_image_for_the_platform_is_pulled() {
    let mut stored = Stored::default();
    let other = if here() == "arm64" { "amd64" } else { "arm64" };
    let entries: Vec<Value> = [here(), other]
        .iter()
        .map(|architecture| {
            let digest = stored.image(architecture, &[layer(architecture, 10)], architecture);
            let size = stored.manifests[&digest].1.len();
            json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let list = stored.manifest(
        "all",
        LIST,
        &json!({"schemaVersion": 2, "mediaType": LIST, "manifests": entries}),
    );
    let fake = Fake::serve(move |asked| stored.answer(asked));
    let scratch = Scratch::new("platforms");
    let (images, name) = (images(scratch.path()), fake.name("a:all"));
    let pull = |platform: Option<&str>| {
        let pull = Pull {
            reference: &name,
            all_tags: false,
            platform,
            credentials: None,
        };
        images.pull(pull, &Ear::default()).map(|images| images[0].clone())
    };
    let image = pull(None).unwrap();
    assert_eq!(image.config.architecture().to_string(), here());
    assert!(image.digests[0].ends_with(&list), "its digest is the list's");
    let image = pull(Some(&format!("linux/{other}"))).unwrap();
    assert_eq!(image.config.architecture().to_string(), other);
    let error = pull(Some("linux/riscv64")).unwrap_err().to_string();
    assert!(
        error.contains("no matching manifest for linux/riscv64 in the manifest list entries"),
        "{error}"
    );
    let found = images.distribution(&name, None).unwrap();
    assert_eq!((found.digest.as_str(), found.platforms.len()), (list.as_str(), 2));
}

/// How many requests are answered at a time.
#[derive(Default)]
struct Crowd {
    inside: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Crowd {
    /// Until so many have been inside at a time, or a while.
    fn pass(&self, until: usize) {
        let mut inside = self.inside.lock().unwrap();
        inside.0 += 1;
        inside.1 = inside.1.max(inside.0);
        self.changed.notify_all();
        let (mut inside, _) = self
            .changed
            .wait_timeout_while(inside, Duration::from_secs(30), |inside| inside.1 < until)
            .unwrap();
        inside.0 -= 1;
    }
}

#[test]
fn several_layers_come_at_a_time_and_no_more_than_are_asked_for() {
    let mut stored = Stored::default();
    let layers: Vec<Vec<u8>> = (0..7).map(|number| layer(&format!("f{number}"), 30_000)).collect();
    stored.image("1", &layers, here());
    let crowd = Arc::new(Crowd::default());
    let fake = {
        let crowd = crowd.clone();
        Fake::serve(move |asked| {
            let answer = stored.answer(asked);
            if asked.path.contains("/blobs/") && answer.body.len() > 20_000 {
                crowd.pass(4);
            }
            answer
        })
    };
    let scratch = Scratch::new("crowd");
    let images = images(scratch.path()).with_registries(RegistryOptions {
        downloads: 4,
        ..RegistryOptions::default()
    });
    let image = pull_from(&images, &fake.name("a:1"), &Ear::default()).unwrap();
    assert_eq!(image.layers.len(), 7);
    assert_eq!(crowd.inside.lock().unwrap().1, 4);
}

/// Listens until told to go.
#[derive(Default)]
struct Leaving {
    ear: Ear,
    is_gone: AtomicBool,
}

impl Listener for Leaving {
    fn hear(&self, news: News) {
        self.ear.hear(news);
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come about");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn of_several_pulls_that_want_a_layer_one_brings_it_and_when_that_gives_up_another_does() {
    for gives_up in [false, true] {
        let mut stored = Stored::default();
        stored.image("1", &[layer("shared", 60_000)], here());
        stored.image("2", &[layer("shared", 60_000), layer("own", 100)], here());
        let (blob, _) = stored.blobs.iter().find(|(_, bytes)| bytes.len() > 20_000).unwrap();
        let blob = format!("/blobs/{blob}");
        let is_open = Arc::new(AtomicBool::new(false));
        let fake = {
            let (is_open, blob) = (is_open.clone(), blob.clone());
            Fake::serve(move |asked| {
                if asked.path.ends_with(&blob) {
                    until("the blob is let go", || is_open.load(Ordering::Relaxed));
                }
                stored.answer(asked)
            })
        };
        let scratch = Scratch::new("shared");
        let (images, one, two) = (images(scratch.path()), Leaving::default(), Leaving::default());
        let pull = |name: &str, listener: &Leaving| {
            let name = fake.name(name);
            let pull = Pull {
                reference: &name,
                all_tags: false,
                platform: None,
                credentials: None,
            };
            images.pull(pull, listener).map(drop)
        };
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| pull("a:1", &one));
            until("the first asks for the blob", || fake.count(&blob) == 1);
            let second = scope.spawn(|| pull("a:2", &two));
            until("the second wants it too", || two.ear.heard("Pulling fs layer"));
            one.is_gone.store(gives_up, Ordering::Relaxed);
            is_open.store(true, Ordering::Relaxed);
            (first.join().unwrap(), second.join().unwrap())
        });
        second.unwrap();
        assert!(two.ear.heard("Pull complete"));
        match gives_up {
            false => {
                first.unwrap();
                assert_eq!(fake.count(&blob), 1, "one download for both");
                assert_eq!(images.list().unwrap().len(), 2);
            }
            true => {
                assert_eq!(first.unwrap_err().to_string(), "context canceled");
                assert_eq!(fake.count(&blob), 2);
                assert_eq!(images.list().unwrap().len(), 1);
            }
        }
        let staging = scratch.path().join("image/staging");
        assert_eq!(
            std::fs::read_dir(staging).unwrap().count(),
            0,
            "nothing stays half-made"
        );
    }
}
