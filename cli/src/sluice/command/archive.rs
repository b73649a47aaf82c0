//! Images from archives: `sluice import`, `sluice load`.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    command::progress::follow,
    daemon::{Body, Daemon},
    failure::Failure,
    query::query,
};

/// Bytes sent at a time.
const PIECE: usize = 256 * 1024;

/// `sluice import`
#[derive(Args)]
pub struct Import {
    /// A Dockerfile instruction to apply, as `CMD ["sh"]`
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// A word on where it is from
    #[arg(short, long)]
    message: Option<String>,
    /// os/architecture
    #[arg(long)]
    platform: Option<String>,
    /// The archive, or where it is in the web; - for standard input
    file: String,
    /// Its name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// `sluice load`
#[derive(Args)]
pub struct Load {
    /// The archive instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Accepted for likeness with docker: there is no progress to hide
    #[arg(short, long)]
    quiet: bool,
}

impl Import {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let is_elsewhere = self.file.starts_with("http://") || self.file.starts_with("https://");
        let mut pairs = vec![("fromSrc", if is_elsewhere { self.file.as_str() } else { "-" })];
        pairs.extend(self.name.as_deref().map(|name| ("repo", name)));
        pairs.extend(self.message.as_deref().map(|message| ("message", message)));
        pairs.extend(self.platform.as_deref().map(|platform| ("platform", platform)));
        pairs.extend(self.change.iter().map(|change| ("changes", change.as_str())));
        let file = (self.file != "-").then(|| PathBuf::from(&self.file));
        let body = match is_elsewhere {
            true => Full::default().map_err(|never| match never {}).boxed_unsync(),
            false => body(file.as_ref()).await?,
        };
        let response = daemon
            .post_stream(&format!("/images/create{}", query(&pairs)), "application/x-tar", body)
            .await?;
        follow(response, false).await.map(drop)
    }
}

impl Load {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        if self.input.is_none() && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            return Err(Failure::Usage("requested load from stdin, but stdin is empty".into()));
        }
        let body = body(self.input.as_ref()).await?;
        let response = daemon
            .post_stream("/images/load?quiet=1", "application/x-tar", body)
            .await?;
        follow(response, false).await.map(drop)
    }
}

/// The archive, piece by piece.
async fn body(file: Option<&PathBuf>) -> Result<Body, Failure> {
    let source: Box<dyn AsyncRead + Send + Unpin> = match file {
        None => Box::new(tokio::io::stdin()),
        Some(path) => {
            let file = tokio::fs::File::open(path).await;
            Box::new(file.map_err(|why| Failure::Usage(format!("open {}: {why}", path.display())))?)
        }
    };
    let pieces = stream::try_unfold(source, |mut source| async move {
        let mut piece = Vec::with_capacity(PIECE);
        source.read_buf(&mut piece).await?;
        Ok((!piece.is_empty()).then(|| (Frame::data(Bytes::from(piece)), source)))
    });
    Ok(StreamBody::new(pieces).boxed_unsync())
}
