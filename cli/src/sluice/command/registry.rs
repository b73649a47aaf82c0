//! Registries: `sluice pull`, `push`, `login`, `logout`, `search`.

use std::io::{IsTerminal, Read, stdin};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    command::progress::follow,
    credentials::{self, File},
    daemon::{self, Daemon},
    failure::Failure,
    output::print,
    query::{query, segment},
};

/// `sluice pull`
#[derive(Args)]
pub struct Pull {
    /// Every tag of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// os/architecture[/variant] instead of this machine's
    #[arg(long)]
    platform: Option<String>,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

/// `sluice push`
#[derive(Args)]
pub struct Push {
    /// Every tag of the repository that is here
    #[arg(short, long)]
    all_tags: bool,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

/// `sluice login`
#[derive(Args)]
pub struct Login {
    /// The user
    #[arg(short, long)]
    username: Option<String>,
    /// The password; others may see it in the list of processes
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The registry [default: Docker's own]
    server: Option<String>,
}

/// `sluice logout`
#[derive(Args)]
pub struct Logout {
    /// The registry [default: Docker's own]
    server: Option<String>,
}

/// `sluice search`
#[derive(Args)]
pub struct Search {
    term: String,
}

/// Has the name a tag or a digest?
fn is_exact(name: &str) -> bool {
    name.rsplit('/').next().unwrap_or(name).contains([':', '@'])
}

impl Pull {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        if self.all_tags && is_exact(&self.name) {
            return Err(Failure::Usage("tag can't be used with --all-tags/-a".into()));
        }
        let mut pairs = vec![("fromImage", self.name.as_str())];
        if !self.all_tags && !is_exact(&self.name) {
            if !self.quiet {
                print("Using default tag: latest\n")?;
            }
            pairs.push(("tag", "latest"));
        }
        pairs.extend(self.platform.as_deref().map(|platform| ("platform", platform)));
        let path = format!("/images/create{}", query(&pairs));
        let response = daemon
            .post_with(&path, &credentials::header(&self.name)?, daemon::empty())
            .await?;
        follow(response, self.quiet).await?;
        let tag = if self.all_tags || is_exact(&self.name) {
            ""
        } else {
            ":latest"
        };
        print(&format!("{}{tag}\n", credentials::normal(&self.name)))
    }
}

/// Brings an image that a container is to be made of; what is told goes to standard error, as that of the container goes to standard output.
pub async fn fetch(daemon: &Daemon, name: &str, platform: Option<&str>) -> Result<(), Failure> {
    let mut pairs = vec![("fromImage", name)];
    if !is_exact(name) {
        pairs.push(("tag", "latest"));
    }
    pairs.extend(platform.map(|platform| ("platform", platform)));
    let path = format!("/images/create{}", query(&pairs));
    let response = daemon
        .post_with(&path, &credentials::header(name)?, daemon::empty())
        .await?;
    follow(response, true).await.map(drop)
}

impl Push {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        if self.all_tags && is_exact(&self.name) {
            return Err(Failure::Usage("tag can't be used with --all-tags/-a".into()));
        }
        let (name, tag) = match self.name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ if self.all_tags => (self.name.as_str(), ""),
            _ => {
                if !self.quiet {
                    print("Using default tag: latest\n")?;
                }
                (self.name.as_str(), "latest")
            }
        };
        let path = format!("/images/{}/push{}", segment(name), query(&[("tag", tag)]));
        let headers = credentials::header(name)?;
        let response = daemon.post_with(&path, &headers, daemon::empty()).await?;
        follow(response, self.quiet).await?;
        match self.quiet {
            true => print(&format!("{}\n", credentials::normal(&self.name))),
            false => Ok(()),
        }
    }
}

impl Login {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let server = credentials::server(self.server.as_deref());
        let username = match &self.username {
            Some(username) => username.clone(),
            None => ask("Username: ")?,
        };
        let password = match (&self.password, self.password_stdin) {
            (Some(password), _) => password.clone(),
            (None, true) => {
                let mut text = String::new();
                let read = stdin().read_to_string(&mut text);
                read.map_err(|why| Failure::Usage(format!("cannot read the password: {why}")))?;
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            (None, false) if stdin().is_terminal() => {
                return Err(Failure::Usage(
                    "the password is wanted: give it with --password-stdin".into(),
                ));
            }
            (None, false) => {
                return Err(Failure::Usage(
                    "cannot perform an interactive login from a non TTY device".into(),
                ));
            }
        };
        let login = json!({ "username": username, "password": password, "serveraddress": server });
        let told = daemon.post_json("/auth", &login).await?;
        let identity = told["IdentityToken"].as_str().filter(|token| !token.is_empty());
        let mut file = File::read()?;
        file.keep(&server, &username, &password, identity);
        file.write()?;
        eprintln!(
            "The password is kept unencrypted in {}, which only you can read",
            file.path().display()
        );
        print(&format!("{}\n", told["Status"].as_str().unwrap_or("Login Succeeded")))
    }
}

fn ask(what: &str) -> Result<String, Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::Usage(
            "cannot perform an interactive login from a non TTY device".into(),
        ));
    }
    print(what)?;
    let mut line = String::new();
    let read = stdin().read_line(&mut line);
    read.map_err(|why| Failure::Usage(format!("cannot read standard input: {why}")))?;
    Ok(line.trim().to_owned())
}

impl Logout {
    pub fn answer(&self) -> Result<(), Failure> {
        let server = credentials::server(self.server.as_deref());
        let mut file = File::read()?;
        if !file.forget(&server) {
            return print(&format!("Not logged in to {server}\n"));
        }
        file.write()?;
        print(&format!("Removing login credentials for {server}\n"))
    }
}

impl Search {
    pub async fn answer(&self, daemon: &Daemon) -> Result<(), Failure> {
        let found: Value = daemon
            .get(&format!("/images/search{}", query(&[("term", &self.term)])))
            .await?;
        print(&format!("{found}\n"))
    }
}
