//! Two hosts whose agents encrypt what they send each other. Needs a kernel with WireGuard; Debian's has it.

use std::{net::IpAddr, thread, time::Duration};

use nix::unistd::gettid;
use sluice_model::{
    Host as Told, Network, RemoteEndpoint,
    host::{Seal, VXLAN_PORT},
    network::Driver,
};
use sluice_store::{Write, key, record};
use tokio::sync::{mpsc, oneshot};

use super::{
    stage::{address, attempt, endpoint, eventually, network, on_a_host, put_network, run},
    wire::{Wire, udp_port},
};

/// The port at which the hosts hear what is encrypted.
const PORT: u16 = 51_820;
/// For how long something may take under emulation.
const PATIENCE: Duration = Duration::from_secs(60);
/// What pings are filled with, and how ping is told.
const PATTERN: [u8; 4] = [0xc0, 0xff, 0xee, 0x42];
const FILLED: &str = "-p c0ffee42";

/// What the other host is asked.
enum Ask {
    Commit(Vec<Write>, oneshot::Sender<()>),
    PutEndpoint(oneshot::Sender<()>),
    NewKey(oneshot::Sender<Seal>),
}

/// The other host, on a thread and in namespaces of its own.
struct Other {
    asks: mpsc::UnboundedSender<Ask>,
    thread: thread::JoinHandle<()>,
    /// By what it is reached at first.
    seal: Seal,
}

impl Other {
    /// Starts it with the other end of our uplink in it.
    async fn start() -> Self {
        let (asks, mut asked) = mpsc::unbounded_channel();
        let (tell_place, place) = oneshot::channel();
        let (plug_in, plugged) = oneshot::channel::<()>();
        let (tell_seal, seal) = oneshot::channel();
        let thread = thread::spawn(move || {
            on_a_host(async move |host| {
                run("ip link delete up0");
                tell_place
                    .send(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid()))
                    .unwrap();
                plugged.await.unwrap();
                run("ip address add 192.0.2.2/24 dev up1");
                run("ip link set up1 up");
                let agent = host.agent().await;
                tell_seal.send(agent.seal(PORT).await.unwrap().unwrap()).unwrap();
                while let Some(ask) = asked.recv().await {
                    match ask {
                        Ask::Commit(writes, done) => {
                            let revision = host.commit(writes).await;
                            agent.settled(revision, &[]).await.unwrap();
                            done.send(()).unwrap();
                        }
                        Ask::PutEndpoint(done) => {
                            let revision = host.commit(host.put(2)).await;
                            agent.settled(revision, &[endpoint(2).id.as_str()]).await.unwrap();
                            done.send(()).unwrap();
                        }
                        Ask::NewKey(done) => {
                            let (seal, _) = agent.renew_seal(PORT).await.unwrap();
                            done.send(seal.unwrap()).unwrap();
                        }
                    }
                }
                agent.stop().await;
            });
        });
        let place = place.await.unwrap();
        run(&format!("ip link set up1 netns {place}"));
        plug_in.send(()).unwrap();
        Self {
            asks,
            thread,
            seal: seal.await.unwrap(),
        }
    }

    async fn commit(&self, writes: Vec<Write>) {
        self.ask(|done| Ask::Commit(writes, done)).await;
    }

    async fn put_endpoint(&self) {
        self.ask(Ask::PutEndpoint).await;
    }

    async fn new_key(&self) -> Seal {
        self.ask(Ask::NewKey).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> T {
        let (done, is_done) = oneshot::channel();
        assert!(self.asks.send(ask(done)).is_ok(), "the other host is gone");
        is_done.await.unwrap()
    }

    fn leave(self) {
        drop(self.asks);
        self.thread.join().unwrap();
    }
}

/// What host `number` tells of itself.
fn told(number: u8, seal: &Seal) -> Told {
    Told {
        id: format!("host{number}"),
        name: format!("host{number}"),
        addresses: vec![IpAddr::from([192, 0, 2, number])],
        vxlan_port: VXLAN_PORT,
        version: String::new(),
        since: jiff::Timestamp::UNIX_EPOCH,
        seal: Some(seal.clone()),
    }
}

/// What of the hosts is written on host `number`, 1 or 2.
fn hosts(number: u8, own: &Seal, others: &Seal) -> Vec<Write> {
    let other = told(3 - number, others);
    vec![
        Write::Put(key::THIS_HOST.to_owned(), record::encode(&told(number, own)).unwrap()),
        Write::Put(key::host(&other.id), record::encode(&other).unwrap()),
    ]
}

/// What of the network and of the other's endpoint.
fn shared(number: u8, network: &Network) -> Vec<Write> {
    let remote = RemoteEndpoint::of(&endpoint(u32::from(3 - number)), &format!("host{}", 3 - number));
    vec![
        put_network(network),
        Write::Put(
            key::remote_endpoint(&remote.network, &remote.id),
            record::encode(&remote).unwrap(),
        ),
    ]
}

/// Nothing of what an endpoint said was seen, nor a packet that says of itself that it is one between hosts.
fn assert_sealed(frames: &[Vec<u8>]) {
    for frame in frames {
        assert_ne!(udp_port(frame), Some(VXLAN_PORT), "{frame:02x?}");
        let shows = frame.windows(PATTERN.len()).any(|bytes| bytes == PATTERN);
        assert!(!shows, "{frame:02x?}");
    }
}

#[test]
fn what_hosts_send_each_other_of_an_encrypted_network_is_encrypted_or_not_sent() {
    on_a_host(async |host| {
        let agent = host.agent().await;
        let Some(mut ours) = agent.seal(PORT).await.unwrap() else {
            println!("skipped: this kernel has no WireGuard");
            agent.stop().await;
            return;
        };
        assert_eq!(
            agent.seal(PORT).await.unwrap().as_ref(),
            Some(&ours),
            "it is there already"
        );
        let other = Other::start().await;
        let mut theirs = other.seal.clone();
        assert!(ours.key != theirs.key && ours.address != theirs.address);
        let network = Network {
            driver: Driver::Overlay,
            vni: 4097,
            encrypted: true,
            mtu_follows: true,
            ..network()
        };
        let pings = async |more: &str| {
            host.attempt_in(1, &format!("ping -c 1 -W 1 {FILLED} {more} {}", address(2)))
                .0
        };
        let tell = async |ours: &Seal, theirs: &Seal| {
            other.commit(hosts(2, theirs, ours)).await;
            let revision = host.commit(hosts(1, ours, theirs)).await;
            agent.settled(revision, &[]).await.unwrap();
        };
        let wire = Wire::of("up0");
        tell(&ours, &theirs).await;
        other.commit(shared(2, &network)).await;
        other.put_endpoint().await;
        let revision = host.commit([shared(1, &network), host.put(1)].concat()).await;
        agent.settled(revision, &[endpoint(1).id.as_str()]).await.unwrap();

        eventually("the other answers", PATIENCE, async || pings("").await).await;
        // 1500 - 60 for what encrypts - 70 for what encapsulates
        let (_, device) = host.attempt_in(1, "ip link show eth0");
        assert!(device.contains("mtu 1370"), "{device}");
        eventually("large packets pass whole", PATIENCE, async || {
            pings("-s 1342 -M do").await
        })
        .await;
        let frames = wire.frames();
        assert!(
            frames.iter().any(|frame| udp_port(frame) == Some(PORT)),
            "{}",
            frames.len()
        );
        assert_sealed(&frames);

        // both take a new key, and the one hears of the other's only later
        let old = theirs.clone();
        theirs = other.new_key().await;
        ours = agent.renew_seal(PORT).await.unwrap().0.unwrap();
        assert!(theirs.key != old.key && theirs.address == old.address);
        assert!(!pings("").await, "nobody knows anybody");
        tell(&ours, &theirs).await;
        eventually("the other answers by new keys", PATIENCE, async || pings("").await).await;
        assert_sealed(&wire.frames());

        // without the device nothing leaves
        run("ip link delete sluice0-wg");
        for _ in 0..3 {
            assert!(!pings("").await);
        }
        assert_sealed(&wire.frames());
        let before = ours;
        let mut again = None;
        // the kernel may hold the port of a device that is gone for a while
        eventually("there is a device again", PATIENCE, async || {
            again = agent.seal(PORT).await.ok().flatten();
            again.is_some()
        })
        .await;
        ours = again.unwrap();
        assert_ne!(ours.address, before.address);
        tell(&ours, &theirs).await;
        eventually("the other answers by a new device", PATIENCE, async || pings("").await).await;
        assert_sealed(&wire.frames());

        agent.unseal().await.unwrap();
        assert!(!attempt("ip link show sluice0-wg").0);
        other.leave();
        agent.stop().await;
    });
}
