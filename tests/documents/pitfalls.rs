//! `docs/pitfalls.md` and the tests that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A test: its file from the root, and its name.
type Test = (String, String);

/// The numbers that were given. Those between were never.
fn numbers() -> impl Iterator<Item = u32> {
    (1..=35).chain(40..=60).chain(70..=73)
}

#[test]
fn every_pitfall_is_listed_with_its_tests_or_with_who_is_to_write_them() {
    let rows = rows();
    let listed: Vec<u32> = rows.keys().copied().collect();
    assert_eq!(listed, numbers().collect::<Vec<_>>());
    for (number, row) in rows {
        assert!(
            !row.tests.is_empty() || row.says_not_yet,
            "B{number} has no test, and does not say whose it is"
        );
    }
}

#[test]
fn every_test_named_for_a_pitfall_exists_and_bears_its_number_and_no_other_test_does() {
    let named: BTreeSet<(Test, u32)> = rows()
        .into_iter()
        .flat_map(|(number, row)| row.tests.into_iter().map(move |test| (test, number)))
        .collect();
    let mut borne = BTreeSet::new();
    for directory in ["tests", "agent/tests"] {
        find(&root().join(directory), &mut borne);
    }
    let only_named: Vec<_> = named.difference(&borne).collect();
    assert!(
        only_named.is_empty(),
        "named in the page, but no test bears the number: {only_named:#?}"
    );
    let only_borne: Vec<_> = borne.difference(&named).collect();
    assert!(
        only_borne.is_empty(),
        "borne by a test that the page does not name: {only_borne:#?}"
    );
}

struct Row {
    tests: Vec<Test>,
    says_not_yet: bool,
}

fn rows() -> BTreeMap<u32, Row> {
    let page = fs::read_to_string(root().join("docs/pitfalls.md")).expect("the page on pitfalls");
    let rows = page.lines().filter_map(|line| {
        let (number, row) = line.strip_prefix("| B")?.split_once(" |")?;
        let proof = row.trim_end_matches(" |").rsplit(" | ").next()?;
        let tests = proof.split('`').filter_map(|word| word.split_once("::"));
        let row = Row {
            tests: tests.map(|(file, name)| (file.to_owned(), name.to_owned())).collect(),
            says_not_yet: proof.contains("Not yet: "),
        };
        Some((number.parse().expect("a number"), row))
    });
    rows.collect()
}

/// Every test below the directory whose comment begins a line with "Pitfall" or "Pitfalls" and numbers.
fn find(directory: &Path, borne: &mut BTreeSet<(Test, u32)>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, borne);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let file = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let mut pitfalls: Vec<u32> = Vec::new();
        for line in text.lines() {
            if let Some(comment) = line.trim_start().strip_prefix("/// Pitfall") {
                pitfalls.extend(
                    comment
                        .split(|c: char| !c.is_ascii_alphanumeric())
                        .filter_map(|word| word.strip_prefix('B')?.parse::<u32>().ok()),
                );
            } else if let Some((_, rest)) = line.split_once("fn ") {
                let name = rest.split('(').next().unwrap_or_default();
                borne.extend(
                    pitfalls
                        .drain(..)
                        .map(|number| ((file.clone(), name.to_owned()), number)),
                );
            }
        }
    }
}

fn root() -> PathBuf {
    // `..` is resolved, so that prefixes can be taken off.
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).expect("the root of the project")
}
