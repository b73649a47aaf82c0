//! A copy of a program, with tables of its own for everything that programs write. It reads the tables that the real one reads, and whatever it does
//! is seen by nobody and gone with it: no flow, no counter, no event, no packet.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{SchedClassifier, TestRun, TestRunOptions},
};
use sluice_datapath_common::config::Config;

use crate::{
    AgentError, Limits,
    map::{handle::Handle, pins::SPECIFICATIONS},
    program::{load, object},
};

/// Tables that programs write, and who hears what is said to many, since they are sent copies at once: how large those of a copy are. Arrays are as large as
/// the real ones, as their keys are numbers of endpoints.
const OWN: [(&str, Option<u32>); 17] = [
    ("FLOWS4", Some(64)),
    ("FLOWS6", Some(64)),
    ("OPENING4", Some(1024)),
    ("OPENING6", Some(1024)),
    ("OPENED", None),
    ("FRAGMENTS4", Some(1024)),
    ("FRAGMENTS6", Some(1024)),
    ("PEERS4", Some(1024)),
    ("PEERS6", Some(1024)),
    ("TALLIES", None),
    ("ASKING", None),
    ("DROPS", Some(1024)),
    ("LISTENERS", None),
    ("EVENTS", None),
    ("EVENT_PACE", None),
    ("VERDICTS", Some(64)),
    ("MEMBERS", Some(1)),
];

/// The copy.
pub struct Copy {
    ebpf: Ebpf,
    program: &'static str,
}

impl Copy {
    /// Loads a classifier beside the real one, whose tables are pinned there.
    pub fn of(program: &'static str, config: &Config, tables: &Path, limits: Limits) -> Result<Self, AgentError> {
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global("CONFIG", config, true);
        for map in SPECIFICATIONS {
            match OWN.iter().find(|(name, _)| *name == map.name) {
                None => loader
                    .map_pin_path(map.name, tables.join(map.name))
                    .map_max_entries(map.name, map.capacity(limits)),
                Some((_, size)) => loader.map_max_entries(map.name, size.unwrap_or(map.capacity(limits))),
            };
        }
        let mut ebpf = loader.load(object::embedded()?).map_err(|error| {
            AgentError::Failed(format!("loading a copy of the eBPF object: {}", load::chain(&error)))
        })?;
        let loaded = ebpf
            .program_mut(program)
            .ok_or_else(|| AgentError::Failed(format!("the eBPF object has no program {program}")))?;
        load::load_program(program, loaded)?;
        Ok(Self { ebpf, program })
    }

    /// Gives it a frame as if that came by the device. What it returned.
    pub fn run(&self, ifindex: u32, frame: &[u8]) -> Result<i32, AgentError> {
        /// What a program may add to a frame.
        const MORE: usize = 128;
        /// The size of `__sk_buff`, and where `ifindex` lies in it.
        const CONTEXT: usize = 192;
        const IFINDEX: usize = 40;
        let failed = |why: String| AgentError::Failed(format!("running a copy of the program {}: {why}", self.program));
        let mut context = [0; CONTEXT];
        context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len() + MORE];
        let program = self
            .ebpf
            .program(self.program)
            .ok_or_else(|| failed("it is gone".to_owned()))?;
        let program: &SchedClassifier = program.try_into().map_err(|error| failed(load::chain(&error)))?;
        let ran = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::default()
            })
            .map_err(|error| failed(load::chain(&error)))?;
        Ok(ran.return_value as i32)
    }

    /// One of its own tables.
    pub fn table<T: Handle>(&self, name: &str) -> io::Result<T> {
        T::from_map(self.descriptor(name)?)
    }

    fn descriptor(&self, name: &str) -> io::Result<OwnedFd> {
        let missing = || io::Error::other(format!("the copy has no table {name}"));
        let data = match self.ebpf.map(name).ok_or_else(missing)? {
            Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuLruHashMap(data) => data,
            _ => return Err(missing()),
        };
        data.fd().as_fd().try_clone_to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_its_own_is_one_of_the_contract() {
        for (name, _) in OWN {
            assert!(SPECIFICATIONS.iter().any(|map| map.name == name), "{name}");
        }
    }
}
