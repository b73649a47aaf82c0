//! How a filter's word fits a name.

use regex::RegexBuilder;

/// A pattern may take so much memory when it is made ready, bytes.
const LARGEST: usize = 1 << 20;

/// Docker's way: the word is the text itself, or a regular expression that is found in it. What is no expression fits nothing but itself.
pub fn fits(word: &str, text: &str) -> bool {
    let found = || {
        let pattern = RegexBuilder::new(word)
            .size_limit(LARGEST)
            .dfa_size_limit(LARGEST)
            .build();
        pattern.is_ok_and(|pattern| pattern.is_match(text))
    };
    word == text || found()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_within_a_name_unless_it_is_anchored() {
        for (word, agrees) in [
            ("eb", true),
            ("^web$", true),
            ("^w", true),
            ("^eb", false),
            ("we$", false),
            ("w.b", true),
            ("^(db|web)$", true),
            ("^w[a-f]b$", true),
            ("w*eb", true),
            ("W", false),
            ("(?i)W", true),
        ] {
            assert_eq!(fits(word, "web"), agrees, "{word}");
        }
    }

    #[test]
    fn what_is_no_expression_fits_itself_alone() {
        assert!(fits("a(b", "a(b") && !fits("a(b", "xa(b"));
        assert!(
            !fits(&"(a{1000}){1000}".repeat(10), "a"),
            "one that would take all memory fits nothing"
        );
    }
}
