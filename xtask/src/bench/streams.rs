//! `cargo xtask bench streams`: a gigabyte through `docker run`, in, out and both ways: is it whole, how fast is it, how much memory does it take?

use std::io::{BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Engine, Kind};
use super::image;
use super::interrupt;
use super::machine::{self, Machine};
use super::table::Table;
use crate::step::{Doing, Failure, Outcome, say};

/// Bytes that go through.
const ALL: u64 = 1 << 30;
/// The same in a hurry.
const QUICK: u64 = 64 << 20;
/// Bytes of a line of the pattern: its number in digits, dots, a line feed.
const LINE: usize = 64;
/// Lines that are made and looked at in one go.
const LINES: usize = 1024;
/// The logs of all engines are kept this large: it is not the disk that is measured.
const LOG: [&str; 4] = ["--log-opt", "max-size=16m", "--log-opt", "max-file=2"];

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Into `cat > /dev/null`.
    In,
    /// Out of a program that says lines.
    Out,
    /// Into `cat` and out of it.
    Through,
}

impl Way {
    const EVERY: [Self; 3] = [Self::In, Self::Out, Self::Through];

    fn shown(self) -> &'static str {
        match self {
            Self::In => "in: `docker run -i … cat > /dev/null`",
            Self::Out => "out: `docker run … yes | head`",
            Self::Through => "in and out: `docker run -i … cat`",
        }
    }
}

/// One run.
struct Found {
    kind: Kind,
    way: Way,
    mebibytes_per_second: f64,
    /// The most memory each process of the engine has had, MiB: name, before, after.
    most: Vec<(String, f64, f64)>,
}

/// All that was found.
pub struct Streams {
    found: Vec<Found>,
    bytes: u64,
    machine: Machine,
    load: f64,
}

impl Streams {
    /// Measures every engine on every way. Bytes that are lost, doubled or changed are a failure.
    pub fn measure(engines: &[Engine], quick: bool) -> Outcome<Self> {
        let bytes = if quick { QUICK } else { ALL };
        let mut streams = Self {
            found: Vec::new(),
            bytes,
            machine: Machine::look(),
            load: machine::load(),
        };
        for way in Way::EVERY {
            for engine in engines {
                interrupt::check()?;
                let found = run(engine, way, bytes)?;
                say(format_args!(
                    "{}, {}: {:.0} MiB/s",
                    engine.kind,
                    way.shown(),
                    found.mebibytes_per_second
                ));
                streams.found.push(found);
            }
        }
        Ok(streams)
    }

    /// For people at a terminal.
    pub fn text(&self) -> String {
        [self.speed(), self.memory()].iter().map(Table::text).collect()
    }

    /// `docs/streams.md`.
    pub fn markdown(&self) -> String {
        let text = format!(
            "# A gigabyte through a container\n\nWritten by `cargo xtask bench streams --write`; do not edit.\n\n{}\n\nLoad average {:.1} before. {} MiB of \
             numbered lines go through the docker CLI, the engine and its shim, and every byte of what comes back is looked at. Everything that a container says \
             is written to its log, too (json-file, rotated at 16 MiB). The memory is the most that a process has had resident since it began (`VmHWM`), before and after; \
             a shim begins with its container.\n\n{}{}",
            self.machine.described(),
            self.load,
            self.bytes >> 20,
            self.speed().markdown(),
            self.memory().markdown(),
        );
        format!("{}\n", text.trim_end())
    }

    fn kinds(&self) -> Vec<Kind> {
        Kind::ALL
            .into_iter()
            .filter(|kind| self.found.iter().any(|found| found.kind == *kind))
            .collect()
    }

    fn speed(&self) -> Table {
        let kinds = self.kinds();
        let columns = [String::from("MiB/s")]
            .into_iter()
            .chain(kinds.iter().map(Kind::to_string));
        let mut table = Table::new("How fast", columns);
        for way in Way::EVERY {
            let cells = kinds.iter().map(|kind| {
                let found = self.found.iter().find(|found| found.way == way && found.kind == *kind);
                found.map_or_else(
                    || String::from("–"),
                    |found| format!("{:.0}", found.mebibytes_per_second),
                )
            });
            table.row([way.shown().to_owned()].into_iter().chain(cells));
        }
        table
    }

    fn memory(&self) -> Table {
        let columns = ["", "process", "before, MiB", "after, MiB"].map(String::from);
        let mut table = Table::new("The most memory", columns);
        for found in &self.found {
            for (name, before, after) in &found.most {
                let before = if *before == 0.0 {
                    String::new()
                } else {
                    format!("{before:.1}")
                };
                table.row([
                    format!("{}, {}", found.kind, found.way.shown()),
                    name.clone(),
                    before,
                    format!("{after:.1}"),
                ]);
            }
        }
        table
    }
}

fn run(engine: &Engine, way: Way, bytes: u64) -> Outcome<Found> {
    let before = high_marks(engine);
    let lines = bytes / LINE as u64;
    let script = format!("yes {} | head -n {lines}", ".".repeat(LINE - 1));
    let words: &[&str] = match way {
        Way::In => &["sh", "-c", "cat > /dev/null"],
        Way::Out => &["sh", "-c", &script],
        Way::Through => &["cat"],
    };
    let mut docker = engine.docker(&["run", "--rm", "-i"]);
    docker.args(LOG).arg(image::NAME).args(words);
    let begun = Instant::now();
    let mut child = docker
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing(|| String::from("start docker"))?;
    let (received, most) = attend(engine, way, bytes, &mut child)?;
    let seconds = begun.elapsed().as_secs_f64();
    let status = child.wait().doing(|| String::from("wait for docker"))?;
    let expected = if way == Way::In { 0 } else { bytes };
    if !status.success() || received != expected {
        return Err(Failure::new(format!(
            "{}, {}: {received} of {expected} bytes came back ({status})",
            engine.kind,
            way.shown()
        )));
    }
    let most = most
        .into_iter()
        .map(|(process, name, after)| {
            let known = before.iter().find(|(other, _, _)| *other == process);
            (name, known.map_or(0.0, |(_, _, before)| *before), after)
        })
        .collect();
    Ok(Found {
        kind: engine.kind,
        way,
        mebibytes_per_second: bytes as f64 / f64::from(1 << 20) / seconds,
        most,
    })
}

type Marks = Vec<(u32, String, f64)>;

/// Feeds the client, looks at what it says, and at the engine's processes meanwhile. How many bytes came back as they went.
fn attend(engine: &Engine, way: Way, bytes: u64, child: &mut Child) -> Outcome<(u64, Marks)> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let feeder = scope.spawn(move || -> std::io::Result<()> {
            let Some(mut stdin) = stdin.filter(|_| way != Way::Out) else {
                return Ok(());
            };
            let mut lines = Vec::new();
            for first in (0..bytes / LINE as u64).step_by(LINES) {
                pattern(first, &mut lines);
                stdin.write_all(&lines)?;
            }
            Ok(())
        });
        let watcher = scope.spawn(|| {
            let mut most: Marks = Vec::new();
            while !done.load(Ordering::Relaxed) {
                for mark in high_marks(engine) {
                    match most.iter_mut().find(|(process, _, _)| *process == mark.0) {
                        Some(known) => *known = mark,
                        None => most.push(mark),
                    }
                }
                thread::sleep(Duration::from_millis(100));
            }
            most
        });
        let received = stdout.map_or(Ok(0), |stdout| {
            receive(BufReader::with_capacity(1 << 16, stdout), way == Way::Through)
        });
        done.store(true, Ordering::Relaxed);
        let fed = feeder.join().unwrap_or(Ok(()));
        let most = watcher.join().unwrap_or_default();
        let received = received.doing(|| String::from("read from docker"))?;
        fed.doing(|| String::from("write to docker"))?;
        Ok((received, most))
    })
}

/// Reads to the end; how many bytes were what they should be, up to the first that was not.
fn receive(mut from: impl Read, numbered: bool) -> std::io::Result<u64> {
    let (mut lines, mut expected) = (vec![0; LINE * LINES], Vec::new());
    let (mut good, mut first) = (0u64, 0u64);
    loop {
        let mut filled = 0;
        while filled < lines.len() {
            match from.read(&mut lines[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(good);
        }
        match numbered {
            true => pattern(first, &mut expected),
            false => unnumbered(&mut expected),
        }
        if lines[..filled] != expected[..filled] {
            return Ok(good);
        }
        good += filled as u64;
        first += LINES as u64;
    }
}

/// Lines from number `first` on.
fn pattern(first: u64, lines: &mut Vec<u8>) {
    lines.clear();
    for number in first..first + LINES as u64 {
        // writing to a Vec does not fail
        let _ = writeln!(lines, "{number:.<width$}", width = LINE - 1);
    }
}

fn unnumbered(lines: &mut Vec<u8>) {
    lines.clear();
    for _ in 0..LINES {
        lines.resize(lines.len() + LINE - 1, b'.');
        lines.push(b'\n');
    }
}

/// The most memory that the engine's processes have had, MiB.
fn high_marks(engine: &Engine) -> Marks {
    let of = |process: u32| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let name = field("Name:")?;
        // Those that only start others come and go.
        if !["dockerd", "containerd", "sluice"]
            .iter()
            .any(|known| name.starts_with(known))
        {
            return None;
        }
        let kibibytes: f64 = field("VmHWM:")?.split(' ').next()?.parse().ok()?;
        Some((process, name.to_owned(), kibibytes / 1024.0))
    };
    engine.host.processes_started().into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_changed_on_the_way_are_noticed() {
        let (mut lines, mut more) = (Vec::new(), Vec::new());
        pattern(0, &mut lines);
        pattern(LINES as u64, &mut more);
        assert_eq!(lines.len(), LINE * LINES);
        let mut said = [lines, more].concat();
        assert_eq!(receive(said.as_slice(), true).unwrap(), 2 * (LINE * LINES) as u64);
        said[LINE * LINES + 7] ^= 1;
        assert_eq!(receive(said.as_slice(), true).unwrap(), (LINE * LINES) as u64);
        assert_eq!(receive(&b"....x"[..], false).unwrap(), 0);
    }
}
