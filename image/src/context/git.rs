//! Fetches repositories with `git`, a program of the host.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::Repository;
use crate::error::ImageError;

/// What git may speak: nothing that runs other programs here or reads files of the host.
const PROTOCOLS: &str = "git:http:https:ssh";
/// How often it is looked whether anybody still wants it.
const LOOK: Duration = Duration::from_millis(20);

/// Fetches the state, and nothing of what was before it where the server allows; the directory asked for becomes `into`.
pub(super) fn fetch(repository: &Repository, into: &Path, is_gone: &dyn Fn() -> bool) -> Result<(), ImageError> {
    let root = into.with_extension("repository");
    fs::create_dir(&root).map_err(|why| ImageError::failed("cannot make", &root, why))?;
    let git = |words: &[&str]| run(&root, words, is_gone);
    let url = repository.url.as_str();
    git(&["init", "--quiet"])?;
    git(&["remote", "add", "origin", url])?;
    let wanted = repository.reference.as_deref().unwrap_or("HEAD");
    match git(&["fetch", "--quiet", "--depth", "1", "origin", wanted]) {
        Ok(()) => git(&["checkout", "--quiet", "--detach", "FETCH_HEAD"])?,
        Err(_) if is_gone() => return Err(ImageError::Failed("context canceled".into())),
        // an abbreviated commit, or a server that gives no single ones
        Err(why) => everything(&git, wanted)
            .map_err(|_| ImageError::Failed(format!("cannot fetch {wanted} of {url}: {why}")))?,
    }
    if root.join(".gitmodules").is_file() {
        git(&[
            "submodule",
            "--quiet",
            "update",
            "--init",
            "--recursive",
            "--depth",
            "1",
        ])?;
    }
    let from = match &repository.directory {
        None => root.clone(),
        Some(directory) => inside(&root, directory)?,
    };
    fs::rename(&from, into).map_err(|why| ImageError::failed("cannot take over", &from, why))?;
    if from != root {
        crate::remove_tree(&root)?;
    }
    Ok(())
}

/// Fetches all that there is, and looks for what is wanted: a branch, a tag, a commit.
fn everything(git: &impl Fn(&[&str]) -> Result<(), ImageError>, wanted: &str) -> Result<(), ImageError> {
    git(&[
        "fetch",
        "--quiet",
        "--tags",
        "origin",
        "+refs/heads/*:refs/remotes/origin/*",
    ])?;
    if wanted == "HEAD" {
        git(&["remote", "set-head", "origin", "--auto"])?;
    }
    let branch = format!("refs/remotes/origin/{wanted}");
    git(&["checkout", "--quiet", "--detach", &branch]).or_else(|_| git(&["checkout", "--quiet", "--detach", wanted]))
}

/// A directory of the repository, which no link leads out of.
fn inside(root: &Path, directory: &str) -> Result<std::path::PathBuf, ImageError> {
    let missing = |why: &dyn std::fmt::Display| {
        ImageError::Invalid(format!("cannot build of {directory:?} in the repository: {why}"))
    };
    let root = root.canonicalize().map_err(|why| missing(&why))?;
    let found = root.join(directory.trim_start_matches('/'));
    let found = found.canonicalize().map_err(|why| missing(&why))?;
    match found.starts_with(&root) && found.is_dir() {
        true => Ok(found),
        false => Err(missing(&"it is no directory of it")),
    }
}

/// Runs git in a directory; its last words are the error.
fn run(directory: &Path, words: &[&str], is_gone: &dyn Fn() -> bool) -> Result<(), ImageError> {
    let said = directory.with_extension("said");
    let file = File::create(&said).map_err(|why| ImageError::failed("cannot make", &said, why))?;
    let mut command = Command::new("git");
    command
        .args(["-c", "core.hooksPath=/dev/null"])
        .args(words)
        .current_dir(directory)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        .env("LC_ALL", "C")
        .env_remove("GIT_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let child = command.spawn().map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => ImageError::Failed(
            "cannot build of a repository: git is not installed on this host (install it, or clone the repository and send it as the context)".into(),
        ),
        _ => ImageError::Failed(format!("cannot run git: {why}")),
    })?;
    let is_well = wait(child, is_gone)?;
    let text = fs::read_to_string(&said).unwrap_or_default();
    fs::remove_file(&said).map_err(|why| ImageError::failed("cannot remove", &said, why))?;
    match is_well {
        true => Ok(()),
        false => {
            let why: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let shown = words.first().copied().unwrap_or_default();
            Err(ImageError::Failed(format!("git {shown} failed: {}", why.join("; "))))
        }
    }
}

fn wait(mut child: Child, is_gone: &dyn Fn() -> bool) -> Result<bool, ImageError> {
    loop {
        let ended = child
            .try_wait()
            .map_err(|why| ImageError::Failed(format!("cannot wait for git: {why}")))?;
        if let Some(status) = ended {
            return Ok(status.success());
        }
        if is_gone() {
            let _ = child.kill(); // it has ended meanwhile
            let _ = child.wait();
            return Err(ImageError::Failed("context canceled".into()));
        }
        thread::sleep(LOOK);
    }
}
