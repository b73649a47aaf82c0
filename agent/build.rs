//! Takes the eBPF object that `cargo xtask build` made into the crate, with its fingerprint; an empty file when there is none, which the loader tells at
//! run time.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let variable = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .ok_or_else(|| io::Error::other(format!("cargo sets {name}")))
    };
    let object = variable("CARGO_MANIFEST_DIR")?.join("../target/ebpf/sluice-datapath.o");
    let out = variable("OUT_DIR")?;
    println!("cargo:rerun-if-changed={}", object.display());
    let bytes = match fs::read(&object) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    fs::write(out.join("sluice-datapath.o"), &bytes)?;
    fs::write(out.join("fingerprint.rs"), format!("{:#x}", fingerprint(&bytes)))
}

/// FNV-1a, as `Fingerprint` in src/names.rs has it; a test compares.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |fingerprint, byte| {
        (fingerprint ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
