//! Made and removed.

use axum::http::StatusCode;
use serde_json::{Value, json};
use sluice_engine::PruneFilter;

use crate::{
    body::Json,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::State,
    time,
    wire::{container::create::Create, null_if_empty},
};

/// `POST /containers/create?name=`
pub(crate) async fn create(
    state: State,
    query: Query,
    Json(wish): Json<Create>,
) -> Answer<(StatusCode, axum::Json<Value>)> {
    let name = query.text("name").map(|name| name.trim_start_matches('/').to_owned());
    let (request, mut warnings) = wish.into_request(name)?;
    let created = state.create_container(request).await?;
    warnings.extend(created.warnings);
    Ok((
        StatusCode::CREATED,
        axum::Json(json!({ "Id": created.id, "Warnings": warnings })),
    ))
}

/// `POST /containers/prune?filters=`: `until`, `label`, `label!`.
pub(crate) async fn prune(state: State, query: Query) -> Answer<axum::Json<Value>> {
    let filters = query.filters()?;
    filters.only(&["until", "label", "label!"])?;
    let until = match filters.values("until").as_slice() {
        [] => None,
        [until] => time::moment(until).map_err(ApiError::invalid)?,
        _ => return Err(ApiError::invalid("more than one until filter specified")),
    };
    let filter = PruneFilter {
        until,
        labels: filters.values("label"),
        without_labels: filters.values("label!"),
    };
    let pruned = state.prune_containers(filter).await?;
    Ok(axum::Json(json!({
        "ContainersDeleted": null_if_empty(&pruned.containers),
        "SpaceReclaimed": pruned.reclaimed,
    })))
}

/// `DELETE /containers/{id}?force=&v=&link=`
pub(crate) async fn remove(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    if query.flag("link") {
        state.remove_link(&name).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let (force, volumes) = (query.flag("force"), query.flag("v"));
    state.remove_container(&name, force, volumes).await?;
    Ok(StatusCode::NO_CONTENT)
}
