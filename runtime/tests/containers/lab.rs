//! A runtime in a directory of its own, and bundles with a busybox root.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, LinuxResources, Process, Root, Spec, User,
};
use sluice_runtime::{
    Attachment, Config, Create, Exit, Log, Runtime, Stream,
    spec::{self, DEFAULT_CAPABILITIES, DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS},
};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn is_root() -> bool {
    // SAFETY: takes nothing, can't fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        eprintln!("passed over: needs root");
    }
    is_root
}

/// One runtime with its containers; dropping it leaves nothing behind.
pub struct Lab {
    pub runtime: Runtime,
    pub directory: PathBuf,
    pub parent: String,
}

impl Lab {
    /// None: we are not root.
    pub fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let parent = format!("sluice-test-{}-{number}", std::process::id());
        let directory = Path::new("/var/tmp").join(&parent);
        fs::create_dir_all(&directory).unwrap();
        let runtime = open(&parent);
        Some(Self {
            runtime,
            directory,
            parent,
        })
    }

    /// As a daemon does after a restart.
    pub fn reopen(&mut self) {
        self.runtime = open(&self.parent);
    }

    /// A bundle whose program is `args`, with a root of its own.
    pub fn bundle(&self, id: &str, args: &[&str]) -> Bundle {
        let directory = self.directory.join("bundles").join(id);
        make_rootfs(&directory.join("rootfs"));
        Bundle {
            id: id.to_owned(),
            directory,
            spec: default_spec(args),
        }
    }

    pub async fn create(&self, bundle: &Bundle) -> u32 {
        self.runtime.create(&bundle.create()).await.unwrap()
    }

    /// Creates, attaches, starts, waits: what it said (stdout, stderr) and how it ended.
    pub async fn run(&self, bundle: &Bundle) -> (String, String, Exit) {
        self.create(bundle).await;
        let attachment = self.runtime.attach(&bundle.id).await.unwrap();
        self.runtime.start(&bundle.id).await.unwrap();
        let (stdout, stderr) = said(attachment).await;
        let exit = self.runtime.wait(&bundle.id).await.unwrap();
        (stdout, stderr, exit)
    }

    /// Runs a shell script in a default container.
    pub async fn sh(&self, id: &str, script: &str) -> String {
        let bundle = self.bundle(id, &["sh", "-c", script]);
        let (stdout, stderr, exit) = self.run(&bundle).await;
        assert_eq!(exit.code, 0, "{stdout}{stderr}");
        stdout
    }

    /// The directory of a container's cgroup for a controller, wherever that is.
    pub fn cgroup(&self, controller: &str, id: &str) -> PathBuf {
        let v1 = Path::new("/sys/fs/cgroup").join(controller).join(&self.parent).join(id);
        if v1.exists() {
            v1
        } else {
            unified().join(&self.parent).join(id)
        }
    }
}

fn open(parent: &str) -> Runtime {
    let config = Config {
        // In memory, as a daemon's is.
        state_root: Path::new("/run").join(parent).join("containers"),
        shim: PathBuf::from(shim()),
        cgroup_parent: parent.to_owned(),
    };
    Runtime::open(config).unwrap()
}

/// The shim under test: the small build when there is one to be tested, else the one cargo made for this test.
pub fn shim() -> String {
    std::env::var("SLUICE_SHIM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sluice-shim").to_owned())
}

pub fn unified() -> &'static Path {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.exists() {
        hybrid
    } else {
        Path::new("/sys/fs/cgroup")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let ids = self.runtime.list().unwrap_or_default();
        std::thread::scope(|scope| {
            // A thread of its own: a test's runtime may be around us.
            scope.spawn(|| {
                let here = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                for id in ids {
                    if let Err(error) = here.block_on(self.runtime.delete(&id)) {
                        eprintln!("delete {id}: {error}");
                    }
                }
            });
        });
        self.runtime.clean_up();
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_dir_all(Path::new("/run").join(&self.parent));
    }
}

pub struct Bundle {
    pub id: String,
    pub directory: PathBuf,
    pub spec: Spec,
}

impl Bundle {
    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.join("json.log")
    }

    pub fn linux(&mut self) -> &mut Linux {
        self.spec.linux_mut().as_mut().unwrap()
    }

    pub fn process(&mut self) -> &mut Process {
        self.spec.process_mut().as_mut().unwrap()
    }

    pub fn resources(&mut self) -> &mut LinuxResources {
        self.linux().resources_mut().as_mut().unwrap()
    }

    /// Lets it have these capabilities and no other.
    pub fn hold(&mut self, capabilities: &[Capability]) {
        let all: HashSet<Capability> = capabilities.iter().copied().collect();
        let mut sets = self.process().capabilities().clone().unwrap();
        sets.set_bounding(Some(all.clone()))
            .set_effective(Some(all.clone()))
            .set_permitted(Some(all));
        self.process().set_capabilities(Some(sets));
    }

    /// Gives the container a user namespace with these of the host's ids, and its root file system to its root.
    pub fn remap(&mut self, host: u32, count: u32) {
        let mapping = || {
            LinuxIdMappingBuilder::default()
                .container_id(0u32)
                .host_id(host)
                .size(count)
                .build()
                .unwrap()
        };
        let namespace = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::User)
            .build()
            .unwrap();
        let linux = self.linux();
        linux
            .set_uid_mappings(Some(vec![mapping()]))
            .set_gid_mappings(Some(vec![mapping()]));
        linux.namespaces_mut().as_mut().unwrap().push(namespace);
        let root = self.rootfs();
        for entry in walk(&root) {
            std::os::unix::fs::lchown(entry, Some(host), Some(host)).unwrap();
        }
    }

    /// Writes `config.json` and says how to make it.
    pub fn create(&self) -> Create {
        fs::write(
            self.directory.join("config.json"),
            serde_json::to_vec_pretty(&self.spec).unwrap(),
        )
        .unwrap();
        Create {
            id: self.id.clone(),
            bundle: self.directory.clone(),
            stdin: false,
            stdin_once: false,
            log: Some(Log {
                path: self.log(),
                ..Log::default()
            }),
        }
    }
}

/// A directory and all below it.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.to_owned()];
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(walk(&entry.path())),
            false => all.push(entry.path()),
        }
    }
    all
}

fn make_rootfs(root: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "var"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "ls", "id", "echo", "true", "false", "sleep", "mount", "umount", "grep", "head", "wc", "mkdir",
        "mknod", "env", "hostname", "kill", "dd", "yes", "stat", "readlink", "test", "ps", "sort", "tr", "ulimit",
        "touch", "sed", "stty", "tty", "seq", "cut", "unshare", "chmod", "nc", "printf", "find", "od",
    ] {
        let _ = symlink("busybox", root.join("bin").join(applet));
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/var:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
}

/// What the engine gives a container by default: Docker's defaults, no network.
pub fn default_spec(args: &[&str]) -> Spec {
    let capabilities: HashSet<Capability> = DEFAULT_CAPABILITIES.into_iter().collect();
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(capabilities.clone()))
        .set_effective(Some(capabilities.clone()))
        .set_permitted(Some(capabilities))
        .set_inheritable(None)
        .set_ambient(None);
    let mut process = Process::default();
    process
        .set_args(Some(args.iter().map(|arg| (*arg).to_owned()).collect()))
        .set_env(Some(vec![
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            "HOME=/root".to_owned(),
        ]))
        .set_cwd(PathBuf::from("/"))
        .set_user(User::default())
        .set_capabilities(Some(sets))
        .set_rlimits(None)
        .set_no_new_privileges(Some(false))
        .set_terminal(Some(false))
        .set_apparmor_profile(None)
        .set_oom_score_adj(Some(0));
    let kinds = [
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Network,
    ];
    let namespace = |kind| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace
    };
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(spec::default_device_rules()));
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(kinds.into_iter().map(namespace).collect()))
        .set_masked_paths(Some(
            DEFAULT_MASKED_PATHS.iter().map(|path| (*path).to_owned()).collect(),
        ))
        .set_readonly_paths(Some(
            DEFAULT_READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect(),
        ))
        .set_seccomp(Some(spec::default_seccomp()))
        .set_resources(Some(resources))
        .set_devices(None)
        .set_rootfs_propagation(None)
        .set_cgroups_path(None);
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(false));
    let mut spec = Spec::default();
    spec.set_root(Some(root))
        .set_process(Some(process))
        .set_mounts(Some(spec::default_mounts(spec::DEFAULT_SHM_SIZE)))
        .set_hostname(Some("box".to_owned()))
        .set_linux(Some(linux));
    spec
}

/// All that comes, by stream.
pub async fn said(mut attachment: Attachment) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let all = async {
        while let Some((stream, piece)) = attachment.output.recv().await {
            match stream {
                Stream::Stdout => stdout.extend(piece),
                Stream::Stderr => stderr.extend(piece),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("the streams end");
    (
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

/// Waits until something is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about");
}
