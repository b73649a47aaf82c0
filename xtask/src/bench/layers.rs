//! `cargo xtask bench layers`: how fast layers are laid down, beside `tar -x` of the same archives. Both end when all of it is on disk: the store makes a
//! layer durable before it is part of an image, so `tar` is followed by `sync --file-system`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use super::interrupt;
use super::machine::{self, Machine};
use super::sample::median;
use super::table::Table;
use crate::repository;
use crate::step::{self, Doing, Failure, Outcome, say};

/// Of `tar -x`, the speed a layer is laid down with is to be so much at least.
const WANTED: f64 = 0.7;
/// What is packed: of this machine, so that sizes and names are those of real images.
const KINDS: [(&str, &str); 3] = [
    ("many small files", "usr/share/perl usr/share/doc usr/lib/python3"),
    ("programs and libraries", "usr/bin usr/sbin"),
    ("one large file", ""),
];
/// Bytes of the large file.
const LARGE: u64 = 256 << 20;
/// Layers of the image, by the first letters of the programs that are in them.
const LAYERS: [&str; 6] = ["[a-c]*", "[d-f]*", "[g-l]*", "[m-o]*", "[p-r]*", "[s-z]*"];

/// A kind of archive, and milliseconds of each round.
struct Row {
    kind: String,
    bytes: u64,
    entries: usize,
    tar: Vec<f64>,
    store: Vec<f64>,
}

/// Everything that was found.
pub struct Layers {
    rows: Vec<Row>,
    machine: Machine,
    load: (f64, f64),
}

/// What is extracted, and how.
struct Subject {
    kind: String,
    archive: PathBuf,
    /// Shell: `tar` lays the same down in the directory `$1`.
    peer: String,
    /// The word for our program.
    word: &'static str,
    bytes: u64,
    entries: usize,
}

/// Builds the program that lays layers down, optimised, and tells in which directory it is.
pub fn build() -> Outcome<PathBuf> {
    say("building the store of images, optimised");
    let mut command = repository::cargo();
    command.args([
        "build",
        "--quiet",
        "--release",
        "-p",
        "sluice-image",
        "--example",
        "lay",
    ]);
    step::run(&mut command)?;
    Ok(repository::target().join("release/examples"))
}

impl Layers {
    /// Measures in turn, `rounds` times.
    pub fn measure(programs: &Path, rounds: u32) -> Outcome<Self> {
        let before = machine::load();
        let place = repository::target().join("bench-layers");
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).doing(|| format!("make {}", place.display()))?;
        let found = Self::measure_in(&place, &programs.join("lay"), rounds);
        let _ = fs::remove_dir_all(&place);
        Ok(Self {
            rows: found?,
            machine: Machine::look(),
            load: (before, machine::load()),
        })
    }

    fn measure_in(place: &Path, program: &Path, rounds: u32) -> Outcome<Vec<Row>> {
        let mut subjects = Vec::new();
        for (number, (kind, directories)) in KINDS.into_iter().enumerate() {
            let tar = place.join(format!("archive{number}.tar"));
            pack(&tar, directories, place)?;
            let packed = compress(&tar)?;
            subjects.push(layer(kind, &tar, &tar)?);
            subjects.push(layer(&format!("{kind}, gzip"), &tar, &packed)?);
        }
        subjects.push(image(place)?);
        let mut rows = Vec::new();
        for subject in subjects {
            let mut row = Row {
                kind: subject.kind.clone(),
                bytes: subject.bytes,
                entries: subject.entries,
                tar: Vec::new(),
                store: Vec::new(),
            };
            // the first of each warms the page cache and does not count
            for round in 0..=rounds {
                interrupt::check()?;
                let (tar, store) = (extract(&subject, place)?, lay(program, &subject, place)?);
                if round > 0 {
                    row.tar.push(tar);
                    row.store.push(store);
                }
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        self.table().text()
    }

    /// The page of the documentation.
    pub fn markdown(&self) -> String {
        format!(
            "# Laying layers down\n\n\
             `cargo xtask bench layers --write` has written this page. A layer is unpacked, hashed, recorded so that its archive can be made again byte for\n\
             byte, and on disk when it is done; `tar -x` is followed by `sync --file-system`. The image is an archive of `docker save`, whose layers `tar`\n\
             extracts one after the other. Milliseconds, the median of each, in turn; at least {WANTED} × the speed of `tar` is promised.\n\n\
             {}{} Load {:.1} before and {:.1} after.\n",
            self.table().markdown(),
            self.machine.described(),
            self.load.0,
            self.load.1
        )
    }

    fn table(&self) -> Table {
        let columns = [
            "archive",
            "MB",
            "entries",
            "tar -x, ms",
            "the store, ms",
            "speed of tar's",
            "promised",
        ];
        let mut table = Table::new("Layers beside `tar -x`", columns.map(String::from));
        for row in &self.rows {
            let tar = median(row.tar.clone()).unwrap_or_default();
            let store = median(row.store.clone()).unwrap_or_default();
            let ratio = tar / store.max(f64::MIN_POSITIVE);
            let promise = if ratio >= WANTED { "kept" } else { "missed" };
            table.row([
                row.kind.clone(),
                format!("{:.0}", row.bytes as f64 / 1e6),
                row.entries.to_string(),
                format!("{tar:.0}"),
                format!("{store:.0}"),
                format!("{ratio:.2} ×"),
                promise.into(),
            ]);
        }
        table
    }
}

/// One layer: as `packed`, which is `tar` compressed or itself.
fn layer(kind: &str, tar: &Path, packed: &Path) -> Outcome<Subject> {
    Ok(Subject {
        kind: kind.into(),
        archive: packed.to_owned(),
        peer: format!("tar -xf '{}' -C \"$1\"", packed.display()),
        word: "layer",
        bytes: fs::metadata(tar).doing(|| format!("look at {}", tar.display()))?.len(),
        entries: step::output(Command::new("tar").arg("-tf").arg(tar))?.lines().count(),
    })
}

/// An image of several layers, as `docker save` writes it.
fn image(place: &Path) -> Outcome<Subject> {
    let directory = place.join("image");
    fs::create_dir_all(&directory).doing(|| format!("make {}", directory.display()))?;
    let (mut layers, mut digests, mut entries) = (Vec::new(), Vec::new(), 0);
    for (number, names) in LAYERS.iter().enumerate() {
        let tar = directory.join(format!("{number}.tar"));
        let line = format!("cd / && tar -cf '{}' usr/bin/{names}", tar.display());
        step::output(Command::new("sh").args(["-c", &line]))?;
        let sum = step::output(Command::new("sha256sum").arg(&tar))?;
        digests.push(format!("sha256:{}", sum.split(' ').next().unwrap_or_default()));
        layers.push(format!("{number}.tar"));
        entries += step::output(Command::new("tar").arg("-tf").arg(&tar))?.lines().count();
    }
    let config = json!({"architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": digests}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["bench:1"], "Layers": layers}]);
    for (name, document) in [("config.json", config), ("manifest.json", manifest)] {
        let path = directory.join(name);
        fs::write(&path, document.to_string()).doing(|| format!("write {}", path.display()))?;
    }
    let archive = place.join("image.tar");
    step::output(
        Command::new("tar")
            .arg("-C")
            .arg(&directory)
            .arg("-cf")
            .arg(&archive)
            .arg("."),
    )?;
    fs::remove_dir_all(&directory).doing(|| format!("remove {}", directory.display()))?;
    let peer = format!(
        "tar -xf '{}' -C \"$1\" && for layer in \"$1\"/*.tar; do mkdir \"$layer.d\" && tar -xf \"$layer\" -C \"$layer.d\" || exit 1; done",
        archive.display()
    );
    Ok(Subject {
        kind: format!("an image of {} layers", LAYERS.len()),
        bytes: fs::metadata(&archive)
            .doing(|| format!("look at {}", archive.display()))?
            .len(),
        archive,
        peer,
        word: "images",
        entries,
    })
}

fn pack(tar: &Path, directories: &str, place: &Path) -> Outcome {
    let line = match directories {
        "" => format!(
            "head -c {LARGE} /dev/urandom > '{0}/large' && tar -C '{0}' -cf '{1}' large && rm '{0}/large'",
            place.display(),
            tar.display()
        ),
        // what this machine has of them
        names => format!("cd / && tar -cf '{}' $(ls -d {names} 2>/dev/null)", tar.display()),
    };
    step::output(Command::new("sh").args(["-c", &line])).map(drop)
}

fn compress(tar: &Path) -> Outcome<PathBuf> {
    step::output(Command::new("gzip").args(["--force", "--keep", "-6"]).arg(tar))?;
    Ok(tar.with_extension("tar.gz"))
}

fn extract(subject: &Subject, place: &Path) -> Outcome<f64> {
    let into = place.join("extracted");
    fs::create_dir_all(&into).doing(|| format!("make {}", into.display()))?;
    let line = format!("{{ {}; }} && sync --file-system \"$1\"", subject.peer);
    let begun = Instant::now();
    step::output(Command::new("sh").args(["-c", &line, "sh"]).arg(&into))?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    fs::remove_dir_all(&into).doing(|| format!("remove {}", into.display()))?;
    settle(place).map(|()| took)
}

fn lay(program: &Path, subject: &Subject, place: &Path) -> Outcome<f64> {
    let store = place.join("store");
    let told = step::output(Command::new(program).arg(subject.word).args([&subject.archive, &store]))?;
    let took: f64 = told
        .trim()
        .parse()
        .map_err(|_| Failure::new(format!("{told:?} is no time that laying layers took")))?;
    fs::remove_dir_all(&store).doing(|| format!("remove {}", store.display()))?;
    settle(place).map(|()| took / 1000.0)
}

/// What was removed is not on the account of who comes next.
fn settle(place: &Path) -> Outcome {
    step::output(Command::new("sync").arg("--file-system").arg(place)).map(drop)
}
