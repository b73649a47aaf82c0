//! Whose files are whose on the host: containers in a user namespace see other owners than are written on disk.
//!
//! Layers are stored once, with the owners their archives name. What such a container writes, and what it is given, bears the host's ids. So every way
//! in and out of its files translates; the kernel does it for layers below the writable one, by an idmapped mount.

use serde::{Deserialize, Serialize};

use crate::error::ImageError;

/// What an id is in the container that the host's id is none of.
const NOBODY: u32 = 65534;

/// The attribute that holds a file's capabilities.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// A run of ids: first in the container, first on the host, how many.
pub type OwnerRange = (u32, u32, u32);

/// The ids of a container's users and groups on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Of users.
    pub users: Vec<OwnerRange>,
    /// Of groups.
    pub groups: Vec<OwnerRange>,
}

impl Owners {
    /// What the container's user and group are on the host.
    pub fn on_host(&self, uid: u32, gid: u32) -> Result<(u32, u32), ImageError> {
        let find = |ranges: &[OwnerRange], id: u32| {
            let found = ranges.iter().find_map(|(container, host, count)| {
                let within = id.checked_sub(*container).filter(|within| within < count)?;
                host.checked_add(within)
            });
            found.ok_or_else(|| ImageError::Failed(format!("Container ID {id} cannot be mapped to a host ID")))
        };
        Ok((find(&self.users, uid)?, find(&self.groups, gid)?))
    }

    /// The reverse; what is none of the container's is nobody, as the container sees it.
    pub fn in_container(&self, uid: u32, gid: u32) -> (u32, u32) {
        let find = |ranges: &[OwnerRange], id: u32| {
            let found = ranges.iter().find_map(|(container, host, count)| {
                let within = id.checked_sub(*host).filter(|within| within < count)?;
                container.checked_add(within)
            });
            found.unwrap_or(NOBODY)
        };
        (find(&self.users, uid), find(&self.groups, gid))
    }

    /// The container's root on the host.
    pub(crate) fn root(&self) -> Result<(u32, u32), ImageError> {
        self.on_host(0, 0)
    }

    /// A file's capabilities (`security.capability`), laid down so that they hold in the container's user namespace and nowhere else.
    pub(crate) fn capability_on_host(&self, value: &[u8]) -> Result<Vec<u8>, ImageError> {
        let Some(rest) = revision(value, 2, CAPABILITY_2) else {
            return Ok(value.to_vec());
        };
        let (root, _) = self.root()?;
        Ok([&value[..3], &[3], rest, &root.to_le_bytes()].concat())
    }

    /// The reverse: as an archive has them, which any root may give.
    pub(crate) fn capability_in_container(&self, value: &[u8]) -> Vec<u8> {
        match revision(value, 3, CAPABILITY_3) {
            Some(rest) => [&value[..3], &[2], &rest[..CAPABILITY_2 - 4]].concat(),
            None => value.to_vec(),
        }
    }
}

/// Lengths of linux/capability.h's `vfs_cap_data` and `vfs_ns_cap_data`, which has the root of a user namespace behind.
const CAPABILITY_2: usize = 20;
const CAPABILITY_3: usize = 24;

/// What stands behind the first word of capabilities of this revision; that is the word's last byte.
fn revision(value: &[u8], revision: u8, length: usize) -> Option<&[u8]> {
    (value.len() == length && value[3] == revision).then(|| &value[4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners() -> Owners {
        Owners {
            users: vec![(0, 100_000, 1000), (1000, 300_000, 10)],
            groups: vec![(0, 200_000, 1000)],
        }
    }

    #[test]
    fn an_id_goes_there_and_back() {
        assert_eq!(owners().on_host(5, 7).unwrap(), (100_005, 200_007));
        assert_eq!(owners().on_host(1009, 999).unwrap(), (300_009, 200_999));
        assert_eq!(owners().in_container(300_009, 200_999), (1009, 999));
        assert_eq!(owners().in_container(0, 99), (NOBODY, NOBODY));
        assert_eq!(
            owners().on_host(1010, 0).unwrap_err().to_string(),
            "Container ID 1010 cannot be mapped to a host ID"
        );
    }

    #[test]
    fn capabilities_name_the_root_they_are_for_on_the_host_only() {
        let archived = [&[1, 0, 0, 2][..], &[9; 16]].concat();
        let laid = owners().capability_on_host(&archived).unwrap();
        assert_eq!(laid, [&[1, 0, 0, 3][..], &[9; 16], &100_000_u32.to_le_bytes()].concat());
        assert_eq!(owners().capability_in_container(&laid), archived);
        assert_eq!(owners().capability_in_container(b"odd"), b"odd");
    }
}
