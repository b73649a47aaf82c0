//! A cluster as large as it may become, seen by one host: the others are records that nobody stands behind.
//!
//! With `SLUICE_LARGE=1000` there are a thousand other hosts with a hundred endpoints each, and what it costs is printed (`cargo xtask bench cluster`).

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use lab::{Cluster, Daemon, Host, eventually};
use sluice_model::{Id, MacAddress, RemoteEndpoint, host::VXLAN_PORT};
use sluice_store::{
    Lease, Revision, Store, Transaction, Write,
    etcd::{Etcd, EtcdOptions},
    key::shared,
    record,
};

/// Other hosts, unless `SLUICE_LARGE` says how many.
const HOSTS: u32 = 20;
/// Endpoints of each.
const EACH: u32 = 100;
const NETWORKS: u32 = 10;

/// Speaks to etcd from where it runs, by a client of its own.
fn with_etcd<T: Send>(cluster: &Cluster, work: impl AsyncFnOnce(Etcd) -> T + Send) -> T {
    cluster.bystander().inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let options = EtcdOptions {
                members: vec!["http://127.0.0.1:2379".to_owned()],
                prefix: String::new(),
                credentials: None,
                encryption: None,
                patience: Duration::from_secs(30),
            };
            work(Etcd::connect(options).await.unwrap()).await
        })
    })
}

async fn commit(etcd: &Etcd, writes: Vec<Write>) -> Revision {
    let transaction = Transaction {
        conditions: vec![],
        writes,
    };
    etcd.commit(transaction).await.unwrap()
}

/// Endpoint `number`, of all hosts.
fn endpoint(networks: &[Id], number: u32) -> RemoteEndpoint {
    let (host, network) = (number / EACH, number % NETWORKS);
    let within = number / NETWORKS + 10;
    let address = Ipv4Addr::new(10, 100 + network as u8, (within >> 8) as u8, within as u8);
    let mut id = [7; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    RemoteEndpoint {
        id: Id::from_bytes(id),
        host: format!("host{host}"),
        network: networks[network as usize].clone(),
        container: Id::from_bytes(id),
        name: format!("web{number}"),
        labels: Default::default(),
        aliases: vec![],
        addresses: vec![format!("{address}/16").parse().unwrap()],
        mac: MacAddress::of_ipv4(address),
        links: vec![],
        exposed: vec![],
        ports: vec![],
        publish_from: vec![],
    }
}

fn put(networks: &[Id], number: u32, lease: Lease) -> Write {
    let endpoint = endpoint(networks, number);
    let key = shared::endpoint(&endpoint.network, &endpoint.id);
    Write::Lend(key, record::encode(&endpoint).unwrap(), lease)
}

fn delete(networks: &[Id], number: u32) -> Write {
    let endpoint = endpoint(networks, number);
    Write::Delete(shared::endpoint(&endpoint.network, &endpoint.id))
}

/// Tells of a host and its endpoints.
async fn tell(etcd: &Etcd, networks: &[Id], host: u32) -> Lease {
    let lease = etcd.grant(Duration::from_secs(36_000)).await.unwrap();
    let told = sluice_model::Host {
        id: format!("host{host}"),
        name: format!("host{host}"),
        addresses: vec![Ipv4Addr::new(10, 88, 100 + (host >> 8) as u8, host as u8).into()],
        vxlan_port: VXLAN_PORT,
        version: String::new(),
        since: serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap(),
        seal: None,
    };
    let mut writes = vec![Write::Lend(
        shared::host(&told.id),
        record::encode(&told).unwrap(),
        lease,
    )];
    writes.extend((host * EACH..(host + 1) * EACH).map(|number| put(networks, number, lease)));
    commit(etcd, writes).await;
    lease
}

/// The table of who lives on other hosts, as packets find it.
struct Table {
    entries: HashMap<MapData, [u8; 8], [u8; 16]>,
    /// The numbers of networks, by the second byte of their addresses.
    numbers: std::collections::BTreeMap<u8, [u8; 4]>,
}

impl Table {
    fn open(host: &Host) -> Self {
        let path: PathBuf = host
            .run("find /sys/fs/bpf -name REMOTES4")
            .lines()
            .next()
            .unwrap()
            .into();
        let entries = host.inside(|| MapData::from_pin(path).unwrap());
        let entries = HashMap::try_from(Map::HashMap(entries)).unwrap();
        Self {
            entries,
            numbers: Default::default(),
        }
    }

    fn count(&mut self) -> usize {
        let mut count = 0;
        for key in self.entries.keys().filter_map(Result::ok) {
            self.numbers.insert(key[5], key[..4].try_into().unwrap());
            count += 1;
        }
        count
    }

    fn has(&self, endpoint: &RemoteEndpoint) -> bool {
        let std::net::IpAddr::V4(address) = endpoint.addresses[0].addr() else {
            return false;
        };
        let mut key = [0; 8];
        key[..4].copy_from_slice(&self.numbers[&address.octets()[1]]);
        key[4..].copy_from_slice(&address.octets());
        self.entries.get(&key, 0).is_ok()
    }
}

/// Seconds of CPU that a process has used.
fn cpu(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// MiB of memory: now, and at most so far.
fn memory(process: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Pitfalls B30, B33.
#[test]
fn a_host_that_joins_many_knows_them_all_and_follows_each_change() {
    let given = std::env::var("SLUICE_LARGE").ok().and_then(|hosts| hosts.parse().ok());
    let (hosts, measures) = (given.unwrap_or(HOSTS), given.is_some());
    let cluster = Cluster::new(2);
    let mut first = cluster.start(0, "");
    let networks: Vec<Id> = (0..NETWORKS)
        .map(|number| {
            let subnet = format!("10.{}.0.0/16", 100 + number);
            let made = first
                .docker()
                .ok(&format!("network create -d overlay --subnet {subnet} net{number}"));
            Id::parse(&made).unwrap()
        })
        .collect();
    first.stop();
    let leases = with_etcd(&cluster, async |etcd| {
        let mut leases = Vec::new();
        for host in 0..hosts {
            leases.push(tell(&etcd, &networks, host).await);
        }
        leases
    });

    // one comes
    cluster.hosts[1].run("ip route add 10.88.100.0/22 via 10.88.1.254");
    let began = Instant::now();
    let daemon = Daemon::start(&cluster.hosts[1], &Cluster::flags(1));
    let mut table = Table::open(&cluster.hosts[1]);
    let all = (hosts * EACH) as usize;
    eventually("all are known", 60, || table.count() >= all);
    let joined = began.elapsed();
    assert_eq!(table.count(), all);
    let (resident, peak) = memory(daemon.pid());
    if measures {
        println!(
            "large: {all} endpoints of {hosts} hosts are known after {:.2} s; memory {resident:.0} MiB, at most {peak:.0} MiB",
            joined.as_secs_f64()
        );
    }

    let neighbours = cluster.hosts[1].run("ip neighbour");
    assert!(!neighbours.contains("10.100."), "nobody is a neighbour: {neighbours}");

    // changes, each of which is seen by itself: one goes, one comes
    let changes = if measures { 1000 } else { 50 };
    let pause = if measures {
        Duration::from_millis(20)
    } else {
        Duration::ZERO
    };
    let (used, began) = (cpu(daemon.pid()), Instant::now());
    let mut took: Vec<Duration> = with_etcd(&cluster, async |etcd| {
        let mut took = Vec::new();
        for number in 0..changes {
            let due = began + pause * number;
            tokio::time::sleep_until(due.into()).await;
            let number = number * 37 % (hosts * EACH);
            let there = endpoint(&networks, number);
            for (write, is_there) in [
                (delete(&networks, number), false),
                (put(&networks, number, leases[(number / EACH) as usize]), true),
            ] {
                commit(&etcd, vec![write]).await;
                let written = Instant::now();
                while table.has(&there) != is_there {
                    assert!(written.elapsed() < Duration::from_secs(30), "it is not followed");
                    thread::sleep(Duration::from_micros(50));
                }
                took.push(written.elapsed());
            }
        }
        took
    });
    if measures {
        took.sort_unstable();
        let at = |share: f64| took[(took.len() as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "large: {} changes, {:.0} a second: in the tables after {:.2} ms (median), {:.2} ms (p99); {:.2} % of a CPU",
            took.len(),
            took.len() as f64 / began.elapsed().as_secs_f64(),
            at(0.5),
            at(0.99),
            100.0 * (cpu(daemon.pid()) - used) / began.elapsed().as_secs_f64()
        );
        println!(
            "large: memory {:.0} MiB, at most {:.0} MiB",
            memory(daemon.pid()).0,
            memory(daemon.pid()).1
        );
        let rest = cpu(daemon.pid());
        thread::sleep(Duration::from_secs(20));
        println!(
            "large: at rest {:.2} % of a CPU",
            100.0 * (cpu(daemon.pid()) - rest) / 20.0
        );
    }

    // a host that dies is gone with all it had
    with_etcd(&cluster, async |etcd| etcd.revoke(leases[0]).await.unwrap());
    eventually("a dead host's endpoints are gone", 30, || {
        table.count() == all - EACH as usize
    });
    let words = ["network", "inspect", "net0", "--format", "{{len .Containers}}"];
    let told = daemon.docker().words(&words).ok();
    assert_eq!(told, ((hosts - 1) * EACH / NETWORKS).to_string());
    let status = daemon.sluice("cluster status --json").ok();
    assert!(status.contains("\"behind\":0"), "{status}");
}
