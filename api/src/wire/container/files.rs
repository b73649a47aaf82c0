//! Files of a container: what stands at a path, what changed.

use serde_json::{Value, json};
use sluice_image::{Change, ChangeKind, files::Found};

use crate::time;

/// What stands at a path, as the header carries it: JSON in base64.
pub(crate) fn stat(found: &Found) -> String {
    let (seconds, nanoseconds) = found.modified;
    let modified = jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let document = json!({
        "name": text(&found.name),
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": modified.map_or_else(|_| time::NEVER.to_owned(), time::text),
        "linkTarget": found.target.as_deref().map(text).unwrap_or_default(),
    });
    base64(document.to_string().as_bytes())
}

/// `Changes`; null when there are none, as in Docker.
pub(crate) fn changes(changes: &[Change]) -> Value {
    if changes.is_empty() {
        return Value::Null;
    }
    let number = |kind| match kind {
        ChangeKind::Modified => 0,
        ChangeKind::Added => 1,
        ChangeKind::Deleted => 2,
    };
    let lines = changes.iter();
    lines
        .map(|change| json!({ "Path": String::from_utf8_lossy(&change.path), "Kind": number(change.kind) }))
        .collect()
}

/// Kind and permissions in Go's bits (`os.FileMode`), which stand elsewhere than the kernel's.
fn go_mode(mode: u32) -> u32 {
    // the kernel's numbers, `man 7 inode`
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let mut bits = kind | mode & 0o777;
    for (bit, go) in [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)] {
        if mode & bit != 0 {
            bits |= go;
        }
    }
    bits
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            text.push(match place <= group.len() {
                true => char::from(DIGITS[(number >> (18 - 6 * place)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 420);
        assert_eq!(go_mode(0o120_777), 134_218_239);
        assert_eq!(go_mode(0o040_750), 2_147_484_136);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
    }

    #[test]
    fn no_changes_are_null() {
        assert_eq!(changes(&[]), Value::Null);
        let change = Change {
            path: b"/a".to_vec(),
            kind: ChangeKind::Deleted,
        };
        assert_eq!(changes(&[change]), json!([{"Path": "/a", "Kind": 2}]));
    }
}
