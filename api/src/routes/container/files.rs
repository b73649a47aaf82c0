//! Copied from and to, exported, compared, made an image of.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use sluice_engine::{Chunks, CommitContainer, PutOptions};
use sluice_image::{RunConfig, files::Found};

use crate::{
    body,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::{State, image::named},
    wire::container::files,
};

/// The header that tells what stands at a path.
const STAT: &str = "X-Docker-Container-Path-Stat";

/// `HEAD /containers/{id}/archive?path=`
pub(crate) async fn look(state: State, Name(name): Name, query: Query) -> Answer<HeaderMap> {
    stat(&state.look_at_path(&name, path(&query)).await?)
}

/// `GET /containers/{id}/archive?path=`
pub(crate) async fn get(state: State, Name(name): Name, query: Query) -> Answer<Response> {
    let (found, tar) = state.copy_from(&name, path(&query)).await?;
    Ok((stat(&found)?, stream(tar)).into_response())
}

/// `PUT /containers/{id}/archive?path=&noOverwriteDirNonDir=&copyUIDGID=`
pub(crate) async fn put(state: State, Name(name): Name, query: Query, body: Body) -> Answer<StatusCode> {
    let options = PutOptions {
        keep_kinds: query.flag("noOverwriteDirNonDir"),
        own: query.flag("copyUIDGID"),
    };
    let tar = body::upload(body);
    state.copy_to(&name, path(&query), tar, options).await?;
    Ok(StatusCode::OK)
}

/// `GET /containers/{id}/export`
pub(crate) async fn export(state: State, Name(name): Name) -> Answer<Response> {
    let tar = state.export_container(&name).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], stream(tar)).into_response())
}

/// `GET /containers/{id}/changes`
pub(crate) async fn changes(state: State, Name(name): Name) -> Answer<axum::Json<Value>> {
    Ok(axum::Json(files::changes(&state.container_changes(&name).await?)))
}

/// `POST /commit?container=&repo=&tag=&comment=&author=&pause=&changes=`
pub(crate) async fn commit(
    state: State,
    query: Query,
    mut request: Request,
) -> Answer<(StatusCode, axum::Json<Value>)> {
    let container = query
        .text("container")
        .ok_or_else(|| ApiError::invalid("no container was named to make an image of"))?
        .to_owned();
    let config: RunConfig = body::read_or_default(&mut request).await?;
    let wish = CommitContainer {
        reference: query.text("repo").map(|name| named(name, query.text("tag"))),
        author: query.text("author").unwrap_or_default().to_owned(),
        comment: query.text("comment").unwrap_or_default().to_owned(),
        changes: query
            .values("changes")
            .flat_map(str::lines)
            .map(str::to_owned)
            .collect(),
        config,
        // a container is frozen unless that is declined
        pause: query.text("pause").is_none() || query.flag("pause"),
    };
    let id = state.commit_container(&container, wish).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({ "Id": id }))))
}

fn path(query: &Query) -> &str {
    query.text("path").unwrap_or_default()
}

fn stat(found: &Found) -> Answer<HeaderMap> {
    let value = HeaderValue::from_str(&files::stat(found))
        .map_err(|why| ApiError::failed(format!("cannot write the header {STAT}: {why}")))?;
    let mut headers = HeaderMap::new();
    headers.insert(STAT, value);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(headers)
}

/// Pieces as they come; an error breaks the answer off, so that nobody takes half an archive for a whole one.
pub(crate) fn stream(tar: Chunks) -> Body {
    Body::from_stream(futures_util::stream::unfold(tar, |mut tar| async move {
        tar.recv().await.map(|piece| (piece, tar))
    }))
}
