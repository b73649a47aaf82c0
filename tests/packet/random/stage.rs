//! The programs with their tables, on a host of their own.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv6Addr, TcpListener, UdpSocket};

use nix::sched::{CloneFlags, setns};
use sluice_datapath_common::drop::DropKey;
use sluice_datapath_common::settings::Tally;
use sluice_datapath_common::{Ipv4, Ipv6, counter::Counter, programs};

use super::place::{FAMILIES, Place, TENANTS};
use super::tables::{self, Entry, Tables};
use crate::datapath::{Datapath, Outcome};
use crate::frame::Frame;
use crate::listener::Listener;
use crate::reference::conversation::Key;
use crate::reference::world::World;
use crate::reference::{Datagram, Hook};
use crate::scene;
use crate::test_run::Sum;

/// Room for so many entries of answered flows of each family: little enough to be used up now and then.
pub const CAPACITY: usize = 10;

/// Ports of the host with a socket: of UDP at the first NIC, of UDP everywhere, of TCP everywhere (listening).
pub const SOCKETS: [u16; 3] = [20_001, 20_002, 20_003];

pub struct Stage {
    datapath: Datapath,
    tables: Tables,
    /// What the drop counters showed when the last case ended.
    drops: BTreeMap<(u32, u8, u8), (u64, u64)>,
    namespace: File,
    listener: Listener,
    _sockets: ([UdpSocket; 3], TcpListener),
}

impl Stage {
    /// Makes a host and loads the programs.
    pub fn set() -> Self {
        let namespace = scene::furnish();
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace of the stage");
        let [at_nic, udp, tcp] = SOCKETS;
        let [v4, v6] = FAMILIES.map(|family| UdpSocket::bind((Place::Nic.address(family), at_nic)).unwrap());
        // These are of both families.
        let everywhere = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, udp)).unwrap();
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, tcp)).unwrap();
        let full = CAPACITY as u32;
        let sizes = [
            ("FLOWS4", full),
            ("FLOWS6", full),
            ("OPENING4", 4096),
            ("OPENING6", 4096),
            ("FRAGMENTS4", 4096),
            ("FRAGMENTS6", 4096),
        ];
        let mut stage = Self {
            datapath: Datapath::load_with(&scene::config(), &sizes),
            tables: Tables::default(),
            drops: BTreeMap::new(),
            namespace,
            listener: Listener::of_all(),
            _sockets: ([v4, v6, everywhere], listener),
        };
        stage.clear();
        stage
    }

    /// Moves the thread to where the stage is.
    pub fn enter(&self) {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("enter the network namespace of the stage");
    }

    /// Writes what differs from the world written last.
    pub fn write(&mut self, world: &World) {
        self.tables.write(&mut self.datapath, world);
    }

    pub fn run(&mut self, hook: Hook, device: u32, frame: &[u8], sum: Sum) -> Result<Outcome, String> {
        let program = match hook {
            Hook::FromContainer => programs::FROM_CONTAINER,
            Hook::FromHost => programs::FROM_HOST,
            Hook::FromNic => programs::FROM_NIC,
            Hook::ToNic => programs::TO_NIC,
        };
        self.datapath.try_run(program, device, &Frame(frame.to_vec()), sum)
    }

    /// The devices that this very frame has left by since it was last asked, in order.
    pub fn copies_of(&self, frame: &[u8]) -> Vec<u32> {
        let mut devices = self.listener.left_by(frame);
        devices.sort_unstable();
        devices
    }

    /// The entry that packets with this key take.
    pub fn flow(&mut self, key: &Key) -> Option<Entry> {
        match key.source.is_ipv4() {
            true => tables::flow::<Ipv4>(&mut self.datapath, key),
            false => tables::flow::<Ipv6>(&mut self.datapath, key),
        }
    }

    /// All entries.
    pub fn flows(&mut self) -> Vec<(Key, Entry)> {
        let mut all = tables::flows::<Ipv4>(&mut self.datapath);
        all.extend(tables::flows::<Ipv6>(&mut self.datapath));
        all
    }

    pub fn remove_flow(&mut self, key: &Key) {
        match key.source.is_ipv4() {
            true => tables::remove_flow::<Ipv4>(&mut self.datapath, key),
            false => tables::remove_flow::<Ipv6>(&mut self.datapath, key),
        }
    }

    /// What the agent finds that an endpoint holds, when it has walked through the tables.
    pub fn set_tally(&mut self, endpoint: u32, (flows, half_open): (u32, u32)) {
        let tally = Tally {
            flows: i64::from(flows),
            half_open: i64::from(half_open),
        };
        self.datapath.set("TALLIES", endpoint, tally);
    }

    /// The entry under this key was last used so many seconds earlier.
    pub fn age(&mut self, key: &Key, seconds: u64) {
        match key.source.is_ipv4() {
            true => tables::age::<Ipv4>(&mut self.datapath, key, seconds),
            false => tables::age::<Ipv6>(&mut self.datapath, key, seconds),
        }
    }

    pub fn fragments(&mut self) -> BTreeMap<Datagram, Option<(u16, u16)>> {
        let mut all = tables::fragments::<Ipv4>(&mut self.datapath);
        all.extend(tables::fragments::<Ipv6>(&mut self.datapath));
        all.into_iter().collect()
    }

    /// What has been dropped since the last case.
    pub fn drops(&mut self) -> BTreeMap<(u32, u8, u8), (u64, u64)> {
        let mut all = self.all_drops();
        all.retain(|key, counter| {
            let before = self.drops.get(key).copied().unwrap_or_default();
            *counter = (counter.0 - before.0, counter.1 - before.1);
            *counter != (0, 0)
        });
        all
    }

    /// Forgets what the last case left.
    pub fn clear(&mut self) {
        for (key, _) in self.flows() {
            self.remove_flow(&key);
        }
        tables::forget_fragments::<Ipv4>(&mut self.datapath);
        tables::forget_fragments::<Ipv6>(&mut self.datapath);
        self.datapath.clear_held();
        TENANTS.iter().for_each(|tenant| self.set_tally(tenant.number, (0, 0)));
        self.set_tally(0, (0, 0));
        // An agent looks after the tables: what is over is not the packets' business.
        self.datapath.set("SWEPT", 0, u64::MAX / 2);
        self.drops = self.all_drops();
    }

    fn all_drops(&mut self) -> BTreeMap<(u32, u8, u8), (u64, u64)> {
        let counters: Vec<(DropKey, Counter)> = self.datapath.counters();
        let each = counters.into_iter().map(|(key, counter)| {
            (
                (key.endpoint, key.reason, key.direction),
                (counter.packets, counter.bytes),
            )
        });
        each.collect()
    }
}
