//! The programs and their tables, loaded once per test process.

use std::os::fd::AsFd;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf};
use aya::programs::tc::SchedClassifierLinkId;
use aya::programs::{
    CgroupAttachMode, CgroupSockAddr, Program, ProgramError, SchedClassifier, TcAttachType, TestRun, TestRunOptions,
};
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use sluice_datapath_common::config::Config;
use sluice_datapath_common::counter::Counter;
use sluice_datapath_common::drop::{Direction, DropKey, DropReason};
use sluice_datapath_common::endpoint::{Endpoint, EndpointKey};
use sluice_datapath_common::event::{DropEvent, EventPace, FRAME_BYTES, FlowEvent, REASONS};
use sluice_datapath_common::flow::{Flow, FlowKey};
use sluice_datapath_common::fragment::{FragmentKey, FragmentPorts, RING, RINGS};
use sluice_datapath_common::overlay::{Host, Remote};
use sluice_datapath_common::policy::{
    Cell, CellKey, Groups, Judgement, LinkKey, ListKey, MemberKey, Subject, VerdictKey,
};
use sluice_datapath_common::publish::{Publication, PublishKey, RangeKey, SourceKey, reserved_at};
use sluice_datapath_common::settings::Settings;
use sluice_datapath_common::socket::{SocketPeer, SocketPeerKey};
use sluice_datapath_common::uplink::{LocalAddress, Uplink};
use sluice_datapath_common::{Family, Ipv4, Ipv4Address, Ipv6, Ipv6Address, programs};

use crate::frame::Frame;
use crate::test_run::{self, Sum};

/// What a program says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// TC_ACT_UNSPEC: others may have a look.
    Stack,
    /// TC_ACT_SHOT.
    Dropped,
    /// TC_ACT_REDIRECT.
    Sent,
}

/// What a program made of a packet.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub frame: Frame,
}

/// The codes of "unreachable" when nobody is at a port, and when an administrator is against it (RFC 792, RFC 1812).
pub const NO_PORT: u8 = 3;
/// As above.
pub const PROHIBITED: u8 = 13;

/// A conversation that opened or closed, by what both families have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToldFlow {
    pub kind: u32,
    /// The opener's and the other's.
    pub ports: (u16, u16),
    /// From the opener, and to it.
    pub packets: (u64, u64),
    pub rule: u64,
}

/// A record as what it is.
fn value<T: Pod>(record: &[u8]) -> T {
    assert_eq!(record.len(), size_of::<T>());
    // SAFETY: so long, and any bytes are a value of a `Pod`.
    unsafe { record.as_ptr().cast::<T>().read_unaligned() }
}

pub struct Datapath {
    ebpf: Ebpf,
}

/// Where `cargo xtask build` puts the object.
const OBJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/sluice-datapath.o");

/// The tables are small here: most tests leave a handful of entries, and one fills `FLOWS4` or its twin.
const SIZES: [(&str, u32); 7] = [
    ("EVENTS", 4_096),
    ("FLOWS4", 64),
    ("FLOWS6", 64),
    ("OPENING4", 512),
    ("OPENING6", 512),
    ("PUBLISHED4", 64),
    ("PUBLISHED6", 64),
];

/// The context of a packet on the device, which has come into this host by the first; 0: the host has made it.
fn context(first: u32, ifindex: u32) -> [u8; 192] {
    /// Where `ingress_ifindex` lies in `__sk_buff`; `ifindex` stands behind it.
    const INGRESS_IFINDEX: usize = 36;
    let mut context = [0; 192];
    context[INGRESS_IFINDEX..][..4].copy_from_slice(&first.to_ne_bytes());
    context[INGRESS_IFINDEX + 4..][..4].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

impl Datapath {
    /// Loads every program with what it knows of the host.
    pub fn load(config: &Config) -> Self {
        Self::load_with(config, &SIZES)
    }

    /// The same, with tables of these sizes.
    pub fn load_with(config: &Config, sizes: &[(&str, u32)]) -> Self {
        let object = std::env::var("SLUICE_DATAPATH").unwrap_or(OBJECT.to_owned());
        let bytes = std::fs::read(&object)
            .unwrap_or_else(|error| panic!("read {object} (`cargo xtask build` makes it): {error}"));
        let mut loader = EbpfLoader::new();
        let log = if std::env::var_os("VERIFIER_LOG").is_some() {
            VerifierLogLevel::DEBUG
        } else {
            VerifierLogLevel::STATS
        };
        loader.verifier_log_level(log).override_global("CONFIG", config, true);
        for &(map, size) in sizes {
            loader.map_max_entries(map, size);
        }
        let mut ebpf = loader
            .load(&bytes)
            .unwrap_or_else(|error| panic!("load {object}: {error:?}"));
        for name in programs::CLASSIFIERS {
            let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
            patiently(|| program.load()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        for name in programs::SOCKET_HOOKS {
            let program: &mut CgroupSockAddr = ebpf.program_mut(name).unwrap().try_into().unwrap();
            patiently(|| program.load()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        Self { ebpf }
    }

    /// A classifier.
    pub fn classifier(&mut self, name: &str) -> &mut SchedClassifier {
        self.ebpf.program_mut(name).unwrap().try_into().unwrap()
    }

    /// Attaches a classifier to a device of the thread's network namespace, for as long as this value lives.
    pub fn attach(&mut self, program: &str, device: &str, side: TcAttachType) {
        // Below 6.6 there is no tcx, and the filter wants this qdisc. Where it is there already, all is well.
        let _ = aya::programs::tc::qdisc_add_clsact(device);
        let _: SchedClassifierLinkId = self
            .classifier(program)
            .attach(device, side)
            .unwrap_or_else(|error| panic!("attach {program} to {device}: {error:?}"));
    }

    /// Attaches every socket hook to a cgroup.
    pub fn attach_hooks(&mut self, cgroup: &std::fs::File) {
        for name in programs::SOCKET_HOOKS {
            let hook: &mut CgroupSockAddr = self.ebpf.program_mut(name).unwrap().try_into().unwrap();
            hook.attach(cgroup, CgroupAttachMode::Single)
                .unwrap_or_else(|error| panic!("attach {name}: {error:?}"));
        }
    }

    /// All programs by name.
    pub fn programs(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.ebpf.programs()
    }

    /// Gives the frame to a program as if it were on the device.
    pub fn run(&self, program: &str, ifindex: u32, frame: &Frame) -> Outcome {
        self.run_after(program, ifindex, 0, frame)
    }

    /// The same, when it came into this host by another device.
    pub fn run_after(&self, program: &str, ifindex: u32, first: u32, frame: &Frame) -> Outcome {
        self.try_run_after(program, (first, ifindex), frame, Sum::Unknown)
            .unwrap_or_else(|what| panic!("{what}"))
    }

    /// The same with this known of its checksums; what is wrong with the outcome is told.
    pub fn try_run(&self, program: &str, ifindex: u32, frame: &Frame, sum: Sum) -> Result<Outcome, String> {
        self.try_run_after(program, (0, ifindex), frame, sum)
    }

    fn try_run_after(
        &self,
        program: &str,
        (first, ifindex): (u32, u32),
        frame: &Frame,
        sum: Sum,
    ) -> Result<Outcome, String> {
        let mut out = vec![0; frame.0.len() + 128];
        let classifier: &SchedClassifier = self.ebpf.program(program).unwrap().try_into().unwrap();
        let fd = classifier.fd().unwrap().as_fd();
        let ran =
            test_run::once(fd, &frame.0, &context(first, ifindex), &mut out, sum).map_err(|error| match error {
                libc::EBADMSG => format!("{program} has changed the frame, and not the sum of its bytes"),
                error => format!("run {program}: {}", std::io::Error::from_raw_os_error(error)),
            })?;
        out.truncate(ran.length);
        let verdict = match ran.code {
            -1 => Verdict::Stack,
            2 => Verdict::Dropped,
            7 => Verdict::Sent,
            code => return Err(format!("{program} returned {code}")),
        };
        let frame = Frame(out);
        Ok(Outcome { verdict, frame })
    }

    /// Nanoseconds that the program takes, on average, when it sees the frame over and over. It sees what it has made of it from the second time on.
    pub fn time(&self, program: &str, ifindex: u32, frame: &Frame, rounds: u32) -> u32 {
        let mut out = vec![0; frame.0.len() + 64];
        let options = TestRunOptions {
            data_in: Some(&frame.0),
            data_out: Some(&mut out),
            ctx_in: Some(&context(0, ifindex)),
            repeat: rounds,
            ..Default::default()
        };
        let classifier: &SchedClassifier = self.ebpf.program(program).unwrap().try_into().unwrap();
        let result = classifier
            .test_run(options)
            .unwrap_or_else(|error| panic!("run {program}: {error:?}"));
        result.duration.as_nanos() as u32
    }

    pub fn insert<K: Pod, V: Pod>(&mut self, map: &str, key: K, value: V) {
        self.hash(map)
            .insert(key, value, 0)
            .unwrap_or_else(|error| panic!("insert into {map}: {error}"));
    }

    pub fn remove<K: Pod, V: Pod>(&mut self, map: &str, key: K) {
        let _ = self.hash::<K, V>(map).remove(&key);
    }

    pub fn set<V: Pod>(&mut self, map: &str, index: u32, value: V) {
        let mut array: Array<_, V> = self.map(map).try_into().unwrap();
        array.set(index, value, 0).unwrap();
    }

    pub fn slot<V: Pod>(&mut self, map: &str, index: u32) -> V {
        let array: Array<_, V> = self.map(map).try_into().unwrap();
        array.get(&index, 0).unwrap()
    }

    /// Says that a port of the host is published.
    pub fn reserve(&mut self, port: u16, protocol: u8) {
        self.reserve_for(libc::AF_INET as u8, port, protocol);
    }

    /// The same in a family.
    pub fn reserve_for(&mut self, family: u8, port: u16, protocol: u8) {
        let (slot, bit) = reserved_at(family, protocol, port).expect("a protocol with ports");
        let ports: u64 = self.slot("RESERVED", slot);
        self.set("RESERVED", slot, ports | bit);
    }

    pub fn insert_subnet(&mut self, address: Ipv4Address, bits: u32, network: u32) {
        self.insert_prefix("SUBNETS4", bits, address, network);
    }

    pub fn insert_prefix<K: Pod, V: Pod>(&mut self, map: &str, bits: u32, key: K, value: V) {
        let mut trie: LpmTrie<_, K, V> = self.map(map).try_into().unwrap();
        trie.insert(&Key::new(bits, key), value, 0).unwrap();
    }

    pub fn remove_prefix<K: Pod, V: Pod>(&mut self, map: &str, bits: u32, key: K) {
        let mut trie: LpmTrie<_, K, V> = self.map(map).try_into().unwrap();
        let _ = trie.remove(&Key::new(bits, key));
    }

    pub fn insert_subnet6(&mut self, address: Ipv6Address, bits: u32, network: u32) {
        let mut trie: LpmTrie<_, Ipv6Address, u32> = self.map("SUBNETS6").try_into().unwrap();
        trie.insert(&Key::new(bits, address), network, 0).unwrap();
    }

    pub fn insert_range(&mut self, key: RangeKey<Ipv4>, bits: u32, publication: Publication<Ipv4>) {
        self.insert_prefix("RANGES4", bits, key, publication);
    }

    pub fn insert_source(&mut self, endpoint: u32, prefix: Ipv4Address, bits: u32) {
        let key = SourceKey::<Ipv4> {
            endpoint,
            address: prefix,
        };
        self.insert_prefix("SOURCES4", 32 + bits, key, 1u32);
    }

    fn trie<K: Pod, V: Pod>(&mut self, map: &str) -> LpmTrie<&mut MapData, K, V> {
        self.map(map).try_into().unwrap()
    }

    fn clear_prefixes<K: Pod>(&mut self, map: &str) {
        let mut trie: LpmTrie<_, K, u32> = self.trie(map);
        let keys: Vec<_> = trie.keys().collect::<Result<_, _>>().unwrap();
        for key in keys {
            let _ = trie.remove(&key);
        }
    }

    fn clear_ranges<F: Family>(&mut self, map: &str)
    where
        RangeKey<F>: Pod,
        Publication<F>: Pod,
    {
        let mut trie: LpmTrie<_, RangeKey<F>, Publication<F>> = self.trie(map);
        let keys: Vec<_> = trie.keys().collect::<Result<_, _>>().unwrap();
        for key in keys {
            let _ = trie.remove(&key);
        }
    }

    /// Makes answered flows whose `FLOW_*` bits are wanted look as if they had not been used for so much longer, ns.
    pub fn age(&mut self, by: u64, wanted: impl Fn(u8) -> bool) {
        self.age_family::<Ipv4>("FLOWS4", by, &wanted);
        self.age_family::<Ipv6>("FLOWS6", by, &wanted);
    }

    fn age_family<F: Family>(&mut self, map: &str, by: u64, wanted: &dyn Fn(u8) -> bool)
    where
        FlowKey<F>: Pod,
        Flow<F>: Pod,
    {
        for (key, mut flow) in self.entries::<FlowKey<F>, Flow<F>>(map) {
            if wanted(flow.flags) {
                flow.last_seen = flow.last_seen.wrapping_sub(by);
                self.insert(map, key, flow);
            }
        }
    }

    /// All answered flows, or all others.
    pub fn flows(&mut self, map: &str) -> Vec<(FlowKey<Ipv4>, Flow<Ipv4>)> {
        self.entries(map)
    }

    pub fn entries<K: Pod, V: Pod>(&mut self, map: &str) -> Vec<(K, V)> {
        self.hash::<K, V>(map).iter().collect::<Result<_, _>>().unwrap()
    }

    /// The value under a key.
    pub fn lookup<K: Pod, V: Pod>(&mut self, map: &str, key: K) -> Option<V> {
        self.hash::<K, V>(map).get(&key, 0).ok()
    }

    /// Every counter of drops, summed up over the CPUs.
    pub fn counters(&mut self) -> Vec<(DropKey, Counter)> {
        let counters: PerCpuHashMap<_, DropKey, Counter> = self.map("DROPS").try_into().unwrap();
        let each = counters.iter().map(|entry| {
            let (key, per_cpu) = entry.unwrap();
            let sum = per_cpu.iter().fold(Counter::default(), |sum, counter| Counter {
                packets: sum.packets + counter.packets,
                bytes: sum.bytes + counter.bytes,
            });
            (key, sum)
        });
        each.collect()
    }

    /// Every drop that was counted.
    pub fn drops(&mut self) -> Vec<(DropReason, Direction, u32, u64)> {
        let all = self.counters().into_iter().map(|(key, counter)| {
            let reason = DropReason::from_number(key.reason).expect("a reason");
            (
                reason,
                Direction::from_number(key.direction).expect("a direction"),
                key.endpoint,
                counter.packets,
            )
        });
        all.collect()
    }

    /// So many listen to drops from now on.
    pub fn listen(&mut self, listeners: u32) {
        self.set("LISTENERS", 0, listeners);
    }

    /// What was told of since the last time.
    pub fn told(&mut self) -> Vec<DropEvent> {
        let records = self.records();
        records.iter().map(|record| value(record)).collect()
    }

    /// The same, each with the beginning of its frame.
    pub fn told_with_frames(&mut self) -> Vec<(DropEvent, Vec<u8>)> {
        let records = self.records();
        let each = records.iter().map(|record| {
            let (event, frame) = record.split_at(size_of::<DropEvent>());
            assert_eq!(frame.len(), FRAME_BYTES);
            (value(event), frame.to_vec())
        });
        each.collect()
    }

    /// What was told of conversations since the last time.
    pub fn told_flows(&mut self) -> Vec<ToldFlow> {
        fn told<F: Family>(event: FlowEvent<F>) -> ToldFlow {
            ToldFlow {
                kind: event.kind,
                ports: (
                    u16::from_be(event.key.source_port),
                    u16::from_be(event.key.destination_port),
                ),
                packets: (event.flow.packets, event.reply_packets),
                rule: event.rule,
            }
        }
        let records = self.records();
        let each = records
            .iter()
            .map(|record| match record.len() == size_of::<FlowEvent<Ipv4>>() {
                true => told(value::<FlowEvent<Ipv4>>(record)),
                false => told(value::<FlowEvent<Ipv6>>(record)),
            });
        each.collect()
    }

    fn records(&mut self) -> Vec<Vec<u8>> {
        let mut ring: RingBuf<_> = self.map("EVENTS").try_into().unwrap();
        let mut records = Vec::new();
        while let Some(record) = ring.next() {
            records.push(record.to_vec());
        }
        records
    }

    /// How many drops of a reason were not told of: too many of them, and lost.
    pub fn pace(&mut self, reason: DropReason) -> (u64, u64) {
        let paces: PerCpuArray<_, EventPace> = self.map("EVENT_PACE").try_into().unwrap();
        let paces = paces.get(&(reason as u32), 0).unwrap();
        let sum = |of: fn(&EventPace) -> u64| paces.iter().map(of).sum();
        (sum(|pace| pace.too_many), sum(|pace| pace.lost))
    }

    fn clear_events(&mut self) {
        self.listen(0);
        let _ = self.records();
        let mut paces: PerCpuArray<_, EventPace> = self.map("EVENT_PACE").try_into().unwrap();
        for reason in 0..REASONS as u32 {
            let used = paces.get(&reason, 0).unwrap();
            if used.iter().any(|pace| *pace != EventPace::default()) {
                let unused = vec![EventPace::default(); used.len()];
                paces.set(reason, PerCpuValues::try_from(unused).unwrap(), 0).unwrap();
            }
        }
    }

    /// Empties every table that a test or a program may have written to.
    pub fn clear(&mut self) {
        self.clear_family::<Ipv4>("4");
        self.clear_family::<Ipv6>("6");
        self.clear_hash::<u32, sluice_datapath_common::endpoint::Attachment>("ATTACHMENTS");
        for slot in 0..sluice_datapath_common::publish::RESERVED_WORDS {
            if self.slot::<u64>("RESERVED", slot) != 0 {
                self.set("RESERVED", slot, 0u64);
            }
        }
        for number in 0..8 {
            self.set("TALLIES", number, sluice_datapath_common::settings::Tally::default());
        }
        self.clear_ranges::<Ipv4>("RANGES4");
        self.clear_ranges::<Ipv6>("RANGES6");
        self.clear_prefixes::<SourceKey<Ipv4>>("SOURCES4");
        self.clear_prefixes::<SourceKey<Ipv6>>("SOURCES6");
        self.clear_hash::<LinkKey, u32>("LINKS");
        self.clear_hash::<MemberKey, u32>("MEMBERS");
        self.forget_rules();
        for number in 0..8 {
            self.set("HOSTS", number, Host::default());
        }
        self.clear_hash::<Ipv6Address, u32>("SENDERS");
        self.clear_hash::<u32, u32>("VNIS");
        self.clear_hash::<EndpointKey<Ipv4>, Remote>("REMOTES4");
        self.clear_hash::<EndpointKey<Ipv6>, Remote>("REMOTES6");
        // An agent looks after the tables, now and as long as a test may last.
        self.set("SWEPT", 0, u64::MAX / 2);
        self.set("NEXT_WALK", 0, 0u64);
        self.set("NEXT_SEARCH", 0, 0u64);
        self.set("SETTINGS", 0, sluice_datapath_common::settings::Settings::default());
        self.clear_held();
        self.clear_events();
        self.forget_drops();
    }

    /// Documents say nothing.
    pub fn forget_rules(&mut self) {
        self.clear_hash::<u32, Subject>("SUBJECTS");
        self.clear_hash::<CellKey, Cell>("CELLS");
        self.clear_hash::<VerdictKey, Counter>("VERDICTS");
        self.clear_trie::<Ipv4Address, Groups>("KNOWN4");
        self.clear_trie::<Ipv6Address, Groups>("KNOWN6");
        self.clear_trie::<ListKey, Judgement>("LISTS");
        let settings: Settings = self.slot("SETTINGS", 0);
        self.set(
            "SETTINGS",
            0,
            Settings {
                policies: 0,
                ..settings
            },
        );
    }

    fn clear_trie<K: Pod, V: Pod>(&mut self, map: &str) {
        let mut trie: LpmTrie<_, K, V> = self.trie(map);
        let keys: Vec<_> = trie.keys().collect::<Result<_, _>>().unwrap();
        for key in keys {
            let _ = trie.remove(&key);
        }
    }

    /// Nothing has been dropped yet.
    pub fn forget_drops(&mut self) {
        let mut drops: PerCpuHashMap<_, DropKey, Counter> = self.map("DROPS").try_into().unwrap();
        let keys: Vec<_> = drops.keys().collect::<Result<_, _>>().unwrap();
        for key in keys {
            let _ = drops.remove(&key);
        }
    }

    /// Fragments that wait. The maps are the programs' own, so their values are just bytes here.
    pub fn clear_held(&mut self) {
        let mut rings: Array<_, [u8; 24]> = self.map("HELD_RINGS").try_into().unwrap();
        let used: Vec<u32> = (0..RINGS)
            .filter(|ring| rings.get(ring, 0).unwrap() != [0; 24])
            .collect();
        for ring in &used {
            rings.set(*ring, [0; 24], 0).unwrap();
        }
        let mut held: Array<_, [u8; 1584]> = self.map("HELD").try_into().unwrap();
        for piece in used.iter().flat_map(|ring| ring * RING..(ring + 1) * RING) {
            held.set(piece, [0; 1584], 0).unwrap();
        }
    }

    fn clear_family<F: Family<Address: Pod>>(&mut self, family: &str)
    where
        FlowKey<F>: Pod,
        Flow<F>: Pod,
        FragmentKey<F>: Pod,
        SocketPeerKey<F>: Pod,
        SocketPeer<F>: Pod,
        EndpointKey<F>: Pod,
        Uplink<F>: Pod,
        PublishKey<F>: Pod,
        Publication<F>: Pod,
    {
        let name = |table: &str| format!("{table}{family}");
        self.clear_hash::<FlowKey<F>, Flow<F>>(&name("FLOWS"));
        self.clear_hash::<FlowKey<F>, Flow<F>>(&name("OPENING"));
        self.clear_hash::<FragmentKey<F>, FragmentPorts>(&name("FRAGMENTS"));
        self.clear_hash::<SocketPeerKey<F>, SocketPeer<F>>(&name("PEERS"));
        self.clear_hash::<EndpointKey<F>, Endpoint>(&name("ENDPOINTS"));
        self.clear_hash::<F::Address, LocalAddress>(&name("LOCAL"));
        self.clear_hash::<u32, Uplink<F>>(&name("UPLINKS"));
        self.clear_hash::<PublishKey<F>, Publication<F>>(&name("PUBLISHED"));
    }

    fn clear_hash<K: Pod, V: Pod>(&mut self, map: &str) {
        let mut hash = self.hash::<K, V>(map);
        let keys: Vec<K> = hash.keys().collect::<Result<_, _>>().unwrap();
        for key in keys {
            let _ = hash.remove(&key);
        }
    }

    fn hash<K: Pod, V: Pod>(&mut self, map: &str) -> HashMap<&mut MapData, K, V> {
        self.map(map)
            .try_into()
            .unwrap_or_else(|error| panic!("{map}: {error}"))
    }

    fn map(&mut self, name: &str) -> &mut Map {
        self.ebpf
            .map_mut(name)
            .unwrap_or_else(|| panic!("the object has no map {name}"))
    }
}

/// The verifier gives up with EAGAIN when a signal comes in between.
fn patiently(mut load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    for _ in 0..10 {
        match load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.raw_os_error() == Some(libc::EAGAIN) => {}
            outcome => return outcome,
        }
    }
    load()
}
