//! `sluice attach`

use clap::Args;

use crate::{
    command::run,
    daemon::Daemon,
    failure::Failure,
    keys::Keys,
    query::segment,
    session::{Ended, Session, Signals},
    terminal,
};

/// `sluice attach`
#[derive(Args)]
pub struct Attach {
    /// Keys to leave with, e.g. ctrl-a,d [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not forward our input
    #[arg(long)]
    no_stdin: bool,
    /// Do not forward signals to it
    #[arg(long = "sig-proxy", default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    forward_signals: bool,
    container: String,
}

impl Attach {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let name = &self.container;
        let about = daemon.get(&format!("/containers/{}/json", segment(name))).await?;
        let flag = |value: &serde_json::Value| value.as_bool().unwrap_or_default();
        for (state, words) in [
            ("Paused", "You cannot attach to a paused container, unpause it first"),
            (
                "Restarting",
                "You cannot attach to a restarting container, wait until it is running",
            ),
        ] {
            if flag(&about["State"][state]) {
                return Err(Failure::Usage(words.into()));
            }
        }
        if !flag(&about["State"]["Running"]) {
            return Err(Failure::Usage(
                "You cannot attach to a stopped container, start it first".into(),
            ));
        }
        let keys = Keys::parse(self.detach_keys.as_deref())?;
        let tty = flag(&about["Config"]["Tty"]);
        let interactive = !self.no_stdin && flag(&about["Config"]["OpenStdin"]);
        terminal::check(tty, interactive)?;
        let ended = run::wait(daemon, name, "not-running").await?;
        let attached = run::attach(daemon, name, interactive).await?;
        let _signals = (self.forward_signals && !tty).then(|| Signals::forward(daemon, name));
        let resize = format!("/containers/{}/resize", segment(name));
        let session = Session::begin(attached, daemon, tty, interactive, &resize).with_keys(keys);
        match session.finish().await? {
            Ended::Left => Ok(()),
            Ended::Whole => match run::code(ended).await? {
                0 => Ok(()),
                code => Err(Failure::Code(code)),
            },
        }
    }
}
