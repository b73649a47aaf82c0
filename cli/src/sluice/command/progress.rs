//! Progress as the daemon tells it, a line of JSON each: on a terminal a row for each layer, elsewhere a line for each step.

use std::io::{IsTerminal, Write, stdout};

use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use serde_json::Value;

use crate::{daemon, failure::Failure, output::print};

/// Prints what the daemon tells; an error among it is ours. Gives back what was told as `aux`. Prints nothing but errors when `quiet`.
pub async fn follow(response: Response<Incoming>, quiet: bool) -> Result<Vec<Value>, Failure> {
    let (mut body, mut pending) = (response.into_body(), Vec::new());
    let mut screen = Screen {
        rows: stdout().is_terminal().then(Vec::new),
        quiet,
        told: Vec::new(),
    };
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(daemon::broken)?.into_data() {
            pending.extend_from_slice(&data);
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            screen.tell(line.trim_ascii())?;
        }
    }
    screen.tell(pending.trim_ascii())?;
    Ok(screen.told)
}

/// What was shown.
struct Screen {
    /// Layers in the order of their first word; none where there is no terminal.
    rows: Option<Vec<String>>,
    quiet: bool,
    told: Vec<Value>,
}

impl Screen {
    fn tell(&mut self, line: &[u8]) -> Result<(), Failure> {
        if line.is_empty() {
            return Ok(());
        }
        let told: Value = daemon::json(line)?;
        let error = told["errorDetail"]["message"].as_str().or(told["error"].as_str());
        if let Some(message) = error {
            if let Some(code) = told["errorDetail"]["code"]
                .as_i64()
                .and_then(|code| i32::try_from(code).ok())
            {
                eprintln!("{message}");
                return Err(Failure::Code(code));
            }
            return Err(Failure::Usage(message.to_owned()));
        }
        if !told["aux"].is_null() {
            self.told.push(told["aux"].clone());
        }
        if self.quiet {
            return Ok(());
        }
        match (told["stream"].as_str(), told["status"].as_str(), told["id"].as_str()) {
            (Some(text), ..) => print(text),
            (None, Some(text), None) => print(&format!("{text}\n")),
            (None, Some(text), Some(id)) => self.row(id, text, &told),
            _ => Ok(()),
        }
    }

    /// A word on one layer: over the one before where that can be, else below it, without bars.
    fn row(&mut self, id: &str, text: &str, told: &Value) -> Result<(), Failure> {
        let has_bar = told["progressDetail"]["total"].as_u64().is_some();
        let Some(rows) = &mut self.rows else {
            return match has_bar {
                true => Ok(()),
                false => print(&format!("{id}: {text}\n")),
            };
        };
        let bar = told["progress"].as_str().unwrap_or_default();
        let at = rows.iter().position(|row| row == id).unwrap_or_else(|| {
            rows.push(id.to_owned());
            println!();
            rows.len() - 1
        });
        let up = rows.len() - at;
        print(&format!("\x1b[{up}A\x1b[2K\r{id}: {text} {bar}\x1b[{up}B\r"))?;
        stdout()
            .flush()
            .map_err(|why| Failure::Usage(format!("cannot write: {why}")))
    }
}
