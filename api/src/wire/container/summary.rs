//! Containers as `ps` lists them.

use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_engine::ContainerView;
use sluice_model::{
    container::{ContainerState, Phase},
    health::{Health, Status},
};

use super::{inspect, networks, ports};
use crate::time;

/// A line of `ps`.
pub(crate) fn document(view: &ContainerView, now: Timestamp) -> Value {
    let container = &view.container;
    let (exposed, published) = networks::ports(view);
    let mut document = json!({
        "Id": container.id.as_str(),
        "Names": names(view),
        "Image": view.image_name,
        "ImageID": container.image_id,
        "Command": command(view),
        "Created": container.created.as_second(),
        "Ports": ports::summary_document(exposed, published),
        "Labels": container.config.labels,
        "State": container.state.phase.as_str(),
        "Status": status(&container.state, view.health.as_ref(), now),
        "HostConfig": { "NetworkMode": container.host_config.network_mode.to_string() },
        "NetworkSettings": { "Networks": networks::networks(view) },
        "Mounts": inspect::mounts(view),
    });
    if let Some((written, all)) = view.size {
        document["SizeRw"] = json!(written);
        document["SizeRootFs"] = json!(all);
    }
    document
}

/// Its own name, and those that links give it.
fn names(view: &ContainerView) -> Vec<String> {
    let own = std::iter::once(&view.container.name);
    own.chain(&view.link_names).map(|name| format!("/{name}")).collect()
}

/// The command line as people read it: arguments with spaces in quotes.
fn command(view: &ContainerView) -> String {
    let (path, arguments) = inspect::command_line(&view.container.config);
    let quoted = arguments.iter().map(|word| {
        if word.contains(' ') {
            format!("'{word}'")
        } else {
            word.clone()
        }
    });
    std::iter::once(path.to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`, `Created`.
pub(crate) fn status(state: &ContainerState, health: Option<&Health>, now: Timestamp) -> String {
    let since = |time: Option<Timestamp>| time::in_words(now.duration_since(time.unwrap_or(now)));
    match state.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running => match health.map(|health| health.status) {
            None => format!("Up {}", since(state.started_at)),
            Some(Status::Starting) => format!("Up {} (health: starting)", since(state.started_at)),
            Some(status) => format!("Up {} ({})", since(state.started_at), status.as_str()),
        },
        Phase::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Phase::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Phase::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead => "Dead".to_owned(),
    }
}
