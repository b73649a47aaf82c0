//! Registries that a test plays itself: what they say, what they ask for, and how they fail.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::{
    Credentials, Digest, ImageError, Images, Listener, News, Pull, Push, RegistryOptions,
    testing::{Scratch, Tar},
};

/// What a client asks.
struct Asked {
    method: String,
    /// With its query.
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// What the registry answers.
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the line goes dead.
    cut: Option<usize>,
}

impl Answer {
    fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

/// A registry on loopback; goes away with the test's process.
struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn serve(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let seen = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (answer.clone(), seen.clone());
                thread::spawn(move || while talk(&stream, &*answer, &seen).is_some() {});
            }
        });
        Self { address, asked }
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// How often something was asked that contains this.
    fn count(&self, what: &str) -> usize {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|asked| asked.contains(what))
            .count()
    }
}

/// One request and its answer; `None` ends the connection. What is no HTTP (a TLS greeting) ends it, too.
fn talk(stream: &TcpStream, answer: &dyn Fn(&Asked) -> Answer, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok().filter(|count| *count > 0)?;
    let line = String::from_utf8(line).ok().filter(|line| line.contains("HTTP/1.1"))?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => _ = headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        }
    }
    let mut body = Vec::new();
    if headers
        .get("transfer-encoding")
        .is_some_and(|encoding| encoding == "chunked")
    {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let length = u64::from_str_radix(line.trim(), 16).ok()?;
            (&mut reader).take(length).read_to_end(&mut body).ok()?;
            reader.read_line(&mut line).ok()?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length") {
        (&mut reader).take(length.parse().ok()?).read_to_end(&mut body).ok()?;
    }
    let asked = Asked {
        method,
        path,
        headers,
        body,
    };
    seen.lock().unwrap().push(format!("{} {}", asked.method, asked.path));
    let reply = answer(&asked);
    let mut head = format!("HTTP/1.1 {} Word\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| name == "content-length") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if asked.method == "HEAD" {
        return Some(());
    }
    stream
        .write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])
        .ok()?;
    match reply.cut {
        Some(_) => {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            None
        }
        None => Some(()),
    }
}

/// Keeps what it hears.
#[derive(Debug, Default)]
struct Ear(Mutex<Vec<News>>);

impl Listener for Ear {
    fn hear(&self, news: News) {
        self.0.lock().unwrap().push(news);
    }

    fn is_gone(&self) -> bool {
        false
    }
}

impl Ear {
    fn heard(&self, what: &str) -> bool {
        let news = self.0.lock().unwrap();
        news.iter()
            .any(|news| matches!(news, News::Status { text, .. } if text.contains(what)))
    }
}

/// An image in a registry: its blobs and manifests by digest or tag.
#[derive(Clone, Default)]
struct Stored {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Data that does not shrink.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise
}

impl Stored {
    /// An image of these layers, compressed, by a tag and its digest. Returns the digest of the manifest.
    fn image(&mut self, tag: &str, layers: &[Vec<u8>], architecture: &str) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": [tag]}, "history": [],
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let layers = layers.iter().map(|layer| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(layer).unwrap();
            self.blob(
                gzip.finish().unwrap(),
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
            )
        });
        let layers: Vec<Value> = layers.collect();
        let config = self.blob(config, "application/vnd.docker.container.image.v1+json");
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.manifest(tag, MANIFEST, &manifest)
    }

    fn blob(&mut self, bytes: Vec<u8>, kind: &str) -> Value {
        let digest = Digest::of(&bytes).to_string();
        let described = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
        self.blobs.insert(digest, bytes);
        described
    }

    fn manifest(&mut self, tag: &str, kind: &str, manifest: &Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes).to_string();
        self.manifests.insert(tag.into(), (kind.into(), bytes.clone()));
        self.manifests.insert(digest.clone(), (kind.into(), bytes));
        digest
    }

    /// What an honest registry answers.
    fn answer(&self, asked: &Asked) -> Answer {
        let path = asked.path.split('?').next().unwrap();
        if path == "/v2/" {
            return Answer::of(200, "{}");
        }
        if let Some(digest) = path.split("/blobs/").nth(1) {
            let Some(bytes) = self.blobs.get(digest) else {
                return Answer::of(404, r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#);
            };
            let range = asked
                .headers
                .get("range")
                .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
            return match range {
                Some(start) => {
                    let start: usize = start.parse().unwrap();
                    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                    Answer::of(206, &bytes[start..]).header("content-range", &range)
                }
                None => Answer::of(200, bytes.clone()),
            };
        }
        match path.split("/manifests/").nth(1).and_then(|tag| self.manifests.get(tag)) {
            Some((kind, bytes)) => Answer::of(200, bytes.clone())
                .header("content-type", kind)
                .header("docker-content-digest", Digest::of(bytes).as_str()),
            None => Answer::of(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            ),
        }
    }
}

fn layer(name: &str, bytes: usize) -> Vec<u8> {
    Tar::default().file(name, noise(bytes)).end()
}

fn here() -> &'static str {
    crate::manifest::architecture()
}

fn images(path: &Path) -> Images {
    Images::open(path).unwrap()
}

fn pull_from(images: &Images, name: &str, ear: &Ear) -> Result<crate::Image, ImageError> {
    let pulled = images.pull(
        Pull {
            reference: name,
            all_tags: false,
            platform: None,
            credentials: None,
        },
        ear,
    );
    pulled.map(|mut images| images.remove(0))
}

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

#[test]
fn tokens_are_had_where_the_registry_says_and_renewed_when_they_end() {
    let mut stored = Stored::default();
    stored.image("1", &[layer("a", 10)], here());
    let given = Mutex::new(0);
    let used = Mutex::new(BTreeMap::<String, u32>::new());
    let fake = Fake::serve(move |asked| {
        let address = asked.headers["host"].clone();
        if asked.path.starts_with("/token?") {
            if asked
                .headers
                .get("authorization")
                .is_none_or(|basic| basic != "Basic YWRhOnNlY3JldA==")
            {
                return Answer::of(401, "{}");
            }
            assert!(asked.path.contains("scope=repository%3Ateam%2Fapp%3Apull") && asked.path.contains("account=ada"));
            let mut given = given.lock().unwrap();
            *given += 1;
            return Answer::of(200, json!({"token": format!("t{given}")}).to_string());
        }
        let token = asked.headers.get("authorization").cloned().unwrap_or_default();
        let mut used = used.lock().unwrap();
        let uses = used.entry(token.clone()).or_default();
        *uses += 1;
        // each is good for one request
        match token.starts_with("Bearer t") && *uses == 1 {
            true => stored.answer(asked),
            false => Answer::of(401, "{}").header(
                "www-authenticate",
                &format!("Bearer realm=\"http://{address}/token\",service=\"here\""),
            ),
        }
    });
    let scratch = Scratch::new("tokens");
    let (images, name) = (images(scratch.path()), fake.name("team/app:1"));
    let ada = |password: &str| Credentials {
        username: "ada".into(),
        password: password.into(),
        ..Credentials::default()
    };
    let pull = |credentials: Option<&Credentials>| {
        let pull = Pull {
            reference: &name,
            all_tags: false,
            platform: None,
            credentials,
        };
        images.pull(pull, &Ear::default()).map(drop)
    };
    pull(Some(&ada("secret"))).unwrap();
    assert!(fake.count("/token?") >= 3, "a token that was refused is renewed");
    for wrong in [None, Some(&ada("guess"))] {
        let error = pull(wrong).unwrap_err();
        assert!(
            matches!(&error, ImageError::Unauthorized(why) if why.contains("unauthorized")),
            "{error}"
        );
    }
}

#[test]
fn a_mirror_is_asked_first_and_need_not_have_everything() {
    let mut stored = Stored::default();
    stored.image("1", &[layer("a", 10)], here());
    let fake = Fake::serve(move |asked| stored.answer(asked));
    let scratch = Scratch::new("mirror");
    let options = RegistryOptions {
        mirrors: vec![format!("http://{}", fake.address)],
        ..RegistryOptions::default()
    };
    let images = images(scratch.path()).with_registries(options);
    let image = pull_from(&images, "app:1", &Ear::default()).unwrap();
    assert_eq!(image.tags, ["app:1"]);
    assert_eq!(fake.count("/v2/library/app/manifests/1"), 1);
}

#[test]
fn refusals_are_told_in_dockers_words() {
    let answers = [
        (
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            "manifest for {}/a:1 not found: manifest unknown",
        ),
        (
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"unknown"}]}"#,
            "repository {}/a not found: name unknown: unknown",
        ),
        (
            403,
            r#"{"errors":[{"code":"DENIED","message":"no"}]}"#,
            "pull access denied for {}/a, repository does not exist or may require 'docker login': denied: no",
        ),
        (
            503,
            "",
            "received unexpected status code 503 Service Unavailable from the registry",
        ),
        (200, "{", "cannot be read"),
        (200, r#"{"schemaVersion":1}"#, "schema version 1"),
    ];
    for (status, body, said) in answers {
        let fake = Fake::serve(move |asked| match asked.path == "/v2/" {
            true => Answer::of(200, "{}"),
            false => Answer::of(status, body),
        });
        let scratch = Scratch::new("refusals");
        let error = pull_from(&images(scratch.path()), &fake.name("a:1"), &Ear::default())
            .unwrap_err()
            .to_string();
        let said = said.replace("{}", &fake.address.to_string());
        assert!(error.contains(&said), "{error} does not say {said}");
    }
    let scratch = Scratch::new("nobody");
    let error = pull_from(&images(scratch.path()), "127.0.0.1:1/a:1", &Ear::default()).unwrap_err();
    assert!(
        matches!(&error, ImageError::Unreachable(why) if why.contains("connection refused")),
        "{error}"
    );
}

/// A registry that takes what is pushed.
#[derive(Default)]
struct Taken {
    stored: Mutex<Stored>,
    uploads: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Uploads that die in their middle.
    deaths: Mutex<u32>,
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
                if *deaths > 0 {
                    *deaths -= 1;
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
