//! Writes what documents say. What is said of an endpoint lies under a number made of it, so that a change is never half there: new entries are written
//! beside the old ones, an endpoint turns to them in one write, and then the old ones go.

use std::{collections::BTreeMap, io};

use aya::Pod;
use sluice_datapath_common::{
    Ipv4Address, Ipv6Address,
    policy::{Groups, MAX_GROUPS, VerdictKey},
};
use sluice_policy::Number;

use super::Report;
use crate::{
    AgentError, Tried,
    actual::Actual,
    desired::Desired,
    map::{
        contents::{ByBytes, Changes, Entries},
        handle::{Prefix, Table},
        pins::{Maps, SPECIFICATIONS},
        rules::Rules,
    },
    plan::{
        Place,
        rules::{Wanted, wanted},
    },
};

/// What troubles are told under.
const SUBJECT: &str = "policies";

/// Makes the tables say what the documents say of who is there. True: some flow that was judged before may be judged otherwise now.
pub fn settle(
    maps: &Maps,
    desired: &Desired,
    places: &BTreeMap<&str, Place<'_>>,
    actual: &mut Actual,
    report: &mut Report,
) -> Result<bool, AgentError> {
    let Some(wanted) = wanted(desired, places, actual) else {
        return Ok(false);
    };
    if let Some(trouble) = too_many(&wanted.rules) {
        // What was said before is still said.
        report.troubles.insert(SUBJECT.to_owned(), trouble);
        return Ok(false);
    }
    let change = Change::between(&actual.rules, &wanted.rules);
    if change.is_empty() {
        actual.ruling = wanted.ruling;
        return Ok(false);
    }
    let moves = change.moves_epoch(actual, &wanted);
    report.changes += change.count();
    change
        .write(maps, &mut actual.rules)
        .tried(|| "writing what documents say".to_owned())?;
    forget_rules(maps, &wanted).tried(|| "forgetting counters of rules that are gone".to_owned())?;
    actual.ruling = wanted.ruling;
    Ok(moves)
}

/// What does not fit, in a sentence.
fn too_many(rules: &Rules) -> Option<String> {
    let capacity = |name: &str| {
        let specification = SPECIFICATIONS.iter().find(|specification| specification.name == name);
        specification.map_or(0, |specification| specification.capacity(Default::default()) as usize)
    };
    let tables = [
        ("SUBJECTS", rules.subjects.len()),
        ("KNOWN4", rules.known4.len()),
        ("KNOWN6", rules.known6.len()),
        ("CELLS", rules.cells.len()),
        ("LISTS", rules.lists.len()),
    ];
    // While a change is written, both what was and what will be have their place.
    let full = tables
        .into_iter()
        .find(|(name, entries)| 2 * entries > capacity(name))?;
    Some(format!(
        "the policies are not in force as they stand: they need {} entries of the table {}, and there may be {}; those before are still in force",
        full.1,
        full.0,
        capacity(full.0) / 2
    ))
}

/// The counters of rules that are no more.
fn forget_rules(maps: &Maps, wanted: &Wanted) -> io::Result<()> {
    let gone = |key: &VerdictKey| key.rule != 0 && !wanted.ruling.origins.contains_key(&Number(key.rule));
    for (key, _) in maps.VERDICTS.entries(|key, _| gone(key))? {
        maps.VERDICTS.remove(&key)?;
    }
    Ok(())
}

/// What is to be done.
struct Change {
    to: Rules,
    subjects: Changes<u32, sluice_datapath_common::policy::Subject>,
    known4: Changes<Prefix<Ipv4Address>, Groups>,
    known6: Changes<Prefix<Ipv6Address>, Groups>,
    cells: Changes<sluice_datapath_common::policy::CellKey, sluice_datapath_common::policy::Cell>,
    lists: Changes<Prefix<sluice_datapath_common::policy::ListKey>, sluice_datapath_common::policy::Judgement>,
}

impl Change {
    fn between(before: &Rules, to: &Rules) -> Self {
        Self {
            to: to.clone(),
            subjects: Changes::between(&before.subjects, &to.subjects),
            known4: Changes::between(&before.known4, &to.known4),
            known6: Changes::between(&before.known6, &to.known6),
            cells: Changes::between(&before.cells, &to.cells),
            lists: Changes::between(&before.lists, &to.lists),
        }
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn count(&self) -> usize {
        fn of<K, V>(changes: &Changes<K, V>) -> usize {
            changes.remove.len() + changes.put.len()
        }
        of(&self.subjects) + of(&self.known4) + of(&self.known6) + of(&self.cells) + of(&self.lists)
    }

    /// An endpoint that comes or goes with its address moves nothing: no flow was judged against it, or those go with it.
    fn moves_epoch(&self, actual: &Actual, wanted: &Wanted) -> bool {
        let is_there = |number: &ByBytes<u32>| actual.tables.generations.contains_key(number);
        wanted.other_documents
            || self.subjects.put.iter().any(|(number, _)| is_there(number))
            || concerns_others(&self.known4, &actual.rules.known4, 32)
            || concerns_others(&self.known6, &actual.rules.known6, 128)
    }

    fn write(&self, maps: &Maps, mirror: &mut Rules) -> io::Result<()> {
        self.lists.grant(&maps.LISTS, &mut mirror.lists)?;
        self.cells.grant(&maps.CELLS, &mut mirror.cells)?;
        let cut4 = |address: Ipv4Address, bits: u32| Ipv4Address(cut(u32::from_be(address.0), bits).to_be());
        let cut6 = |Ipv6Address(words): Ipv6Address, bits: u32| {
            let mut place = 0;
            Ipv6Address(words.map(|word| {
                let bits = bits.saturating_sub(place).min(32);
                place += 32;
                cut(u32::from_be(word), bits).to_be()
            }))
        };
        // Subjects turn one by one: till the last has, addresses belong both to the groups of before and to those of behind.
        in_both(&self.known4, &mirror.known4, cut4).grant(&maps.KNOWN4, &mut mirror.known4)?;
        in_both(&self.known6, &mirror.known6, cut6).grant(&maps.KNOWN6, &mut mirror.known6)?;
        self.subjects.grant(&maps.SUBJECTS, &mut mirror.subjects)?;
        self.subjects.withdraw(&maps.SUBJECTS, &mut mirror.subjects)?;
        finish(&self.to.known4, &maps.KNOWN4, &mut mirror.known4)?;
        finish(&self.to.known6, &maps.KNOWN6, &mut mirror.known6)?;
        self.cells.withdraw(&maps.CELLS, &mut mirror.cells)?;
        self.lists.withdraw(&maps.LISTS, &mut mirror.lists)
    }
}

fn cut(word: u32, bits: u32) -> u32 {
    word & u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

/// Is some address of more than one endpoint, or one that was known before, in other groups now?
fn concerns_others<A: Pod>(
    changes: &Changes<Prefix<A>, Groups>,
    before: &Entries<Prefix<A>, Groups>,
    whole: u32,
) -> bool {
    let wider = |key: &ByBytes<Prefix<A>>| key.0.length < whole;
    changes.put.iter().any(|(key, _)| wider(key)) || changes.remove.iter().any(wider) || changes.replaces(before)
}

/// The entries that come or change, with the groups that their addresses belonged to before.
fn in_both<A: Pod>(
    changes: &Changes<Prefix<A>, Groups>,
    before: &Entries<Prefix<A>, Groups>,
    cut: impl Fn(A, u32) -> A,
) -> Changes<Prefix<A>, Groups>
where
    Prefix<A>: Pod,
{
    let groups_before = |Prefix { length, address }: Prefix<A>| {
        (0..=length).rev().find_map(|length| {
            let address = cut(address, length);
            before.get(&ByBytes(Prefix { length, address }))
        })
    };
    let put = changes.put.iter().map(|(key, groups)| {
        let mut both = *groups;
        let mut next = both.groups.iter().take_while(|group| **group != 0).count();
        for group in groups_before(key.0).map_or(&[][..], |before| &before.groups) {
            if next < MAX_GROUPS && !both.groups.contains(group) {
                both.groups[next] = *group;
                next += 1;
            }
        }
        (*key, both)
    });
    Changes {
        remove: Vec::new(),
        put: put.collect(),
    }
}

/// Leaves the groups alone that are wanted.
fn finish<A: Pod>(
    wanted: &Entries<Prefix<A>, Groups>,
    table: &Table<Prefix<A>, Groups>,
    mirror: &mut Entries<Prefix<A>, Groups>,
) -> io::Result<()>
where
    Prefix<A>: Pod,
{
    let rest = Changes::between(mirror, wanted);
    rest.grant(table, mirror)?;
    rest.withdraw(table, mirror)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> ByBytes<Prefix<Ipv4Address>> {
        let net: ipnet::Ipv4Net = text.parse().unwrap();
        ByBytes(Prefix {
            length: net.prefix_len().into(),
            address: net.network().into(),
        })
    }

    fn groups(numbers: &[u64]) -> Groups {
        let mut groups = Groups::default();
        groups.groups[..numbers.len()].copy_from_slice(numbers);
        groups
    }

    fn entries(of: &[(&str, &[u64])]) -> Entries<Prefix<Ipv4Address>, Groups> {
        of.iter()
            .map(|(text, numbers)| (prefix(text), groups(numbers)))
            .collect()
    }

    fn cut4(address: Ipv4Address, bits: u32) -> Ipv4Address {
        Ipv4Address(cut(u32::from_be(address.0), bits).to_be())
    }

    #[test]
    fn while_a_change_is_written_addresses_belong_to_the_groups_of_before_and_of_behind() {
        let before = entries(&[("0.0.0.0/0", &[1]), ("10.0.0.0/8", &[1, 2]), ("10.1.0.0/16", &[3])]);
        let behind = entries(&[
            ("0.0.0.0/0", &[1]),
            ("10.0.0.0/8", &[4]),
            ("10.1.2.0/24", &[5]),
            ("10.2.0.0/16", &[2, 6]),
            ("192.0.2.1/32", &[7]),
        ]);
        let both = in_both(&Changes::between(&before, &behind), &before, cut4);
        assert!(both.remove.is_empty(), "what goes, goes last");
        let written: Entries<_, _> = both.put.into_iter().collect();
        let expected = entries(&[
            ("10.0.0.0/8", &[4, 1, 2]),
            ("10.1.2.0/24", &[5, 3]),
            ("10.2.0.0/16", &[2, 6, 1]),
            ("192.0.2.1/32", &[7, 1]),
        ]);
        assert_eq!(written, expected);
    }

    #[test]
    fn an_address_that_comes_or_goes_alone_concerns_nobody_else() {
        let before = entries(&[("10.0.0.0/8", &[1]), ("10.1.0.1/32", &[2])]);
        let concerns = |behind: &[(&str, &[u64])]| {
            let changes = Changes::between(&before, &entries(behind));
            concerns_others(&changes, &before, 32)
        };
        assert!(!concerns(&[("10.0.0.0/8", &[1])]), "it goes");
        assert!(
            !concerns(&[("10.0.0.0/8", &[1]), ("10.1.0.1/32", &[2]), ("10.1.0.2/32", &[2])]),
            "it comes"
        );
        assert!(
            concerns(&[("10.0.0.0/8", &[1]), ("10.1.0.1/32", &[3])]),
            "it is another"
        );
        assert!(concerns(&[("10.1.0.1/32", &[2])]), "many go");
    }
}
