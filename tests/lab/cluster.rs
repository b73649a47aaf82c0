//! Several hosts on one switch, and etcd on a host of its own beside them.

use std::net::Ipv4Addr;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::Background;
use crate::{Daemon, Host, eventually};

/// The address of the host that etcd runs on.
const STORE: &str = "10.88.1.254";
/// How long a host of the lab is taken for alive of which nothing is heard, seconds.
const LEASE: u32 = 5;

/// Hosts that share an etcd.
pub struct Cluster {
    /// The hosts; their addresses are those of [`Cluster::address`], on `eth0`.
    pub hosts: Vec<Host>,
    /// The switch between all of them: `port1` leads to the first host, `port0` to etcd's.
    pub switch: Host,
    etcd: Etcd,
}

/// One member.
struct Etcd {
    host: Host,
    program: Option<Background>,
}

impl Cluster {
    /// So many hosts, and etcd, which answers.
    ///
    /// # Panics
    /// If etcd does not.
    pub fn new(hosts: usize) -> Self {
        let switch = Host::new();
        switch.run("ip link add lan type bridge && ip link set lan up");
        let plug = |number: usize, address: &str| {
            let host = Host::new();
            host.connect("eth0", &switch, &format!("port{number}"));
            switch.run(&format!("ip link set port{number} master lan"));
            host.run(&format!("ip address add {address}/24 dev eth0"));
            host
        };
        let store = plug(0, STORE);
        let hosts = (1..=hosts).map(|number| plug(number, &Self::address(number - 1).to_string()));
        let mut cluster = Self {
            hosts: hosts.collect(),
            switch,
            etcd: Etcd {
                host: store,
                program: None,
            },
        };
        cluster.start_etcd();
        cluster
    }

    /// The address of a host, counted from 0.
    pub fn address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, 1, u8::try_from(index + 1).unwrap_or(u8::MAX))
    }

    /// Starts etcd (again) and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub fn start_etcd(&mut self) {
        let data = self.etcd.host.directory().join("etcd");
        let line = format!(
            "etcd --data-dir {} --name only --initial-cluster only=http://{STORE}:2380 --listen-client-urls http://0.0.0.0:2379 \
             --advertise-client-urls http://{STORE}:2379 --listen-peer-urls http://{STORE}:2380 --initial-advertise-peer-urls http://{STORE}:2380 \
             --unsafe-no-fsync --logger zap --log-level warn",
            data.display()
        );
        self.etcd.program = Some(self.etcd.host.spawn("etcd.log", &line));
        eventually("etcd answers", 60, || self.etcdctl("get /there").is_ok());
    }

    /// Kills etcd; what it has written stays.
    pub fn kill_etcd(&mut self) {
        self.etcd.program = None;
    }

    /// Stops etcd without its knowledge: it answers nobody any more.
    ///
    /// # Panics
    /// If it does not run.
    pub fn freeze_etcd(&self) -> Frozen {
        let program = self.etcd.program.as_ref().map(Background::pid);
        let pid = program.unwrap_or_else(|| panic!("etcd does not run"));
        let pid = Pid::from_raw(pid.cast_signed());
        kill(pid, Signal::SIGSTOP).unwrap_or_else(|error| panic!("freeze etcd: {error}"));
        Frozen(pid)
    }

    /// Etcd's own client: the line after `etcdctl`.
    pub fn etcdctl(&self, line: &str) -> crate::Ran {
        self.etcd.host.shell(&format!(
            "exec env ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:2379 --command-timeout 2s {line}"
        ))
    }

    /// The host that etcd runs on: no member, and a client on the same switch.
    pub fn bystander(&self) -> &Host {
        &self.etcd.host
    }

    /// Where etcd keeps what it has written.
    pub fn etcd_data(&self) -> std::path::PathBuf {
        self.etcd.host.directory().join("etcd")
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

    /// What makes a daemon a member.
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

/// Etcd goes on when this goes.
pub struct Frozen(Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
