//! A daemon's worth of rooms in a directory of its own.

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sluice_agent::Agent;
use sluice_engine::{Config, CreateContainer, Engine, EngineError, LogOptions, WaitCondition};
use sluice_image::Images;
use sluice_model::{ContainerConfig, HostConfig};
use sluice_runtime::Runtime;
use sluice_store::{SharedStore, embedded::Embedded};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Tells the process that it is the one inside, and the name of its directory and cgroups.
const INSIDE: &str = "SLUICE_WALK_INSIDE";

/// Furnishes the namespaces: /run and bpffs are empty, /sys is that of the new network, the cgroups are the host's.
const FURNISH: &str = "set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --move /run/cgroup /sys/fs/cgroup
mount -t bpf -o mode=700 bpf /sys/fs/bpf
ip link set lo up
exec \"$@\"";

/// Runs the test's body in namespaces of its own: starts the test again there.
pub fn inside<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(120), body())
                .await
                .expect("it takes too long")
        });
        return;
    }
    // SAFETY: takes nothing, can't fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("passed over: needs root");
        return;
    }
    let name_of_house = format!(
        "sluice-walk-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let _swept = Swept(name_of_house.clone());
    let status = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            FURNISH,
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, &name_of_house)
        .env("SLUICE_WALK_SHIM", shim())
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed inside");
}

/// Sweeps what a failed test left: its mounts went with its namespaces, its processes and directories did not.
struct Swept(String);

impl Drop for Swept {
    fn drop(&mut self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        let groups: Vec<PathBuf> = hierarchies
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|path| path.join(&self.0))
            .collect();
        for group in groups.iter().filter(|group| group.exists()) {
            let mut nested = vec![group.clone()];
            for entry in fs::read_dir(group)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|entry| entry.path().is_dir())
            {
                nested.insert(0, entry.path());
            }
            for group in nested {
                for pid in fs::read_to_string(group.join("cgroup.procs"))
                    .unwrap_or_default()
                    .lines()
                {
                    // SAFETY: takes no pointers; the pid was just seen in a cgroup that this test made.
                    unsafe { libc::kill(pid.parse().unwrap(), libc::SIGKILL) };
                }
                for _ in 0..50 {
                    if fs::remove_dir(&group).is_ok() || !group.exists() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        let _ = fs::remove_dir_all(Path::new("/var/tmp").join(&self.0));
    }
}

/// The shim beside the test, as fresh as the test is.
fn shim() -> PathBuf {
    if let Some(path) = std::env::var_os("SLUICE_SHIM") {
        return path.into();
    }
    let here = std::env::current_exe().unwrap();
    let directory = here.parent().and_then(Path::parent).unwrap();
    let built = directory.file_name().and_then(std::ffi::OsStr::to_str).unwrap();
    let profile = if built == "debug" { "dev" } else { built };
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "-q",
            "-p",
            "sluice-runtime",
            "--bin",
            "sluice-shim",
            "--profile",
            profile,
        ])
        .status();
    assert!(status.unwrap().success(), "cannot build the shim");
    directory.join("sluice-shim")
}

/// All rooms of a daemon.
pub struct House {
    pub directory: PathBuf,
    pub engine: Arc<Engine>,
    runtime: Arc<Runtime>,
    images: Arc<Images>,
    parent: String,
}

impl House {
    /// A new one, with the image `box` in it.
    pub async fn build() -> Self {
        let parent = std::env::var(INSIDE).unwrap();
        let directory = Path::new("/var/tmp").join(&parent);
        fs::create_dir_all(&directory).unwrap();
        let house = Self::open(directory, parent).await;
        house
            .images
            .import(
                &mut Cursor::new(busybox()),
                Some("box"),
                &["CMD [\"sh\"]".to_owned()],
                "",
            )
            .unwrap();
        house
    }

    async fn open(directory: PathBuf, parent: String) -> Self {
        let data_root = directory.join("data");
        let exec_root = PathBuf::from("/run/sluice");
        fs::create_dir_all(&data_root).unwrap();
        let store: SharedStore = Arc::new(Embedded::open(&data_root.join("store.redb")).unwrap());
        let images = Arc::new(Images::open(&data_root).unwrap());
        let runtime = Arc::new(Runtime::open(runtime_config(&exec_root, &parent)).unwrap());
        let agent = Arc::new(Agent::start(agent_config(&exec_root), store.clone()).await.unwrap());
        let config = engine_config(data_root, exec_root, &parent);
        let engine = Engine::start(config, store, agent, images.clone(), runtime.clone())
            .await
            .unwrap();
        Self {
            directory,
            engine,
            runtime,
            images,
            parent,
        }
    }

    /// Ends the daemon and starts it again; containers go on meanwhile.
    pub async fn reopen(self) -> Self {
        let Self {
            directory,
            engine,
            runtime,
            images,
            parent,
        } = self;
        engine.stop().await;
        // the store's file can be open only once
        while Arc::strong_count(&engine) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop((engine, runtime, images));
        tokio::time::sleep(Duration::from_millis(200)).await;
        Self::open(directory, parent).await
    }

    /// Removes everything, and looks whether something is left.
    pub async fn tear_down(self) {
        let Self {
            directory,
            engine,
            runtime,
            images,
            parent,
        } = self;
        for view in self::list(&engine).await {
            engine
                .remove_container(view.container.id.as_str(), true, true)
                .await
                .unwrap();
        }
        engine.stop().await;
        drop(engine);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let exec_root = PathBuf::from("/run/sluice");
        sluice_agent::cleanup(&agent_config(&exec_root)).await.unwrap();
        let config = engine_config(directory.join("data"), exec_root, &parent);
        sluice_engine::cleanup(&config, &runtime, &images, true).await.unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(directory.to_str().unwrap()),
            "a mount is left:\n{mounts}"
        );
        let links = Command::new("ip").args(["-br", "link"]).output().unwrap();
        let links = String::from_utf8(links.stdout).unwrap();
        assert!(
            !links.contains("slc") && !links.contains("sluice"),
            "a device is left:\n{links}"
        );
        assert!(
            !Path::new("/sys/fs/cgroup/unified").join(&parent).exists(),
            "a cgroup is left"
        );
        fs::remove_dir_all(&directory).unwrap();
    }

    /// A wish to run a command.
    pub fn wish(&self, name: &str, command: &[&str]) -> CreateContainer {
        let config = ContainerConfig {
            image: "box".into(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            ..Default::default()
        };
        CreateContainer {
            name: Some(name.to_owned()),
            config,
            host_config: HostConfig::default(),
            networks: Default::default(),
        }
    }

    /// Creates and starts.
    pub async fn run(&self, wish: CreateContainer) -> Result<String, EngineError> {
        let created = self.engine.create_container(wish).await?;
        self.engine.start_container(&created.id).await?;
        Ok(created.id)
    }

    /// Creates, starts, waits; exit code and output.
    pub async fn run_to_end(&self, wish: CreateContainer) -> (i32, String) {
        let id = self.engine.create_container(wish).await.unwrap().id;
        let waiting = self.engine.wait_container(&id, WaitCondition::NextExit).await.unwrap();
        self.engine.start_container(&id).await.unwrap();
        let code = waiting.await.unwrap().unwrap();
        let output = self.log(&id).await;
        (code, output)
    }

    /// All that a container has said.
    pub async fn log(&self, name: &str) -> String {
        let options = LogOptions {
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let mut lines = self.engine.logs(name, options).await.unwrap();
        let mut all = String::new();
        while let Some(line) = lines.recv().await {
            all.push_str(std::str::from_utf8(&line.unwrap().1).unwrap());
        }
        all
    }
}

/// All containers.
pub async fn list(engine: &Engine) -> Vec<sluice_engine::ContainerView> {
    engine
        .list_containers(&sluice_engine::ListFilter {
            all: true,
            ..Default::default()
        })
        .await
        .unwrap()
}

fn runtime_config(exec_root: &Path, parent: &str) -> sluice_runtime::Config {
    sluice_runtime::Config {
        state_root: exec_root.join("containers"),
        shim: std::env::var_os("SLUICE_WALK_SHIM").unwrap().into(),
        cgroup_parent: parent.to_owned(),
    }
}

fn agent_config(exec_root: &Path) -> sluice_agent::Config {
    sluice_agent::Config {
        instance: "default".into(),
        bpffs: "/sys/fs/bpf".into(),
        netns_dir: exec_root.join("netns"),
        ip_forward: true,
        limits: sluice_agent::Limits::default(),
    }
}

fn engine_config(data_root: PathBuf, exec_root: PathBuf, parent: &str) -> Config {
    Config {
        data_root,
        exec_root,
        bridge: Default::default(),
        default_gateway: None,
        bip: None,
        fixed_cidr: None,
        ipv6: false,
        fixed_cidr_v6: None,
        address_pools: vec![],
        icc: true,
        default_binding: "0.0.0.0".parse().unwrap(),
        publish_from: vec![],
        host_access: None,
        mtu: None,
        masquerade: true,
        dns: vec![],
        dns_search: vec![],
        dns_options: vec![],
        id_map: None,
        cluster: None,
        cgroup_parent: parent.to_owned(),
    }
}

/// A root file system with busybox and the names that the tests call it by, as a tar.
fn busybox() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, size, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(mode);
        header
    };
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "srv"] {
        let mut header = header(tar::EntryType::Directory, 0, 0o755);
        tar.append_data(&mut header, directory, &[][..]).unwrap();
    }
    let program = fs::read("/bin/busybox").unwrap();
    tar.append_data(
        &mut header(tar::EntryType::Regular, program.len() as u64, 0o755),
        "bin/busybox",
        &program[..],
    )
    .unwrap();
    for name in [
        "sh", "sleep", "true", "cat", "echo", "id", "ip", "nc", "tail", "httpd", "hostname", "env", "ps", "pwd", "trap",
    ] {
        tar.append_link(
            &mut header(tar::EntryType::Symlink, 0, 0o777),
            format!("bin/{name}"),
            "busybox",
        )
        .unwrap();
    }
    for (path, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\napp:x:1000:\n"),
        ("srv/index.html", "hello\n"),
    ] {
        tar.append_data(
            &mut header(tar::EntryType::Regular, text.len() as u64, 0o644),
            path,
            text.as_bytes(),
        )
        .unwrap();
    }
    tar.into_inner().unwrap()
}
