//! The process that stays with a container. See `sluice_runtime::shim`.

fn main() {
    std::process::exit(sluice_runtime::shim::main());
}
