//! `.dockerignore`: what of a directory is no part of a build. The last pattern that fits decides; `!` takes back.

use crate::error::ImageError;

/// The patterns of a file.
#[derive(Clone, Debug, Default)]
pub struct Ignore(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    parts: Vec<String>,
    takes_back: bool,
}

impl Ignore {
    /// Reads the file.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let mut patterns = Vec::new();
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let mut parts: Vec<&str> = Vec::new();
            for part in pattern.split('/') {
                match part {
                    "" | "." => {}
                    ".." => _ = parts.pop(),
                    part => parts.push(part),
                }
            }
            if pattern.is_empty() {
                return Err(ImageError::Invalid("illegal exclusion pattern: \"!\"".into()));
            }
            if parts.is_empty() {
                continue; // `/` and `.` mean nothing
            }
            patterns.push(Pattern {
                parts: parts.into_iter().map(str::to_owned).collect(),
                takes_back,
            });
        }
        Ok(Self(patterns))
    }

    /// Is this path (relative, with slashes) left out? One below a directory that is left out is, too, unless it is taken back.
    pub fn leaves_out(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut out = false;
        for pattern in &self.0 {
            if pattern.takes_back == out && (1..=parts.len()).any(|end| fits(&pattern.parts, &parts[..end])) {
                out = !pattern.takes_back;
            }
        }
        out
    }

    /// May something below a directory that is left out be taken back?
    pub fn takes_back(&self) -> bool {
        self.0.iter().any(|pattern| pattern.takes_back)
    }
}

/// `**` stands for any number of names.
fn fits(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => (0..=path.len()).any(|skipped| fits(rest, &path[skipped..])),
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(name, below)| name_fits(first, name) && fits(rest, below)),
    }
}

/// `*`, `?`, `[a-z]`, `[^a]` and backslashes, within one name. A malformed pattern fits nothing.
pub(crate) fn name_fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // where the last star stood and how much of the name it has taken: a star need never give back to one before it
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(p + 1),
            Some('[') => class(&pattern, p, name[n]),
            Some('\\') => (pattern.get(p + 1) == Some(&name[n])).then_some(p + 2),
            Some(letter) => (*letter == name[n]).then_some(p + 1),
            None => None,
        };
        match (step, star) {
            (Some(next), _) => (p, n) = (next, n + 1),
            (None, Some((at, taken))) => {
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|letter| *letter == '*')
}

/// Behind the class at `at` when `letter` is in it.
fn class(pattern: &[char], at: usize, letter: char) -> Option<usize> {
    let mut at = at + 1;
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let (mut found, first) = (false, at);
    loop {
        let mut low = *pattern.get(at)?;
        if low == ']' && at > first {
            break;
        }
        if low == '\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        at += 1;
        let mut high = low;
        if pattern.get(at) == Some(&'-') && pattern.get(at + 1).is_some_and(|next| *next != ']') {
            high = pattern[at + 1];
            at += 2;
        }
        found |= (low..=high).contains(&letter);
    }
    (found != negated).then_some(at + 1)
}
