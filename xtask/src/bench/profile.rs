//! Where the time goes: a path of an engine beside the bare veth pair, symbol by symbol, in CPU time for each unit of work.

use std::collections::BTreeMap;
use std::path;
use std::process::Command;

use super::engine::Kind;
use super::figure::Figure;
use super::path::Path;
use super::site::Site;
use super::table::Table;
use crate::step::{self, Outcome};

/// Samples per second and CPU; not a divisor of anything periodic.
const FREQUENCY: u32 = 4999;

/// Programs whose CPU time counts: the two ends, proxies between them, and what the kernel does for packets when no program runs. Whatever else the
/// machine does is left out.
const PROGRAMS: [&str; 6] = ["iperf3", "sockperf", "wrk", "nginx", "docker-proxy", "swapper"];

/// How many symbols are shown.
const SHOWN: usize = 40;

/// CPU time by symbol.
struct Profile {
    /// What the client measured.
    value: f64,
    /// Nanoseconds of CPU time for each unit of work.
    symbols: BTreeMap<String, f64>,
}

/// Profiles the figure on the bare veth pair and on the engine, and compares. Recordings go to `directory`.
pub fn compare(
    site: &Site,
    path: Path,
    figure: Figure,
    kind: Kind,
    seconds: u32,
    directory: &path::Path,
) -> Outcome<Table> {
    let bare = record(site, path, figure, Kind::Bare, seconds, directory)?;
    let own = record(site, path, figure, kind, seconds, directory)?;
    let heading = format!(
        "{path}, {figure}: CPU time (both CPUs) in ns per {}; {} {} on the bare veth pair, {} with {kind}",
        unit(figure),
        figure.shown(bare.value),
        figure.unit(),
        figure.shown(own.value),
    );
    let columns = [
        "symbol".to_owned(),
        Kind::Bare.to_string(),
        kind.to_string(),
        String::from("more"),
    ];
    let mut table = Table::new(heading, columns);
    let mut rows: Vec<(&str, f64, f64)> = Vec::new();
    for symbol in bare
        .symbols
        .keys()
        .chain(own.symbols.keys().filter(|symbol| !bare.symbols.contains_key(*symbol)))
    {
        let of = |profile: &Profile| profile.symbols.get(symbol).copied().unwrap_or(0.0);
        rows.push((symbol, of(&bare), of(&own)));
    }
    let total = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.1, sum.1 + row.2));
    rows.sort_by(|a, b| (b.2 - b.1).abs().total_cmp(&(a.2 - a.1).abs()));
    rows.truncate(SHOWN);
    for (symbol, bare, own) in [("all", total.0, total.1)].into_iter().chain(rows) {
        table.row([
            symbol.chars().take(70).collect(),
            format!("{bare:.0}"),
            format!("{own:.0}"),
            format!("{:+.0}", own - bare),
        ]);
    }
    Ok(table)
}

/// What the work is counted in.
fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::Stream => "64 KiB",
        Figure::RoundTrip => "round trip",
        Figure::Connections => "connection",
        Figure::Datagrams => "datagram",
    }
}

/// How many of them a second holds.
fn rate(figure: Figure, value: f64) -> f64 {
    match figure {
        Figure::Stream => value * 1e9 / 8.0 / 65536.0,
        Figure::RoundTrip => 1e6 / (2.0 * value),
        Figure::Connections => value,
        Figure::Datagrams => value * 1e3,
    }
}

fn record(
    site: &Site,
    path: Path,
    figure: Figure,
    kind: Kind,
    seconds: u32,
    directory: &path::Path,
) -> Outcome<Profile> {
    let file = directory.join(format!("bench-{}-{}-{}.perf", path.key(), figure.key(), kind.key()));
    let client = site.client(path, figure, kind, seconds)?;
    let mut perf = Command::new("perf");
    perf.args([
        "record",
        "--quiet",
        "--all-cpus",
        "-e",
        "cpu-clock",
        "-F",
        &FREQUENCY.to_string(),
        "-o",
    ])
    .arg(&file)
    .arg("--")
    .arg(client.get_program())
    .args(client.get_args());
    for (name, value) in client.get_envs() {
        match value {
            Some(value) => perf.env(name, value),
            None => perf.env_remove(name),
        };
    }
    let value = figure.read(&step::output(&mut perf)?)?;
    let said = step::output(
        Command::new("perf")
            .args([
                "report",
                "--stdio",
                "--no-children",
                "--show-nr-samples",
                "--sort",
                "comm,sym",
            ])
            .args(["--percent-limit", "0", "--field-separator", "|", "-i"])
            .arg(&file),
    )?;
    let work = rate(figure, value) * f64::from(seconds);
    let mut symbols = BTreeMap::new();
    for (symbol, samples) in said.lines().filter_map(line) {
        *symbols.entry(symbol).or_default() += samples / f64::from(FREQUENCY) * 1e9 / work;
    }
    Ok(Profile { value, symbols })
}

/// `12.34|567|program|[k] symbol`: the symbol and its samples, of the programs that count. A CPU that idles does no work.
fn line(line: &str) -> Option<(String, f64)> {
    let mut fields = line.splitn(4, '|').map(str::trim);
    let (_share, samples, program, symbol) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let counts = PROGRAMS.contains(&program) || program.starts_with("ksoftirqd/");
    let idles = ["safe_halt", "default_idle", "cpu_idle", "intel_idle", "mwait_idle"]
        .iter()
        .any(|name| symbol.contains(name));
    (counts && !idles).then_some(())?;
    Some((symbol.to_owned(), samples.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_report_are_read() {
        assert_eq!(
            line("12.34|567|wrk|[k] tcp_ack"),
            Some((String::from("[k] tcp_ack"), 567.0))
        );
        assert_eq!(line("# Overhead|Samples|Command|Symbol"), None);
        assert_eq!(line(""), None);
    }

    #[test]
    fn idling_and_other_programs_are_left_out() {
        assert_eq!(line("50.00|5000|swapper|[k] pv_native_safe_halt"), None);
        assert_eq!(line("50.00|5000|rustc|[k] clear_page_erms"), None);
    }
}
