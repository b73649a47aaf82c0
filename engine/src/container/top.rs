//! The processes of a container, as `ps` shows them.

use std::collections::BTreeSet;

use sluice_model::container::Phase;

use crate::{Engine, EngineError, blocking::blocking, container::attach::is_restarting};

/// Docker's arguments of `ps` when the user gives none.
const ARGUMENTS: &str = "-ef";

/// Titles, and a row per process.
type Table = (Vec<String>, Vec<Vec<String>>);

impl Engine {
    /// Its processes: titles and rows, as `ps` with these arguments prints them.
    pub async fn top(&self, name: &str, ps_arguments: &str) -> Result<Table, EngineError> {
        let held = self.containers.find(name)?;
        match held.look(|container| container.state.phase) {
            Phase::Running | Phase::Paused => {}
            Phase::Restarting => return Err(is_restarting(&held)),
            _ => return Err(EngineError::conflict(format!("container {} is not running", held.id))),
        }
        let arguments = if ps_arguments.is_empty() {
            ARGUMENTS
        } else {
            ps_arguments
        };
        // ps could be told to run or write something; what is a list of words is not
        if arguments.contains(['\0', '\n']) {
            return Err(EngineError::invalid("invalid arguments of ps"));
        }
        let pids: BTreeSet<u32> = self.runtime.pids(held.id.as_str()).await?.into_iter().collect();
        self.tell(&held, "top", &[]);
        let output = tokio::process::Command::new("ps")
            .args(arguments.split_whitespace())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        match output {
            Ok(output) if output.status.success() => choose(&String::from_utf8_lossy(&output.stdout), &pids),
            Ok(output) => Err(EngineError::invalid(format!(
                "ps {arguments}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ))),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => blocking(move || Ok(from_proc(&pids))).await,
            Err(why) => Err(EngineError::failed(format!("cannot run ps: {why}"))),
        }
    }
}

/// The rows of the container's processes.
fn choose(text: &str, pids: &BTreeSet<u32>) -> Result<Table, EngineError> {
    let mut lines = text.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| EngineError::invalid("Couldn't find PID field in ps output"))?;
    let rows = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let mut row: Vec<String> = words.by_ref().take(titles.len()).map(str::to_owned).collect();
        // the last column is the command with its blanks
        if let Some(last) = row.last_mut().filter(|_| !titles.is_empty()) {
            for word in words {
                last.push(' ');
                last.push_str(word);
            }
        }
        let pid = row.get(column)?.parse().ok()?;
        pids.contains(&pid).then_some(row)
    });
    let rows = rows.collect();
    Ok((titles, rows))
}

/// The same of /proc, where the host has no `ps`.
fn from_proc(pids: &BTreeSet<u32>) -> Table {
    let row = |pid: &u32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let status = read("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        let command = read("cmdline")?
            .split('\0')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        let command = if command.is_empty() {
            format!("[{}]", field("Name:")?)
        } else {
            command
        };
        Some(vec![field("Uid:")?, pid.to_string(), field("PPid:")?, command])
    };
    let titles = ["UID", "PID", "PPID", "CMD"].map(str::to_owned).into();
    (titles, pids.iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_pid_and_the_command_keeps_its_blanks() {
        let text =
            "UID   PID  PPID CMD\nroot    1     0 init\nroot   42     1 nginx: master process\nroot  421     1 other\n";
        let (titles, rows) = choose(text, &[42].into()).unwrap();
        assert_eq!(titles, ["UID", "PID", "PPID", "CMD"]);
        assert_eq!(rows, [["root", "42", "1", "nginx: master process"]]);
    }

    #[test]
    fn output_without_pids_is_refused_in_dockers_words() {
        assert_eq!(
            choose("CMD\ninit\n", &[1].into()).unwrap_err().message,
            "Couldn't find PID field in ps output"
        );
    }

    #[test]
    fn without_ps_the_rows_come_from_proc() {
        let me = std::process::id();
        let (_, rows) = from_proc(&[me].into());
        assert_eq!(rows[0][1], me.to_string());
    }
}
