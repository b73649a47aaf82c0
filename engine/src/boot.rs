//! Has the host been started anew since a daemon last ran? Then no process of a container is left, whatever a directory still says.

use std::path::{Path, PathBuf};

use crate::{EngineError, error};

/// The kernel makes a new one at each boot.
const OF_KERNEL: &str = "/proc/sys/kernel/random/boot_id";

/// Is the boot another one than the daemon of this data root has seen last? What nobody has seen is not new: there is nothing to be taken over.
pub(crate) fn is_new(data_root: &Path) -> bool {
    match (
        std::fs::read_to_string(file(data_root)),
        std::fs::read_to_string(OF_KERNEL),
    ) {
        (Ok(seen), Ok(now)) => seen.trim() != now.trim(),
        _ => false,
    }
}

/// Writes this boot down, once all of the last one is tidied up.
pub(crate) fn remember(data_root: &Path) -> Result<(), EngineError> {
    let path = file(data_root);
    let now = std::fs::read(OF_KERNEL).map_err(|why| error::io("read", Path::new(OF_KERNEL), &why))?;
    std::fs::write(&path, now).map_err(|why| error::io("write", &path, &why))
}

fn file(data_root: &Path) -> PathBuf {
    data_root.join("boot-id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_new_until_it_is_remembered() {
        let root = std::env::temp_dir().join(format!("sluice-engine-boot-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        assert!(!is_new(&root));
        std::fs::write(file(&root), "another\n").unwrap();
        assert!(is_new(&root));
        remember(&root).unwrap();
        assert!(!is_new(&root));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
