//! What a process says, cut into the entries of a log: Docker's json-file format.
//!
//! One JSON object a line. A line of the container longer than 16 KiB is cut; only its last piece ends with `\n` in `log`, which is how
//! readers put it together again. All pieces of a line bear the time of the first.

use std::{
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::log::Log;

/// Longest piece of a line in one object, in bytes.
pub(super) const LONGEST_PIECE: usize = 16 << 10;
/// Bytes of a time with all digits of its fraction, until the year 9999.
const LONGEST_TIME: usize = 30;

/// Appends the entry for a piece of a line.
fn entry(text: &mut Vec<u8>, piece: &[u8], newline: bool, stream: &str, attrs: &str, at: &Stamp) {
    text.extend_from_slice(b"{\"log\":\"");
    escape(text, piece);
    if newline {
        text.extend_from_slice(b"\\n");
    }
    text.extend_from_slice(b"\",\"stream\":\"");
    text.extend_from_slice(stream.as_bytes());
    if !attrs.is_empty() {
        text.extend_from_slice(b"\",\"attrs\":");
        text.extend_from_slice(attrs.as_bytes());
        text.extend_from_slice(b",\"time\":\"");
    } else {
        text.extend_from_slice(b"\",\"time\":\"");
    }
    text.extend_from_slice(at.bytes());
    text.extend_from_slice(b"\"}\n");
}

/// A moment as it stands in an entry. It is written out once for all lines that were read in one go.
#[derive(Clone, Copy)]
struct Stamp {
    text: [u8; LONGEST_TIME],
    length: usize,
}

impl Stamp {
    fn of(at: SystemTime) -> Self {
        let written = rfc3339(at);
        let length = written.len().min(LONGEST_TIME);
        let mut text = [0; LONGEST_TIME];
        text[..length].copy_from_slice(&written.as_bytes()[..length]);
        Self { text, length }
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

/// What one stream has said since its last newline.
pub(crate) struct Lines {
    stream: &'static str,
    rest: Vec<u8>,
    /// The line's first piece has been written, with this time.
    begun: Option<Stamp>,
}

impl Lines {
    pub const fn of(stream: &'static str) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            begun: None,
        }
    }

    /// Writes what `bytes` completes: lines, and full pieces of a line.
    pub fn take(&mut self, log: &mut Log, mut bytes: &[u8]) {
        let now = Stamp::of(SystemTime::now());
        while !bytes.is_empty() {
            let room = LONGEST_PIECE - self.rest.len();
            let window = &bytes[..bytes.len().min(room)];
            if let Some(newline) = newline(window) {
                let at = self.begun.take().unwrap_or(now);
                self.write(log, &bytes[..newline], true, &at);
                bytes = &bytes[newline + 1..];
            } else if window.len() == room {
                let at = *self.begun.get_or_insert(now);
                self.write(log, window, false, &at);
                bytes = &bytes[room..];
            } else {
                self.rest.extend_from_slice(window);
                bytes = &[];
            }
        }
        log.flush();
    }

    /// The stream has ended: what is left has no newline to come.
    pub fn end(&mut self, log: &mut Log) {
        if !self.rest.is_empty() {
            let at = self.begun.unwrap_or_else(|| Stamp::of(SystemTime::now()));
            self.write(log, &[], false, &at);
            log.flush();
        }
    }

    /// Writes what has been said before, and `piece`.
    fn write(&mut self, log: &mut Log, piece: &[u8], newline: bool, at: &Stamp) {
        let stream = self.stream;
        if self.rest.is_empty() {
            log.append(|text, attrs| entry(text, piece, newline, stream, attrs, at));
            return;
        }
        self.rest.extend_from_slice(piece);
        let rest = &self.rest;
        log.append(|text, attrs| entry(text, rest, newline, stream, attrs, at));
        self.rest.clear();
    }
}

/// Where the first one is. The C library looks at many bytes at a time; this binary's own loops are made small, not fast.
fn newline(bytes: &[u8]) -> Option<usize> {
    let start = bytes.as_ptr();
    // SAFETY: start and length are those of one slice.
    let found = unsafe { libc::memchr(start.cast(), i32::from(b'\n'), bytes.len()) };
    (!found.is_null()).then(|| found as usize - start as usize)
}

/// Bytes that are letters by themselves and stand in JSON as they are.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte < 0x80 {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

/// Escapes as Go's JSON encoder does, which is what readers of such files have always seen.
fn escape(text: &mut Vec<u8>, mut bytes: &[u8]) {
    let run = |bytes: &[u8], plain: bool| {
        let end = bytes.iter().position(|byte| PLAIN[usize::from(*byte)] != plain);
        end.unwrap_or(bytes.len())
    };
    while !bytes.is_empty() {
        let (plain, rest) = bytes.split_at(run(bytes, true));
        text.extend_from_slice(plain);
        // A plain byte is never a part of a longer letter, so none is cut here.
        let (others, rest) = rest.split_at(run(rest, false));
        escape_each(text, others);
        bytes = rest;
    }
}

fn escape_each(text: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => text.extend_from_slice(b"\\\""),
                '\\' => text.extend_from_slice(b"\\\\"),
                '\n' => text.extend_from_slice(b"\\n"),
                '\r' => text.extend_from_slice(b"\\r"),
                '\t' => text.extend_from_slice(b"\\t"),
                '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(text, "\\u{:04x}", u32::from(letter));
                }
                _ => {
                    let mut buffer = [0; 4];
                    text.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
                }
            }
        }
        // One replacement for each byte that belongs to no letter.
        for _ in chunk.invalid() {
            text.extend_from_slice(b"\\ufffd");
        }
    }
}

/// `2026-01-02T03:04:05.678901234Z`, without trailing zeros in the fraction, nor an empty one.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if since.subsec_nanos() != 0 {
        let fraction = format!("{:09}", since.subsec_nanos());
        text.push('.');
        text.push_str(fraction.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01. Counts years from March, so that the odd day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(said: &[&[u8]]) -> Vec<String> {
        let path = std::env::temp_dir().join(format!(
            "sluice-log-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let rules = crate::Log {
            path: path.clone(),
            ..crate::Log::default()
        };
        let mut log = Log::open(&rules).unwrap();
        let mut lines = Lines::of("stdout");
        for bytes in said {
            lines.take(&mut log, bytes);
        }
        lines.end(&mut log);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        text.lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["log"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn a_line_is_an_object_wherever_the_reads_cut_it() {
        assert_eq!(
            written(&[b"one\ntw", b"o\n", b"\nrest"]),
            ["one\n", "two\n", "\n", "rest"]
        );
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib_and_only_its_last_piece_ends_it() {
        let long = [b"x".repeat(40_000), b"\nend\n".to_vec()].concat();
        let pieces = written(&[&long]);
        let lengths: Vec<usize> = pieces.iter().map(String::len).collect();
        assert_eq!(lengths, [16_384, 16_384, 40_000 - 32_768 + 1, 4]);
        assert!(pieces[2].ends_with('\n') && !pieces[1].ends_with('\n'));
    }

    #[test]
    fn bytes_that_are_no_letters_are_escaped_as_go_does() {
        let mut text = Vec::new();
        escape(&mut text, "a\"\\\n\r\t\u{1}<>&\u{2028}é\u{7f}".as_bytes());
        escape(&mut text, b"\xff\xfe");
        escape(&mut text, b"x\xe2\x82y\xe2\x82\xac");
        let expected = "a\\\"\\\\\\n\\r\\t\\u0001\\u003c\\u003e\\u0026\\u2028é\u{7f}\\ufffd\\ufffdx\\ufffd\\ufffdy€";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn times_are_written_with_as_many_digits_as_they_need() {
        let at = |seconds, nanoseconds| rfc3339(UNIX_EPOCH + Duration::new(seconds, nanoseconds));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400, 120_000_000), "2000-02-29T00:00:00.12Z");
        assert_eq!(at(1_798_761_599, 1), "2026-12-31T23:59:59.000000001Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00Z");
        let longest = Stamp::of(UNIX_EPOCH + Duration::new(253_402_300_799, 123_456_789));
        assert_eq!(longest.bytes(), b"9999-12-31T23:59:59.123456789Z");
    }
}
