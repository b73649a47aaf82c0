//! Listened to and spoken to.

use axum::{
    body::Body,
    extract::{
        Request,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::json;
use sluice_engine::{LogOptions, Often, WaitCondition};

use crate::{
    detach::Keys,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::State,
    stream::{self, Conversation, Framing, Leave, Process, Wanted},
    version::Version,
    wire,
};

/// `GET /containers/{id}/logs?follow=&stdout=&stderr=&since=&until=&timestamps=&tail=`
pub(crate) async fn logs(state: State, Name(name): Name, version: Version, query: Query) -> Answer<Response> {
    let options = LogOptions {
        follow: query.flag("follow"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        since: query.time("since")?,
        until: query.time("until")?,
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        // `all`, and whatever else is no number.
        tail: query.text("tail").and_then(|tail| tail.parse().ok()),
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let tty = state.inspect_container(&name, false).await?.container.config.tty;
    let output = state.logs(&name, options).await?;
    Ok(stream::log(output, Framing::of_terminal(tty), version))
}

/// `GET /containers/{id}/stats?stream=&one-shot=`
pub(crate) async fn stats(state: State, Name(name): Name, query: Query) -> Answer<Response> {
    let often = match (query.flag_or("stream", true), query.flag("one-shot")) {
        (true, true) => {
            return Err(ApiError::invalid("cannot have stream=true and one-shot=true"));
        }
        (true, false) => Often::EverySecond,
        (false, true) => Often::Once,
        (false, false) => Often::Compared,
    };
    let views = state.stats(&name, often).await?;
    Ok(stream::lines(views, |view| wire::container::stats::line(&view)))
}

/// `POST /containers/{id}/attach?stream=&stdin=&stdout=&stderr=&logs=&detachKeys=`
pub(crate) async fn attach(
    state: State,
    Name(name): Name,
    version: Version,
    query: Query,
    request: Request,
) -> Answer<Response> {
    Ok(conversation(&state, name, &query).await?.begin(request, version))
}

/// `GET /containers/{id}/attach/ws`: the same by WebSocket.
pub(crate) async fn attach_socket(
    state: State,
    Name(name): Name,
    query: Query,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let upgrade = upgrade.map_err(|why| ApiError::invalid(format!("a WebSocket is wanted here: {why}")))?;
    Ok(conversation(&state, name, &query).await?.begin_socket(upgrade))
}

async fn conversation(state: &State, name: String, query: &Query) -> Answer<Conversation> {
    let wanted = Wanted {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
    };
    let keys = Keys::parse(query.text("detachKeys").unwrap_or_default())?;
    let config = state.inspect_container(&name, false).await?.container.config;
    let process: Option<Process> = if query.flag("stream") {
        let process = state.attach_container(&name).await?;
        Some(Box::pin(async { Ok(process) }))
    } else {
        None
    };
    let past = if query.flag("logs") {
        let options = LogOptions {
            stdout: wanted.stdout,
            stderr: wanted.stderr,
            ..LogOptions::default()
        };
        Some(state.logs(&name, options).await?)
    } else {
        None
    };
    let engine = state.0.clone();
    Ok(Conversation {
        process,
        past,
        wanted,
        framing: Framing::of_terminal(config.tty),
        leave: config.tty.then(|| Leave {
            keys,
            tell: Box::new(move || engine.client_detached(&name)),
        }),
    })
}

/// `POST /containers/{id}/wait?condition=`. The headers go out at once, so that a client knows that we wait before it starts the container; the
/// body comes when there is something to say.
pub(crate) async fn wait(state: State, Name(name): Name, query: Query) -> Answer<Response> {
    let condition = match query.text("condition").unwrap_or("not-running") {
        "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let ended = state.wait_container(&name, condition).await?;
    let body = futures_util::stream::once(async move {
        let document = match ended.await {
            Ok(Ok(code)) => json!({ "StatusCode": code }),
            Ok(Err(error)) => json!({ "StatusCode": -1, "Error": { "Message": error.message } }),
            Err(_) => json!({ "StatusCode": -1, "Error": { "Message": "the daemon is ending" } }),
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(format!("{document}\n")))
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response())
}
