//! `sluice start`

use clap::Args;

use crate::{
    command::{each, run},
    daemon::Daemon,
    failure::Failure,
    keys::Keys,
    query::segment,
    session::{Ended, Session, Signals},
    terminal,
};

/// `sluice start`
#[derive(Args)]
pub struct Start {
    /// Connect to its output, and end with its exit code
    #[arg(short, long)]
    attach: bool,
    /// Keys to leave with, e.g. ctrl-a,d [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Connect to its input too
    #[arg(short, long)]
    interactive: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Start {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        if self.attach || self.interactive {
            return self.attached(daemon).await;
        }
        each(&self.containers, true, async |name| {
            daemon
                .post(&format!("/containers/{}/start", segment(&name)))
                .await
                .map(drop)
        })
        .await
    }

    async fn attached(&self, daemon: &Daemon) -> Result<(), Failure> {
        let [name] = self.containers.as_slice() else {
            return Err(Failure::Usage(
                "you cannot start and attach multiple containers at once".into(),
            ));
        };
        let keys = Keys::parse(self.detach_keys.as_deref())?;
        let about = daemon.get(&format!("/containers/{}/json", segment(name))).await?;
        let flag = |value: &serde_json::Value| value.as_bool().unwrap_or_default();
        let tty = flag(&about["Config"]["Tty"]);
        let interactive = self.interactive && flag(&about["Config"]["OpenStdin"]);
        terminal::check(tty, interactive)?;
        let attached = run::attach(daemon, name, interactive).await?;
        let condition = if flag(&about["HostConfig"]["AutoRemove"]) {
            "removed"
        } else {
            "next-exit"
        };
        let ended = run::wait(daemon, name, condition).await?;
        let _signals = (!tty).then(|| Signals::forward(daemon, name));
        run::start(daemon, name).await.map_err(|why| match why {
            Failure::BeforeStart(why) => *why,
            other => other,
        })?;
        let resize = format!("/containers/{}/resize", segment(name));
        let session = Session::begin(attached, daemon, tty, interactive, &resize).with_keys(keys);
        if session.finish().await? == Ended::Left {
            return Ok(());
        }
        match run::code(ended).await? {
            0 => Ok(()),
            code => Err(Failure::Code(code)),
        }
    }
}
