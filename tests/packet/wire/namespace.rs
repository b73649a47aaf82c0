//! Network namespaces of a test, and the system's own tools in them.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that lives as long as this value.
pub struct Namespace(File);

impl Namespace {
    pub fn make() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        });
        made.join().unwrap()
    }

    /// Runs the closure in the namespace, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Nothing answers what comes to a port of TCP or UDP; what looks at devices sees it all the same.
    pub fn silence(&self) {
        let rules = "add table inet quiet; add chain inet quiet in { type filter hook input priority 0; }; \
                     add rule inet quiet in meta l4proto { tcp, udp } drop";
        self.inside(|| run("nft", &[rules]));
    }

    /// Its file, for as long as this lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs `ip` with the words of the line, which must succeed.
pub fn ip(line: &str) {
    run("ip", &line.split(' ').collect::<Vec<_>>());
}

/// The MAC of a device of the thread's network namespace.
pub fn mac_of(device: &str) -> [u8; 6] {
    let said = run("ip", &["-o", "link", "show", "dev", device]);
    let mut words = said.split_whitespace().skip_while(|word| *word != "link/ether");
    let mac = words.nth(1).unwrap_or_else(|| panic!("{device} has no MAC: {said}"));
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

/// Runs a program, which must succeed. What it printed.
pub fn run(program: &str, words: &[&str]) -> String {
    let ran = Command::new(program).args(words).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {}: {said}", words.join(" "));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Takes the offloads of a device away.
pub fn ethtool(device: &str, offload: bool) {
    if !offload {
        run("ethtool", &["-K", device, "tx", "off", "tso", "off", "gso", "off"]);
    }
}

/// The cookie of the thread's network namespace.
pub fn netns_cookie() -> u64 {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut cookie, mut size) = (0u64, 8u32);
    // SAFETY: the socket is open, and the kernel writes eight bytes at most.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    assert_eq!(done, 0);
    cookie
}

/// A counter of /proc/net/snmp.
pub fn counter(statistics: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = statistics
        .lines()
        .filter(|line| line.starts_with(&format!("{protocol}:")));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|other| other == name).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}
