//! Further processes in a container.

use axum::{
    Json,
    extract::{Path, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    body,
    error::Answer,
    query::Query,
    routes::{State, container::life::size},
    story,
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
    let id = story::to_its_end(async move { state.create_exec(&container, request).await }).await?;
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
    let process = story::to_its_end(async move { state.start_exec(&id).await }).await?;
    if wish.detach {
        return Ok(StatusCode::OK.into_response());
    }
    let asked = view.request;
    let wanted = Wanted {
        stdin: asked.attach_stdin,
        stdout: asked.attach_stdout,
        stderr: asked.attach_stderr,
    };
    Ok(stream::connect(
        request,
        Some(process),
        None,
        wanted,
        Framing::of_terminal(asked.tty),
        version,
    ))
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
