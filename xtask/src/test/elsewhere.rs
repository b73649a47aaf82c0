//! Tests under another kernel, on a pure cgroup2 tree: the oldest kernel we promise has no tcx, and this machine perhaps a v1 hierarchy.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use super::binary::Binary;
use super::tally::Tally;
use crate::repository;
use crate::step::{Outcome, say};
use crate::vm::{Kernel, Vm};

/// The kernel that every run of the tests boots: the oldest we promise.
pub const FLOOR: &str = "6.1";

/// A test program that is run there, with these words.
type Program = (&'static str, &'static [&'static str]);

/// The programs of each boot. What measures, and what takes emulation minutes, is left out.
const BOOTS: [&[Program]; 4] = [
    &[(
        "containers",
        &[
            "--skip", "memory::", "--skip", "speed::", "--skip", "robust::", "--skip", "slow",
        ],
    )],
    &[("packet", &["--skip", "wire::", "--skip", "speed::"])],
    &[("packet6", &[])],
    &[
        // VLANs, and devices that not every machine's kernel has
        ("parents", &[]),
        // the kernel's ways of mounting layers differ
        ("sluice_image", &["overlay::"]),
        // a daemon whose programs hang at tc, on the unified tree
        ("docker", &["limits::limits_are_to", "containers_on_a_macvlan"]),
    ],
];

/// Random packets: a million are for a real processor.
const PACKETS: u32 = 5_000;

/// Emulation is ten to twenty times slower.
const LIMIT: Duration = Duration::from_secs(2400);

/// Boots the kernel once for each program (or the one with the filter's name) and counts its tests. Those that fail are run once more,
/// in a boot of their own, unless `once`.
pub fn run(version: &str, binaries: &[Binary], filter: Option<&str>, once: bool, tally: &mut Tally) -> Outcome {
    let kernel = Kernel::fetch(version)?;
    let vm = Vm {
        kernel,
        memory: 4096,
        cpus: 1,
        limit: LIMIT,
    };
    for programs in BOOTS {
        let mut runs: Vec<(&Binary, Vec<&str>)> = Vec::new();
        for (name, words) in programs {
            let found = binaries.iter().find(|binary| binary.name == *name);
            let more = filter.filter(|filter| filter != name);
            runs.extend(found.map(|binary| (binary, words.iter().copied().chain(more).collect())));
        }
        if runs.is_empty() {
            continue;
        }
        let names: Vec<&str> = runs.iter().map(|(binary, _)| binary.name.as_str()).collect();
        let names = names.join(" and ");
        let place = format!("{names}, {}", vm.kernel.release);
        say(format_args!("tests of {names} under {}", vm.kernel.release));
        let sums = match boot(&vm, &runs) {
            Ok(output) => output
                .lines()
                .filter(|line| tally.read(&place, line.trim_end()))
                .count(),
            Err(failure) => {
                eprintln!("xtask: {failure}");
                0
            }
        };
        if sums < runs.len() {
            tally.fail(&format!("the tests of {place} did not come to their end"));
        }
        if once {
            continue;
        }
        for test in tally.failures_of(&place) {
            say(format_args!("once more, by itself: {test} of {place}"));
            let once_more: Vec<(&Binary, Vec<&str>)> = runs
                .iter()
                .map(|(binary, _)| (*binary, vec!["--exact", &test]))
                .collect();
            let output = boot(&vm, &once_more).unwrap_or_default();
            if output.contains("test result: ok. 1 passed") {
                tally.passed_again(&place, &test);
            }
        }
    }
    Ok(())
}

/// Runs programs with their words in a guest, one after the other; what they printed.
fn boot(vm: &Vm, runs: &[(&Binary, Vec<&str>)]) -> Outcome<String> {
    let shim = repository::target().join("shim/sluice-shim");
    let mut command: Vec<OsString> = vec!["env".into(), format!("SLUICE_SHIM={}", shim.display()).into()];
    command.push(format!("SLUICE_PACKETS={PACKETS}").into());
    // Each line of words is one of the shell's arguments: the program's directory, the program, what it is told.
    command.extend([
        "sh".into(),
        "-c".into(),
        "for run; do eval \"$run\"; done; true".into(),
        "sh".into(),
    ]);
    let directory = runs
        .first()
        .map_or(repository::root(), |(binary, _)| binary.package.as_path());
    for (binary, words) in runs {
        let (place, program) = (quoted(&binary.package), quoted(&binary.path));
        let words: Vec<String> = words.iter().map(|word| quoted(Path::new(word))).collect();
        command.push(format!("cd {place} && {program} {}", words.join(" ")).into());
    }
    vm.run(&command, directory).map(|(_, output)| output)
}

/// As the shell takes it for one word.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
