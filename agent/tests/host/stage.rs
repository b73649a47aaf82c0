//! A host to try the agent on: a network and a mount namespace of its own, an uplink, an own bpffs, a store.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use sluice_agent::{Agent, Config};
use sluice_model::{
    Endpoint, Id, MacAddress, Network, PortSpec, Protocol, PublishedPort, Sandbox,
    network::{Driver, Subnet},
};
use sluice_store::{Revision, SharedStore, Transaction, Write, embedded::Embedded, key, record};

/// The host.
pub struct Host {
    /// Where its files are.
    pub directory: PathBuf,
    /// Its store.
    pub store: SharedStore,
    /// The agent's facts.
    pub config: Config,
}

/// Runs a test on a fresh host, or says why it does not.
pub fn on_a_host<F: AsyncFnOnce(&Host) + Send + 'static>(test: F) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    if fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/sluice-datapath.o")).is_err() {
        println!("skipped: needs the eBPF object (cargo xtask build)");
        return;
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("sluice-agent-{}-{number}", std::process::id()));
    let on_host = {
        let directory = directory.clone();
        move || {
            move_in();
            fs::create_dir_all(directory.join("netns")).unwrap();
            let store: SharedStore = Arc::new(Embedded::open(&directory.join("store.redb")).unwrap());
            let config = Config {
                instance: "default".into(),
                bpffs: "/sys/fs/bpf".into(),
                netns_dir: directory.join("netns"),
                ip_forward: true,
                limits: sluice_agent::Limits::default(),
            };
            let host = Host {
                directory,
                store,
                config,
            };
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(test(&host));
        }
    };
    let outcome = thread::Builder::new()
        .name(format!("host-{number}"))
        .spawn(on_host)
        .unwrap()
        .join();
    let _ = fs::remove_dir_all(&directory);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Namespaces of the thread's own (and of all threads that it starts): whatever a test leaves goes with them.
fn move_in() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).unwrap();
    run("ip link set lo up");
    run("ip link add up0 type veth peer name up1");
    run("ip address add 192.0.2.1/24 dev up0");
    run("ip link set up0 up");
    run("ip link set up1 up");
}

/// Runs a command line; it must succeed. Answers what it printed.
pub fn run(line: &str) -> String {
    let (worked, output) = attempt(line);
    assert!(worked, "{line}: {output}");
    output
}

/// Runs a command line.
pub fn attempt(line: &str) -> (bool, String) {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Waits until something is so.
pub async fn eventually(what: &str, within: Duration, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    started.elapsed()
}

impl Host {
    /// Starts an agent.
    pub async fn agent(&self) -> Agent {
        Agent::start(self.config.clone(), self.store.clone())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Writes records.
    pub async fn commit(&self, writes: Vec<Write>) -> Revision {
        self.store
            .commit(Transaction {
                conditions: Vec::new(),
                writes,
            })
            .await
            .unwrap()
    }

    /// Makes network 2 and these endpoints, and waits until they are real.
    pub async fn populate(&self, agent: &Agent, numbers: &[u32]) {
        let mut writes = vec![put_network(&network())];
        numbers.iter().for_each(|number| writes.extend(self.put(*number)));
        let revision = self.commit(writes).await;
        let ids: Vec<String> = numbers.iter().map(|number| endpoint(*number).id.to_string()).collect();
        let subjects: Vec<&str> = ids.iter().map(String::as_str).collect();
        agent.settled(revision, &subjects).await.unwrap();
    }

    /// An endpoint and its sandbox.
    pub fn put(&self, number: u32) -> Vec<Write> {
        let sandbox = Sandbox {
            id: sandbox_id(number),
            path: self.sandbox(number),
            resolver: Default::default(),
        };
        let endpoint = endpoint(number);
        vec![
            Write::Put(key::sandbox(&sandbox.id), record::encode(&sandbox).unwrap()),
            Write::Put(key::endpoint(&endpoint.id), record::encode(&endpoint).unwrap()),
        ]
    }

    /// Takes them away.
    pub fn delete(&self, number: u32) -> Vec<Write> {
        vec![
            Write::Delete(key::endpoint(&endpoint(number).id)),
            Write::Delete(key::sandbox(&sandbox_id(number))),
        ]
    }

    /// The file of an endpoint's sandbox.
    pub fn sandbox(&self, number: u32) -> PathBuf {
        self.config.netns_dir.join(sandbox_id(number).as_str())
    }

    /// Runs a command line in an endpoint's sandbox.
    pub fn attempt_in(&self, number: u32, line: &str) -> (bool, String) {
        attempt(&format!("nsenter --net={} {line}", self.sandbox(number).display()))
    }

    /// Does one endpoint's ping reach an address?
    pub fn pings(&self, number: u32, address: Ipv4Addr) -> bool {
        self.attempt_in(number, &format!("ping -c 1 -W 1 {address}")).0
    }
}

/// Writes a network.
pub fn put_network(network: &Network) -> Write {
    Write::Put(key::network(&network.id), record::encode(network).unwrap())
}

/// Writes an endpoint.
pub fn put_endpoint(endpoint: &Endpoint) -> Write {
    Write::Put(key::endpoint(&endpoint.id), record::encode(endpoint).unwrap())
}

/// Network 2, 172.31.0.0/16.
pub fn network() -> Network {
    Network {
        id: Id::from_bytes([0xaa; 32]),
        name: "bridge".into(),
        driver: Driver::Bridge,
        number: 2,
        subnets: vec![Subnet {
            subnet: "172.31.0.0/16".parse().unwrap(),
            gateway: "172.31.0.1".parse().unwrap(),
            range: None,
            auxiliary: Default::default(),
        }],
        icc: true,
        masquerade: true,
        internal: false,
        mtu: 1500,
        default_binding: "0.0.0.0".parse().unwrap(),
        gateway_mode4: Default::default(),
        gateway_mode6: Default::default(),
        mtu_follows: false,
        parent: None,
        gateway_device: None,
        host_access: None,
        multicast: false,
        vni: 0,
        direct_routing: false,
        encrypted: false,
        attachable: false,
        labels: Default::default(),
        options: Default::default(),
        created: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn id(kind: u8, number: u32) -> Id {
    let mut bytes = [kind; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    Id::from_bytes(bytes)
}

/// The id of an endpoint's sandbox.
pub fn sandbox_id(number: u32) -> Id {
    id(0x5a, number)
}

/// The address of an endpoint.
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 31, 0, 1)) + number)
}

/// An endpoint; it publishes port 8000 + its number as 80/tcp.
pub fn endpoint(number: u32) -> Endpoint {
    Endpoint {
        id: id(0xee, number),
        number,
        generation: 1,
        network: network().id,
        container: sandbox_id(number),
        name: format!("web{number}"),
        sandbox: sandbox_id(number),
        interface: "eth0".into(),
        addresses: vec![format!("{}/16", address(number)).parse().unwrap()],
        mac: MacAddress::of_ipv4(address(number)),
        ports: vec![PublishedPort {
            container: PortSpec {
                port: 80,
                protocol: Protocol::Tcp,
            },
            host_address: "0.0.0.0".parse().unwrap(),
            host_port: 8000 + number as u16,
            count: 1,
        }],
        gateways: vec!["172.31.0.1".parse().unwrap()],
        sysctls: Default::default(),
        labels: Default::default(),
        aliases: vec![],
        links: vec![],
        exposed: vec![],
        publish_from: vec![],
        publish_mesh: false,
    }
}
