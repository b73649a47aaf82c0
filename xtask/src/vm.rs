//! Another kernel: QEMU boots one of Debian's, runs a command in it as root, and its output and exit code are ours.
//!
//! The guest sees this machine's whole file tree read-only (9p) below a tmpfs, so what was built here runs there as it is. Nothing it writes is
//! kept. It has one pure cgroup2 tree, no network but loopback and no systemd: what a machine of the future looks like, and one with the oldest
//! kernel we promise. Emulated unless `SLUICE_VM_ACCEL=kvm` is set: a `/dev/kvm` that exists need not be able to run a Debian kernel.

mod initramfs;
mod kernel;

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use crate::repository;
use crate::setup::{self, Group};
use crate::step::{Doing, Failure, Outcome, say};

pub use kernel::Kernel;

/// Emulating two CPUs, QEMU now and then loses a race with the kernel patching its own code during boot. A guest that dies before the command
/// has begun says nothing about the command, so it is booted again this often.
const BOOTS: u32 = 3;

/// Run a command as root under another kernel, in a virtual machine that sees this file tree.
#[derive(Args)]
pub struct Run {
    /// The beginning of the kernel's version, e.g. 6.1 or 6.12; or `newest`.
    #[arg(long, default_value = "6.1")]
    kernel: String,
    /// MiB.
    #[arg(long, default_value_t = 4096)]
    memory: u32,
    /// Seconds after which the machine is switched off.
    #[arg(long, default_value_t = 600)]
    limit: u64,
    /// What to run.
    #[arg(trailing_var_arg = true, required = true)]
    command: Vec<OsString>,
}

impl Run {
    /// Fails when the command does.
    pub fn run(&self) -> Outcome {
        setup::provide(&[Group::Vm])?;
        let kernel = Kernel::fetch(&self.kernel)?;
        let vm = Vm {
            kernel,
            memory: self.memory,
            cpus: 2,
            limit: Duration::from_secs(self.limit),
        };
        let directory = env::current_dir().doing(|| "find the current directory".to_owned())?;
        match vm.run(&self.command, &directory)? {
            (0, _) => Ok(()),
            (code, _) => Err(Failure::new(format!(
                "the command ended with exit code {code} under {}",
                vm.kernel.release
            ))),
        }
    }
}

/// A guest to be.
pub struct Vm {
    /// What it boots.
    pub kernel: Kernel,
    /// Memory, MiB; everything the guest writes lives in it too.
    pub memory: u32,
    /// One is slower, but the kernel cannot lose races against itself that only emulation knows.
    pub cpus: u32,
    /// Boot included.
    pub limit: Duration,
}

/// How a guest ended.
enum End {
    /// The command's exit code.
    Exit(i32),
    /// It died before the command began: the end of its console.
    NoBoot(String),
    /// It died, or hung, while the command ran.
    Died(String),
}

impl Vm {
    /// Runs the command in the guest, in `directory`; its output goes where ours goes and is returned too.
    pub fn run(&self, command: &[OsString], directory: &Path) -> Outcome<(i32, String)> {
        let work = repository::root().join(format!("target/vm/run-{}", std::process::id()));
        fs::create_dir_all(&work).doing(|| format!("make {}", work.display()))?;
        let outcome = self.boot(&self.script(command, directory)?, &work);
        // Best effort: a directory below target/ harms nobody.
        let _ = fs::remove_dir_all(&work);
        outcome
    }

    fn boot(&self, script: &str, work: &Path) -> Outcome<(i32, String)> {
        initramfs::write(&work.join("initrd"), &self.kernel, script)?;
        for boot in 1..=BOOTS {
            let (end, output) = self.once(work)?;
            match end {
                End::Exit(code) => return Ok((code, output)),
                End::NoBoot(console) if boot < BOOTS => say(format_args!(
                    "the guest died before the command began, again ({console})"
                )),
                End::NoBoot(console) | End::Died(console) => {
                    return Err(Failure::new(format!(
                        "the guest gave no exit code; the end of its console:\n{console}"
                    )));
                }
            }
        }
        Err(Failure::new("the guest did not boot"))
    }

    fn once(&self, work: &Path) -> Outcome<(End, String)> {
        let console = work.join("console");
        let result = work.join("result");
        fs::write(&result, "").doing(|| format!("write {}", result.display()))?;
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-m", &self.memory.to_string(), "-smp", &self.cpus.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(work.join("initrd"))
            .args(["-append", "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off no5lvl nokaslr audit=0 apparmor=0 cgroup_no_v1=all"])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-device", "virtio-serial-pci", "-chardev", "file,id=output,path=/proc/self/fd/1"])
            .args(["-device", "virtserialport,chardev=output,name=output", "-chardev"])
            .arg(format!("file,id=result,path={}", result.display()))
            .args(["-device", "virtserialport,chardev=result,name=result"])
            .args(["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"])
            .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"])
            .args(if env::var_os("SLUICE_VM_ACCEL").is_some_and(|accel| accel == "kvm") {
                ["-accel", "kvm", "-cpu", "host"]
            } else {
                ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
            })
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut guest = qemu
            .spawn()
            .doing(|| "start qemu-system-x86_64 (cargo xtask setup --vm)".to_owned())?;
        let reader = guest.stdout.take().map(|output| thread::spawn(move || forward(output)));
        let deadline = Instant::now() + self.limit;
        let in_time = loop {
            if guest.try_wait().doing(|| "wait for qemu".to_owned())?.is_some() {
                break true;
            }
            if Instant::now() > deadline {
                guest.kill().doing(|| "end qemu".to_owned())?;
                guest.wait().doing(|| "wait for qemu".to_owned())?;
                break false;
            }
            thread::sleep(Duration::from_millis(100));
        };
        let output = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        let said = fs::read_to_string(&result).doing(|| format!("read {}", result.display()))?;
        let last = last_lines(&console, 25);
        let code = said.lines().find_map(|line| line.parse().ok());
        let end = match (code, in_time) {
            (Some(code), _) => End::Exit(code),
            (None, false) => End::Died(format!("{last}\n(ended after {} s)", self.limit.as_secs())),
            (None, true) if said.contains("begun") => End::Died(last),
            (None, true) => End::NoBoot(last),
        };
        Ok((end, output))
    }

    /// What the guest's second stage runs: the command in the directory, with our PATH.
    fn script(&self, command: &[OsString], directory: &Path) -> Outcome<String> {
        let mut script = String::from("#!/bin/bash\n");
        for name in ["PATH", "HOME"] {
            let value = env::var_os(name).unwrap_or_default();
            script.push_str(&format!("export {name}={}\n", quoted(&value)?));
        }
        script.push_str(&format!("directory={}\n", quoted(directory.as_os_str())?));
        script.push_str(&format!("modules={}\n", quoted(self.kernel.modules().as_os_str())?));
        let words = command.iter().map(|word| quoted(word)).collect::<Outcome<Vec<_>>>()?;
        script.push_str(&format!("command=({})\n", words.join(" ")));
        script.push_str(include_str!("vm/second-stage.sh"));
        Ok(script)
    }
}

/// Passes on what the guest says while it says it.
fn forward(mut output: impl Read) -> String {
    let mut all = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(length @ 1..) = output.read(&mut chunk) {
        // Nobody to listen is no reason to stop the guest.
        let _ = std::io::stdout().write_all(&chunk[..length]);
        all.extend_from_slice(&chunk[..length]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// A word as bash reads it back.
fn quoted(word: &std::ffi::OsStr) -> Outcome<String> {
    let text = word
        .to_str()
        .ok_or_else(|| Failure::new(format!("{word:?} is not UTF-8")))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn last_lines(file: &Path, count: usize) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(file) {
        // What cannot be read is shown as nothing: this is for people.
        let _ = file.read_to_end(&mut text);
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Where kernels are kept between runs.
fn cache() -> PathBuf {
    repository::root().join("target/kernels")
}
