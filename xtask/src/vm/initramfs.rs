//! The first thing the guest runs: busybox, the few modules that lead to the machine's file tree, and two scripts.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::repository;
use crate::step::{Doing, Failure, Outcome};

use super::Kernel;

/// What the guest needs before it sees the file tree.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// Writes the archive.
pub fn write(file: &Path, kernel: &Kernel, second_stage: &str) -> Outcome {
    let busybox =
        repository::program("busybox").ok_or_else(|| Failure::new("busybox is missing (cargo xtask setup --vm)"))?;
    let mut archive = Archive::default();
    for directory in ["bin", "mod", "proc", "sys", "dev", "host", "up", "new"] {
        archive.add(directory, 0o040_755, &[]);
    }
    archive.add(
        "bin/busybox",
        0o100_755,
        &fs::read(&busybox).doing(|| format!("read {}", busybox.display()))?,
    );
    archive.add("init", 0o100_755, include_bytes!("first-stage.sh"));
    archive.add("second-stage", 0o100_755, second_stage.as_bytes());
    let mut seen: Vec<std::path::PathBuf> = Vec::new();
    for name in MODULES {
        for module in kernel.module_files(name)? {
            if !seen.contains(&module) {
                archive.add(&format!("mod/{:02}.ko", seen.len()), 0o100_644, &plain(&module)?);
                seen.push(module);
            }
        }
    }
    fs::write(file, archive.finish()).doing(|| format!("write {}", file.display()))
}

/// A module's bytes, decompressed.
fn plain(module: &Path) -> Outcome<Vec<u8>> {
    let bytes = fs::read(module).doing(|| format!("read {}", module.display()))?;
    let program = match module.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(bytes),
    };
    let mut child = Command::new(program)
        .args(["-dc"])
        .arg(module)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| format!("start {program}"))?;
    let mut decompressed = Vec::new();
    if let Some(output) = child.stdout.as_mut() {
        std::io::Read::read_to_end(output, &mut decompressed).doing(|| format!("read from {program}"))?;
    }
    child.wait().doing(|| format!("wait for {program}"))?;
    Ok(decompressed)
}

/// An archive in the format the kernel unpacks: cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        let links = 1;
        let fields = [
            self.files,
            mode,
            0,
            0,
            links,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            // Writing to memory does not fail.
            let _ = write!(self.bytes, "{field:08x}");
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
