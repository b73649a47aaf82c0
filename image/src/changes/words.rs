//! The words of a Dockerfile line: quotes, backslashes, variables and durations.

use super::invalid;
use crate::error::ImageError;

/// Words by blanks outside of quotes, the quotes kept.
pub(crate) fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, blank) if blank.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None | Some('"'), '\\') => {
                word.push('\\');
                word.extend(characters.next());
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// `a=1 b="2 3"`, or the old `a the rest of the line`.
pub(crate) fn name_values(instruction: &str, text: &str) -> Result<Vec<(String, String)>, ImageError> {
    let words = split(text);
    if !words.first().is_some_and(|word| word.contains('=')) {
        return match text.split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![(name.to_owned(), value.trim().to_owned())]),
            None => Err(invalid(format!("{instruction} must have two arguments"))),
        };
    }
    let pairs = words.iter().map(|word| match word.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(invalid(format!(
            "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
        ))),
    });
    pairs.collect()
}

/// Takes quotes and backslashes away and puts variables of `env` in: `$name`, `${name}`, `${name:-otherwise}`, `${name:+instead}`.
pub(crate) fn expand(text: &str, env: &[String]) -> Result<String, ImageError> {
    let mut out = String::new();
    let mut rest = text;
    let mut in_quotes = false;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\'' if !in_quotes => {
                let (literal, after) = rest.split_once('\'').ok_or_else(|| unfit(text, &unmatched("single")))?;
                out.push_str(literal);
                rest = after;
            }
            '"' => in_quotes = !in_quotes,
            '\\' => match rest.chars().next() {
                None => out.push('\\'),
                Some(next) => {
                    // in quotes a backslash only protects what would mean something
                    if in_quotes && !matches!(next, '"' | '$' | '\\') {
                        out.push('\\');
                    }
                    out.push(next);
                    rest = &rest[next.len_utf8()..];
                }
            },
            '$' => {
                let (value, after) = variable(text, rest, env)?;
                out.push_str(&value);
                rest = after;
            }
            other => out.push(other),
        }
    }
    if in_quotes {
        return Err(unfit(text, &unmatched("double")));
    }
    Ok(out)
}

/// The value of the variable that `text` (behind a `$` in `whole`) begins with, and what follows.
fn variable<'a>(whole: &str, text: &'a str, env: &[String]) -> Result<(String, &'a str), ImageError> {
    let Some(braced) = text.strip_prefix('{') else {
        let (name, after) = text.split_at(name_length(text));
        return match name.is_empty() {
            true => Ok(("$".into(), text)),
            false => Ok((lookup(name, env).unwrap_or_default().to_owned(), after)),
        };
    };
    let (name, after) = braced.split_at(name_length(braced));
    let (modifier, rest) = after
        .split_once('}')
        .ok_or_else(|| unfit(whole, "syntax error: missing '}'"))?;
    let value = lookup(name, env).filter(|value| !value.is_empty());
    if name.is_empty() {
        return Err(unfit(whole, "syntax error: bad substitution"));
    }
    let value = if modifier.is_empty() {
        value.unwrap_or_default().to_owned()
    } else if let Some(otherwise) = modifier.strip_prefix(":-") {
        match value {
            Some(value) => value.to_owned(),
            None => expand(otherwise, env)?,
        }
    } else if let Some(instead) = modifier.strip_prefix(":+") {
        match value {
            Some(_) => expand(instead, env)?,
            None => String::new(),
        }
    } else {
        let sign: String = modifier.chars().take(2).collect();
        return Err(unfit(whole, &format!("unsupported modifier ({sign}) in substitution")));
    };
    Ok((value, rest))
}

fn name_length(text: &str) -> usize {
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let end = text
        .find(|other: char| !other.is_ascii_alphanumeric() && other != '_')
        .unwrap_or(text.len());
    if starts_well { end } else { 0 }
}

fn lookup<'a>(name: &str, env: &'a [String]) -> Option<&'a str> {
    env.iter()
        .find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

/// A word that cannot be understood, in Docker's words.
fn unfit(word: &str, why: &str) -> ImageError {
    invalid(format!("failed to process {word:?}: {why}"))
}

fn unmatched(quote: &str) -> String {
    format!("unexpected end of statement while looking for matching {quote}-quote")
}

/// `1m30s`, `500ms` in nanoseconds; not negative.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|other: char| !other.is_ascii_digit() && other != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|other: char| other.is_ascii_digit() || other == '.');
        let unit_end = unit_end.map_or(rest.len(), |length| digits + length);
        total += number
            * match &rest[digits..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (total < i64::MAX as f64).then_some(total as i64)
}
