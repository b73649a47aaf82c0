//! The namespaces of a host, held open by file descriptors: no process has to live in them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// A network, a mount and a UTS namespace.
pub struct Namespaces {
    net: File,
    mnt: File,
    uts: File,
}

impl Namespaces {
    /// Makes them: nothing of the network but `lo`, an empty `/run`, the `/sys` of this network, an empty bpffs.
    pub fn make(name: &str) -> Self {
        // A thread of its own, as it moves into the namespaces that it makes.
        let made = thread::scope(|scope| scope.spawn(|| furnish(name)).join());
        match made {
            Ok(Ok(namespaces)) => namespaces,
            Ok(Err(error)) => panic!("make the namespaces of {name}: {error}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread, which must be alone in its process or have a file system view of its own, into the host.
    ///
    /// Async-signal-safe, to be called between fork and exec.
    pub fn enter(&self) -> nix::Result<()> {
        setns(self.mnt.as_fd(), CloneFlags::CLONE_NEWNS)?;
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        setns(self.uts.as_fd(), CloneFlags::CLONE_NEWUTS)
    }

    /// Runs the closure in the host, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_FS)
                .and_then(|()| self.enter())
                .unwrap_or_else(|error| panic!("enter a host: {error}"));
            work()
        })
    }

    /// Runs the closure in the network namespace of a process, on a thread of its own.
    pub fn within<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(move || {
            let namespace = File::open(format!("/proc/{pid}/ns/net"))
                .unwrap_or_else(|error| panic!("the network of process {pid}: {error}"));
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|error| panic!("enter the network of {pid}: {error}"));
            work()
        })
    }

    /// A line of shell that opens a shell in them, for as long as this program runs.
    pub fn door(&self) -> String {
        use std::os::fd::AsRawFd;
        let files = [("mount", &self.mnt), ("net", &self.net), ("uts", &self.uts)];
        let flags = files.map(|(kind, file)| format!("--{kind}=/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        format!("nsenter {}", flags.join(" "))
    }

    /// The network namespace as a path that `ip link … netns PATH` takes.
    pub fn net_path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }
}

/// A thread of its own, under the name of this one (which is the test's); a panic there is one here.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let name = thread::current().name().unwrap_or("inside").to_owned();
    let done = thread::scope(|scope| {
        let thread = thread::Builder::new().name(name).spawn_scoped(scope, work);
        thread.unwrap_or_else(|error| panic!("start a thread: {error}")).join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

const NOTHING: Option<&str> = None;

fn furnish(name: &str) -> std::io::Result<Namespaces> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    fs::create_dir_all("/run/lock")?;
    fs::create_dir_all("/run/netns")?;
    // The cgroup hierarchies are mounted below the sysfs that gives way to the one of this network namespace.
    fs::create_dir_all("/run/cgroup")?;
    mount(
        Some("/sys/fs/cgroup"),
        "/run/cgroup",
        NOTHING,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NOTHING,
    )?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NOTHING)?;
    mount(
        Some("/run/cgroup"),
        "/sys/fs/cgroup",
        NOTHING,
        MsFlags::MS_MOVE,
        NOTHING,
    )?;
    fs::remove_dir("/run/cgroup")?;
    mount(
        Some("bpf"),
        "/sys/fs/bpf",
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=700"),
    )?;
    nix::unistd::sethostname(name)?;
    let own = |kind: &str| File::open(format!("/proc/thread-self/ns/{kind}"));
    Ok(Namespaces {
        net: own("net")?,
        mnt: own("mnt")?,
        uts: own("uts")?,
    })
}
