//! Tests under another kernel, on a pure cgroup2 tree: the oldest kernel we promise has no tcx, and this machine perhaps a v1 hierarchy.

use std::ffi::OsString;
use std::time::Duration;

use super::binary::Binary;
use super::tally::Tally;
use crate::repository;
use crate::step::{Outcome, say};
use crate::vm::{Kernel, Vm};

/// The kernel that every run of the tests boots: the oldest we promise.
pub const FLOOR: &str = "6.1";

/// The test programs that are run there, and what each leaves out: measurements, and what takes emulation minutes.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("containers", &["memory::", "speed::", "robust::", "slow"]),
    ("packet", &["wire::", "speed::"]),
    ("packet6", &[]),
    // VLANs, and devices that not every machine's kernel has
    ("parents", &[]),
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
    for (name, left_out) in PROGRAMS {
        let Some(binary) = binaries.iter().find(|binary| binary.name == name) else {
            continue;
        };
        let mut words: Vec<&str> = left_out.iter().flat_map(|test| ["--skip", test]).collect();
        words.extend(filter.filter(|filter| *filter != name));
        let place = format!("{name}, {}", vm.kernel.release);
        say(format_args!("tests of {name} under {}", vm.kernel.release));
        let sums = match boot(&vm, binary, &words) {
            Ok(output) => output
                .lines()
                .filter(|line| tally.read(&place, line.trim_end()))
                .count(),
            Err(failure) => {
                eprintln!("xtask: {failure}");
                0
            }
        };
        if sums == 0 {
            tally.fail(&format!("the tests of {place} did not come to their end"));
        }
        if once {
            continue;
        }
        for test in tally.failures_of(&place) {
            say(format_args!("once more, by itself: {test} of {place}"));
            let output = boot(&vm, binary, &["--exact", &test]).unwrap_or_default();
            if output.contains("test result: ok. 1 passed") {
                tally.passed_again(&place, &test);
            }
        }
    }
    Ok(())
}

/// Runs the program with these words in a guest; what it printed.
fn boot(vm: &Vm, binary: &Binary, words: &[&str]) -> Outcome<String> {
    let shim = repository::target().join("shim/sluice-shim");
    let mut command: Vec<OsString> = vec!["env".into(), format!("SLUICE_SHIM={}", shim.display()).into()];
    command.push(format!("SLUICE_PACKETS={PACKETS}").into());
    command.push(binary.path.clone().into());
    command.extend(words.iter().map(OsString::from));
    vm.run(&command, &binary.package).map(|(_, output)| output)
}
