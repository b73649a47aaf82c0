//! Tells each story in order, and how to go back.
//!
//! Only this crate knows the order of things: image, endpoint, spec, process, record; and what is undone, in reverse, when a step fails.

pub mod error;
pub mod event;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use jiff::Timestamp;
use sluice_agent::Agent;
use sluice_image::{Image, Images, Removed};
use sluice_model::{
    Container, ContainerConfig, Endpoint, HostConfig, Network,
    container::{EndpointView, RestartPolicy},
};
use sluice_runtime::{Attachment, Runtime, Stream};
use sluice_store::SharedStore;
use tokio::sync::mpsc;

pub use error::{EngineError, Kind};
pub use event::{Event, EventFilter};

/// What the daemon was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `<data-root>`: containers live in `containers/<id>`.
    pub data_root: PathBuf,
    /// `<exec-root>`: namespace files live in `netns/<id>`.
    pub exec_root: PathBuf,
    /// The default network's gateway and subnet (`--bip`); none: 172.17.0.1/16 when free, else another private range.
    pub bip: Option<ipnet::Ipv4Net>,
    /// May containers of the default network talk to each other?
    pub icc: bool,
    /// Where published ports are bound by default (`--ip`).
    pub default_binding: IpAddr,
    /// `--mtu`; none: that of the default route's device.
    pub mtu: Option<u32>,
    /// `--ip-masq`.
    pub masquerade: bool,
    /// `--dns`, `--dns-search`, `--dns-option`: what containers without their own get.
    pub dns: Vec<IpAddr>,
    /// As above.
    pub dns_search: Vec<String>,
    /// As above.
    pub dns_options: Vec<String>,
    /// cgroup parent of containers.
    pub cgroup_parent: String,
}

/// The engine of one instance.
pub struct Engine {
    _private: (),
}

/// A request to make a container.
#[derive(Clone, Debug, Default)]
pub struct CreateContainer {
    /// `--name`; none: a made-up one (adjective_surname).
    pub name: Option<String>,
    /// The wish.
    pub config: ContainerConfig,
    /// The wish as to this host.
    pub host_config: HostConfig,
}

/// What `create` answers.
#[derive(Clone, Debug)]
pub struct Created {
    /// The new container's id.
    pub id: String,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A container and what belongs to it, for `inspect` and `ps`.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// The record, its state up to date.
    pub container: Container,
    /// The name of its image as the user gave it, or the image's id when that name is another's now.
    pub image_name: String,
    /// Its place in each network.
    pub endpoints: Vec<EndpointView>,
    /// What is published now.
    pub ports: Vec<sluice_model::PublishedPort>,
    /// `<exec-root>/netns/<id>`, when it has a namespace of its own.
    pub sandbox_path: Option<PathBuf>,
    /// The log file, empty: none.
    pub log_path: PathBuf,
    /// `/etc/hosts` and so on, on the host.
    pub resolv_conf_path: PathBuf,
    /// As above.
    pub hostname_path: PathBuf,
    /// As above.
    pub hosts_path: PathBuf,
    /// Mounted root, upper, lower, work directories of overlayfs (`GraphDriver.Data`).
    pub graph: Vec<(String, String)>,
    /// Ids of running exec sessions.
    pub exec_ids: Vec<String>,
    /// Sizes of the writable layer and of all, bytes, when asked for.
    pub size: Option<(i64, i64)>,
}

/// What `wait` waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WaitCondition {
    /// It is not running (at once when it is not).
    #[default]
    NotRunning,
    /// It ends the next time.
    NextExit,
    /// It is removed.
    Removed,
}

/// What `logs` shows.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Go on with what comes.
    pub follow: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// A time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
}

/// A request for a further process.
#[derive(Clone, Debug, Default)]
pub struct CreateExec {
    /// The command.
    pub cmd: Vec<String>,
    /// Further environment.
    pub env: Vec<String>,
    /// `user[:group]`; none: the container's.
    pub user: Option<String>,
    /// Directory; none: the container's.
    pub working_dir: Option<String>,
    /// A terminal.
    pub tty: bool,
    /// Streams wanted.
    pub attach_stdin: bool,
    /// As above.
    pub attach_stdout: bool,
    /// As above.
    pub attach_stderr: bool,
    /// All rights.
    pub privileged: bool,
}

/// An exec session, for those who look.
#[derive(Clone, Debug)]
pub struct ExecView {
    /// Its id.
    pub id: String,
    /// The container's id.
    pub container: String,
    /// The request.
    pub request: CreateExec,
    /// Is it running?
    pub running: bool,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// The host's pid; 0: none.
    pub pid: u32,
}

/// Counts and facts for `info`.
#[derive(Clone, Debug)]
pub struct Info {
    /// This daemon's id.
    pub id: String,
    /// Containers running, paused, stopped.
    pub running: usize,
    /// As above.
    pub paused: usize,
    /// As above.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// The data root.
    pub data_root: PathBuf,
    /// `1` or `2`.
    pub cgroup_version: u8,
}

/// Lines of a log or of a stream, as they come.
pub type Output = mpsc::Receiver<Result<(Stream, Bytes), EngineError>>;

/// Which containers `list` shows; Docker's filters (each key's values are alternatives).
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Also those that do not run.
    pub all: bool,
    /// Only so many, newest first; 0: all.
    pub limit: usize,
    /// Compute sizes.
    pub size: bool,
    /// `id`, `name`, `label`, `status`, `exited`, `ancestor`, `network`, `publish`, `expose`, `before`, `since`, `volume`, `health`, `is-task`.
    pub filters: Vec<(String, Vec<String>)>,
}

impl Engine {
    /// Opens the records, makes the default networks, finds running containers again, and goes on watching them.
    pub async fn start(
        _config: Config,
        _store: SharedStore,
        _agent: Arc<Agent>,
        _images: Arc<Images>,
        _runtime: Arc<Runtime>,
    ) -> Result<Arc<Self>, EngineError> {
        todo!()
    }

    /// Makes a container. Nothing half-made is left behind by a failure.
    pub async fn create_container(&self, _request: CreateContainer) -> Result<Created, EngineError> {
        todo!()
    }

    /// Starts it. Already running: `Ok(false)`.
    pub async fn start_container(&self, _name: &str) -> Result<bool, EngineError> {
        todo!()
    }

    /// Stop signal, `timeout` seconds (none: the container's own; negative: for ever), then SIGKILL. Not running: `Ok(false)`.
    pub async fn stop_container(&self, _name: &str, _timeout: Option<i64>, _signal: Option<&str>) -> Result<bool, EngineError> {
        todo!()
    }

    /// Stops (if running) and starts.
    pub async fn restart_container(&self, _name: &str, _timeout: Option<i64>, _signal: Option<&str>) -> Result<(), EngineError> {
        todo!()
    }

    /// Sends a signal (`KILL`, `SIGTERM`, `9`); empty: KILL. 409 when it is not running.
    pub async fn kill_container(&self, _name: &str, _signal: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Freezes it.
    pub async fn pause_container(&self, _name: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Thaws it.
    pub async fn unpause_container(&self, _name: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Gives it another name.
    pub async fn rename_container(&self, _name: &str, _new_name: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Changes the restart policy.
    pub async fn update_restart_policy(&self, _name: &str, _policy: RestartPolicy) -> Result<(), EngineError> {
        todo!()
    }

    /// Removes it; a running one only with `force`.
    pub async fn remove_container(&self, _name: &str, _force: bool, _volumes: bool) -> Result<(), EngineError> {
        todo!()
    }

    /// Waits. The subscription is made before this returns its future's first poll result: call, then answer the client's headers, then await the
    /// receiver, which yields the exit code.
    pub async fn wait_container(
        &self,
        _name: &str,
        _condition: WaitCondition,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<i32, EngineError>>, EngineError> {
        todo!()
    }

    /// By id, unambiguous id prefix, or name (with or without a leading slash).
    pub async fn inspect_container(&self, _name: &str, _size: bool) -> Result<ContainerView, EngineError> {
        todo!()
    }

    /// Containers, newest first.
    pub async fn list_containers(&self, _filter: &ListFilter) -> Result<Vec<ContainerView>, EngineError> {
        todo!()
    }

    /// Connects to its streams. Works on a created container (docker run attaches before it starts).
    pub async fn attach_container(&self, _name: &str) -> Result<Attachment, EngineError> {
        todo!()
    }

    /// Sets the terminal's size.
    pub async fn resize_container(&self, _name: &str, _rows: u16, _columns: u16) -> Result<(), EngineError> {
        todo!()
    }

    /// Its log.
    pub async fn logs(&self, _name: &str, _options: LogOptions) -> Result<Output, EngineError> {
        todo!()
    }

    /// Its processes: titles and rows, as `ps` with these arguments prints them.
    pub async fn top(&self, _name: &str, _ps_arguments: &str) -> Result<(Vec<String>, Vec<Vec<String>>), EngineError> {
        todo!()
    }

    /// Prepares a further process; returns the session's id. 409 when the container is not running.
    pub async fn create_exec(&self, _container: &str, _request: CreateExec) -> Result<String, EngineError> {
        todo!()
    }

    /// Starts it, attached.
    pub async fn start_exec(&self, _exec: &str) -> Result<Attachment, EngineError> {
        todo!()
    }

    /// Sets its terminal's size.
    pub async fn resize_exec(&self, _exec: &str, _rows: u16, _columns: u16) -> Result<(), EngineError> {
        todo!()
    }

    /// An exec session.
    pub async fn inspect_exec(&self, _exec: &str) -> Result<ExecView, EngineError> {
        todo!()
    }

    /// Networks.
    pub async fn list_networks(&self) -> Result<Vec<Network>, EngineError> {
        todo!()
    }

    /// By id, prefix or name; with its endpoints.
    pub async fn inspect_network(&self, _name: &str) -> Result<(Network, Vec<Endpoint>), EngineError> {
        todo!()
    }

    /// Images, newest first.
    pub async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        todo!()
    }

    /// An image.
    pub async fn inspect_image(&self, _name: &str) -> Result<Image, EngineError> {
        todo!()
    }

    /// Makes an image of a tar stream.
    pub async fn import_image(
        &self,
        _tar: mpsc::Receiver<std::io::Result<Bytes>>,
        _reference: Option<String>,
        _changes: Vec<String>,
        _message: String,
    ) -> Result<Image, EngineError> {
        todo!()
    }

    /// Reads an archive of images; the lines Docker prints.
    pub async fn load_images(&self, _tar: mpsc::Receiver<std::io::Result<Bytes>>) -> Result<Vec<String>, EngineError> {
        todo!()
    }

    /// Gives an image a further name.
    pub async fn tag_image(&self, _name: &str, _reference: &str) -> Result<(), EngineError> {
        todo!()
    }

    /// Removes a name or an image.
    pub async fn remove_image(&self, _name: &str, _force: bool) -> Result<Vec<Removed>, EngineError> {
        todo!()
    }

    /// Events from now on, after those of the past that `since` asks for.
    pub async fn events(&self, _filter: EventFilter) -> Result<mpsc::Receiver<Event>, EngineError> {
        todo!()
    }

    /// Counts.
    pub async fn info(&self) -> Result<Info, EngineError> {
        todo!()
    }

    /// The agent, for the questions only it can answer (flows, drops, status).
    pub fn agent(&self) -> &Agent {
        todo!()
    }

    /// Ends the watching; containers go on.
    pub async fn stop(&self) {
        todo!()
    }
}

/// Removes all containers' processes, mounts and records of an instance, for `sluiced --cleanup`; images stay unless `everything`.
pub async fn cleanup(_config: &Config, _runtime: &Runtime, _images: &Images, _everything: bool) -> Result<(), EngineError> {
    todo!()
}
