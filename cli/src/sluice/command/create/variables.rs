//! Variables and labels, those of the command line and those of files.

use std::{collections::HashMap, path::PathBuf};

use crate::failure::Failure;

/// Files first, so that the command line has the last word.
pub fn environment(files: &[PathBuf], variables: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file)?.iter().filter_map(|line| variable(line)));
    }
    for text in variables {
        if text.starts_with('=') || text.is_empty() {
            return Err(Failure::Usage(format!("invalid environment variable: {text}")));
        }
        all.extend(variable(text));
    }
    Ok(all)
}

/// `NAME=VALUE`; a bare name has our own value, and is left out when we have none.
fn variable(text: &str) -> Option<String> {
    match text.contains('=') {
        true => Some(text.to_owned()),
        false => std::env::var(text).ok().map(|value| format!("{text}={value}")),
    }
}

/// Lines of a file that say something.
pub fn lines(file: &PathBuf) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|why| Failure::Usage(format!("open {}: {why}", file.display())))?;
    let text = text.trim_start_matches('\u{feff}');
    let lines = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    for line in &lines {
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            let why = format!(
                "invalid env file ({}): variable '{name}' contains whitespaces or has no name",
                file.display()
            );
            return Err(Failure::Usage(why));
        }
    }
    Ok(lines)
}

/// `NAME=VALUE`, several times.
pub fn pairs(texts: &[String]) -> HashMap<String, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    texts.iter().map(pair).collect()
}
