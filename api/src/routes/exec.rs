//! Further processes in a container.

use axum::{
    Json,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use sluice_model::container::Phase;

use crate::{
    body,
    detach::Keys,
    error::Answer,
    name::Name,
    query::Query,
    routes::{State, container::life::size},
    stream::{Conversation, Framing, Leave, Process, Wanted},
    version::Version,
    wire::exec::{self, Create, Start},
};

/// `POST /containers/{id}/exec`
pub(crate) async fn create(
    state: State,
    Name(container): Name,
    body::Json(wish): body::Json<Create>,
) -> Answer<(StatusCode, Json<Value>)> {
    let request = wish.into_request()?;
    let id = state.create_exec(&container, request).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))))
}

/// `POST /exec/{id}/start`
pub(crate) async fn start(state: State, Name(id): Name, version: Version, mut request: Request) -> Answer<Response> {
    let wish: Start = body::read_or_default(&mut request).await?;
    let view = state.inspect_exec(&id).await?;
    let asked = view.request;
    if wish.detach {
        state.start_exec(&id).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let keys = Keys::parse(&asked.detach_keys)?;
    let engine = state.0.clone();
    let session = id.clone();
    let wanted = Wanted {
        stdin: asked.attach_stdin,
        stdout: asked.attach_stdout,
        stderr: asked.attach_stderr,
    };
    let startable = !view.running
        && view.exit_code.is_none()
        && state
            .inspect_container(&view.container, false)
            .await?
            .container
            .state
            .phase
            == Phase::Running;
    let process: Process = if startable {
        // Started when the client listens. What goes wrong then is told on the stream, and its exit code (126, 127) is the session's.
        Box::pin(async move { state.start_exec(&session).await })
    } else {
        // The engine says why not.
        let process = state.start_exec(&id).await?;
        Box::pin(async { Ok(process) })
    };
    let framing = Framing::of_terminal(asked.tty);
    let leave = asked.tty.then(|| Leave {
        keys,
        tell: Box::new(move || engine.exec_client_detached(&id)),
    });
    Ok(Conversation {
        process: Some(process),
        past: None,
        wanted,
        framing,
        leave,
    }
    .begin(request, version))
}

/// `POST /exec/{id}/resize?h=&w=`
pub(crate) async fn resize(state: State, Name(id): Name, query: Query) -> Answer<StatusCode> {
    let (rows, columns) = size(&query)?;
    state.resize_exec(&id, rows, columns).await?;
    Ok(StatusCode::OK)
}

/// `GET /exec/{id}/json`
pub(crate) async fn inspect(state: State, Name(id): Name) -> Answer<Json<Value>> {
    Ok(Json(exec::document(&state.inspect_exec(&id).await?)))
}
