//! Maps by name: what the contract expects of each, what is pinned, and the handles.

use std::{fs, io, os::fd::AsFd, path::Path};

use sluice_datapath_common::{
    Ipv4, Ipv4Address, Ipv6, Ipv6Address,
    counter::Counter,
    drop::DropKey,
    endpoint::{Attachment, Endpoint, EndpointKey},
    event::{DropEvent, EventPace},
    flow::{Flow, FlowKey},
    for_each_map,
    fragment::{FragmentKey, FragmentPorts},
    network::Network,
    overlay::{Host, Remote},
    policy::{Cell, CellKey, Groups, Judgement, LinkKey, ListKey, MemberKey, Subject, VerdictKey},
    publish::{Publication, PublishKey, RangeKey, SourceKey},
    resolver::{Asking, Resolver},
    settings::{Settings, Tally},
    socket::{SocketPeer, SocketPeerKey},
    uplink::{LocalAddress, Uplink},
};

use super::handle::{Handle, kind};
use crate::{AgentError, Limits, Tried, kernel::bpf};

/// What the contract says of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Specification {
    /// Its name.
    pub name: &'static str,
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Bytes.
    pub key_size: usize,
    /// Bytes.
    pub value_size: usize,
    /// Entries, unless the limits of the host say otherwise (see [`Specification::capacity`]).
    default_capacity: u32,
    /// What it holds.
    pub sentence: &'static str,
}

/// The numbers of `enum bpf_map_type`, by the contract's words.
#[expect(
    non_upper_case_globals,
    reason = "these are the contract's words, which are those of aya's types"
)]
mod number {
    pub const HashMap: u32 = 1;
    pub const SparseHashMap: u32 = HashMap;
    pub const Array: u32 = 2;
    pub const PerCpuArray: u32 = 6;
    pub const LruHashMap: u32 = 9;
    pub const LruPerCpuHashMap: u32 = 10;
    pub const LpmTrie: u32 = 11;
    pub const RingBuf: u32 = 27;
}

macro_rules! declare {
    ($($name:ident: $kind:ident<$key:ty, $value:ty>, $capacity:literal, $sentence:literal;)+) => {
        /// All maps of an instance, open.
        #[allow(non_snake_case, reason = "a map has the same name in the kernel, the contract and here")]
        pub struct Maps {
            $(#[doc = $sentence] pub $name: kind::$kind<$key, $value>,)+
        }

        /// All maps of the contract.
        pub const SPECIFICATIONS: &[Specification] = &[$(Specification {
            name: stringify!($name),
            kind: number::$kind,
            key_size: <kind::$kind<$key, $value> as Handle>::KEY_SIZE,
            value_size: <kind::$kind<$key, $value> as Handle>::VALUE_SIZE,
            default_capacity: $capacity,
            sentence: $sentence,
        },)+];

        impl Maps {
            /// Opens the pins of `directory`. One that is not as the contract says is an error.
            pub fn open(directory: &Path, limits: Limits) -> Result<Self, AgentError> {
                let mut specifications = SPECIFICATIONS.iter();
                Ok(Self { $($name: open(directory, specifications.next(), limits)?,)+ })
            }

            /// Each map's name, sentence, entries and capacity. Without `arrays` those are left out: all their slots are there, so that none of them ever
            /// fills up, and they are walked through whole to see which are in use.
            pub fn fill(&self, arrays: bool) -> io::Result<Vec<(&'static Specification, u64, u32)>> {
                let mut specifications = SPECIFICATIONS.iter();
                let mut fill = Vec::new();
                $(if let Some(specification) = specifications.next() {
                    let is_array = matches!(specification.kind, number::Array | number::PerCpuArray);
                    if arrays || !is_array {
                        // An array's slots are all there; those in use are not all zeros.
                        let in_use = if is_array { self.$name.count_set()? } else { self.$name.count()? };
                        fill.push((specification, in_use, bpf::map_info(self.$name.map())?.max_entries));
                    }
                })+
                Ok(fill)
            }

            /// The kernel's ids of all maps.
            pub fn ids(&self) -> io::Result<Vec<u32>> {
                Ok(vec![$(bpf::map_info(self.$name.map())?.id,)+])
            }
        }
    };
}

for_each_map!(declare);

fn open<H: Handle>(
    directory: &Path,
    specification: Option<&'static Specification>,
    limits: Limits,
) -> Result<H, AgentError> {
    let specification =
        specification.ok_or_else(|| AgentError::Failed("the list of maps is shorter than itself".to_owned()))?;
    let path = directory.join(specification.name);
    let map = bpf::open_pin(&path).tried(|| format!("opening the map {}", path.display()))?;
    let info = bpf::map_info(map.as_fd()).tried(|| format!("asking for the map {}", path.display()))?;
    if let Some(difference) = specification.difference(&info, limits) {
        return Err(AgentError::Failed(format!(
            "the map {} is not ours: {difference}",
            path.display()
        )));
    }
    H::from_map(map).tried(|| format!("opening the map {}", path.display()))
}

/// Removes pins that the programs of the contract cannot use (another kind or size), so that new maps take their place. aya takes a pin over by
/// its name alone. Whatever is attached goes on with the old map until its program is replaced.
pub fn remove_misfits(directory: &Path, limits: Limits) -> Result<Vec<&'static str>, AgentError> {
    let mut removed = Vec::new();
    for specification in SPECIFICATIONS {
        let path = directory.join(specification.name);
        let info = match bpf::open_pin(&path) {
            Ok(map) => bpf::map_info(map.as_fd()).tried(|| format!("asking for the map {}", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).tried(|| format!("opening the map {}", path.display())),
        };
        if let Some(difference) = specification.difference(&info, limits) {
            tracing::warn!(map = specification.name, %difference, "a pinned table does not fit and is made anew");
            fs::remove_file(&path).tried(|| format!("removing {}", path.display()))?;
            removed.push(specification.name);
        }
    }
    Ok(removed)
}

// === impl Specification ===

impl Specification {
    /// How many entries the map has room for on a host with these limits.
    pub fn capacity(&self, limits: Limits) -> u32 {
        match self.name {
            "FLOWS4" | "FLOWS6" => limits.entries(),
            _ => self.default_capacity,
        }
    }

    /// How a map of the kernel differs from this one.
    fn difference(&self, info: &bpf::MapInfo, limits: Limits) -> Option<String> {
        let capacity = self.capacity(limits);
        let expected = [self.kind, self.key_size as u32, self.value_size as u32, capacity];
        let found = [info.kind, info.key_size, info.value_size, info.max_entries];
        let what = ["kind", "key size", "value size", "capacity"];
        what.iter()
            .zip(expected.iter().zip(found))
            .find(|(_, (expected, found))| **expected != *found)
            .map(|(what, (expected, found))| format!("its {what} is {found}, the programs want {expected}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitting(specification: &Specification) -> bpf::MapInfo {
        bpf::MapInfo {
            kind: specification.kind,
            id: 1,
            key_size: specification.key_size as u32,
            value_size: specification.value_size as u32,
            max_entries: specification.capacity(Limits::default()),
            name: specification.name.to_owned(),
        }
    }

    #[test]
    fn a_map_of_another_kind_or_size_does_not_fit() {
        for specification in SPECIFICATIONS {
            let info = fitting(specification);
            assert_eq!(specification.difference(&info, Limits::default()), None);
            for misfit in [
                bpf::MapInfo {
                    kind: info.kind + 1,
                    ..info.clone()
                },
                bpf::MapInfo {
                    key_size: info.key_size + 4,
                    ..info.clone()
                },
                bpf::MapInfo {
                    value_size: info.value_size + 8,
                    ..info.clone()
                },
                bpf::MapInfo {
                    max_entries: info.max_entries * 2,
                    ..info.clone()
                },
            ] {
                assert!(
                    specification.difference(&misfit, Limits::default()).is_some(),
                    "{misfit:?}"
                );
            }
        }
    }

    #[test]
    fn the_first_fifteen_characters_tell_the_maps_apart() {
        let shown: std::collections::HashSet<_> = SPECIFICATIONS
            .iter()
            .map(|map| map.name.chars().take(15).collect::<String>())
            .collect();
        assert_eq!(shown.len(), SPECIFICATIONS.len());
    }
}
