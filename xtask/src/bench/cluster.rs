//! A large cluster, seen by one host: a test of it that measures when it is told how many hosts there are.

use std::path::Path;

use super::machine::Machine;
use crate::repository;
use crate::step::{self, Failure, Outcome, say};

/// Hosts that are records only, with a hundred endpoints each.
const HOSTS: u32 = 1000;

/// Measures with these binaries, shows, and answers the page that tells of it.
pub fn measure(binaries: &Path) -> Outcome<String> {
    say(format_args!(
        "{HOSTS} hosts with a hundred endpoints each: three minutes"
    ));
    let mut command = repository::cargo();
    command.current_dir(repository::root()).args([
        "test",
        "--quiet",
        "-p",
        "sluice-tests",
        "--features",
        "root",
        "--test",
        "docker",
        "--",
        "--nocapture",
        "a_host_that_joins_many_knows_them_all",
    ]);
    command
        .env("SLUICE_BINARIES", binaries)
        .env("SLUICE_LARGE", HOSTS.to_string());
    let said = step::output(&mut command)?;
    let found: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_once("large: "))
        .map(|(_, told)| told)
        .collect();
    if found.is_empty() {
        return Err(Failure::new("the measurement printed no figures"));
    }
    found.iter().for_each(|line| println!("{line}"));
    Ok(page(&found))
}

fn page(found: &[&str]) -> String {
    let mut page = format!(
        "# A large cluster, seen by one host\n\nAs `cargo xtask bench cluster --write` measures it, {}. Etcd runs on the same machine; the other hosts are\n\
         records in it that nobody stands behind. A change is timed from the moment etcd has answered to whoever wrote it until the host's table holds it.\n\n",
        Machine::look().described()
    );
    for line in found {
        page.push_str(&format!("- {line}\n"));
    }
    page.push_str(
        "\nThe table of IPv4 endpoints on other hosts has 131,072 places and takes memory as it fills: about 100 bytes of the kernel's for each endpoint\n\
         (`REMOTES4`; `REMOTES6` the same for IPv6).\n",
    );
    page
}
