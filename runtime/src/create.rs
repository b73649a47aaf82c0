//! Making a container: its cgroups, its filter, its shim, and by that its first process.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use oci_spec::runtime::Spec;
use tracing::debug_span;

use crate::{
    Config, Runtime, RuntimeError,
    cgroup::{Cgroups, Hierarchies, Parents, Place},
    digest, off_the_loop,
    plan::file,
    process::shim::Orders,
    security::seccomp,
    syscall,
    wire::{self, Kind},
};

/// Where and how what a container says is written down, in Docker's json-file format, one object a line:
/// `{"log":"…\n","stream":"stdout","time":"RFC 3339 ns"}`.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The file. Rotated ones are called `<path>.1`, the newest, `<path>.2` and so on.
    pub path: PathBuf,
    /// A file that has reached so many bytes is rotated before the next line; 0: never.
    pub max_bytes: u64,
    /// How many files there may be, the one written to among them; at least 1. Matters only with `max_bytes`.
    pub files: u32,
    /// Rotated files are compressed (`<path>.1.gz`), in the background.
    pub compress: bool,
    /// A JSON object that each line bears as `attrs`; empty: none.
    pub attrs: String,
    /// What may wait to be written while the container goes on, bytes; what is said beyond that is lost. 0: the container waits for its log.
    pub buffer_bytes: u64,
}

impl Log {
    /// All but path and attributes as one word, for the shim.
    pub(crate) fn rules(&self) -> String {
        format!(
            "{} {} {} {}",
            self.max_bytes,
            self.files,
            u8::from(self.compress),
            self.buffer_bytes
        )
    }

    /// The reverse.
    pub(crate) fn parse(path: PathBuf, rules: &str, attrs: String) -> Option<Self> {
        let mut rules = rules.split(' ').map(|number| number.parse::<u64>().ok());
        Some(Self {
            path,
            max_bytes: rules.next()??,
            files: u32::try_from(rules.next()??).ok()?,
            compress: rules.next()?? != 0,
            buffer_bytes: rules.next()??,
            attrs,
        })
    }
}

/// A container to be made.
#[derive(Clone, Debug)]
pub struct Create {
    /// The container's id (64 hex digits); names its directory, cgroup and shim.
    pub id: String,
    /// The bundle: holds `config.json`; `root.path` of it is mounted already.
    pub bundle: PathBuf,
    /// Keep stdin open for attached clients (`-i`); else it is /dev/null.
    pub stdin: bool,
    /// When an attached client shuts its stdin down, close the container's. A client that only goes away closes nothing.
    pub stdin_once: bool,
    /// Write stdout and stderr down there; none: nowhere.
    pub log: Option<Log>,
}

impl Runtime {
    /// Starts a shim, which makes the process; the process waits before it executes anything. Returns the host's pid of the process.
    pub async fn create(&self, create: &Create) -> Result<u32, RuntimeError> {
        let directory = self.path_of(&create.id)?;
        let maker = Maker {
            config: self.config.clone(),
            hierarchies: self.hierarchies.clone(),
            filters: self.filters.clone(),
            shim: self.shim.clone(),
            parents: self.parents.clone(),
            create: create.clone(),
            directory,
        };
        off_the_loop(move || maker.make()).await
    }
}

struct Maker {
    config: Config,
    hierarchies: Arc<Hierarchies>,
    filters: Arc<seccomp::Cache>,
    shim: Arc<OwnedFd>,
    parents: Arc<Parents>,
    create: Create,
    directory: PathBuf,
}

impl Maker {
    fn make(&self) -> Result<u32, RuntimeError> {
        let directory = &self.directory;
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(RuntimeError::Failed(format!(
                    "container {} has been made before",
                    self.create.id
                )));
            }
            other => {
                other.map_err(|error| RuntimeError::Failed(format!("make {}: {error}", directory.display())))?;
            }
        }
        self.fill().inspect_err(|_| {
            let place = Place::of_container(directory, self.config.cgroup_of(&self.create.id));
            let cgroups = self.hierarchies.cgroups(&place.0);
            cgroups.kill();
            if let Err(error) = cgroups.remove() {
                tracing::warn!(id = self.create.id, %error, "a container that could not be made leaves something behind");
            }
            self.parents.sweep();
            if let Err(error) = fs::remove_dir_all(directory) {
                tracing::warn!(id = self.create.id, %error, "a container that could not be made leaves its directory behind");
            }
        })
    }

    fn fill(&self) -> Result<u32, RuntimeError> {
        let Create { id, bundle, .. } = &self.create;
        let parent = &self.config.cgroup_parent;
        let spec = read_spec(&bundle.join("config.json"))?;
        let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        if let Some(profile) = profile {
            let _step = debug_span!("filter").entered();
            let filter = self.filters.filter(profile)?;
            fs::write(self.directory.join(file::FILTER), &filter[..])
                .map_err(|error| RuntimeError::Failed(format!("write the seccomp filter of {id}: {error}")))?;
        }
        let step = debug_span!("cgroups").entered();
        let (place, cgroups) = self.make_cgroups(&spec)?;
        if let Some(resources) = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) {
            self.hierarchies.limit(&place, resources)?;
        }
        drop(step);
        let terminal = spec
            .process()
            .as_ref()
            .and_then(|process| process.terminal())
            .unwrap_or(false);
        let unified = cgroups.unified.clone();
        let plan = digest::plan(id, bundle, &spec, cgroups, profile.map(seccomp::load_flags))?;
        plan.write(&self.directory)
            .map_err(|error| RuntimeError::Failed(format!("write the plan of {id}: {error}")))?;
        let flags = [(self.create.stdin, 'i'), (self.create.stdin_once, 'o'), (terminal, 't')];
        let orders = Orders {
            directory: self.directory.clone(),
            shims: self.hierarchies.shims(parent)?,
            cgroup: unified,
            oom_counter: self.hierarchies.oom_counter(&place),
            log: self.create.log.clone().unwrap_or_default(),
            flags: flags
                .into_iter()
                .filter_map(|(wanted, flag)| wanted.then_some(flag))
                .collect(),
        };
        let _step = debug_span!("shim").entered();
        start_shim(&self.shim, &orders)
    }
}

impl Maker {
    /// Makes the cgroups where the spec wants them, else where all are.
    fn make_cgroups(&self, spec: &Spec) -> Result<(PathBuf, Cgroups), RuntimeError> {
        let usual = self.config.cgroup_of(&self.create.id);
        let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        let place = match asked.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Place::of_spec(path)?,
            None => Place(usual.clone()),
        };
        if place.0 == usual {
            let cgroups = self.hierarchies.create(&usual)?;
            return Ok((usual, cgroups));
        }
        place
            .write(&self.directory)
            .map_err(|error| RuntimeError::Failed(format!("write down the cgroup of {}: {error}", self.create.id)))?;
        let missing = || self.hierarchies.missing_above(&place.0);
        let cgroups = self.parents.making(missing, || self.hierarchies.create(&place.0))?;
        Ok((place.0, cgroups))
    }
}

fn read_spec(path: &Path) -> Result<Spec, RuntimeError> {
    let bytes = fs::read(path).map_err(|error| RuntimeError::Failed(format!("read {}: {error}", path.display())))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| RuntimeError::Failed(format!("understand {}: {error}", path.display())))
}

/// Starts a shim and waits for its word. It leaves us at once, so there is nothing to reap later.
fn start_shim(shim: &OwnedFd, orders: &Orders) -> Result<u32, RuntimeError> {
    let failed = |what: &'static str| move |error: io::Error| RuntimeError::Failed(format!("{what}: {error}"));
    let mut child = Command::new(format!("/proc/self/fd/{}", shim.as_raw_fd()))
        .arg0("sluice-shim")
        .args(orders.arguments())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed("start the shim"))?;
    let report = child.stdout.take();
    let status = child.wait().map_err(failed("wait for the shim to detach"))?;
    let mut report = report.ok_or_else(|| RuntimeError::Failed("the shim has no line to report on".to_owned()))?;
    let mut header = [0; wire::HEADER];
    let mut payload = Vec::new();
    let said = report.read_exact(&mut header).and_then(|()| {
        let (kind, length) = wire::peek(&header).unwrap_or_default();
        payload.resize(length.min(wire::PIECE), 0);
        report.read_exact(&mut payload)?;
        Ok(kind)
    });
    match said.map(Kind::from_byte) {
        Ok(Some(Kind::Done)) => Ok(payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))),
        Ok(Some(Kind::Failed)) => Err(RuntimeError::decode(&payload)),
        _ => Err(RuntimeError::Failed(format!(
            "the shim said nothing and ended ({status})"
        ))),
    }
}

/// A copy of the shim in memory that nobody can change any more.
///
/// A process that enters a container could be made to execute itself (`/proc/self/exe`) there, and the container could then open the
/// file it came from: were that the one on disk, the next shim would be the container's.
pub(crate) fn seal(path: &Path) -> Result<OwnedFd, RuntimeError> {
    let sealed = || -> io::Result<OwnedFd> {
        let mut file = File::open(path)?;
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: the name is static and NUL-terminated.
        let made = unsafe { libc::memfd_create(c"sluice-shim".as_ptr(), flags | libc::MFD_EXEC) };
        let made = syscall::result(made).or_else(|error| match error.raw_os_error() {
            // Before Linux 6.3 there is no such flag, and no need for it.
            // SAFETY: as above.
            Some(libc::EINVAL) => syscall::result(unsafe { libc::memfd_create(c"sluice-shim".as_ptr(), flags) }),
            _ => Err(error),
        })?;
        // SAFETY: the kernel just gave it to us.
        let mut copy = File::from(unsafe { OwnedFd::from_raw_fd(made) });
        io::copy(&mut file, &mut copy)?;
        let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
        // SAFETY: takes no pointers.
        syscall::result(unsafe { libc::fcntl(copy.as_fd().as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Ok(copy.into())
    };
    sealed().map_err(|error| RuntimeError::Failed(format!("load the shim {}: {error}", path.display())))
}
