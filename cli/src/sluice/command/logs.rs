//! `sluice logs`

use clap::Args;

use crate::{
    daemon::Daemon,
    failure::Failure,
    measure,
    output::Output,
    query::{query, segment},
};

/// `sluice logs`
#[derive(Args)]
pub struct Logs {
    /// The attributes of the log before each line
    #[arg(long)]
    details: bool,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only lines since then: a date or a duration before now
    #[arg(long)]
    since: Option<String>,
    /// Only lines before then
    #[arg(long)]
    until: Option<String>,
    /// Only so many lines from the end
    #[arg(short = 'n', long, default_value = "all")]
    tail: String,
    /// Each line with its time
    #[arg(short, long)]
    timestamps: bool,
    container: String,
}

impl Logs {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let container = segment(&self.container);
        let about = daemon.get(&format!("/containers/{container}/json")).await?;
        let tty = about["Config"]["Tty"].as_bool().unwrap_or_default();
        let since = self.since.as_deref().map(measure::point).transpose()?;
        let until = self.until.as_deref().map(measure::point).transpose()?;
        let pairs = [
            ("stdout", Some("1")),
            ("stderr", Some("1")),
            ("follow", self.follow.then_some("1")),
            ("since", since.as_deref()),
            ("until", until.as_deref()),
            ("tail", Some(self.tail.as_str())),
            ("timestamps", self.timestamps.then_some("1")),
            ("details", self.details.then_some("1")),
        ];
        let pairs: Vec<_> = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let response = daemon
            .stream(&format!("/containers/{container}/logs{}", query(&pairs)))
            .await?;
        Output::new(tty).copy_body(response.into_body()).await
    }
}
