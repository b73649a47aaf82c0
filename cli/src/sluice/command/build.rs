//! `sluice build`: packs a directory and has an image made of it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use sluice_image::dockerfile::Ignore;
use tokio::sync::mpsc;

use crate::{
    command::progress::follow,
    credentials,
    daemon::{Body, Daemon},
    failure::Failure,
    measure::parse_bytes,
    query::query,
};

/// `sluice build`
#[derive(Args)]
pub struct Build {
    /// Another line of /etc/hosts of the steps, as NAME:ADDRESS
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// A value of an ARG, as NAME=VALUE; NAME alone takes that of our environment
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
    /// Images whose steps are taken where they fit
    #[arg(long, value_name = "IMAGE", value_delimiter = ',')]
    cache_from: Vec<String>,
    /// The cgroup above those of the steps
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Microseconds in which a step may use --cpu-quota of CPU time
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Microseconds of CPU time a step may use in a period
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Relative weight of CPU time
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// CPUs a step may run on, as 0-3 or 0,1
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes a step may use, as 0-3 or 0,1
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// The Dockerfile [default: PATH/Dockerfile]; - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Remove also the container of a step that failed
    #[arg(long)]
    force_rm: bool,
    /// Write the image's id to this file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// A label of the image, as NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// The most memory of a step
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// The most memory and swap of a step together; -1 for as much swap as there is
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// The network of the steps
    #[arg(long)]
    network: Option<String>,
    /// Make every step again
    #[arg(long)]
    no_cache: bool,
    /// os/architecture of base images
    #[arg(long)]
    platform: Option<String>,
    /// Bring base images also when they are here
    #[arg(long)]
    pull: bool,
    /// Print only the image's id
    #[arg(short, long)]
    quiet: bool,
    /// Remove the containers of steps
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    rm: bool,
    /// The size of /dev/shm in steps
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// A name for the image
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Vec<String>,
    /// The last stage to build
    #[arg(long)]
    target: Option<String>,
    /// The directory to build of; a repository of git, or an archive or Dockerfile in the web; - for a Dockerfile or a tar on standard input
    #[arg(value_name = "PATH|URL|-")]
    path: String,
}

impl Build {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let (name, body) = self.context()?;
        let arguments = pairs(&self.build_arg, |name| std::env::var(name).ok());
        let labels: BTreeMap<String, String> = pairs(&self.label, |_| Some(String::new()))
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let bytes = |said: &Option<String>| {
            let bytes = said.as_deref().map(parse_bytes).transpose()?;
            Ok::<_, Failure>(bytes.map(|bytes| bytes.to_string()))
        };
        let (memory, shm_size) = (bytes(&self.memory)?, bytes(&self.shm_size)?);
        let memory_swap = match self.memory_swap.as_deref() {
            Some("-1") => Some("-1".to_owned()),
            _ => bytes(&self.memory_swap)?,
        };
        let number = |said: Option<i64>| said.map(|number| number.to_string());
        let (period, quota, shares) = (number(self.cpu_period), number(self.cpu_quota), number(self.cpu_shares));
        let sources = (!self.cache_from.is_empty()).then(|| json!(self.cache_from).to_string());
        let remote = is_elsewhere(&self.path).then(|| self.path.clone());
        let (arguments, labels) = (json!(arguments).to_string(), json!(labels).to_string());
        let flag = |on: bool| if on { "1" } else { "0" };
        let mut wanted = vec![
            ("dockerfile", name.as_str()),
            ("buildargs", &arguments),
            ("labels", &labels),
            ("nocache", flag(self.no_cache)),
            ("pull", flag(self.pull)),
            ("q", flag(self.quiet)),
            ("rm", flag(self.rm)),
            ("forcerm", flag(self.force_rm)),
        ];
        wanted.extend(self.tag.iter().map(|tag| ("t", tag.as_str())));
        wanted.extend(self.add_host.iter().map(|host| ("extrahosts", host.as_str())));
        let others = [
            ("networkmode", &self.network),
            ("target", &self.target),
            ("platform", &self.platform),
            ("memory", &memory),
            ("memswap", &memory_swap),
            ("cpuperiod", &period),
            ("cpuquota", &quota),
            ("cpushares", &shares),
            ("cpusetcpus", &self.cpuset_cpus),
            ("cpusetmems", &self.cpuset_mems),
            ("shmsize", &shm_size),
            ("cgroupparent", &self.cgroup_parent),
            ("cachefrom", &sources),
            ("remote", &remote),
        ];
        wanted.extend(
            others
                .into_iter()
                .filter_map(|(name, value)| Some((name, value.as_deref()?))),
        );
        let mut headers = credentials::all()?;
        headers.push(("Content-Type", "application/x-tar".into()));
        let response = daemon
            .post_with(&format!("/build{}", query(&wanted)), &headers, body)
            .await?;
        let told = follow(response, false).await?;
        if let Some(file) = &self.iidfile {
            let id = told.iter().rev().find_map(|aux| aux["ID"].as_str()).unwrap_or_default();
            fs::write(file, id).map_err(|why| Failure::Usage(format!("cannot write {}: {why}", file.display())))?;
        }
        Ok(())
    }

    /// The name of the Dockerfile in the context, and the context.
    fn context(&self) -> Result<(String, Body), Failure> {
        let mut said = None;
        if is_elsewhere(&self.path) {
            let name = self.file.clone().unwrap_or_else(|| "Dockerfile".into());
            return Ok((name, streamed(io::empty())));
        }
        if self.path == "-" {
            let mut start = Vec::new();
            let read = io::stdin().take(512).read_to_end(&mut start);
            read.map_err(|why| Failure::Usage(format!("cannot read standard input: {why}")))?;
            let is_archive = start.get(257..262) == Some(b"ustar")
                || start.starts_with(&[0x1f, 0x8b])
                || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
                || start.starts_with(b"\xfd7zXZ\0")
                || (start.starts_with(b"BZh") && start.get(4..10) == Some(b"1AY&SY"));
            if is_archive {
                let whole = io::Cursor::new(start).chain(io::stdin());
                return Ok((
                    self.file.clone().unwrap_or_else(|| "Dockerfile".into()),
                    streamed(whole),
                ));
            }
            let rest = io::stdin().read_to_end(&mut start);
            rest.map_err(|why| Failure::Usage(format!("cannot read standard input: {why}")))?;
            let mut tar = tar::Builder::new(Vec::new());
            put(&mut tar, "Dockerfile", &start)?;
            let whole = tar.into_inner().map_err(packing)?;
            return Ok(("Dockerfile".into(), streamed(io::Cursor::new(whole))));
        }
        let root = fs::canonicalize(&self.path)
            .map_err(|_| Failure::Usage(format!("unable to prepare context: path {:?} not found", self.path)))?;
        if !root.is_dir() {
            return Err(Failure::Usage(format!(
                "unable to prepare context: {} is no directory; a tar goes to standard input",
                self.path
            )));
        }
        let name = match self.file.as_deref() {
            None => "Dockerfile".to_owned(),
            Some("-") => {
                let mut text = Vec::new();
                let read = io::stdin().read_to_end(&mut text);
                read.map_err(|why| Failure::Usage(format!("cannot read standard input: {why}")))?;
                said = Some(text);
                ".sluice-dockerfile".to_owned()
            }
            Some(file) => {
                let found = fs::canonicalize(file).or_else(|_| fs::canonicalize(root.join(file)));
                let found = found.map_err(|_| {
                    Failure::Usage(format!(
                        "unable to prepare context: unable to evaluate symlinks in Dockerfile path: {file}"
                    ))
                })?;
                match found.strip_prefix(&root) {
                    Ok(inside) => inside.display().to_string(),
                    Err(_) => {
                        let text =
                            fs::read(&found).map_err(|why| Failure::Usage(format!("cannot read {file}: {why}")))?;
                        said = Some(text);
                        ".sluice-dockerfile".to_owned()
                    }
                }
            }
        };
        let ignore = match fs::read_to_string(root.join(".dockerignore")) {
            Ok(text) => Ignore::parse(&text).map_err(|why| Failure::Usage(format!("error checking context: {why}")))?,
            Err(_) => Ignore::default(),
        };
        if said.is_none() && !root.join(&name).exists() {
            return Err(Failure::Usage(format!(
                "unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat {}: no such file or directory",
                root.join(&name).display()
            )));
        }
        let (reader, writer) = io::pipe().map_err(|why| Failure::Usage(format!("cannot make a pipe: {why}")))?;
        let own = name.clone();
        std::thread::spawn(move || {
            let mut tar = tar::Builder::new(io::BufWriter::new(writer));
            tar.follow_symlinks(false);
            let packed = pack(&mut tar, &root, Path::new(""), &ignore, &[".dockerignore", &own]).and_then(|()| {
                if let Some(text) = said {
                    put(&mut tar, &own, &text)?;
                }
                tar.into_inner()
                    .and_then(|mut out| io::Write::flush(&mut out))
                    .map_err(packing)
            });
            if let Err(why) = packed {
                // the archive ends in its middle, which the daemon refuses
                eprintln!("{why}");
            }
        });
        Ok((name, streamed(reader)))
    }
}

/// Does the daemon fetch the context itself?
fn is_elsewhere(path: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"]
        .iter()
        .any(|start| path.starts_with(start))
}

/// Everything of a directory that is not left out.
fn pack(
    tar: &mut tar::Builder<impl io::Write>,
    root: &Path,
    below: &Path,
    ignore: &Ignore,
    always: &[&str],
) -> Result<(), Failure> {
    let directory = root.join(below);
    let failed = |why: io::Error| Failure::Usage(format!("error checking context: {}: {why}", directory.display()));
    let mut entries: Vec<_> = fs::read_dir(&directory)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let name = path.display().to_string();
        let is_directory = entry.file_type().map_err(failed)?.is_dir();
        let is_out = ignore.leaves_out(&name) && !always.contains(&name.as_str());
        if !is_out {
            let added = tar.append_path_with_name(entry.path(), &path);
            added.map_err(|why| Failure::Usage(format!("cannot pack {name}: {why}")))?;
        }
        if is_directory && (!is_out || ignore.takes_back()) {
            pack(tar, root, &path, ignore, always)?;
        }
    }
    Ok(())
}

fn put(tar: &mut tar::Builder<impl io::Write>, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).map_err(packing)
}

fn packing(why: io::Error) -> Failure {
    Failure::Usage(format!("cannot pack the context: {why}"))
}

/// What a thread reads, as a body.
fn streamed(mut from: impl Read + Send + 'static) -> Body {
    const PIECE: usize = 128 * 1024;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    std::thread::spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut from).take(PIECE as u64).read_to_end(&mut piece);
            if piece.is_empty() && read.is_ok() {
                return;
            }
            let failed = read.is_err();
            if sender.blocking_send(read.map(|_| Bytes::from(piece))).is_err() || failed {
                return;
            }
        }
    });
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece.map(Frame::data), receiver))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// `NAME=value`, or a name whose value is to be had elsewhere.
fn pairs(said: &[String], otherwise: impl Fn(&str) -> Option<String>) -> BTreeMap<String, Option<String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.clone(), otherwise(text)),
    };
    said.iter().map(pair).collect()
}
