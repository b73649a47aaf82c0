//! The eBPF object that this program carries.

use crate::AgentError;

/// What `cargo xtask build` made of `datapath-ebpf`; empty when this program was built without it.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice-datapath.o"));

/// The object, or a word on how to get it.
pub fn embedded() -> Result<&'static [u8], AgentError> {
    if EMBEDDED.is_empty() {
        return Err(AgentError::NoObject);
    }
    Ok(EMBEDDED)
}
