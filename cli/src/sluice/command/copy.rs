//! `sluice cp`: files of a container, both ways.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Response,
    body::{Frame, Incoming},
};
use serde_json::Value;
use tokio::{io::AsyncReadExt, sync::mpsc};

use crate::{
    daemon::{self, Body, Daemon},
    failure::Failure,
    query::{query, segment},
};

/// Links to links that are followed.
const MOST_LINKS: usize = 40;
/// The kind of a directory and of a link in Go's file modes.
const DIRECTORY: u64 = 1 << 31;
const LINK: u64 = 1 << 27;

/// `sluice cp`
#[derive(Args)]
pub struct Copy {
    /// Everything belongs to the container's user
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that is the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Accepted for likeness with docker: there is no progress to hide
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, a path of this machine, or - for an archive on standard input
    source: String,
    /// The same; - for an archive on standard output
    destination: String,
}

impl Copy {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        match (container(&self.source), container(&self.destination)) {
            (Some((name, path)), None) => self.out_of(daemon, name, path).await,
            (None, Some((name, path))) => self.into(daemon, name, path).await,
            (Some(_), Some(_)) => Err(Failure::Usage("copying between containers is not supported".into())),
            (None, None) => Err(Failure::Usage("must specify at least one container source".into())),
        }
    }

    async fn out_of(&self, daemon: &Daemon, name: &str, path: &str) -> Result<(), Failure> {
        let mut path = path.to_owned();
        if self.follow_link
            && let Some(about) = look(daemon, name, &path).await?
            && let Some(target) = about["linkTarget"].as_str().filter(|target| !target.is_empty())
        {
            path = target.to_owned();
        }
        let address = address(name, &path, &[]);
        let response = daemon.stream(&address).await?;
        if self.destination == "-" {
            return to_stdout(response).await;
        }
        let destination = PathBuf::from(&self.destination);
        let is_directory = fs::metadata(&destination).is_ok_and(|metadata| metadata.is_dir());
        let (into, renamed) = match is_directory {
            true => (destination, None),
            false => split(&destination)?,
        };
        if !into.is_dir() {
            return Err(Failure::Usage(format!(
                "invalid output path: directory {:?} does not exist",
                into.display()
            )));
        }
        unpack(response, into, renamed, self.destination.ends_with('/')).await
    }

    async fn into(&self, daemon: &Daemon, name: &str, path: &str) -> Result<(), Failure> {
        let mut path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let mut about = look(daemon, name, &path).await?;
        for _ in 0..MOST_LINKS {
            let is_link = about
                .as_ref()
                .is_some_and(|about| about["mode"].as_u64().unwrap_or(0) & LINK != 0);
            let target = about
                .as_ref()
                .and_then(|about| about["linkTarget"].as_str())
                .filter(|_| is_link);
            let Some(target) = target else { break };
            path = target.to_owned();
            about = look(daemon, name, &path).await?;
        }
        let is_directory = about
            .as_ref()
            .is_some_and(|about| about["mode"].as_u64().unwrap_or(0) & DIRECTORY != 0);
        if self.source == "-" {
            return match is_directory {
                true => self.send(daemon, name, &path, from_stdin()).await,
                false => Err(Failure::Usage(format!(
                    "destination \"{name}:{path}\" must be a directory"
                ))),
            };
        }
        let source = PathBuf::from(&self.source);
        let source = if self.follow_link {
            fs::canonicalize(&source).unwrap_or(source)
        } else {
            source
        };
        let metadata = fs::symlink_metadata(&source);
        let metadata = metadata.map_err(|why| Failure::Usage(format!("lstat {}: {why}", source.display())))?;
        let contents = self.source.ends_with("/.") || self.source == ".";
        let (into, called) = match is_directory {
            true if contents => (path, OsString::from(".")),
            true => (
                path,
                source
                    .file_name()
                    .map_or_else(|| OsString::from("."), ToOwned::to_owned),
            ),
            false if about.is_some() && metadata.is_dir() => {
                return Err(Failure::Usage("cannot copy directory".into()));
            }
            false if about.is_none() && path.ends_with('/') && !metadata.is_dir() => {
                return Err(Failure::Usage(format!(
                    "destination directory \"{path}\" must exist to be able to copy a file"
                )));
            }
            false => {
                let (into, called) = split(Path::new(&path))?;
                (into.display().to_string(), called.unwrap_or_default())
            }
        };
        self.send(daemon, name, &into, packed(source, PathBuf::from(called)))
            .await
    }

    async fn send(&self, daemon: &Daemon, name: &str, path: &str, body: Body) -> Result<(), Failure> {
        let mut more = vec![("noOverwriteDirNonDir", "true")];
        if self.archive {
            more.push(("copyUIDGID", "true"));
        }
        daemon
            .put_stream(&address(name, path, &more), "application/x-tar", body)
            .await
            .map(drop)
    }
}

/// `CONTAINER:PATH`; what begins like a path is one, whatever colons are in it.
fn container(text: &str) -> Option<(&str, &str)> {
    if text.starts_with(['/', '.']) {
        return None;
    }
    text.split_once(':').filter(|(name, _)| !name.is_empty())
}

fn address(name: &str, path: &str, more: &[(&str, &str)]) -> String {
    let pairs: Vec<(&str, &str)> = [("path", path)].into_iter().chain(more.iter().copied()).collect();
    format!("/containers/{}/archive{}", segment(name), query(&pairs))
}

/// What stands at a path of a container; `None` when nothing does.
async fn look(daemon: &Daemon, name: &str, path: &str) -> Result<Option<Value>, Failure> {
    let headers = match daemon.head(&address(name, path, &[])).await {
        Ok(headers) => headers,
        // a HEAD has no words: a container that is not there is told by the request that follows
        Err(failure) if failure.is_missing() => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let stat = headers
        .get("X-Docker-Container-Path-Stat")
        .and_then(|value| value.to_str().ok());
    let stat = stat
        .and_then(unbase64)
        .ok_or_else(|| Failure::Broken("the daemon did not tell what stands there".into()))?;
    daemon::json(&stat).map(Some)
}

/// Parent and last name.
fn split(path: &Path) -> Result<(PathBuf, Option<OsString>), Failure> {
    let name = path.file_name().map(ToOwned::to_owned);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match name {
        Some(name) => Ok((parent.unwrap_or(Path::new(".")).to_owned(), Some(name))),
        None => Err(Failure::Usage(format!("invalid path {:?}", path.display()))),
    }
}

async fn to_stdout(response: Response<Incoming>) -> Result<(), Failure> {
    use tokio::io::AsyncWriteExt;
    let mut body = response.into_body();
    let mut out = tokio::io::stdout();
    let failed = |why: io::Error| Failure::Usage(format!("cannot write the archive: {why}"));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(daemon::broken)?.into_data() {
            out.write_all(&data).await.map_err(failed)?;
        }
    }
    out.flush().await.map_err(failed)
}

fn from_stdin() -> Body {
    let pieces = stream::try_unfold(tokio::io::stdin(), |mut stdin| async move {
        let mut piece = Vec::with_capacity(128 * 1024);
        stdin.read_buf(&mut piece).await?;
        Ok((!piece.is_empty()).then(|| (Frame::data(Bytes::from(piece)), stdin)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// An archive of `source`, whose topmost entry is called `name`, made on a thread while it is sent.
fn packed(source: PathBuf, name: PathBuf) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    std::thread::spawn(move || {
        let mut builder = tar::Builder::new(io::BufWriter::with_capacity(128 * 1024, Sender(sender.clone())));
        builder.follow_symlinks(false);
        let packed = match fs::symlink_metadata(&source) {
            Ok(metadata) if metadata.is_dir() => builder.append_dir_all(&name, &source),
            Ok(_) => builder.append_path_with_name(&source, &name),
            Err(why) => Err(why),
        };
        let packed = packed
            .and_then(|()| builder.into_inner())
            .and_then(|mut out| io::Write::flush(&mut out));
        if let Err(why) = packed {
            // the daemon is gone, or learns that the archive is not whole
            let _ = sender.blocking_send(Err(why));
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    StreamBody::new(pieces).boxed_unsync()
}

struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks a body into a directory, on a thread; the first name of each path becomes `renamed`.
async fn unpack(
    response: Response<Incoming>,
    into: PathBuf,
    renamed: Option<OsString>,
    wants_directory: bool,
) -> Result<(), Failure> {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, String>>(4);
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut archive = tar::Archive::new(Receiver {
            pieces: receiver,
            current: Bytes::new(),
        });
        archive.set_preserve_permissions(true);
        archive.set_unpack_xattrs(false);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let is_top = path
                .components()
                .filter(|part| matches!(part, Component::Normal(_)))
                .count()
                == 1;
            if wants_directory && renamed.is_some() && is_top && !entry.header().entry_type().is_dir() {
                return Err(io::Error::other(
                    "destination directory must exist to be able to copy a file",
                ));
            }
            if let Some(name) = &renamed {
                let mut parts = path.components();
                parts.next();
                let below = parts.as_path();
                // joined with nothing a name ends in a slash, which no file has
                let renamed = match below.as_os_str().is_empty() {
                    true => PathBuf::from(name),
                    false => Path::new(name).join(below),
                };
                let target = into.join(&renamed);
                // the archive comes from a container: no name leaves the directory, and no link in it is walked through
                if !renamed.components().all(|part| matches!(part, Component::Normal(_)))
                    || leads_through_link(&into, &renamed)
                {
                    return Err(io::Error::other(format!(
                        "{:?} is outside of its place",
                        path.display()
                    )));
                }
                entry.unpack(&target)?;
            } else {
                entry.unpack_in(&into)?;
            }
        }
        Ok(())
    });
    let mut body = response.into_body();
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(why) => {
                broken = Some(daemon::broken(why));
                Some(Err("the daemon broke off".to_owned()))
            }
        };
        if let Some(piece) = piece
            && sender.send(piece).await.is_err()
        {
            break;
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(|why| Failure::Broken(why.to_string()))?;
    match (broken, unpacked) {
        (Some(broken), _) => Err(broken),
        (None, other) => other.map_err(|why| Failure::Usage(format!("cannot unpack: {why}"))),
    }
}

fn leads_through_link(base: &Path, path: &Path) -> bool {
    let mut whole = base.to_owned();
    let parents = path.parent().into_iter().flat_map(Path::components);
    parents.into_iter().any(|part| {
        whole.push(part);
        fs::symlink_metadata(&whole).is_ok_and(|metadata| metadata.is_symlink())
    })
}

struct Receiver {
    pieces: mpsc::Receiver<Result<Bytes, String>>,
    current: Bytes,
}

impl Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | u32::from(value(byte)?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_like_a_path_is_one() {
        assert_eq!(container("web:/etc"), Some(("web", "/etc")));
        assert_eq!(container("./a:b"), None);
        assert_eq!(container("/a:b"), None);
        assert_eq!(container("plain"), None);
    }

    #[test]
    fn base64_is_undone() {
        assert_eq!(unbase64("Zm9vYg==").unwrap(), b"foob");
        assert_eq!(unbase64("Zm8=").unwrap(), b"fo");
        assert_eq!(unbase64("%"), None);
    }
}
