//! Seccomp filters: compiled once per profile, kept as BPF, loaded without the compiler.
//!
//! Compiling Docker's profile takes libseccomp some 6 ms, a third of a container's start; loading the result takes microseconds. A cached
//! file bears a digest of its content and is believed only if root owns it and nobody else can write it.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use sha2::{Digest, Sha256};

use crate::{RuntimeError, syscall};

/// Moves with the way profiles are compiled, so that an old daemon's files are not taken for ours.
const GENERATION: &str = "sluice-seccomp-1";
const DIGEST_LENGTH: usize = 32;
/// The kernel takes no longer program (`BPF_MAXINSNS` instructions of 8 bytes).
const LONGEST: usize = 4096 * 8;

/// Compiled filters of one instance.
pub(crate) struct Cache {
    directory: PathBuf,
    known: Mutex<HashMap<String, Arc<Vec<u8>>>>,
}

impl Cache {
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            known: Mutex::default(),
        }
    }

    /// The filter of a profile as BPF instructions.
    pub fn filter(&self, profile: &LinuxSeccomp) -> Result<Arc<Vec<u8>>, RuntimeError> {
        let name = name(profile)?;
        if let Some(filter) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(filter.clone());
        }
        let path = self.directory.join(format!("{name}.bpf"));
        let filter = match read(&path) {
            Some(filter) => filter,
            None => {
                let filter = compile(profile)?;
                // A cache that can't be written costs time at the next start of the daemon, nothing else.
                if let Err(error) = self.write(&path, &filter) {
                    tracing::warn!(path = %path.display(), %error, "can't keep a compiled seccomp filter");
                }
                filter
            }
        };
        let filter = Arc::new(filter);
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, filter.clone());
        Ok(filter)
    }

    /// Removes all that is kept.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.directory);
    }

    fn write(&self, path: &Path, filter: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let unfinished = path.with_extension(format!("{}", std::process::id()));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(&Sha256::digest(filter))?;
        file.write_all(filter)?;
        fs::rename(unfinished, path)
    }
}

/// What a profile's filter is called: a digest of all that goes into it.
fn name(profile: &LinuxSeccomp) -> Result<String, RuntimeError> {
    let mut digest = Sha256::new();
    digest.update(GENERATION);
    let profile = serde_json::to_vec(profile)
        .map_err(|error| RuntimeError::Failed(format!("write the seccomp profile as JSON: {error}")))?;
    digest.update(profile);
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads a cached filter, if it can be believed.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .ok()?;
    let status = file.metadata().ok()?;
    let is_ours = status.uid() == 0 && status.mode() & 0o022 == 0 && status.is_file();
    if !is_ours || status.len() > (DIGEST_LENGTH + LONGEST) as u64 {
        return None;
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).ok()?;
    let (digest, filter) = content.split_at_checked(DIGEST_LENGTH)?;
    let is_whole = Sha256::digest(filter)[..] == *digest && !filter.is_empty() && filter.len().is_multiple_of(8);
    is_whole.then(|| filter.to_vec())
}

fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, RuntimeError> {
    let failed =
        |error: libseccomp::error::SeccompError| RuntimeError::Failed(format!("compile the seccomp profile: {error}"));
    if profile.listener_path().is_some() {
        return Err(RuntimeError::Failed(
            "seccomp profiles with a listener are not supported".to_owned(),
        ));
    }
    let default_action = action(profile.default_action(), profile.default_errno_ret())?;
    let mut filter = ScmpFilterContext::new(default_action).map_err(failed)?;
    // no_new_privs is the spec's to decide, not the filter's; and a foreign architecture is killed, as is the library's default.
    filter.set_ctl_nnp(false).map_err(failed)?;
    for arch in profile.architectures().iter().flatten() {
        filter.add_arch(architecture(*arch)).map_err(failed)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == default_action {
            continue;
        }
        for name in rule.names() {
            // A name this library has not heard of can't be called by its number either: the default action meets it.
            let Ok(syscall) = ScmpSyscall::from_name(name) else {
                continue;
            };
            let arguments: Vec<&LinuxSeccompArg> = rule.args().iter().flatten().collect();
            if arguments.is_empty() {
                filter.add_rule(action, syscall).map_err(failed)?;
            } else if repeats_an_index(&arguments) {
                // The library takes one condition per argument; several on one are alternatives, as runc reads them.
                for argument in arguments {
                    filter
                        .add_rule_conditional(action, syscall, &[comparison(argument)])
                        .map_err(failed)?;
                }
            } else {
                let comparisons: Vec<ScmpArgCompare> = arguments.into_iter().map(comparison).collect();
                filter
                    .add_rule_conditional(action, syscall, &comparisons)
                    .map_err(failed)?;
            }
        }
    }
    let (reader, writer) = syscall::pipe()
        .map_err(|error| RuntimeError::Failed(format!("make a pipe for the seccomp filter: {error}")))?;
    // The longest program the kernel takes fits into a pipe's 64 KiB, so writing it never waits for a reader.
    filter.export_bpf(writer).map_err(failed)?;
    let mut bytes = Vec::new();
    fs::File::from(reader)
        .read_to_end(&mut bytes)
        .map_err(|error| RuntimeError::Failed(format!("read the compiled seccomp filter: {error}")))?;
    Ok(match newest(profile) {
        Some(newest) if default_action != ScmpAction::Allow => {
            let mut whole = unheard_of(newest);
            whole.append(&mut bytes);
            whole
        }
        _ => bytes,
    })
}

/// The highest number of a call the profile speaks of, if it is among those that have one number on all architectures.
fn newest(profile: &LinuxSeccomp) -> Option<u32> {
    const SAME_EVERYWHERE_FROM: i32 = 424;
    let rules = profile.syscalls().iter().flatten();
    let numbers = rules
        .flat_map(|rule| rule.names())
        .filter_map(|name| ScmpSyscall::from_name(name).ok());
    let newest = numbers.map(|number| number.as_raw_syscall()).max()?;
    u32::try_from(newest).ok().filter(|_| newest >= SAME_EVERYWHERE_FROM)
}

/// Instructions to go before a filter: ENOSYS for calls younger than the profile. The default action, EPERM, would be taken for a verdict;
/// ENOSYS makes C libraries try what an older kernel has.
fn unheard_of(newest: u32) -> Vec<u8> {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER: u16 = 0x25;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const ANSWER: u16 = 0x06;
    const NUMBER_AT: u32 = 0;
    const ARCHITECTURE_AT: u32 = 4;
    const X86_64: u32 = 0xc000_003e;
    const X86: u32 = 0x4000_0003;
    const FIRST_OF_X32: u32 = 0x4000_0000;
    const ERRNO: u32 = 0x0005_0000;
    let instructions: [(u16, u8, u8, u32); 7] = [
        (LOAD_WORD, 0, 0, ARCHITECTURE_AT),
        (JUMP_IF_EQUAL, 1, 0, X86_64),
        (JUMP_IF_EQUAL, 0, 4, X86),
        (LOAD_WORD, 0, 0, NUMBER_AT),
        (JUMP_IF_AT_LEAST, 2, 0, FIRST_OF_X32),
        (JUMP_IF_GREATER, 0, 1, newest),
        (ANSWER, 0, 0, ERRNO | libc::ENOSYS as u32),
    ];
    let mut bytes = Vec::new();
    for (code, if_true, if_false, value) in instructions {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[if_true, if_false]);
        bytes.extend_from_slice(&value.to_ne_bytes());
    }
    bytes
}

fn repeats_an_index(arguments: &[&LinuxSeccompArg]) -> bool {
    arguments
        .iter()
        .enumerate()
        .any(|(at, one)| arguments[..at].iter().any(|other| other.index() == one.index()))
}

fn comparison(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, datum) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        // `value` is the mask here, `valueTwo` what the masked argument shall be.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            ScmpCompareOp::MaskedEqual(argument.value()),
            argument.value_two().unwrap_or(0),
        ),
    };
    ScmpArgCompare::new(argument.index() as u32, operator, datum)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, RuntimeError> {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(errno as i32),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(errno as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(RuntimeError::Failed(
                "seccomp profiles that notify a listener are not supported".to_owned(),
            ));
        }
    })
}

fn architecture(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

/// The flags of seccomp(2) a profile asks for.
pub(crate) fn load_flags(profile: &LinuxSeccomp) -> u64 {
    const LOG: u64 = 2;
    const SPEC_ALLOW: u64 = 4;
    profile.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
                // There is one thread when the filter is loaded, and no listener to wait for.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync
                | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
            }
    })
}
