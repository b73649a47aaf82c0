//! The eBPF object that this program carries.

use crate::{AgentError, names::Fingerprint};

/// What `cargo xtask build` made of `datapath-ebpf`; empty when this program was built without it.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sluice-datapath.o"));

/// Taken when it was embedded: who finds its programs in the kernel need not read it, and its pages stay on the disk.
const FINGERPRINT: u64 = include!(concat!(env!("OUT_DIR"), "/fingerprint.rs"));

/// The object, or a word on how to get it.
pub fn embedded() -> Result<&'static [u8], AgentError> {
    if EMBEDDED.is_empty() {
        return Err(AgentError::NoObject);
    }
    Ok(EMBEDDED)
}

/// The object's fingerprint, to which more may be added.
pub fn fingerprint() -> Fingerprint {
    Fingerprint::from(FINGERPRINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_that_of_the_object() {
        assert_eq!(fingerprint().value(), Fingerprint::of(EMBEDDED));
    }
}
