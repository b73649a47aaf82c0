//! Names for containers that were given none: an adjective and the surname of somebody who moved networks or computing on.

use rand::RngExt;

const ADJECTIVES: [&str; 64] = [
    "able", "agile", "amber", "ample", "awake", "brave", "brisk", "calm", "candid", "clever", "coral", "crisp",
    "curious", "daring", "deft", "eager", "early", "earnest", "fair", "fleet", "fond", "frank", "fresh", "gentle",
    "glad", "golden", "handy", "hardy", "humble", "ideal", "jolly", "keen", "kind", "lively", "loyal", "lucid",
    "mellow", "merry", "mild", "neat", "noble", "patient", "placid", "plucky", "polite", "prompt", "proud", "quick",
    "quiet", "ready", "robust", "serene", "sharp", "silent", "smart", "snug", "solid", "steady", "sunny", "tender",
    "tidy", "vivid", "warm", "witty",
];

const SURNAMES: [&str; 64] = [
    "aho",
    "allman",
    "backus",
    "baran",
    "bartik",
    "berners",
    "boole",
    "brooks",
    "cerf",
    "church",
    "clark",
    "codd",
    "cray",
    "davies",
    "deering",
    "dijkstra",
    "easley",
    "eich",
    "engelbart",
    "estrin",
    "feinler",
    "floyd",
    "gilmore",
    "goldberg",
    "gosling",
    "hamming",
    "hoare",
    "holberton",
    "hopper",
    "huffman",
    "iverson",
    "jacobson",
    "johnson",
    "kahn",
    "karels",
    "kay",
    "kernighan",
    "kleinrock",
    "knuth",
    "lamarr",
    "lamport",
    "liskov",
    "lovelace",
    "mauchly",
    "mccarthy",
    "metcalfe",
    "mockapetris",
    "naur",
    "nygaard",
    "perlman",
    "postel",
    "ritchie",
    "roberts",
    "shannon",
    "sutherland",
    "tarjan",
    "thompson",
    "tomlinson",
    "torvalds",
    "turing",
    "wilkes",
    "wirth",
    "yao",
    "zuse",
];

/// A name; after a few tries with a digit behind it, as there are only so many.
pub(crate) fn make_up(tries: usize) -> String {
    let mut random = rand::rng();
    let adjective = ADJECTIVES[random.random_range(0..ADJECTIVES.len())];
    let surname = SURNAMES[random.random_range(0..SURNAMES.len())];
    match tries {
        0..3 => format!("{adjective}_{surname}"),
        3..20 => format!("{adjective}_{surname}{}", random.random_range(0..10)),
        _ => format!("{adjective}_{surname}{}", random.random_range(0..1_000_000)),
    }
}

/// May a container be called this? Docker's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() >= 2
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_valid_and_grow_a_digit_when_they_collide() {
        for tries in [0, 1, 5, 30] {
            let name = make_up(tries);
            assert!(is_valid(&name), "{name}");
            assert_eq!(name.ends_with(|last: char| last.is_ascii_digit()), tries >= 3, "{name}");
        }
    }

    #[test]
    fn no_word_stands_twice_in_the_lists() {
        for list in [ADJECTIVES, SURNAMES] {
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }

    #[test]
    fn names_follow_dockers_rule() {
        for right in ["web", "a1", "A-b_c.d", "0x"] {
            assert!(is_valid(right), "{right}");
        }
        for wrong in ["", "a", "-a", ".a", "_a", "a b", "a/b", "ä1", "a\n"] {
            assert!(!is_valid(wrong), "{wrong:?}");
        }
    }
}
