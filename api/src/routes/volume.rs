//! Volumes.

use axum::{Json, http::StatusCode};
use serde_json::{Value, json};

use crate::{body, error::Answer, name::Name, query::Query, routes::State, version::Version, wire::volume};

/// `GET /volumes?filters=`
pub(crate) async fn list(state: State, query: Query) -> Answer<Json<Value>> {
    let filters = query.filters()?;
    let mut documents = Vec::new();
    for view in state.list_volumes() {
        if volume::agrees(&view, &filters)? {
            documents.push(volume::document(&view));
        }
    }
    Ok(Json(json!({ "Volumes": documents, "Warnings": null })))
}

/// `POST /volumes/create`
pub(crate) async fn create(
    state: State,
    body::Json(wish): body::Json<volume::Create>,
) -> Answer<(StatusCode, Json<Value>)> {
    let made = state.create_volume(wish.into_request()?).await?;
    Ok((StatusCode::CREATED, Json(volume::document(&state.view_volume(made)))))
}

/// `GET /volumes/{name}`
pub(crate) async fn inspect(state: State, Name(name): Name) -> Answer<Json<Value>> {
    Ok(Json(volume::document(&state.inspect_volume(&name)?)))
}

/// `DELETE /volumes/{name}?force=`
pub(crate) async fn remove(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    state.remove_volume(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /volumes/prune?filters=`
pub(crate) async fn prune(state: State, version: Version, query: Query) -> Answer<Json<Value>> {
    let wanted = volume::prunable(query.filters()?, version)?;
    Ok(Json(volume::pruned(&state.prune_volumes(wanted).await?)))
}
