//! A container as `inspect` shows it.

use std::path::Path;

use serde_json::{Map, Value, json};
use sluice_engine::ContainerView;
use sluice_model::{
    ContainerConfig,
    container::{ContainerState, Mount, MountKind, Phase},
    health::{Health, Healthcheck, Probe},
};

use super::{host_config, networks};
use crate::{time, wire::null_if_empty};

/// The whole document.
pub(crate) fn document(view: &ContainerView) -> Value {
    let container = &view.container;
    let (path, arguments) = command_line(&container.config);
    let mut document = json!({
        "Id": container.id.as_str(),
        "Created": time::text(container.created),
        "Path": path,
        "Args": arguments,
        "State": state(&container.state, view.health.as_ref()),
        "Image": container.image_id,
        "ResolvConfPath": view.resolv_conf_path.display().to_string(),
        "HostnamePath": view.hostname_path.display().to_string(),
        "HostsPath": view.hosts_path.display().to_string(),
        "LogPath": view.log_path.display().to_string(),
        "Name": format!("/{}", container.name),
        "RestartCount": container.state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null_if_empty(&view.exec_ids),
        "HostConfig": host_config::document(&container.host_config),
        "GraphDriver": { "Name": "overlay2", "Data": graph(view) },
        "Mounts": mounts(view),
        "Config": config(&view.host_name, &container.config),
        "NetworkSettings": networks::settings(view),
    });
    if let Some((written, all)) = view.size {
        document["SizeRw"] = json!(written);
        document["SizeRootFs"] = json!(all);
    }
    document
}

/// What is executed: the first word of entrypoint and command, and the others.
pub(crate) fn command_line(config: &ContainerConfig) -> (&str, Vec<String>) {
    let mut words = config.entrypoint.iter().flatten().chain(&config.cmd);
    (words.next().map_or("", String::as_str), words.cloned().collect())
}

/// `Mounts`: binds, volumes and memory.
pub(crate) fn mounts(view: &ContainerView) -> Value {
    view.mounts
        .iter()
        .map(|(mount, source)| mount_point(mount, source))
        .collect()
}

fn mount_point(mount: &Mount, source: &Path) -> Value {
    let mut document = json!({
        "Type": host_config::mount_kind(mount.kind),
        "Source": source.display().to_string(),
        "Destination": mount.target,
        "Mode": mount.mode,
        "RW": !mount.read_only,
        "Propagation": mount.propagation,
    });
    match mount.kind {
        MountKind::Volume => {
            document["Name"] = json!(mount.source);
            document["Driver"] = json!(sluice_model::volume::LOCAL);
            // what Docker says of a volume with a name and no options
            if mount.mode.is_empty() && !mount.anonymous {
                document["Mode"] = json!("z");
            }
        }
        MountKind::Bind | MountKind::Image if mount.propagation.is_empty() => {
            document["Propagation"] = json!("rprivate");
        }
        MountKind::Bind | MountKind::Tmpfs | MountKind::Image => {}
    }
    document
}

fn state(state: &ContainerState, known: Option<&Health>) -> Value {
    let mut document = json!({
        "Status": state.phase.as_str(),
        "Running": state.is_up(),
        "Paused": state.phase == Phase::Paused,
        "Restarting": state.phase == Phase::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.phase == Phase::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::text_or_never(state.started_at),
        "FinishedAt": time::text_or_never(state.finished_at),
    });
    if let Some(known) = known {
        document["Health"] = health(known);
    }
    document
}

fn health(health: &Health) -> Value {
    let probe = |probe: &Probe| {
        json!({
            "Start": time::text(probe.start),
            "End": time::text(probe.end),
            "ExitCode": probe.exit_code,
            "Output": probe.output,
        })
    };
    json!({
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": health.log.iter().map(probe).collect::<Vec<_>>(),
    })
}

fn graph(view: &ContainerView) -> Value {
    Value::Object(
        view.graph
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect(),
    )
}

fn config(host_name: &str, config: &ContainerConfig) -> Value {
    let mut document = json!({
        "Hostname": host_name,
        "Domainname": config.domainname.as_deref().unwrap_or_default(),
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": null_if_empty(&config.env),
        "Cmd": null_if_empty(&config.cmd),
        "Image": config.image,
        "Volumes": null_if_no_members(config.volumes.iter()),
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
    });
    if !config.exposed_ports.is_empty() {
        document["ExposedPorts"] = null_if_no_members(config.exposed_ports.iter());
    }
    if let Some(check) = &config.healthcheck {
        document["Healthcheck"] = healthcheck(check);
    }
    if !config.shell.is_empty() {
        document["Shell"] = json!(config.shell);
    }
    if let Some(signal) = &config.stop_signal {
        document["StopSignal"] = json!(signal);
    }
    if let Some(timeout) = config.stop_timeout {
        document["StopTimeout"] = json!(timeout);
    }
    document
}

/// Zeros are left out, as Docker leaves them.
fn healthcheck(check: &Healthcheck) -> Value {
    let mut document = json!({ "Test": check.test });
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ] {
        if value != 0 {
            document[name] = json!(value);
        }
    }
    document
}

/// A set as Docker writes it: an object of empty objects.
fn null_if_no_members<T: ToString>(members: impl Iterator<Item = T>) -> Value {
    let set: Map<String, Value> = members.map(|member| (member.to_string(), json!({}))).collect();
    if set.is_empty() {
        Value::Null
    } else {
        Value::Object(set)
    }
}
