//! Progress of what takes long, a line of JSON each, as clients show it: sentences, bars, errors.

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_engine::EngineError;
use sluice_image::News;

/// Columns of a bar.
const BAR: u64 = 50;

/// What happened in a transfer, as a line.
pub(crate) fn of_news(news: &News) -> Value {
    match news {
        News::Status { id: Some(id), text } => json!({ "status": text, "progressDetail": {}, "id": id }),
        News::Status { id: None, text } => json!({ "status": text }),
        News::Progress { id, doing, done, total } => json!({
            "status": doing,
            "progressDetail": { "current": done, "total": total },
            "progress": bar(*done, *total),
            "id": id,
        }),
        News::Pushed { tag, digest, size } => json!({
            "progressDetail": {},
            "aux": { "Tag": tag, "Digest": digest, "Size": size },
        }),
    }
}

/// The last line of what failed.
pub(crate) fn of_error(error: &EngineError) -> Value {
    json!({ "errorDetail": { "message": error.message }, "error": error.message })
}

/// A line on the wire.
pub(crate) fn line(document: &Value) -> Bytes {
    Bytes::from(format!("{document}\r\n"))
}

/// What old clients print as it is.
fn bar(done: u64, total: u64) -> String {
    if total == 0 {
        return size(done);
    }
    let filled = (done.min(total).saturating_mul(100) / total) / 2;
    let filled = filled.min(BAR);
    let (full, empty) = ("=".repeat(filled as usize), " ".repeat((BAR - filled) as usize));
    format!("[{full}>{empty}] {:>8}/{}", size(done), size(total))
}

/// Four digits and a unit of thousand.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut number, mut unit) = (bytes as f64, 0);
    while number >= 1000.0 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    let decimals = match number {
        _ if unit == 0 => 0,
        number if number < 10.0 => 3,
        number if number < 100.0 => 2,
        _ => 1,
    };
    let text = format!("{number:.decimals$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_looks_as_dockers() {
        assert_eq!(bar(0, 100), format!("[>{}]       0B/100B", " ".repeat(50)));
        assert_eq!(bar(100, 100), format!("[{}>]     100B/100B", "=".repeat(50)));
        assert_eq!(
            bar(2_500_000, 10_000_000),
            format!("[{}>{}]    2.5MB/10MB", "=".repeat(12), " ".repeat(38))
        );
        assert_eq!(bar(5, 0), "5B");
        assert_eq!(bar(u64::MAX, 1), format!("[{}>] 18446.7PB/1B", "=".repeat(50)));
    }

    #[test]
    fn lines_are_those_of_docker() {
        let news = News::Status {
            id: Some("abc".into()),
            text: "Pull complete".into(),
        };
        assert_eq!(
            of_news(&news),
            json!({"status":"Pull complete","progressDetail":{},"id":"abc"})
        );
        let pushed = News::Pushed {
            tag: "t".into(),
            digest: "d".into(),
            size: 3,
        };
        assert_eq!(of_news(&pushed)["aux"]["Size"], 3);
    }
}
