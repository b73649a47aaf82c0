//! `sluice run`

use clap::Args;
use serde_json::{Value, json};

use crate::{
    command::{create::Container, life::status_code},
    daemon::{self, Body, Daemon},
    failure::Failure,
    keys::Keys,
    output::print,
    query::{query, segment},
    session::{Ended, Session, Signals},
    terminal,
};
use http_body_util::BodyExt;
use tokio::task::JoinHandle;

/// `sluice run`
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Run {
    /// Leave it to itself and print its id
    #[arg(short, long)]
    detach: bool,
    /// Keys to leave with, e.g. ctrl-a,d [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not forward signals to it
    #[arg(long = "sig-proxy", default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    forward_signals: bool,
    #[command(flatten)]
    container: Container,
}

impl Run {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        if self.detach && !self.container.attach.is_empty() {
            return Err(before_start(Failure::Usage(
                "conflicting options: cannot specify both --attach and --detach".into(),
            )));
        }
        if !self.detach {
            terminal::check(self.container.tty, self.container.interactive)?;
        }
        let keys = Keys::parse(self.detach_keys.as_deref()).map_err(before_start)?;
        let id = self.container.create(daemon, !self.detach).await?;
        if self.detach {
            start(daemon, &id).await?;
            return print(&format!("{id}\n"));
        }
        let (tty, interactive) = (self.container.tty, self.container.interactive);
        let attached = attach(daemon, &id, interactive).await.map_err(before_start)?;
        let condition = if self.container.rm { "removed" } else { "next-exit" };
        let ended = wait(daemon, &id, condition).await.map_err(before_start)?;
        let resize = format!("/containers/{id}/resize");
        let _signals = (self.forward_signals && !tty).then(|| Signals::forward(daemon, &id));
        // raw, and reading our input, only when there is somebody to read it
        start(daemon, &id).await?;
        let session = Session::begin(attached, daemon, tty, interactive, &resize).with_keys(keys);
        if session.finish().await? == Ended::Left {
            return Ok(());
        }
        match code(ended).await? {
            0 => Ok(()),
            code => Err(Failure::Code(code)),
        }
    }
}

/// A connection to the streams of a container that may not run yet.
pub async fn attach(
    daemon: &Daemon,
    id: &str,
    interactive: bool,
) -> Result<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>, Failure> {
    let stdin = if interactive { "1" } else { "0" };
    let query = query(&[("stream", "1"), ("stdin", stdin), ("stdout", "1"), ("stderr", "1")]);
    daemon
        .hijack(&format!("/containers/{}/attach{query}", segment(id)), &json!({}))
        .await
}

/// Begins to wait, before the start, so that no end is missed.
pub async fn wait(daemon: &Daemon, id: &str, condition: &str) -> Result<JoinHandle<Result<Value, Failure>>, Failure> {
    let path = format!("/containers/{}/wait{}", segment(id), query(&[("condition", condition)]));
    let body: Body = daemon::empty();
    let response = daemon.post_stream(&path, "application/json", body).await?;
    Ok(tokio::spawn(async move {
        let bytes = response.into_body().collect().await.map_err(daemon::broken)?.to_bytes();
        daemon::json(&bytes)
    }))
}

/// The exit code that was waited for.
pub async fn code(ended: JoinHandle<Result<Value, Failure>>) -> Result<i32, Failure> {
    let ended = ended.await.map_err(|why| Failure::Broken(why.to_string()))??;
    status_code(&ended)
}

/// A failure here is one before the start.
pub async fn start(daemon: &Daemon, id: &str) -> Result<(), Failure> {
    daemon
        .post(&format!("/containers/{}/start", segment(id)))
        .await
        .map(drop)
        .map_err(before_start)
}

fn before_start(why: Failure) -> Failure {
    Failure::BeforeStart(Box::new(why))
}
