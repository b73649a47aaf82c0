//! Anything may befall a cluster in any order: hosts are cut off, etcd and daemons are frozen and killed, while containers come and go. When all is well
//! again, everybody agrees, everybody reaches everybody, and nothing is left of what is gone.

use std::collections::{BTreeMap, BTreeSet};

use lab::{Cluster, Daemon, Docker, Frozen, eventually};

use crate::{
    cluster::{daemons, residents},
    strokes::Chance,
};

/// What happens, unless `SLUICE_CHAOS` says how much.
const DEEDS: u64 = 24;
/// In this order a host is away for so long that the address of a container of its own goes to another.
const FOUND: u64 = 1_795_314_342_051_798_593;
const HOSTS: usize = 3;
/// Names that all hosts want.
const NAMES: u64 = 6;

/// What is not as it should be.
#[derive(Default)]
struct Trouble {
    etcd: Option<Frozen>,
    /// Hosts whose cable is out.
    cut: BTreeSet<usize>,
    /// Daemons that stand still.
    still: BTreeMap<usize, Frozen>,
    /// Daemons that were killed.
    dead: BTreeSet<usize>,
}

struct Town {
    cluster: Cluster,
    daemons: Vec<Daemon>,
    dockers: Vec<Docker>,
    trouble: Trouble,
}

impl Town {
    fn deed(&mut self, chance: &mut Chance) -> String {
        let host = chance.below(HOSTS as u64) as usize;
        let name = format!("c{}", chance.below(NAMES));
        let answers = !self.trouble.dead.contains(&host) && !self.trouble.still.contains_key(&host);
        match chance.below(16) {
            0..=5 if answers => {
                // whoever is refused is not there: its name may be another's, or etcd away
                let ran = self.dockers[host].run(&format!("run -d --name {name} --net wide busybox sleep 100000"));
                if !ran.is_ok() && !ran.stderr.contains("is already in use by container") {
                    self.dockers[host].run(&format!("rm -f {name}"));
                }
                format!("{name} runs on host {host}: {}", ran.is_ok())
            }
            6..=8 if answers => {
                let ran = self.dockers[host].run(&format!("rm -f {name}"));
                format!("{name} is removed from host {host}: {}", ran.is_ok())
            }
            9 => match self.trouble.cut.take(&host) {
                Some(_) => {
                    self.cluster.heal(host);
                    format!("host {host} is there again")
                }
                None => {
                    self.cluster.cut(host);
                    self.trouble.cut.insert(host);
                    format!("host {host} is cut off")
                }
            },
            10 | 11 => match self.trouble.etcd.take() {
                Some(_) => "etcd goes on".to_owned(),
                None => {
                    self.trouble.etcd = Some(self.cluster.freeze_etcd());
                    "etcd stands still".to_owned()
                }
            },
            12 if self.trouble.etcd.is_none() => {
                self.cluster.kill_etcd();
                self.cluster.start_etcd();
                "etcd was killed".to_owned()
            }
            13 if !self.trouble.dead.contains(&host) => match self.trouble.still.remove(&host) {
                Some(_) => format!("daemon {host} goes on"),
                None => {
                    let frozen = Frozen::these(&[self.daemons[host].pid()]);
                    self.trouble.still.insert(host, frozen);
                    format!("daemon {host} stands still")
                }
            },
            14 | 15 if !self.trouble.still.contains_key(&host) => match self.trouble.dead.take(&host) {
                Some(_) => {
                    self.daemons[host].boot();
                    format!("daemon {host} is there again")
                }
                None => {
                    self.daemons[host].kill();
                    self.trouble.dead.insert(host);
                    format!("daemon {host} was killed")
                }
            },
            _ => {
                std::thread::sleep(std::time::Duration::from_millis(chance.below(1500)));
                "nothing for a while".to_owned()
            }
        }
    }

    /// No address is two endpoints', whatever is wrong: as far as etcd can be asked.
    fn check_records(&self, after: &str) {
        if self.trouble.etcd.is_some() {
            return;
        }
        let told = self
            .cluster
            .etcdctl("get --prefix --print-value-only /sluice/v1/shared/endpoints/");
        let mut bearers: BTreeMap<String, usize> = BTreeMap::new();
        for line in told.stdout.lines() {
            for field in ["\"addresses\":[\"", "\"name\":\""] {
                if let Some(value) = line.split(field).nth(1).and_then(|rest| rest.split('"').next()) {
                    *bearers.entry(value.to_owned()).or_default() += 1;
                }
            }
        }
        let twice: Vec<_> = bearers.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "after: {after}: {twice:?} are two endpoints'");
    }

    /// All is mended.
    fn mend(&mut self) {
        self.trouble.etcd = None;
        self.trouble.still.clear();
        for host in std::mem::take(&mut self.trouble.cut) {
            self.cluster.heal(host);
        }
        for host in std::mem::take(&mut self.trouble.dead) {
            self.daemons[host].boot();
        }
    }

    /// Who runs on a host and is on the network: whose address went to another while the host was cut off runs on, but not there.
    fn runs(&self, host: usize) -> BTreeSet<String> {
        let docker = &self.dockers[host];
        let all = docker.run("ps -q --filter network=wide").stdout;
        let has_an_address = |id: &str| {
            let told = docker.run(&format!(
                "inspect --format {{{{.Name}}}}={{{{.NetworkSettings.Networks.wide.IPAddress}}}} {id}"
            ));
            let (name, address) = told.stdout.trim().trim_start_matches('/').split_once('=')?;
            (!address.is_empty()).then(|| name.to_owned())
        };
        all.lines().filter_map(has_an_address).collect()
    }

    fn agrees(&self) -> bool {
        let running: Vec<BTreeSet<String>> = (0..HOSTS).map(|host| self.runs(host)).collect();
        let all: BTreeSet<&String> = running.iter().flatten().collect();
        let told: Vec<_> = self.daemons.iter().map(|daemon| residents(daemon, "wide")).collect();
        let reserved = |what: &str| self.cluster.keys(&format!("/sluice/v1/taken/{what}/")).len();
        let addresses: BTreeSet<&String> = told[0].values().collect();
        running.iter().map(BTreeSet::len).sum::<usize>() == all.len()
            && told[0].keys().collect::<BTreeSet<_>>() == all
            && addresses.len() == all.len()
            && told.iter().all(|others| *others == told[0])
            && reserved("names") == all.len()
            && reserved("addresses") == all.len()
    }
}

/// Pitfall B31.
#[test]
fn whatever_befalls_a_cluster_in_the_end_all_agree_and_nothing_is_left() {
    let wished = std::env::var("SLUICE_CHAOS").ok().and_then(|deeds| deeds.parse().ok());
    let deeds = wished.unwrap_or(DEEDS);
    let mut chance = match wished {
        Some(_) => Chance::new(),
        None => Chance::of(FOUND),
    };
    let cluster = Cluster::new(HOSTS);
    let daemons = daemons(&cluster);
    let dockers: Vec<Docker> = daemons.iter().map(Daemon::docker).collect();
    dockers[0].ok("network create -d overlay wide");
    for docker in &dockers {
        eventually("the network is on all", 30, || {
            docker.run("network inspect wide").is_ok()
        });
    }
    let mut town = Town {
        cluster,
        daemons,
        dockers,
        trouble: Trouble::default(),
    };
    for number in 0..deeds {
        let deed = town.deed(&mut chance);
        println!("{number}: {deed}");
        town.check_records(&deed);
    }
    println!("all is mended");
    town.mend();
    eventually("all agree", 90, || town.agrees());
    town.check_records("all was mended");
    // reachability is membership
    let told = residents(&town.daemons[0], "wide");
    for host in 0..HOSTS {
        for from in town.runs(host) {
            for (to, address) in &told {
                let address = address.split('/').next().unwrap_or_default();
                eventually(&format!("{from} reaches {to}"), 30, || {
                    town.dockers[host]
                        .run(&format!("exec {from} ping -c 1 -W 1 {address}"))
                        .is_ok()
                });
            }
        }
    }
    // nothing is left
    for docker in &town.dockers {
        let all = docker.ok("ps -aq").replace('\n', " ");
        if !all.is_empty() {
            docker.ok(&format!("rm -f {all}"));
        }
    }
    eventually("etcd knows of nobody", 60, || {
        town.cluster.keys("/sluice/v1/shared/endpoints/").is_empty()
            && town.cluster.keys("/sluice/v1/taken/names/").is_empty()
            && town.cluster.keys("/sluice/v1/taken/addresses/").is_empty()
    });
    for (daemon, docker) in town.daemons.iter().zip(&town.dockers) {
        eventually("no device is left", 30, || {
            !daemon.host().run("ip -o link").contains(": slc")
        });
        let held = daemon.sluice("status --json").stdout;
        assert!(!held.contains("\"stuck\":\""), "{held}");
        eventually("nobody is on the network", 30, || residents(daemon, "wide").is_empty());
        assert!(docker.ok("network ls --filter name=wide --format {{.Scope}}") == "global");
    }
    town.dockers[HOSTS - 1].ok("network rm wide");
    for docker in &town.dockers {
        eventually("the network is gone everywhere", 30, || {
            !docker.run("network inspect wide").is_ok()
        });
    }
}
