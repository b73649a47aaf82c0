use std::{
    fs::File,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use super::*;
use crate::{Condition, Event, Write, conformance};

conformance::every_test!(Served::fresh().await);

/// A member of its own for each test, and a store on it.
struct Served {
    store: Etcd,
    member: Member,
}

/// An etcd with its directory, gone when the test ends, however it ends.
struct Member {
    process: Child,
    directory: PathBuf,
    client: u16,
    peer: u16,
}

// === impl Member ===

impl Member {
    fn make() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("sluice-etcd-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let free: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [client, peer] = [0, 1].map(|place: usize| free[place].local_addr().unwrap().port());
        drop(free);
        let process = Self::start(&directory, client, peer);
        Self {
            process,
            directory,
            client,
            peer,
        }
    }

    fn start(directory: &std::path::Path, client: u16, peer: u16) -> Child {
        let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join("log"))
            .unwrap();
        Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--name", "only", "--initial-cluster", &format!("only={peer}")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--unsafe-no-fsync", "--logger", "zap", "--log-level", "warn"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd is Debian's etcd-server, which `cargo xtask setup` installs")
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Self::start(&self.directory, self.client, self.peer);
    }

    fn options(&self) -> EtcdOptions {
        EtcdOptions {
            members: vec![format!("http://127.0.0.1:{}", self.client)],
            prefix: "/test".to_owned(),
            credentials: None,
            encryption: None,
            patience: Duration::from_secs(5),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Three members with a directory, gone when the test ends, however it ends.
struct Three {
    processes: Vec<Child>,
    directory: PathBuf,
    clients: Vec<u16>,
}

impl Three {
    fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("sluice-etcd-three-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let free: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|held| held.local_addr().unwrap().port()).collect();
        drop(free);
        let (clients, peers) = ports.split_at(3);
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let of = |(number, port): (usize, &u16)| format!("m{number}={}", at(*port));
        let initial = peers.iter().enumerate().map(of).collect::<Vec<_>>().join(",");
        let start = |number: usize| {
            let (client, peer) = (at(clients[number]), at(peers[number]));
            Command::new("etcd")
                .arg("--data-dir")
                .arg(directory.join(format!("data{number}")))
                .args(["--name", &format!("m{number}"), "--initial-cluster", &initial])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args([
                    "--pre-vote",
                    "--unsafe-no-fsync",
                    "--logger",
                    "zap",
                    "--log-level",
                    "warn",
                ])
                .stdout(Stdio::null())
                .stderr(File::create(directory.join(format!("log{number}"))).unwrap())
                .spawn()
                .unwrap()
        };
        Self {
            processes: (0..3).map(start).collect(),
            clients: clients.to_vec(),
            directory,
        }
    }
}

impl Drop for Three {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn three_members_do_all_that_one_does_and_two_of_them_go_on() {
    let mut three = Three::start();
    let members = three.clients.iter().map(|port| format!("http://127.0.0.1:{port}"));
    let options = EtcdOptions {
        members: members.collect(),
        prefix: "/test".to_owned(),
        credentials: None,
        encryption: None,
        patience: Duration::from_secs(10),
    };
    let store = Etcd::connect(options).await.unwrap();
    let answers = async |store: &Etcd| {
        let began = Instant::now();
        while let Err(error) = store.get("/there").await {
            assert!(began.elapsed() < Duration::from_secs(60), "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // each is asked in turn
    for port in &three.clients {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", *port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "a member does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    answers(&store).await;
    conformance::every_test!(all of &store);
    three.processes[0].kill().unwrap();
    three.processes[0].wait().unwrap();
    // a question that goes to the one that is gone fails; one of the next does not
    answers(&store).await;
    let began = Instant::now();
    let put = || Transaction {
        conditions: vec![],
        writes: vec![Write::Put("/two".to_owned(), b"1".to_vec())],
    };
    while let Err(error) = store.commit(put()).await {
        assert!(began.elapsed() < Duration::from_secs(60), "{error}");
    }
    let found = loop {
        match store.get("/two").await {
            Ok(found) => break found,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
        }
    };
    assert_eq!(found.unwrap().value, b"1");
}

// === impl Served ===

impl Served {
    async fn fresh() -> Self {
        let member = Member::make();
        let store = Etcd::connect(member.options()).await.unwrap();
        let served = Self { store, member };
        served.until_it_answers().await;
        served
    }

    async fn until_it_answers(&self) {
        let began = Instant::now();
        while let Err(error) = self.store.get("/there").await {
            if began.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(self.member.directory.join("log")).unwrap_or_default();
                panic!("etcd has not answered for a minute: {error}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn put(&self, key: &str, value: &str) -> Revision {
        let writes = vec![Write::Put(key.to_owned(), value.into())];
        let transaction = Transaction {
            conditions: vec![],
            writes,
        };
        self.store.commit(transaction).await.unwrap()
    }

    async fn compact(&self, at: Revision) {
        let at = i64::try_from(at).unwrap();
        self.store.client.kv_client().compact(at, None).await.unwrap();
    }
}

impl Store for Served {
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        self.store.get(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Vec<Entry>, Revision)> {
        self.store.list(prefix)
    }

    fn pages<'a>(&'a self, prefix: &'a str) -> Answer<'a, (Pages, Revision)> {
        self.store.pages(prefix)
    }

    fn commit(&self, transaction: Transaction) -> Answer<'_, Revision> {
        self.store.commit(transaction)
    }

    fn commit_soon(&self, transaction: Transaction) -> Answer<'_, Revision> {
        self.store.commit_soon(transaction)
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> Answer<'a, Watch> {
        self.store.watch(prefix, after)
    }

    fn grant(&self, life: Duration) -> Answer<'_, Lease> {
        self.store.grant(life)
    }

    fn renew(&self, lease: Lease) -> Answer<'_, ()> {
        self.store.renew(lease)
    }

    fn revoke(&self, lease: Lease) -> Answer<'_, ()> {
        self.store.revoke(lease)
    }
}

fn put_at(change: Option<Result<(Revision, Vec<Event>), StoreError>>) -> Revision {
    match change {
        Some(Ok((revision, _))) => revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_list_that_fills_many_pages_is_of_one_moment() {
    let served = Served::fresh().await;
    for first in (0..1200).step_by(100) {
        let writes = (first..first + 100).map(|number| Write::Put(format!("/many/{number:04}"), b"x".to_vec()));
        let transaction = Transaction {
            conditions: vec![],
            writes: writes.collect(),
        };
        served.commit(transaction).await.unwrap();
    }
    let last = served.put("/many-others", "x").await;
    let (entries, read_at) = served.list("/many/").await.unwrap();
    assert_eq!(read_at, last);
    assert_eq!(entries.len(), 1200);
    assert!(entries.is_sorted_by(|one, next| one.key < next.key));
    assert_eq!(entries[777].key, "/many/0777");
}

#[tokio::test]
async fn keys_of_another_prefix_are_another_store() {
    let served = Served::fresh().await;
    let other = EtcdOptions {
        prefix: "/tes".to_owned(),
        ..served.member.options()
    };
    let other = Etcd::connect(other).await.unwrap();
    let revision = served.put("/a", "1").await;
    assert_eq!(other.get("/a").await.unwrap(), None);
    assert_eq!(other.list("/a").await.unwrap(), (vec![], revision));
    // Whatever begins with the shorter prefix is its own, under the name that is left.
    assert_eq!(other.get("t/a").await.unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn a_watch_goes_on_when_etcd_was_gone_and_came_back() {
    let mut served = Served::fresh().await;
    let now = served.put("/w/a", "0").await;
    let mut watch = served.watch("/w/", now).await.unwrap();
    let first = served.put("/w/a", "1").await;
    assert_eq!(put_at(watch.next().await), first);
    served.member.kill();
    served.member.start_again();
    served.until_it_answers().await;
    let second = served.put("/w/a", "2").await;
    assert_eq!(put_at(watch.next().await), second);
}

#[tokio::test]
async fn a_frozen_etcd_is_an_error_with_a_reason_and_then_all_goes_on() {
    let served = Served::fresh().await;
    let patient = EtcdOptions {
        patience: Duration::from_millis(300),
        ..served.member.options()
    };
    let impatient = Etcd::connect(patient).await.unwrap();
    let now = served.put("/w/a", "0").await;
    let mut watch = impatient.watch("/w/", now).await.unwrap();
    served.member.signal("-STOP");
    let error = impatient.get("/w/a").await.unwrap_err().to_string();
    served.member.signal("-CONT");
    assert!(
        error.contains("cannot read /w/a") && error.contains("127.0.0.1"),
        "{error}"
    );
    let next = served.put("/w/a", "1").await;
    assert_eq!(put_at(watch.next().await), next);
}

#[tokio::test]
async fn who_watches_from_what_etcd_has_forgotten_is_told_to_list_again() {
    let served = Served::fresh().await;
    let old = served.put("/w/a", "0").await;
    served.put("/w/a", "1").await;
    let new = served.put("/w/a", "2").await;
    served.compact(new).await;
    let mut watch = served.watch("/w/", old).await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(StoreError::Compacted(_)))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn who_has_heard_of_what_never_happened_is_told_to_list_again() {
    let served = Served::fresh().await;
    let now = served.put("/w/a", "0").await;
    // As after a restore from an older copy.
    let mut watch = served.watch("/w/", now + 100).await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(StoreError::Compacted(_)))));
}

#[tokio::test]
async fn what_etcd_would_refuse_for_its_size_is_refused_with_both_numbers() {
    let served = Served::fresh().await;
    let writes = (0..129)
        .map(|number| Write::Put(format!("/n/{number}"), vec![]))
        .collect();
    let transaction = Transaction {
        conditions: vec![Condition::Absent("/n/0".to_owned())],
        writes,
    };
    let error = served.commit(transaction).await.unwrap_err().to_string();
    assert!(error.contains("1 conditions and 129 writes"), "{error}");
    assert!(served.list("/n/").await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_name_and_a_password_are_shown_where_etcd_wants_them() {
    let served = Served::fresh().await;
    let mut admin = served.store.client.clone();
    admin.user_add("root", "secret", None).await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.auth_enable().await.unwrap();
    assert!(served.store.get("/a").await.is_err());
    let with = |password: &str| EtcdOptions {
        credentials: Some(Credentials {
            user: "root".to_owned(),
            password: password.to_owned(),
        }),
        ..served.member.options()
    };
    let store = Etcd::connect(with("secret")).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), None);
    assert!(Etcd::connect(with("wrong")).await.is_err());
}

/// An authority, and certificates of it for a member and for its clients.
fn certify(directory: &std::path::Path) {
    let script = "key='-newkey rsa:2048 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.crt -days 2 -subj /CN=authority &&
        printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >names &&
        for who in member client; do
            openssl req $key -keyout $who.key -out $who.csr -subj /CN=$who &&
            openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out $who.crt || exit 1
        done
        openssl req -x509 $key -keyout other.key -out other.crt -days 2 -subj /CN=other";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn members_and_hosts_show_each_other_certificates_and_strangers_are_refused() {
    let mut member = Member::make();
    member.kill();
    certify(&member.directory);
    let file = |name: &str| member.directory.join(name);
    let at = format!("https://127.0.0.1:{}", member.client);
    let log = File::create(file("log")).unwrap();
    let peer = format!("http://127.0.0.1:{}", member.peer);
    member.process = Command::new("etcd")
        .arg("--data-dir")
        .arg(file("encrypted"))
        .args(["--name", "only", "--initial-cluster", &format!("only={peer}")])
        .args(["--listen-client-urls", &at, "--advertise-client-urls", &at])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .arg("--cert-file")
        .arg(file("member.crt"))
        .arg("--key-file")
        .arg(file("member.key"))
        .arg("--trusted-ca-file")
        .arg(file("ca.crt"))
        .args([
            "--client-cert-auth",
            "--unsafe-no-fsync",
            "--logger",
            "zap",
            "--log-level",
            "error",
        ])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let options = |authority: &str, identity: Option<&str>| EtcdOptions {
        members: vec![at.clone()],
        encryption: Some(Encryption {
            authority: file(authority),
            identity: identity.map(|name| (file(&format!("{name}.crt")), file(&format!("{name}.key")))),
        }),
        patience: Duration::from_secs(5),
        ..member.options()
    };
    let began = Instant::now();
    let store = loop {
        let connected = Etcd::connect(options("ca.crt", Some("client"))).await;
        match connected {
            Ok(store) if store.get("/there").await.is_ok() => break store,
            other => assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}\n{}",
                other.err(),
                std::fs::read_to_string(file("log")).unwrap_or_default()
            ),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let writes = vec![Write::Put("/a".to_owned(), b"1".to_vec())];
    store
        .commit(Transaction {
            conditions: vec![],
            writes,
        })
        .await
        .unwrap();
    assert_eq!(store.get("/a").await.unwrap().unwrap().value, b"1");
    for (authority, identity) in [
        ("other.crt", Some("client")),
        ("ca.crt", None),
        ("ca.crt", Some("other")),
    ] {
        let refused = match Etcd::connect(options(authority, identity)).await {
            Ok(store) => store.get("/a").await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{authority} {identity:?}");
    }
}

#[tokio::test]
async fn members_with_https_are_not_asked_without_knowing_whom_to_trust() {
    let options = EtcdOptions {
        members: vec!["https://127.0.0.1:1".to_owned()],
        prefix: String::new(),
        credentials: None,
        encryption: None,
        patience: Duration::from_secs(1),
    };
    let Err(error) = Etcd::connect(options).await else {
        panic!("it was believed")
    };
    assert!(error.to_string().contains("authority"), "{error}");
}

#[test]
fn a_range_ends_behind_the_last_key_with_its_prefix() {
    assert_eq!(end_of(b"/a/"), b"/a0");
    assert_eq!(end_of(b"/a\xff"), b"/b");
    assert_eq!(end_of(b"\xff\xff"), [0]);
    assert_eq!(end_of(b""), [0]);
}
