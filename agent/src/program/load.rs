//! Brings maps and programs into the kernel, or takes over those that are there.
//!
//! Programs are pinned in a directory named by the fingerprint of the object and its configuration. A daemon that starts again with both
//! unchanged opens these pins: it parses nothing, verifies nothing and writes nothing, and the links need not be touched.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    EbpfLoader,
    programs::{Program, ProgramError},
};
use sluice_datapath_common::{
    config::Config,
    programs::{CLASSIFIERS, SOCKET_HOOKS},
};

use super::object;
use crate::{
    AgentError, Limits, Tried,
    kernel::bpf,
    map::pins::{self, Maps, SPECIFICATIONS},
    names::Names,
};

/// The programs of this instance in the kernel.
pub struct Programs {
    loaded: BTreeMap<&'static str, Loaded>,
}

struct Loaded {
    fd: OwnedFd,
    id: u32,
}

/// Opens what an earlier life has left when it is what we would make; else makes it. Nothing is attached or detached here.
pub fn ensure(names: &Names, config: &Config, limits: Limits) -> Result<(Maps, Programs), AgentError> {
    let object = object::embedded()?;
    let (maps_directory, directory) = (names.maps(), names.programs(fingerprint(config)));
    fs::create_dir_all(&maps_directory).tried(|| format!("making {}", maps_directory.display()))?;
    pins::remove_misfits(&maps_directory, limits)?;
    let all_maps = SPECIFICATIONS.iter().all(|map| maps_directory.join(map.name).exists());
    if all_maps && directory.exists() {
        let maps = Maps::open(&maps_directory, limits)?;
        match Programs::open(&directory, &maps) {
            Ok(programs) => return Ok((maps, programs)),
            Err(error) => tracing::warn!(%error, "pinned programs cannot be taken over and are loaded anew"),
        }
    }
    load(object, config, names, &directory, limits)?;
    let maps = Maps::open(&maps_directory, limits)?;
    let programs = Programs::open(&directory, &maps)?;
    Ok((maps, programs))
}

/// Removes the programs and maps of other configurations and versions. To be called when ours are attached.
pub fn remove_outdated(names: &Names, config: &Config) -> Result<(), AgentError> {
    let current = [names.maps(), names.programs(fingerprint(config)), names.links()];
    let entries = fs::read_dir(&names.directory).tried(|| format!("reading {}", names.directory.display()))?;
    for path in entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| !current.contains(path))
    {
        fs::remove_dir_all(&path).tried(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

fn fingerprint(config: &Config) -> u64 {
    let mut fingerprint = object::fingerprint();
    fingerprint.add_part(format_args!("{config:?}"));
    fingerprint.value()
}

fn load(object: &[u8], config: &Config, names: &Names, directory: &Path, limits: Limits) -> Result<(), AgentError> {
    let maps = names.maps();
    let mut loader = EbpfLoader::new();
    // Nothing is relocated against the running kernel's types; reading them would cost megabytes.
    loader.btf(None).override_global("CONFIG", config, true);
    for map in SPECIFICATIONS {
        loader
            .map_pin_path(map.name, maps.join(map.name))
            .map_max_entries(map.name, map.capacity(limits));
    }
    // RLIMIT_MEMLOCK stays as it is: since Linux 5.11, and 6.1 is the oldest we run on, BPF memory is charged to the cgroup.
    let mut loaded = loader
        .load(object)
        .map_err(|error| AgentError::Failed(format!("loading the eBPF object: {}", chain(&error))))?;

    // Pinned aside and renamed when complete: a directory of the right name has all programs.
    let aside = names.directory.join("programs-loading");
    let _ = fs::remove_dir_all(&aside);
    fs::create_dir(&aside).tried(|| format!("making {}", aside.display()))?;
    for name in CLASSIFIERS.into_iter().chain(SOCKET_HOOKS) {
        let program = loaded
            .program_mut(name)
            .ok_or_else(|| AgentError::Failed(format!("the eBPF object has no program {name}")))?;
        load_program(name, program)?;
        let fd = program.fd().map_err(|error| refused(name, error))?;
        bpf::pin(fd.as_fd(), &aside.join(name)).tried(|| format!("pinning the program {name}"))?;
    }
    let _ = fs::remove_dir_all(directory);
    fs::rename(&aside, directory).tried(|| format!("renaming {} to {}", aside.display(), directory.display()))
}

/// The verifier gives up with EAGAIN when a signal comes in between; then it is asked again.
pub fn load_program(name: &str, program: &mut Program) -> Result<(), AgentError> {
    const ATTEMPTS: usize = 10;
    for attempt in 1.. {
        let outcome = match program {
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            other => {
                return Err(AgentError::Failed(format!(
                    "the eBPF program {name} is a {:?}",
                    other.prog_type()
                )));
            }
        };
        match outcome {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && attempt < ATTEMPTS => {}
            outcome => return outcome.map_err(|error| refused(name, error)),
        }
    }
    Ok(())
}

fn refused(program: &str, error: ProgramError) -> AgentError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => AgentError::Refused {
            program: program.to_owned(),
            why: io_error,
            log: last_lines(&verifier_log.to_string()),
        },
        error => AgentError::Failed(format!("loading the program {program}: {}", chain(&error))),
    }
}

/// The end of a verifier's log, where the reason stands; the whole can have a hundred thousand lines.
fn last_lines(log: &str) -> String {
    const SHOWN: usize = 60;
    let lines: Vec<&str> = log.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// An error and what it came of: aya's errors tell the half of it each.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

// === impl Programs ===

impl Programs {
    /// Opens pinned programs, if they use the maps that are pinned now (a map may have been made anew since).
    fn open(directory: &Path, maps: &Maps) -> Result<Self, AgentError> {
        let current = maps.ids().tried(|| "asking for the maps".to_owned())?;
        let mut loaded = BTreeMap::new();
        for name in CLASSIFIERS.into_iter().chain(SOCKET_HOOKS) {
            let path = directory.join(name);
            let fd = bpf::open_pin(&path).tried(|| format!("opening the program {}", path.display()))?;
            let info = bpf::program_info(fd.as_fd()).tried(|| format!("asking for the program {name}"))?;
            for map in info.maps.iter().filter(|map| !current.contains(map)) {
                if is_of_the_contract(*map).tried(|| format!("asking for the map {map}"))? {
                    return Err(AgentError::Failed(format!(
                        "the program {name} uses a map that is not pinned any more"
                    )));
                }
            }
            loaded.insert(name, Loaded { fd, id: info.id });
        }
        Ok(Self { loaded })
    }

    /// A program and its id.
    pub fn get(&self, name: &str) -> Result<(BorrowedFd<'_>, u32), AgentError> {
        let loaded = self
            .loaded
            .get(name)
            .ok_or_else(|| AgentError::Failed(format!("there is no program {name}")))?;
        Ok((loaded.fd.as_fd(), loaded.id))
    }
}

/// Besides the contract's maps a program has one of the compiler's for its globals.
fn is_of_the_contract(map: u32) -> io::Result<bool> {
    let info = bpf::map_info(bpf::map_by_id(map)?.as_fd())?;
    Ok(SPECIFICATIONS
        .iter()
        .any(|specification| specification.name.starts_with(&info.name)))
}
