//! Pushes: what goes, what need not, and what goes on where it broke off.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::{
    Ear,
    fake::{Answer, Asked, Fake},
    images, layer, pull_from,
    stored::Stored,
};
use crate::{Digest, News, Push, testing::Scratch};

/// A registry that takes what is pushed.
#[derive(Default)]
struct Taken {
    stored: Mutex<Stored>,
    uploads: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Uploads that die in their middle.
    deaths: Mutex<u32>,
    /// Does it keep the first half of those, and tell?
    keeps: bool,
    /// Bytes of each piece that came.
    pieces: Mutex<Vec<usize>>,
}

impl Taken {
    fn answer(&self, asked: &Asked) -> Answer {
        let upload = asked
            .path
            .split("/uploads/")
            .nth(1)
            .map(|rest| rest.split('?').next().unwrap().to_owned());
        let digest = asked
            .path
            .split("digest=")
            .nth(1)
            .map(|digest| digest.replace("%3A", ":"));
        match (asked.method.as_str(), upload) {
            ("POST", Some(_)) if asked.path.contains("mount=") => Answer::of(201, ""),
            ("POST", Some(_)) => {
                let mut uploads = self.uploads.lock().unwrap();
                let number = uploads.len().to_string();
                uploads.insert(number.clone(), Vec::new());
                Answer::of(202, "").header("location", &format!("/v2/a/blobs/uploads/{number}"))
            }
            ("PATCH", Some(number)) => {
                let mut deaths = self.deaths.lock().unwrap();
                self.pieces.lock().unwrap().push(asked.body.len());
                if *deaths > 0 {
                    *deaths -= 1;
                    if self.keeps {
                        let half = &asked.body[..asked.body.len() / 2];
                        let mut uploads = self.uploads.lock().unwrap();
                        uploads.get_mut(&number).unwrap().extend_from_slice(half);
                    }
                    return Answer::of(202, "x").cut(0).header("content-length", "1");
                }
                self.uploads
                    .lock()
                    .unwrap()
                    .get_mut(&number)
                    .unwrap()
                    .extend_from_slice(&asked.body);
                Answer::of(202, "").header("location", &format!("/v2/a/blobs/uploads/{number}?state=x"))
            }
            ("GET", Some(number)) if self.keeps => {
                let count = self.uploads.lock().unwrap()[&number].len();
                Answer::of(204, "")
                    .header("location", &format!("/v2/a/blobs/uploads/{number}?state=y"))
                    .header("range", &format!("0-{}", count - 1))
            }
            ("PUT", Some(number)) => {
                let mut bytes = self.uploads.lock().unwrap()[&number].clone();
                bytes.extend_from_slice(&asked.body);
                assert_eq!(Digest::of(&bytes).to_string(), digest.unwrap());
                self.stored.lock().unwrap().blob(bytes, "");
                Answer::of(201, "")
            }
            ("PUT", None) => {
                let manifest = serde_json::from_slice(&asked.body).unwrap();
                let tag = asked.path.split("/manifests/").nth(1).unwrap().to_owned();
                let kind = asked.headers["content-type"].clone();
                let mut stored = self.stored.lock().unwrap();
                let digest = Digest::of(&asked.body).to_string();
                stored.manifest(&tag, &kind, &manifest);
                for name in [tag, digest] {
                    stored.manifests.insert(name, (kind.clone(), asked.body.clone()));
                }
                Answer::of(201, "")
            }
            _ => self.stored.lock().unwrap().answer(asked),
        }
    }
}

#[test]
fn what_is_pushed_is_pulled_as_the_same_image_and_not_sent_twice() {
    let taken = Arc::new(Taken::default());
    *taken.deaths.lock().unwrap() = 1;
    let fake = {
        let taken = taken.clone();
        Fake::serve(move |asked| taken.answer(asked))
    };
    let scratch = Scratch::new("push");
    let one = images(&scratch.path().join("one"));
    let (name, other) = (fake.name("a:1"), fake.name("b:1"));
    let id = one
        .import(&mut layer("f", 50_000).as_slice(), Some(&name), &[], "")
        .unwrap()
        .id;
    let push = |name: &str| {
        let ear = Ear::default();
        let push = Push {
            reference: name,
            all_tags: false,
            credentials: None,
        };
        one.push(push, &ear).map(|_| ear)
    };
    let ear = push(&name).unwrap();
    assert!(ear.heard("The push refers to repository") && ear.heard("Retrying in 1 second") && ear.heard("Pushed"));
    assert!(
        ear.0
            .lock()
            .unwrap()
            .iter()
            .any(|news| matches!(news, News::Pushed { tag, .. } if tag == "1"))
    );
    assert!(push(&name).unwrap().heard("Layer already exists"));

    let two = images(&scratch.path().join("two"));
    let image = pull_from(&two, &name, &Ear::default()).unwrap();
    assert_eq!(image.id, id);
    assert_eq!(
        image.digests,
        one.find(&name).unwrap().digests,
        "both know it by the same digest"
    );

    taken
        .stored
        .lock()
        .unwrap()
        .blobs
        .retain(|_, bytes| bytes.starts_with(b"{"));
    one.tag(&name, &other).unwrap();
    assert!(push(&other).unwrap().heard("Mounted from a"));
    let error = push(&fake.name("c:1")).unwrap_err().to_string();
    assert!(
        error.starts_with("An image does not exist locally with the tag: "),
        "{error}"
    );
}

#[test]
fn a_layer_that_broke_off_goes_on_where_it_broke() {
    let taken = Arc::new(Taken {
        deaths: Mutex::new(2),
        keeps: true,
        ..Taken::default()
    });
    let fake = {
        let taken = taken.clone();
        Fake::serve(move |asked| taken.answer(asked))
    };
    let scratch = Scratch::new("push-on");
    let one = images(&scratch.path().join("one"));
    let name = fake.name("a:1");
    let tar = layer("f", 400_000);
    let id = one.import(&mut tar.as_slice(), Some(&name), &[], "").unwrap().id;
    let ear = Ear::default();
    let push = Push {
        reference: &name,
        all_tags: false,
        credentials: None,
    };
    one.push(push, &ear).unwrap();
    assert!(ear.heard("Retrying in 2 seconds"));
    let pieces = taken.pieces.lock().unwrap().clone();
    let whole = pieces[0];
    assert!(whole > 300_000, "{pieces:?}");
    assert_eq!(
        pieces[1],
        whole - whole / 2,
        "what is there is not sent again: {pieces:?}"
    );
    assert_eq!(pieces[2], pieces[1] - pieces[1] / 2, "{pieces:?}");
    let two = images(&scratch.path().join("two"));
    assert_eq!(pull_from(&two, &name, &Ear::default()).unwrap().id, id);
}
