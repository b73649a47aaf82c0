//! `sluice explain`: what would become of a packet, and why.

use clap::Args;
use sluice_agent::view::{Explanation, Outcome};

use super::datapath::document;
use crate::{daemon::Daemon, failure::Failure, output::print, query::query};

/// `sluice explain`
#[derive(Args)]
pub struct Explain {
    /// Who speaks: a container, an address, `host` or `world`
    from: String,
    /// To whom: the same
    to: String,
    /// The port and protocol (80/tcp, 53/udp), or icmp
    #[arg(default_value = "icmp")]
    traffic: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// The exit code is 0 when the packet would be forwarded, 1 when it would not.
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let pairs = [("from", &*self.from), ("to", &*self.to), ("traffic", &*self.traffic)];
        let bytes = daemon
            .get_bytes(&format!("/sluice/v1/explain{}", query(&pairs)))
            .await?;
        let explanation: Explanation = document(&bytes)?;
        match self.json {
            true => print(&(String::from_utf8_lossy(&bytes).trim_end().to_owned() + "\n"))?,
            false => print(&shown(&explanation))?,
        }
        match explanation.verdict {
            Outcome::Forwarded => Ok(()),
            _ => Err(Failure::Code(1)),
        }
    }
}

/// A line for each step, the kinds of steps in a column.
fn shown(explanation: &Explanation) -> String {
    let width = explanation.steps.iter().map(|step| step.what.len()).max().unwrap_or(0);
    let lines = explanation
        .steps
        .iter()
        .map(|step| format!("{:width$}  {}\n", step.what, step.told));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use sluice_agent::view::Step;

    use super::*;

    #[test]
    fn each_step_is_a_line_and_their_kinds_a_column() {
        let step = |what: &str, told: &str| Step {
            what: what.into(),
            told: told.into(),
        };
        let explanation = Explanation {
            steps: vec![step("packet", "the first one"), step("translation", "none")],
            verdict: Outcome::Forwarded,
            drop_reason: None,
            source: None,
            destination: None,
            protocol: "tcp".into(),
            towards: None,
            device: None,
        };
        assert_eq!(shown(&explanation), "packet       the first one\ntranslation  none\n");
    }
}
