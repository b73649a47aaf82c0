//! Led through their lives.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_engine::UpdateContainer;

use crate::{
    body::Json,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::State,
    wire::container::host_config::{Restart, limits::Limits},
};

/// `POST /containers/{id}/start`
pub(crate) async fn start(state: State, Name(name): Name) -> Answer<StatusCode> {
    let started = state.start_container(&name).await?;
    Ok(done_or_already(started))
}

/// `POST /containers/{id}/stop?t=&signal=`
pub(crate) async fn stop(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    let (timeout, signal) = patience(&query)?;
    let stopped = state.stop_container(&name, timeout, signal.as_deref()).await?;
    Ok(done_or_already(stopped))
}

/// `POST /containers/{id}/restart?t=&signal=`
pub(crate) async fn restart(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    let (timeout, signal) = patience(&query)?;
    state.restart_container(&name, timeout, signal.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/kill?signal=`
pub(crate) async fn kill(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    let signal = query.text("signal").unwrap_or_default().to_owned();
    state.kill_container(&name, &signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/pause`
pub(crate) async fn pause(state: State, Name(name): Name) -> Answer<StatusCode> {
    state.pause_container(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/unpause`
pub(crate) async fn unpause(state: State, Name(name): Name) -> Answer<StatusCode> {
    state.unpause_container(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /containers/{id}/rename?name=`
pub(crate) async fn rename(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    let new_name = query
        .text("name")
        .ok_or_else(|| ApiError::invalid("Neither old nor new names may be empty"))?;
    let new_name = new_name.trim_start_matches('/').to_owned();
    state.rename_container(&name, &new_name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What `POST /containers/{id}/update` brings.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Update {
    restart_policy: Option<Restart>,
    #[serde(flatten)]
    limits: Limits,
}

/// `POST /containers/{id}/update`
pub(crate) async fn update(state: State, Name(name): Name, Json(update): Json<Update>) -> Answer<axum::Json<Value>> {
    let limits = update.limits.into_model()?;
    for (asked, what) in [
        (!limits.ulimits.is_empty(), "Ulimits"),
        (!limits.devices.is_empty(), "Devices"),
        (!limits.device_cgroup_rules.is_empty(), "DeviceCgroupRules"),
        (limits.memory_swappiness.is_some(), "MemorySwappiness"),
        (limits.oom_kill_disable, "OomKillDisable"),
        (limits.oom_score_adj != 0, "OomScoreAdj"),
    ] {
        if asked {
            return Err(ApiError::not_offered(format!("updating {what} of a container")));
        }
    }
    // the CLI sends a policy without a name when nobody asked for one
    let policy = update.restart_policy.filter(Restart::is_named);
    let update = UpdateContainer {
        limits,
        restart_policy: policy.map(Restart::into_model).transpose()?,
    };
    let warnings = state.update_container(&name, update).await?;
    Ok(axum::Json(json!({ "Warnings": warnings })))
}

/// `POST /containers/{id}/resize?h=&w=`
pub(crate) async fn resize(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    let (rows, columns) = size(&query)?;
    state.resize_container(&name, rows, columns).await?;
    Ok(StatusCode::OK)
}

/// Rows and columns of a terminal.
pub(crate) fn size(query: &Query) -> Answer<(u16, u16)> {
    Ok((query.number("h")?.unwrap_or(0), query.number("w")?.unwrap_or(0)))
}

/// How long `stop` waits, and what it says first.
fn patience(query: &Query) -> Answer<(Option<i64>, Option<String>)> {
    Ok((query.number("t")?, query.text("signal").map(str::to_owned)))
}

fn done_or_already(done: bool) -> StatusCode {
    if done {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_MODIFIED
    }
}
