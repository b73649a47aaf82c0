//! Several hosts on one switch, and etcd's members on hosts of their own beside them.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Background;
use crate::{Daemon, Host, eventually};

/// The address of the first member of etcd; the second's is one less, and so on.
const STORE: Ipv4Addr = Ipv4Addr::new(10, 88, 1, 254);
/// How long a host of the lab is taken for alive of which nothing is heard, seconds.
const LEASE: u32 = 5;

/// Hosts that share an etcd.
pub struct Cluster {
    /// The hosts; their addresses are those of [`Cluster::address`], on `eth0`.
    pub hosts: Vec<Host>,
    /// The switch between all of them: `port1` leads to the first host, `etcd0` to etcd's first member.
    pub switch: Host,
    members: Vec<Member>,
}

/// A member of etcd.
struct Member {
    host: Host,
    program: Option<Background>,
}

impl Cluster {
    /// So many hosts, and an etcd of one member, which answers.
    ///
    /// # Panics
    /// If etcd does not.
    pub fn new(hosts: usize) -> Self {
        Self::with_members(hosts, 1)
    }

    /// So many hosts, and an etcd of so many members.
    ///
    /// # Panics
    /// If etcd does not answer.
    pub fn with_members(hosts: usize, members: usize) -> Self {
        let switch = Host::new();
        switch.run("ip link add lan type bridge && ip link set lan up");
        let plug = |port: &str, address: Ipv4Addr| {
            let host = Host::new();
            host.connect("eth0", &switch, port);
            switch.run(&format!("ip link set {port} master lan"));
            host.run(&format!("ip address add {address}/24 dev eth0"));
            host
        };
        let mut cluster = Self {
            members: (0..members)
                .map(|index| Member {
                    host: plug(&format!("etcd{index}"), Self::member(index)),
                    program: None,
                })
                .collect(),
            hosts: (0..hosts)
                .map(|index| plug(&format!("port{}", index + 1), Self::address(index)))
                .collect(),
            switch,
        };
        cluster.start_etcd();
        cluster
    }

    /// The address of a host, counted from 0.
    pub fn address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, 1, u8::try_from(index + 1).unwrap_or(u8::MAX))
    }

    /// The address of a member of etcd, counted from 0.
    fn member(index: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(STORE) - u32::try_from(index).unwrap_or(0))
    }

    fn initial(members: usize) -> String {
        let one = |index| format!("m{index}=http://{}:2380", Self::member(index));
        (0..members).map(one).collect::<Vec<_>>().join(",")
    }

    /// Starts those members of etcd that do not run and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub fn start_etcd(&mut self) {
        let initial = Self::initial(self.members.len());
        for (index, member) in self.members.iter_mut().enumerate() {
            let address = Self::member(index);
            let line = format!(
                "etcd --data-dir {} --name m{index} --initial-cluster {initial} --listen-client-urls http://0.0.0.0:2379 \
                 --advertise-client-urls http://{address}:2379 --listen-peer-urls http://{address}:2380 \
                 --initial-advertise-peer-urls http://{address}:2380 --pre-vote --unsafe-no-fsync --logger zap --log-level warn",
                data(&member.host).display()
            );
            if member.program.is_none() {
                member.program = Some(member.host.spawn("etcd.log", &line));
            }
        }
        eventually("etcd answers", 60, || self.etcdctl("get /there").is_ok());
    }

    /// Kills etcd; what it has written stays.
    pub fn kill_etcd(&mut self) {
        self.members.iter_mut().for_each(|member| member.program = None);
    }

    /// Kills one member of etcd, counted from 0.
    pub fn kill_member(&mut self, index: usize) {
        self.members[index].program = None;
    }

    /// Has etcd write down what it knows, for [`Cluster::restore_etcd`].
    ///
    /// # Panics
    /// If it does not.
    pub fn save_etcd(&self) {
        let copy = self.members[0].host.directory().join("copy");
        self.etcdctl(&format!("snapshot save {}", copy.display())).ok();
    }

    /// Kills etcd, and starts it with what it knew at [`Cluster::save_etcd`].
    ///
    /// # Panics
    /// If it does not answer then.
    pub fn restore_etcd(&mut self) {
        self.kill_etcd();
        let copy = self.members[0].host.directory().join("copy");
        let initial = Self::initial(self.members.len());
        for (index, member) in self.members.iter().enumerate() {
            let data = data(&member.host);
            let _ = std::fs::remove_dir_all(&data);
            member.host.run(&format!(
                "env ETCDCTL_API=3 etcdctl snapshot restore {} --name m{index} --initial-cluster {initial} \
                 --initial-advertise-peer-urls http://{}:2380 --data-dir {} 2>&1",
                copy.display(),
                Self::member(index),
                data.display()
            ));
        }
        self.start_etcd();
    }

    /// Stops etcd without its knowledge: it answers nobody any more.
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze_etcd(&self) -> Frozen {
        let programs = self.members.iter().filter_map(|member| member.program.as_ref());
        let pids: Vec<u32> = programs.map(Background::pid).collect();
        assert!(!pids.is_empty(), "etcd does not run");
        Frozen::these(&pids)
    }

    /// Etcd's own client: the line after `etcdctl`.
    pub fn etcdctl(&self, line: &str) -> crate::Ran {
        let running = self.members.iter().position(|member| member.program.is_some());
        self.members[0].host.shell(&format!(
            "exec env ETCDCTL_API=3 etcdctl --endpoints http://{}:2379 --command-timeout 2s {line}",
            Self::member(running.unwrap_or(0))
        ))
    }

    /// Has etcd forget all but what is there now.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn forget_past(&self) {
        let told = self.etcdctl("get /there -w json").ok();
        let revision: String = told
            .split("\"revision\":")
            .nth(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect())
            .unwrap_or_default();
        self.etcdctl(&format!("compaction --physical {revision}")).ok();
    }

    /// The keys that etcd has under a prefix.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let told = self.etcdctl(&format!("get --prefix --keys-only {prefix}")).ok();
        told.lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// The host that etcd's first member runs on: no host of the cluster, and a client on the same switch.
    pub fn bystander(&self) -> &Host {
        &self.members[0].host
    }

    /// Starts the daemon on a host, counted from 0, as a member of the cluster.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn start(&self, index: usize, flags: &str) -> Daemon {
        let daemon = Daemon::start(&self.hosts[index], &format!("{} {flags}", Self::flags(index)));
        daemon.docker().import(&crate::busybox(), "busybox", &["CMD [\"sh\"]"]);
        daemon
    }

    /// The same with what is to be said of etcd and of where the host is reached.
    ///
    /// # Panics
    /// If the daemon does not answer.
    #[track_caller]
    pub fn start_with(&self, index: usize, store: &str, advertise: &str, flags: &str) -> Daemon {
        let flags = format!(
            "--cluster-store {store} --cluster-advertise {advertise} --cluster-store-opt discovery.ttl={LEASE}s {flags}"
        );
        let daemon = Daemon::start(&self.hosts[index], &flags);
        daemon.docker().import(&crate::busybox(), "busybox", &["CMD [\"sh\"]"]);
        daemon
    }

    /// How a daemon is told of all members.
    pub fn store(&self) -> String {
        let members: Vec<String> = (0..self.members.len())
            .map(|index| format!("{}:2379", Self::member(index)))
            .collect();
        format!("etcd://{}", members.join(","))
    }

    /// What makes a daemon a member, of an etcd of one.
    pub fn flags(index: usize) -> String {
        format!(
            "--cluster-store etcd://{STORE}:2379 --cluster-advertise {} --cluster-store-opt discovery.ttl={LEASE}s",
            Self::address(index)
        )
    }

    /// Pulls a host's cable out of the switch.
    pub fn cut(&self, index: usize) {
        self.switch.run(&format!("ip link set port{} nomaster", index + 1));
    }

    /// Puts it in again.
    pub fn heal(&self, index: usize) {
        self.switch.run(&format!("ip link set port{} master lan", index + 1));
    }
}

fn data(host: &Host) -> PathBuf {
    host.directory().join("etcd")
}

/// Processes that stand still, and go on when this goes.
pub struct Frozen(Vec<Pid>);

impl Frozen {
    /// Stops these.
    ///
    /// # Panics
    /// If one is gone.
    pub fn these(pids: &[u32]) -> Self {
        let pids: Vec<Pid> = pids.iter().map(|pid| Pid::from_raw(pid.cast_signed())).collect();
        for pid in &pids {
            kill(*pid, Signal::SIGSTOP).unwrap_or_else(|error| panic!("freeze {pid}: {error}"));
        }
        Self(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}
