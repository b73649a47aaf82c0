//! Takes the eBPF object that `cargo xtask build` made into the crate; an empty file when there is none, which the loader tells at run time.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let variable = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .ok_or_else(|| io::Error::other(format!("cargo sets {name}")))
    };
    let object = variable("CARGO_MANIFEST_DIR")?.join("../target/ebpf/sluice-datapath.o");
    let embedded = variable("OUT_DIR")?.join("sluice-datapath.o");
    println!("cargo:rerun-if-changed={}", object.display());
    match fs::read(&object) {
        Ok(bytes) => fs::write(embedded, bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(embedded, b""),
        Err(error) => Err(error),
    }
}
