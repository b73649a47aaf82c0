//! Which of the host's users and groups a container's are, where it has a user namespace of its own.

use serde::{Deserialize, Serialize};

/// A run of ids: as many of the container's as of the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdRange {
    /// The first in the container.
    pub container: u32,
    /// The first on the host.
    pub host: u32,
    /// How many.
    pub count: u32,
}

/// The users and groups of a user namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IdMap {
    /// Users.
    pub users: Vec<IdRange>,
    /// Groups.
    pub groups: Vec<IdRange>,
}

impl IdMap {
    /// Who root of the container, and its group, is on the host.
    pub fn root(&self) -> Option<(u32, u32)> {
        let of = |ranges: &[IdRange]| {
            let first = ranges.iter().find(|range| range.container == 0 && range.count > 0)?;
            Some(first.host)
        };
        Some((of(&self.users)?, of(&self.groups)?))
    }

    /// One after another in the container, whatever order and gaps they have on the host.
    pub fn in_a_row(ranges: impl IntoIterator<Item = (u32, u32)>) -> Vec<IdRange> {
        let mut next = 0_u32;
        let mut all = Vec::new();
        for (host, count) in ranges {
            let count = count.min(u32::MAX - next);
            all.push(IdRange {
                container: next,
                host,
                count,
            });
            next += count;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_one_another_in_the_container() {
        let users = IdMap::in_a_row([(100_000, 10), (500, 5)]);
        assert_eq!(
            users[1],
            IdRange {
                container: 10,
                host: 500,
                count: 5
            }
        );
        let map = IdMap {
            groups: IdMap::in_a_row([(7, 1)]),
            users,
        };
        assert_eq!(map.root(), Some((100_000, 7)));
        assert_eq!(IdMap::default().root(), None);
    }
}
