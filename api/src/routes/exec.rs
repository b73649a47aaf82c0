//! Further processes in a container.

use axum::{
    Json,
    extract::{Path, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use sluice_engine::{Kind, Output};

use crate::{
    body,
    error::{Answer, ApiError},
    query::Query,
    routes::{State, container::life::size},
    stream::{self, Framing, Wanted},
    version::Version,
    wire::exec::{self, Create, Start},
};

/// `POST /containers/{id}/exec`
pub(crate) async fn create(
    state: State,
    Path(container): Path<String>,
    body::Json(wish): body::Json<Create>,
) -> Answer<(StatusCode, Json<Value>)> {
    let request = wish.into_request()?;
    let id = state.create_exec(&container, request).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))))
}

/// `POST /exec/{id}/start`
pub(crate) async fn start(
    state: State,
    Path(id): Path<String>,
    version: Version,
    mut request: Request,
) -> Answer<Response> {
    let wish: Start = body::read_or_default(&mut request).await?;
    let view = state.inspect_exec(&id).await?;
    let started = state.start_exec(&id).await;
    if wish.detach {
        return started.map(|_| StatusCode::OK.into_response()).map_err(ApiError::from);
    }
    let asked = view.request;
    let wanted = Wanted {
        stdin: asked.attach_stdin,
        stdout: asked.attach_stdout,
        stderr: asked.attach_stderr,
    };
    let (process, past) = match started {
        Ok(process) => (Some(process), None),
        Err(error) if error.kind == Kind::Command => (None, Some(last_words(&error.message))),
        Err(error) => return Err(error.into()),
    };
    Ok(stream::connect(
        request,
        process,
        past,
        wanted,
        Framing::of_terminal(asked.tty),
        version,
    ))
}

/// A command that cannot be executed is told of as if it had said so itself, and its exit code (126 or 127) is the session's: clients look there,
/// not at the answer's number.
fn last_words(message: &str) -> Output {
    let (sender, output) = tokio::sync::mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(Ok((sluice_runtime::Stream::Stdout, format!("{message}\r\n").into())));
    output
}

/// `POST /exec/{id}/resize?h=&w=`
pub(crate) async fn resize(state: State, Path(id): Path<String>, query: Query) -> Answer<StatusCode> {
    let (rows, columns) = size(&query)?;
    state.resize_exec(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}

/// `GET /exec/{id}/json`
pub(crate) async fn inspect(state: State, Path(id): Path<String>) -> Answer<Json<Value>> {
    Ok(Json(exec::document(&state.inspect_exec(&id).await?)))
}
