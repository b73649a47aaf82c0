//! `sluice exec`

use std::path::PathBuf;

use bollard_stubs::models::{ExecConfig, ExecStartConfig};
use clap::Args;

use crate::{
    command::create::environment,
    daemon::Daemon,
    failure::Failure,
    keys::Keys,
    query::segment,
    session::{Ended, Session},
    terminal,
};

/// `sluice exec`
#[derive(Args)]
pub struct Exec {
    /// Leave it to itself
    #[arg(short, long)]
    detach: bool,
    /// Keys to leave with, e.g. ctrl-a,d [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// An environment variable, NAME=VALUE or NAME
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// A file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Forward our input
    #[arg(short, long)]
    interactive: bool,
    /// All capabilities
    #[arg(long)]
    privileged: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Its user, name or id, maybe :group
    #[arg(short, long)]
    user: Option<String>,
    /// Its working directory
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// The container, and what to run in it
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["CONTAINER", "COMMAND"])]
    command: Vec<String>,
}

impl Exec {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let Some((container, command)) = self.command.split_first().filter(|(_, command)| !command.is_empty()) else {
            return Err(Failure::Usage("no command given".into()));
        };
        let keys = Keys::parse(self.detach_keys.as_deref())?;
        let (tty, interactive) = (self.tty, self.interactive && !self.detach);
        if !self.detach {
            terminal::check(tty, interactive)?;
        }
        let config = ExecConfig {
            attach_stdin: Some(interactive),
            attach_stdout: Some(!self.detach),
            attach_stderr: Some(!self.detach),
            tty: Some(tty),
            env: Some(environment(&self.env_file, &self.env)?),
            cmd: Some(command.to_vec()),
            privileged: Some(self.privileged),
            user: self.user.clone(),
            working_dir: self.workdir.clone(),
            ..ExecConfig::default()
        };
        let made = daemon
            .post_json(&format!("/containers/{}/exec", segment(container)), &config)
            .await?;
        let id = made["Id"]
            .as_str()
            .ok_or_else(|| Failure::Broken("the daemon did not tell the id".into()))?;
        let begin = ExecStartConfig {
            detach: Some(self.detach),
            tty: Some(tty),
            ..ExecStartConfig::default()
        };
        let start = format!("/exec/{id}/start");
        if self.detach {
            return daemon.post_json(&start, &begin).await.map(drop);
        }
        let streams = daemon.hijack(&start, &begin).await.map_err(|why| match why {
            // a command that is not there has its own code, though the daemon tells it as a refusal
            why @ Failure::Refused { .. } => match Failure::BeforeStart(Box::new(why)) {
                why if why.code() != 125 => why,
                Failure::BeforeStart(why) => *why,
                other => other,
            },
            other => other,
        })?;
        let session = Session::begin(streams, daemon, tty, interactive, &format!("/exec/{id}/resize")).with_keys(keys);
        if session.finish().await? == Ended::Left {
            return Ok(());
        }
        let about = daemon.get(&format!("/exec/{id}/json")).await?;
        match about["ExitCode"]
            .as_i64()
            .and_then(|code| i32::try_from(code).ok())
            .unwrap_or_default()
        {
            0 => Ok(()),
            code => Err(Failure::Code(code)),
        }
    }
}
