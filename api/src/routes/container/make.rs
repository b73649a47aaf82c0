//! Made and removed.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    body::Json,
    error::{Answer, ApiError},
    name::Name,
    query::Query,
    routes::State,
    wire::container::create::Create,
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

/// `DELETE /containers/{id}?force=&v=`
pub(crate) async fn remove(state: State, Name(name): Name, query: Query) -> Answer<StatusCode> {
    if query.flag("link") {
        return Err(ApiError::not_offered("removing a link"));
    }
    let (force, volumes) = (query.flag("force"), query.flag("v"));
    state.remove_container(&name, force, volumes).await?;
    Ok(StatusCode::NO_CONTENT)
}
