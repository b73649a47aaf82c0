//! Three hosts that want the same, on a real etcd.

use std::{
    fs::File,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use sluice_model::{PublishedPort, network::Subnet};
use sluice_store::etcd::EtcdOptions;

use super::*;
use crate::network::ipam::Ipam;

/// An etcd that goes with its directory when the test ends, however it ends.
struct Member {
    process: Child,
    directory: PathBuf,
    client: u16,
}

impl Member {
    fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("sluice-claim-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let free: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [client, peer] = [0, 1].map(|place: usize| free[place].local_addr().unwrap().port());
        drop(free);
        let [at, of_peers] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--name", "only", "--initial-cluster", &format!("only={of_peers}")])
            .args(["--listen-client-urls", &at, "--advertise-client-urls", &at])
            .args([
                "--listen-peer-urls",
                &of_peers,
                "--initial-advertise-peer-urls",
                &of_peers,
            ])
            .args(["--unsafe-no-fsync", "--logger", "zap", "--log-level", "warn"])
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("log")).unwrap())
            .spawn()
            .expect("etcd is Debian's etcd-server, which `cargo xtask setup` installs");
        Self {
            process,
            directory,
            client,
        }
    }

    /// A client of its own, as each host has one.
    async fn connect(&self) -> Etcd {
        let etcd = Etcd::connect(EtcdOptions {
            members: vec![format!("http://127.0.0.1:{}", self.client)],
            prefix: String::new(),
            credentials: None,
            encryption: None,
            patience: Duration::from_secs(60),
        })
        .await
        .unwrap();
        for _ in 0..1500 {
            if etcd.get("/there").await.is_ok() {
                return etcd;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        panic!("etcd does not answer");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A host as far as it claims.
struct Claimant {
    name: String,
    etcd: Etcd,
    lease: Lease,
    ipam: std::sync::Mutex<Ipam>,
}

fn network() -> Id {
    Id::from_bytes([7; 32])
}

fn subnet() -> Subnet {
    Subnet {
        subnet: "10.32.0.0/24".parse().unwrap(),
        gateway: "10.32.0.1".parse().unwrap(),
        range: None,
        auxiliary: BTreeMap::new(),
    }
}

impl Claimant {
    async fn new(member: &Member, name: &str) -> Self {
        let etcd = member.connect().await;
        let writes = vec![Write::Put(shared::network(&network()), b"{}".to_vec())];
        etcd.commit(Transaction {
            conditions: vec![],
            writes,
        })
        .await
        .unwrap();
        Self {
            name: name.to_owned(),
            lease: etcd.grant(Duration::from_secs(600)).await.unwrap(),
            etcd,
            ipam: std::sync::Mutex::default(),
        }
    }

    fn endpoint(&self, name: &str) -> RemoteEndpoint {
        let address = self.ipam.lock().unwrap().take(&network(), &subnet()).unwrap();
        RemoteEndpoint {
            id: Id::from_bytes(rand::random()),
            host: self.name.clone(),
            network: network(),
            container: Id::from_bytes(rand::random()),
            name: name.to_owned(),
            labels: Default::default(),
            aliases: vec![],
            addresses: vec![IpNet::new(address, 24).unwrap()],
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            links: vec![],
            exposed: vec![],
            ports: vec![],
            publish_from: vec![],
        }
    }

    async fn announce(&self, endpoint: &RemoteEndpoint) -> Result<Revision, Taken> {
        announce(&self.etcd, self.lease, endpoint, &|_| false).await.unwrap()
    }

    /// As a start does it: the next address as long as one is taken.
    async fn claim(&self, name: &str) -> Result<RemoteEndpoint, Taken> {
        let mut endpoint = self.endpoint(name);
        loop {
            match self.announce(&endpoint).await {
                Ok(_) => return Ok(endpoint),
                Err(Taken::Address(..)) => {
                    let next = self.ipam.lock().unwrap().take(&network(), &subnet()).unwrap();
                    endpoint.addresses = vec![IpNet::new(next, 24).unwrap()];
                }
                Err(taken) => {
                    let address = endpoint.addresses[0].addr();
                    self.ipam.lock().unwrap().release(&network(), address);
                    return Err(taken);
                }
            }
        }
    }
}

async fn told(etcd: &Etcd) -> Vec<RemoteEndpoint> {
    let (entries, _) = etcd.list(shared::ENDPOINTS).await.unwrap();
    let read = |entry: &sluice_store::Entry| record::decode(&entry.key, &entry.value).unwrap();
    entries.iter().map(read).collect()
}

#[tokio::test]
async fn of_three_hosts_that_want_a_hundred_names_at_once_each_name_and_address_is_one_endpoints() {
    let member = Member::start();
    let hosts = [
        Claimant::new(&member, "one").await,
        Claimant::new(&member, "two").await,
        Claimant::new(&member, "three").await,
    ];
    let claims = (0..100).flat_map(|number| {
        hosts
            .iter()
            .map(move |host| async move { host.claim(&format!("same{number}")).await })
    });
    let outcomes = join_all(claims).await;
    let lost = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(Taken::Name(Some(_)))));
    assert_eq!(
        (outcomes.iter().filter(|outcome| outcome.is_ok()).count(), lost.count()),
        (100, 200)
    );
    let there = told(&hosts[0].etcd).await;
    let names: BTreeSet<&str> = there.iter().map(|endpoint| endpoint.name.as_str()).collect();
    let addresses: BTreeSet<IpAddr> = there.iter().map(|endpoint| endpoint.addresses[0].addr()).collect();
    assert_eq!((there.len(), names.len(), addresses.len()), (100, 100, 100));
    let reserved = hosts[0].etcd.list(&shared::addresses(&network())).await.unwrap().0;
    assert_eq!(reserved.len(), 100, "nothing is reserved for those who lost");
    for endpoint in &there {
        withdraw(&hosts[1].etcd, endpoint).await.unwrap();
    }
    assert!(hosts[0].etcd.list("/sluice/v1/taken/").await.unwrap().0.is_empty());
    assert!(told(&hosts[0].etcd).await.is_empty());
}

#[tokio::test]
async fn what_an_earlier_life_left_is_taken_over_and_what_is_anothers_is_left_alone() {
    let member = Member::start();
    let (one, two) = (Claimant::new(&member, "one").await, Claimant::new(&member, "two").await);
    let earlier = one.claim("web").await.unwrap();
    let mut again = one.endpoint("web");
    again.addresses.clone_from(&earlier.addresses);
    assert!(matches!(
        one.announce(&again).await,
        Err(Taken::Name(_) | Taken::Address(..))
    ));
    let is_stale = |other: &RemoteEndpoint| other.id == earlier.id;
    announce(&one.etcd, one.lease, &again, &is_stale)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        told(&one.etcd).await,
        [again.clone()],
        "nothing is left of the earlier life"
    );
    // told again by another lease, it hangs on that one
    let lease = one.etcd.grant(Duration::from_secs(600)).await.unwrap();
    announce(&one.etcd, lease, &again, &is_stale).await.unwrap().unwrap();
    one.etcd.revoke(one.lease).await.unwrap();
    assert_eq!(told(&one.etcd).await, [again.clone()]);
    // while the host is cut off its lease ends, and another takes the name
    one.etcd.revoke(lease).await.unwrap();
    let theirs = two.claim("web").await.unwrap();
    withdraw(&one.etcd, &again).await.unwrap();
    assert_eq!(told(&two.etcd).await.as_slice(), std::slice::from_ref(&theirs));
    assert!(two.announce(&theirs).await.is_ok(), "its reservations are there");
    let lease = one.etcd.grant(Duration::from_secs(600)).await.unwrap();
    let lost = announce(&one.etcd, lease, &again, &|_| false).await.unwrap();
    assert!(matches!(lost, Err(Taken::Name(Some(by)) | Taken::Address(_, Some(by))) if *by == theirs));
}

#[tokio::test]
async fn nobody_comes_to_a_network_that_is_gone() {
    let member = Member::start();
    let host = Claimant::new(&member, "one").await;
    let writes = vec![Write::Delete(shared::network(&network()))];
    host.etcd
        .commit(Transaction {
            conditions: vec![Condition::NoneUnder(shared::endpoints(&network()))],
            writes,
        })
        .await
        .unwrap();
    assert_eq!(host.claim("late").await.unwrap_err(), Taken::Network);
}

#[tokio::test]
async fn a_port_of_all_hosts_is_one_containers_in_whichever_network() {
    let member = Member::start();
    let (one, two) = (Claimant::new(&member, "one").await, Claimant::new(&member, "two").await);
    let published = |host_address: &str, host_port: u16, count: u16| PublishedPort {
        container: "80/tcp".parse().unwrap(),
        host_address: host_address.parse().unwrap(),
        host_port,
        count,
    };
    let mut web = one.endpoint("web");
    web.ports = vec![published("0.0.0.0", 8080, 3), published("::", 8080, 3)];
    one.announce(&web).await.unwrap();
    assert!(one.announce(&web).await.is_ok(), "its own");

    // another network, another host, a port in the middle of the range
    let elsewhere = Id::from_bytes([8; 32]);
    let writes = vec![Write::Put(shared::network(&elsewhere), b"{}".to_vec())];
    two.etcd
        .commit(Transaction {
            conditions: vec![],
            writes,
        })
        .await
        .unwrap();
    let mut other = two.endpoint("other");
    other.network = elsewhere.clone();
    other.ports = vec![published("0.0.0.0", 8082, 1)];
    let Err(Taken::Port(port, Some(by))) = two.announce(&other).await else {
        panic!("it is another's")
    };
    assert_eq!((port.to_string(), by.id), ("8082/tcp".to_owned(), web.id.clone()));
    assert_eq!(told(&two.etcd).await, [web.clone()], "nothing of it is told");
    // at an address of its host it is that host's affair; and what has ended is free
    other.ports = vec![published("192.0.2.1", 8082, 1)];
    two.announce(&other).await.unwrap();
    withdraw(&two.etcd, &other).await.unwrap();
    withdraw(&one.etcd, &web).await.unwrap();
    other.ports = vec![published("0.0.0.0", 8082, 1)];
    two.announce(&other).await.unwrap();
    // and so is what an earlier life of the host left
    let mut again = two.endpoint("again");
    again.ports.clone_from(&other.ports);
    let is_stale = |found: &RemoteEndpoint| found.id == other.id;
    announce(&two.etcd, two.lease, &again, &is_stale)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(told(&two.etcd).await, [again]);
}
