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
const LIMIT: Duration = Duration::from_secs(900);

/// Boots the kernel once for each program (or the one with the filter's name) and counts its tests.
pub fn run(version: &str, binaries: &[Binary], filter: Option<&str>, tally: &mut Tally) -> Outcome {
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
        let skips = left_out.iter().flat_map(|test| ["--skip", test]);
        let shim = repository::target().join("shim/sluice-shim");
        let mut command: Vec<OsString> = vec!["env".into(), format!("SLUICE_SHIM={}", shim.display()).into()];
        command.push(format!("SLUICE_PACKETS={PACKETS}").into());
        command.push(binary.path.clone().into());
        command.extend(skips.map(OsString::from));
        command.extend(filter.filter(|filter| *filter != name).map(OsString::from));
        say(format_args!("tests of {name} under {}", vm.kernel.release));
        let place = format!("{name}, {}", vm.kernel.release);
        match vm.run(&command, &binary.package) {
            Ok((_, output)) => {
                let sums = output
                    .lines()
                    .filter(|line| tally.read(&place, line.trim_end()))
                    .count();
                if sums == 0 {
                    tally.fail(&format!("the tests of {place} came to their end"));
                }
            }
            Err(failure) => {
                eprintln!("xtask: {failure}");
                tally.fail(&format!("the guest ran the tests of {place}"));
            }
        }
    }
    Ok(())
}
