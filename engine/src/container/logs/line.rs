//! A line of a log on disk (Docker's json-file format), and what is shown of it.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use sluice_runtime::Stream;

use super::LogOptions;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(default, borrow)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// What is shown of a line.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Shown {
    /// This.
    Line(Stream, Bytes),
    /// Nothing.
    No,
    /// Nothing, and of those after it neither.
    TooLate,
}

/// What is shown of a line. One that can't be read (a crash of the host may leave such) is passed over.
pub(super) fn show(line: &[u8], options: &LogOptions) -> Shown {
    let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
        return Shown::No;
    };
    let stream = if line.stream == "stderr" {
        Stream::Stderr
    } else {
        Stream::Stdout
    };
    let time = line.time.parse::<Timestamp>().ok();
    if let Some(time) = time {
        if options.since.is_some_and(|since| time < since) {
            return Shown::No;
        }
        if options.until.is_some_and(|until| time > until) {
            return Shown::TooLate;
        }
    }
    if !(match stream {
        Stream::Stdout => options.stdout,
        Stream::Stderr => options.stderr,
    }) {
        return Shown::No;
    }
    let mut text = String::new();
    if let (true, Some(time)) = (options.timestamps, time) {
        text = format!("{time:.9} ");
    }
    if options.details {
        text.push_str(&details(&line.attrs));
        text.push(' ');
    }
    if text.is_empty() {
        return Shown::Line(stream, Bytes::from(line.log.into_owned()));
    }
    text.push_str(&line.log);
    Shown::Line(stream, Bytes::from(text))
}

/// `name=value,name=value`, escaped as in a query.
fn details(attrs: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = attrs
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect();
    pairs.join(",")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_stand_before_the_line_and_after_the_time() {
        let line = br#"{"log":"x\n","stream":"stderr","attrs":{"b":"1 2","a":"y"},"time":"2026-01-01T00:00:00.5Z"}"#;
        let options = LogOptions {
            stderr: true,
            details: true,
            timestamps: true,
            ..Default::default()
        };
        let shown = Shown::Line(Stream::Stderr, "2026-01-01T00:00:00.500000000Z a=y,b=1+2 x\n".into());
        assert_eq!(show(line, &options), shown);
        let plain = br#"{"log":"x\n","stream":"stderr","time":"2026-01-01T00:00:00.5Z"}"#;
        let options = LogOptions {
            timestamps: false,
            ..options
        };
        assert_eq!(show(plain, &options), Shown::Line(Stream::Stderr, " x\n".into()));
    }
}
