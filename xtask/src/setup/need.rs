//! What the machine must have, why, and how to tell whether it is there.

use std::process::Command;

use crate::repository;
use crate::toolchain::{self, Toolchain};

use super::{debian, linker};
use Group::{Bench, Build, Test, Vm};
use Presence::{Check, Packages, Program};

/// What a command needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// To compile.
    Build,
    /// To run all tests on the kernel of this machine, and the demo.
    Test,
    /// To measure, and to measure against.
    Bench,
    /// To boot other kernels.
    Vm,
}

/// Packages that belong together.
pub struct Need {
    group: Group,
    /// What they are for; follows "missing, ".
    pub purpose: &'static str,
    /// Their names in Debian 12.
    pub packages: &'static [&'static str],
    presence: Presence,
}

/// How to tell that a need is met.
enum Presence {
    /// Each package is installed.
    Packages,
    /// A program of this name is there, from wherever it comes.
    Program(&'static str),
    /// This says so.
    Check(fn() -> bool),
}

impl Need {
    /// Is it there, as a package or in another way that will do?
    pub fn is_met(&self) -> bool {
        match self.presence {
            Presence::Packages => self.packages.iter().all(|name| debian::has(name)),
            Presence::Program(name) => repository::program(name).is_some(),
            Presence::Check(is_there) => is_there(),
        }
    }
}

/// The needs of these groups.
pub fn of(groups: &[Group]) -> Vec<&'static Need> {
    ALL.iter().filter(|need| groups.contains(&need.group)).collect()
}

const fn need(group: Group, purpose: &'static str, presence: Presence, packages: &'static [&'static str]) -> Need {
    Need {
        group,
        purpose,
        packages,
        presence,
    }
}

#[rustfmt::skip] // a need a line
static ALL: &[Need] = &[
    need(Build, "a compiler for eBPF with the sources of its library", Check(has_compiler), &["rustc-web", "rust-web-src"]),
    need(Build, "what bpf-linker is made of", Check(linker::is_there), linker::PACKAGES),
    need(Build, "llvm-strip", Check(has_strip), &["llvm-22"]),
    need(Build, "to compile and link", Packages, &["gcc", "libc6-dev", "pkg-config"]),
    need(Build, "the library that compiles seccomp filters", Packages, &["libseccomp-dev"]),
    need(Build, "to read the messages of etcd", Program("protoc"), &["protobuf-compiler"]),
    need(Test, "the network of the tests", Program("ip"), &["iproute2"]),
    need(Test, "the network of the tests", Program("ping"), &["iputils-ping"]),
    need(Test, "to look at ways through the network", Program("traceroute"), &["traceroute"]),
    need(Test, "to look at ways through the network", Program("tracepath"), &["iputils-tracepath"]),
    need(Test, "to send much through the network", Program("iperf3"), &["iperf3"]),
    need(Test, "to see that netfilter stays empty", Program("nft"), &["nftables"]),
    need(Test, "to see that netfilter stays empty", Program("iptables-save"), &["iptables"]),
    need(Test, "to see that netfilter stays empty", Program("conntrack"), &["conntrack"]),
    need(Test, "to look at packets", Program("tcpdump"), &["tcpdump"]),
    need(Test, "to make tables to try things on", Program("bpftool"), &["bpftool"]),
    need(Test, "to set devices", Program("ethtool"), &["ethtool"]),
    need(Test, "what is in a test's container", Program("busybox"), &["busybox-static"]),
    need(Test, "a web server for containers", Program("nginx"), &["nginx-light"]),
    need(Test, "a store for containers", Program("redis-check-rdb"), &["redis-tools"]),
    need(Test, "a web application for containers", Packages, &["python3-flask", "python3-redis"]),
    need(Test, "to ask web servers and the daemon", Program("curl"), &["curl"]),
    need(Test, "the reference for containers", Program("runc"), &["runc"]),
    need(Test, "the other client", Check(has_docker_py), &["python3-docker"]),
    need(Test, "compose", Program("docker-compose"), &["docker-compose"]),
    need(Test, "a registry of images", Program("docker-registry"), &["docker-registry"]),
    need(Test, "certificates for it", Program("openssl"), &["openssl"]),
    need(Test, "another reader of archives", Program("skopeo"), &["skopeo"]),
    need(Test, "a root of Debian to build images on", Program("debootstrap"), &["debootstrap"]),
    need(Test, "to fetch contexts of builds", Program("git"), &["git"]),
    need(Test, "archives of all kinds", Program("bzip2"), &["bzip2", "xz-utils"]),
    need(Test, "the store of several hosts", Program("etcd"), &["etcd-server"]),
    need(Test, "to ask that store", Program("etcdctl"), &["etcd-client"]),
    need(Test, "the docker CLI", Program("docker"), &["docker.io"]),
    need(Bench, "to measure throughput", Program("iperf3"), &["iperf3"]),
    need(Bench, "to measure latency", Program("sockperf"), &["sockperf"]),
    need(Bench, "to measure connections", Program("wrk"), &["wrk"]),
    need(Bench, "the peer to measure against", Program("dockerd"), &["docker.io"]),
    need(Vm, "a machine for other kernels", Program("qemu-system-x86_64"), &["qemu-system-x86"]),
    need(Vm, "the first program of that machine", Program("busybox"), &["busybox-static"]),
    need(Vm, "to find its kernel's modules", Program("modprobe"), &["kmod"]),
    need(Vm, "to unpack its kernel's modules", Program("xz"), &["xz-utils"]),
];

fn has_compiler() -> bool {
    Toolchain::find().is_some()
}

/// Debian's Python has it, or one that comes first in the path.
fn has_docker_py() -> bool {
    let has_it = |python: &str| {
        let asked = Command::new(python).args(["-c", "import docker.errors"]).output();
        asked.is_ok_and(|answer| answer.status.success())
    };
    ["/usr/bin/python3", "python3"].into_iter().any(has_it)
}

fn has_strip() -> bool {
    toolchain::strip().is_some()
}
