//! Files of containers and images as archives: `sluice export`, `diff`, `commit`, `save`.

use std::{io::IsTerminal, path::PathBuf};

use clap::Args;
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{
    daemon::{self, Daemon},
    failure::Failure,
    output::print,
    query::{query, segment},
};

/// `sluice export`
#[derive(Args)]
pub struct Export {
    /// To this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    container: String,
}

/// `sluice save`
#[derive(Args)]
pub struct Save {
    /// To this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// `sluice diff`
#[derive(Args)]
pub struct Diff {
    container: String,
}

/// `sluice commit`
#[derive(Args)]
pub struct Commit {
    /// Who made it
    #[arg(short, long)]
    author: Option<String>,
    /// A Dockerfile instruction to apply, as `CMD ["sh"]`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A word on it
    #[arg(short, long)]
    message: Option<String>,
    /// Freeze the container meanwhile: true or false
    #[arg(short, long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    container: String,
    /// Its name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Export {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        refuse_terminal(self.output.as_ref())?;
        let path = format!("/containers/{}/export", segment(&self.container));
        receive(daemon.stream(&path).await?, self.output.as_ref()).await
    }
}

impl Save {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        refuse_terminal(self.output.as_ref())?;
        let names: Vec<_> = self.images.iter().map(|name| ("names", name.as_str())).collect();
        let response = daemon.stream(&format!("/images/get{}", query(&names))).await?;
        receive(response, self.output.as_ref()).await
    }
}

impl Diff {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let path = format!("/containers/{}/changes", segment(&self.container));
        let changes = daemon.get(&path).await?;
        for change in changes.as_array().into_iter().flatten() {
            let kind = match change["Kind"].as_u64() {
                Some(0) => 'C',
                Some(1) => 'A',
                _ => 'D',
            };
            print(&format!("{kind} {}\n", change["Path"].as_str().unwrap_or_default()))?;
        }
        Ok(())
    }
}

impl Commit {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let mut pairs = vec![("container", self.container.as_str())];
        pairs.extend(self.name.as_deref().map(|name| ("repo", name)));
        pairs.extend(self.author.as_deref().map(|author| ("author", author)));
        pairs.extend(self.message.as_deref().map(|message| ("comment", message)));
        pairs.extend(self.change.iter().map(|change| ("changes", change.as_str())));
        pairs.push(("pause", if self.pause { "1" } else { "0" }));
        let made = daemon.post(&format!("/commit{}", query(&pairs))).await?;
        print(&format!("{}\n", made["Id"].as_str().unwrap_or_default()))
    }
}

/// An archive would make a mess of a terminal.
fn refuse_terminal(output: Option<&PathBuf>) -> Result<(), Failure> {
    match output.is_none() && std::io::stdout().is_terminal() {
        true => Err(Failure::Usage(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect".into(),
        )),
        false => Ok(()),
    }
}

/// Writes a body to a file or to standard output. A file that could not be written whole is taken away again.
async fn receive(response: Response<Incoming>, output: Option<&PathBuf>) -> Result<(), Failure> {
    let Some(path) = output else {
        return copy(response, &mut tokio::io::stdout()).await;
    };
    let failed = |why: std::io::Error| Failure::Usage(format!("cannot write {}: {why}", path.display()));
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let received = copy(response, &mut file).await;
    if received.is_err() {
        let _ = std::fs::remove_file(path);
    }
    received
}

async fn copy(response: Response<Incoming>, to: &mut (impl AsyncWrite + Unpin)) -> Result<(), Failure> {
    let writing = |why: std::io::Error| Failure::Usage(format!("cannot write the archive: {why}"));
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(daemon::broken)?.into_data() {
            to.write_all(&data).await.map_err(writing)?;
        }
    }
    to.flush().await.map_err(writing)
}
