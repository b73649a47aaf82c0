//! What a packet costs, program by program, with tables nearly empty and full: the kernel runs each by itself and times it, so nothing of the
//! machine's networks takes part.

use std::collections::BTreeMap;
use std::fs;

use super::machine::Machine;
use super::table::Table;
use crate::repository;
use crate::setup;
use crate::step::{self, Doing, Failure, Outcome, say};

/// Program and packet, in the order they were measured in; nanoseconds by the size of the table.
type Rows = Vec<(String, BTreeMap<u64, u64>)>;

/// Measures, shows and, if asked, writes `docs/program-costs.md`.
pub fn run(write: bool) -> Outcome {
    say("the programs, packet by packet: three minutes");
    let tables = tables(&measure()?);
    tables.iter().for_each(|table| print!("{}", table.text()));
    if write {
        let path = repository::root().join("docs/program-costs.md");
        fs::write(&path, page(&tables)).doing(|| format!("write {}", path.display()))?;
        say(format_args!("{} is written", path.display()));
    }
    Ok(())
}

/// The measurement is a test of the programs that is left out otherwise.
fn measure() -> Outcome<Vec<(String, Rows)>> {
    let cargo = repository::cargo();
    let mut command = setup::as_root([cargo.get_program()]);
    command.current_dir(repository::root()).args([
        "test",
        "--quiet",
        "-p",
        "sluice-tests",
        "--features",
        "root",
        "--test",
        "packet",
        "--",
        "--ignored",
        "--nocapture",
        "nanoseconds_per_packet",
    ]);
    let said = step::output(&mut command)?;
    let measured = read(&said);
    match measured.is_empty() {
        true => Err(Failure::new("the measurement printed no figures")),
        false => Ok(measured),
    }
}

/// Lines like `cost: from_nic | the host's own | live flows | 500000 | 351`, by what fills the tables.
fn read(said: &str) -> Vec<(String, Rows)> {
    let mut measured: Vec<(String, Rows)> = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("cost: ")) {
        let words: Vec<&str> = line.split(" | ").collect();
        let &[program, what, of, size, cost] = words.as_slice() else {
            continue;
        };
        let (Ok(size), Ok(cost)) = (size.parse(), cost.parse()) else {
            continue;
        };
        let rows = entry(&mut measured, of);
        entry(rows, &format!("`{program}`, {what}")).insert(size, cost);
    }
    measured
}

/// What stands under a name, or a new one at the end.
fn entry<'a, T: Default>(all: &'a mut Vec<(String, T)>, name: &str) -> &'a mut T {
    let index = all.iter().position(|(other, _)| other == name).unwrap_or_else(|| {
        all.push((name.to_owned(), T::default()));
        all.len() - 1
    });
    &mut all[index].1
}

fn tables(measured: &[(String, Rows)]) -> Vec<Table> {
    let each = measured.iter().map(|(of, rows)| {
        let sizes: Vec<u64> = rows
            .first()
            .map(|(_, costs)| costs.keys().copied().collect())
            .unwrap_or_default();
        let columns = [String::from("nanoseconds per packet")]
            .into_iter()
            .chain(sizes.iter().map(|size| format!("{size} {of}")))
            .chain([String::from("from the least to the most")]);
        let mut table = Table::new(of.clone(), columns);
        for (name, costs) in rows {
            let cells = sizes
                .iter()
                .map(|size| costs.get(size).map_or_else(String::new, u64::to_string));
            table.row([name.clone()].into_iter().chain(cells).chain([growth(costs)]));
        }
        table
    });
    each.collect()
}

/// How much more it costs with the fullest tables.
fn growth(costs: &BTreeMap<u64, u64>) -> String {
    match (costs.first_key_value(), costs.last_key_value()) {
        (Some((_, least)), Some((_, most))) if *least > 0 => {
            format!("{:+.0} %", (*most as f64 / *least as f64 - 1.0) * 100.0)
        }
        _ => String::new(),
    }
}

fn page(tables: &[Table]) -> String {
    let tables: String = tables.iter().map(Table::markdown).collect();
    let text = format!(
        "# What a packet costs\n\nWritten by `cargo xtask bench --only programs --write`; do not edit.\n\n{}\n\n\
         Each figure is the time that the kernel measures for one run of a program (`BPF_PROG_TEST_RUN`) on one packet of 154 bytes: the best of 15 medians of 400 \
         packets, of 64 flows in turn; its clock counts in steps of about ten nanoseconds. Hosts with few and with many entries are measured in turn. *First* \
         packets open a connection; the others belong to one that both sides have answered. The flow table has room for a million entries (half a million \
         connections) in each case, so what differs is only how many are there.\n\n\
         What belongs to a known flow costs the same however full the tables are. A first packet looks for what is not there, and in a full table each \
         such look-up meets entries of others that no cache holds: it waits for memory.\n\n{tables}",
        Machine::look().described(),
    );
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_gathered_by_what_fills_the_tables() {
        let said = "running 1 test\ncost: from_nic | first | live flows | 1 | 100\ncost: from_nic | first | live flows | 500000 | 103\n\
                    cost: to_nic | own | networks | 2 | 7\n";
        let measured = read(said);
        assert_eq!(measured.len(), 2);
        assert_eq!(measured[0].1[0].0, "`from_nic`, first");
        assert_eq!(growth(&measured[0].1[0].1), "+3 %");
        assert_eq!(tables(&measured).len(), 2);
    }
}
