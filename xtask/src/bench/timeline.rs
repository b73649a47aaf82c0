//! What Sluice's daemon tells of its steps at level debug: the spans that end, and the requests that were answered.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::sample::median;

/// Microseconds since midnight, UTC.
pub type Moment = i64;

const DAY: Moment = 86_400_000_000;

/// Something that took time.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// The steps it is part of and its own name: `start`, `network`, `devices`.
    pub path: Vec<String>,
    /// When it began.
    pub begun: Moment,
    /// Microseconds.
    pub took: Moment,
}

/// Now.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as Moment % DAY
}

/// A step, if the line tells of one.
pub fn read(line: &str) -> Option<Step> {
    let (time, rest) = line.split_once(' ')?;
    let ended = moment(time)?;
    let rest = rest.trim_start().strip_prefix("DEBUG ")?;
    let (path, took) = match rest.split_once(" close time.busy=") {
        Some((head, times)) => {
            let (busy, idle) = times.split_once(" time.idle=")?;
            let path = without_fields(head.split(": ").next()?);
            let path: Vec<String> = path.split(':').map(str::to_owned).collect();
            (path, microseconds(busy)? + microseconds(idle)?)
        }
        None => {
            let request = rest.strip_prefix("sluice_api::door: ")?;
            let (asked, rest) = request.split_once(" status=")?;
            let (_, took) = rest.split_once(" took=")?;
            (vec![format!("`{}`", shortened(asked))], microseconds(took)?)
        }
    };
    Some(Step {
        path,
        begun: ended - took,
        took,
    })
}

/// The time of day of `2026-11-21T17:09:33.123456Z`.
fn moment(time: &str) -> Option<Moment> {
    let (_, time) = time.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = time.split_once('.')?;
    let mut seconds = 0;
    for part in clock.split(':') {
        seconds = seconds * 60 + part.parse::<Moment>().ok()?;
    }
    let fraction: Moment = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(seconds * 1_000_000 + fraction)
}

/// `12.3ms`, in microseconds.
fn microseconds(text: &str) -> Option<Moment> {
    let text = text.trim();
    let unit = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "ns" => 0.001,
        "µs" => 1.0,
        "ms" => 1_000.0,
        "s" => 1_000_000.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * factor) as Moment)
}

/// `commit{transactions=1}` is a `commit`.
fn without_fields(spans: &str) -> String {
    let mut depth = 0;
    spans
        .chars()
        .filter(|letter| {
            depth += i32::from(*letter == '{');
            let is_outside = depth == 0;
            depth -= i32::from(*letter == '}');
            is_outside
        })
        .collect()
}

/// A request without its version and without names.
fn shortened(asked: &str) -> String {
    let (method, path) = asked.split_once(' ').unwrap_or(("", asked));
    let path = path
        .split_once("/v1.")
        .map_or(path, |(_, path)| path.split_once('/').map_or("", |(_, rest)| rest));
    let is_id = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = path
        .trim_matches('/')
        .split('/')
        .map(|part| if is_id(&part) { "…" } else { part })
        .collect();
    format!("{method} /{}", parts.join("/"))
}

/// What became of a step over many runs.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// As in [`Step`].
    pub path: Vec<String>,
    /// Milliseconds after the run began, the median.
    pub begun: f64,
    /// Milliseconds, the median.
    pub took: f64,
    /// Milliseconds, the least.
    pub least: f64,
    /// In how many of the runs there was one.
    pub runs: usize,
}

/// Sums runs up, each given by its first moment and its steps: steps in the order in which they begin, each followed by its parts.
pub fn sum_up(runs: &[(Moment, Vec<Step>)]) -> Vec<Row> {
    let mut found: BTreeMap<Vec<String>, Vec<(f64, f64)>> = BTreeMap::new();
    for (first, steps) in runs {
        let mut seen: BTreeMap<&[String], u32> = BTreeMap::new();
        for step in steps {
            // The agent goes round more than once.
            let times = seen.entry(&step.path).or_default();
            *times += 1;
            let mut path = step.path.clone();
            if *times > 1
                && let Some(last) = path.last_mut()
            {
                last.push_str(&format!(", {times}"));
            }
            let of = |time: Moment| time as f64 / 1000.0;
            found
                .entry(path)
                .or_default()
                .push((of(step.begun - first), of(step.took)));
        }
    }
    let rows = found.into_iter().filter_map(|(path, times)| {
        let (begun, took): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
        let least = took.iter().copied().reduce(f64::min)?;
        Some(Row {
            path,
            begun: median(begun)?,
            took: median(took)?,
            least,
            runs: times.len(),
        })
    });
    let rows: Vec<Row> = rows.collect();
    let mut ordered = Vec::new();
    place(&rows, &[], &mut ordered);
    ordered
}

fn place(rows: &[Row], above: &[String], ordered: &mut Vec<Row>) {
    let mut here: Vec<&Row> = rows
        .iter()
        .filter(|row| row.path.len() == above.len() + 1 && row.path.starts_with(above))
        .collect();
    here.sort_by(|a, b| a.begun.total_cmp(&b.begun));
    for row in here {
        ordered.push(row.clone());
        place(rows, &row.path, ordered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &[&str]) -> Vec<String> {
        path.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_end_of_a_span_tells_when_it_began() {
        let line = "2026-11-21T00:00:01.500000Z DEBUG start:network:commit{transactions=1}: sluice_store::embedded: close time.busy=1.50ms time.idle=500µs";
        let step = read(line).unwrap();
        assert_eq!(step.path, names(&["start", "network", "commit"]));
        assert_eq!((step.begun, step.took), (1_498_000, 2_000));
    }

    #[test]
    fn a_request_is_told_without_its_version_and_names() {
        let id = "ab".repeat(32);
        let line = format!(
            "2026-11-21T00:00:01.5Z DEBUG sluice_api::door: POST /v1.50/containers/{id}/start status=204 took=3.2ms"
        );
        let step = read(&line).unwrap();
        assert_eq!(step.path, names(&["`POST /containers/…/start`"]));
        assert_eq!(step.took, 3_200);
        assert_eq!(read("2026-11-21T00:00:01.5Z  INFO sluiced: ready"), None);
    }

    #[test]
    fn parts_follow_their_step_in_the_order_of_time() {
        let step = |path: &[&str], begun, took| Step {
            path: names(path),
            begun,
            took,
        };
        let run = (
            1_000,
            vec![
                step(&["end", "a"], 9_000, 10),
                step(&["end"], 9_000, 20),
                step(&["start", "z"], 2_000, 10),
                step(&["start", "b"], 3_000, 10),
                step(&["start"], 2_000, 2_000),
            ],
        );
        let rows = sum_up(&[run]);
        let order: Vec<String> = rows.iter().map(|row| row.path.join(":")).collect();
        assert_eq!(order, ["start", "start:z", "start:b", "end", "end:a"]);
        assert_eq!((rows[0].begun, rows[0].took, rows[0].least), (1.0, 2.0, 2.0));
    }
}
