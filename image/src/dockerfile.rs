//! Dockerfiles: instructions with their lines, as the classic builder reads them, and heredocs besides.
//!
//! The parsers on crates.io were looked at (`dockerfile-parser`, `dockerfile-parser-rs`): none knows heredocs, the escape directive, ONBUILD's rules and
//! lines for errors together, and what they read has to be read again for quotes and variables. So this is a grammar of our own, with a corpus.

mod ignore;
#[cfg(test)]
mod tests;

pub use ignore::Ignore;
pub(crate) use ignore::name_fits;

use crate::{
    changes::{self, words},
    configuration::RunConfig,
    error::ImageError,
};

/// The longest Dockerfile, bytes.
pub const LONGEST: u64 = 4 << 20;
/// The instructions there are.
const KNOWN: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
/// Those that may have flags (`--name=value`), and which.
const FLAGS: [(&str, &[&str]); 4] = [
    ("ADD", &["chown", "chmod"]),
    ("COPY", &["from", "chown", "chmod"]),
    ("FROM", &["platform"]),
    ("RUN", &[]),
];

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it begins, from 1.
    pub line: usize,
    /// In upper case.
    pub name: String,
    /// As it was written, on one line.
    pub original: String,
    /// `--name=value` before the rest.
    pub flags: Vec<(String, String)>,
    /// What follows.
    pub rest: String,
    /// What follows below.
    pub heredocs: Vec<Heredoc>,
}

/// `<<EOF`, and the lines up to `EOF`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Are variables put in?
    pub expands: bool,
    /// The lines.
    pub content: String,
}

/// Reads a Dockerfile.
pub fn parse(text: &str) -> Result<Vec<Instruction>, ImageError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = escape_of(text)?;
    let lines: Vec<&str> = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .collect();
    let (mut instructions, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let first = at;
        let mut whole = String::new();
        let mut goes_on = true;
        while goes_on && at < lines.len() {
            let line = lines[at];
            at += 1;
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') || (trimmed.is_empty() && (whole.is_empty() || at < lines.len())) {
                if whole.is_empty() {
                    break;
                }
                continue; // comments and empty lines within an instruction are left out
            }
            let piece = if whole.is_empty() { trimmed } else { line };
            match piece.trim_end().strip_suffix(escape) {
                Some(piece) => whole.push_str(piece),
                None => {
                    whole.push_str(piece);
                    goes_on = false;
                }
            }
        }
        let whole = whole.trim();
        if whole.is_empty() {
            continue;
        }
        let mut instruction = instruction(whole, first + 1)?;
        if matches!(instruction.name.as_str(), "ADD" | "COPY" | "RUN") {
            for (name, expands, strips) in heredocs_of(&instruction.rest) {
                let mut content = String::new();
                loop {
                    let Some(line) = lines.get(at) else {
                        return Err(at_line(first + 1, "unterminated heredoc"));
                    };
                    at += 1;
                    let line = if strips { line.trim_start_matches('\t') } else { line };
                    if line == name {
                        break;
                    }
                    content.push_str(line);
                    content.push('\n');
                }
                instruction.heredocs.push(Heredoc { name, expands, content });
            }
        }
        instructions.push(instruction);
    }
    match instructions.is_empty() {
        true => Err(ImageError::Invalid("file with no instructions".into())),
        false => Ok(instructions),
    }
}

/// One instruction on one line: of a Dockerfile, or a trigger of ONBUILD.
pub fn instruction(text: &str, line: usize) -> Result<Instruction, ImageError> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (name, mut rest) = (word.to_ascii_uppercase(), rest.trim());
    if !KNOWN.contains(&name.as_str()) {
        return Err(at_line(line, &format!("unknown instruction: {name}")));
    }
    let mut flags = Vec::new();
    if let Some((_, known)) = FLAGS.iter().find(|(with_flags, _)| *with_flags == name) {
        while let Some(flag) = rest.strip_prefix("--") {
            let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
            if flag.is_empty() {
                rest = after.trim_start();
                break;
            }
            let (flag, value) = flag.split_once('=').unwrap_or((flag, ""));
            if !known.contains(&flag) {
                let needs_buildkit = matches!(
                    flag,
                    "mount" | "network" | "security" | "link" | "parents" | "exclude" | "checksum" | "keep-git-dir"
                );
                return Err(at_line(
                    line,
                    &match needs_buildkit {
                        true => format!("the --{flag} option requires BuildKit, which is not offered here"),
                        false => format!("Unknown flag: {flag}"),
                    },
                ));
            }
            if value.is_empty() {
                return Err(at_line(line, &format!("Missing a value on flag: {flag}")));
            }
            flags.push((flag.to_owned(), value.to_owned()));
            rest = after.trim_start();
        }
    }
    if rest.is_empty() && !matches!(name.as_str(), "CMD" | "ENTRYPOINT") {
        let wanted = match name.as_str() {
            "FROM" => "either one or three arguments",
            "ADD" | "COPY" => "at least two arguments, but only one was provided. Destination could not be determined.",
            "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => "exactly one argument",
            _ => "at least one argument",
        };
        return Err(at_line(line, &format!("{name} requires {wanted}")));
    }
    Ok(Instruction {
        line,
        name,
        original: text.to_owned(),
        flags,
        rest: rest.to_owned(),
        heredocs: Vec::new(),
    })
}

/// A sentence with the line it is about.
pub fn at_line(line: usize, why: &str) -> ImageError {
    ImageError::Invalid(format!("dockerfile parse error line {line}: {why}"))
}

/// `# escape=` among the directives, which stand before everything else.
fn escape_of(text: &str) -> Result<char, ImageError> {
    let mut escape = None;
    for (number, line) in text.lines().enumerate() {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|line| line.split_once('=')) else {
            break;
        };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            break;
        }
        if key == "escape" {
            let found = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    return Err(at_line(
                        number + 1,
                        &format!("invalid escape token '{value}' does not match ` or \\"),
                    ));
                }
            };
            if escape.replace(found).is_some() {
                return Err(at_line(number + 1, "only one escape parser directive can be used"));
            }
        }
    }
    Ok(escape.unwrap_or('\\'))
}

/// `<<EOF`, `<<-EOF`, `<<"EOF"` among the words: name, does it expand, are tabs taken off.
fn heredocs_of(rest: &str) -> Vec<(String, bool, bool)> {
    if list(rest).is_some() {
        return Vec::new();
    }
    let found = words::split(rest).into_iter().filter_map(|word| {
        let name = word
            .trim_start_matches(|digit: char| digit.is_ascii_digit())
            .strip_prefix("<<")?
            .to_owned();
        let (strips, name) = match name.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, name.as_str()),
        };
        let bare = name.trim_matches(['"', '\'']);
        let is_word = !bare.is_empty()
            && bare
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte == b'-');
        is_word.then(|| (bare.to_owned(), bare == name, strips))
    });
    found.collect()
}

/// A list in JSON; `None`: the shell form.
pub fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Words by blanks outside of quotes, or the list in JSON; quotes are kept in the one and gone in the other.
pub fn words(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| words::split(text))
}

/// `a=1 b="2 3"`, or the old `a the rest of the line`.
pub fn name_values(instruction: &str, text: &str) -> Result<Vec<(String, String)>, ImageError> {
    words::name_values(instruction, text)
}

/// Takes quotes and backslashes away and puts variables (`NAME=value`) in.
pub fn expand(text: &str, variables: &[String]) -> Result<String, ImageError> {
    words::expand(text, variables)
}

/// What an instruction that only changes the configuration makes of it.
pub fn change(config: &mut RunConfig, name: &str, rest: &str, variables: &[String]) -> Result<(), ImageError> {
    changes::change(config, name, rest, variables)
}
