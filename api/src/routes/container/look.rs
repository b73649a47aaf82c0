//! Looked at.

use axum::Json;
use jiff::Timestamp;
use serde_json::{Value, json};
use sluice_engine::ListFilter;

use crate::{
    error::Answer,
    name::Name,
    query::Query,
    routes::State,
    wire::container::{inspect, summary},
};

/// `GET /containers/json?all=&limit=&size=&filters=`
pub(crate) async fn list(state: State, query: Query) -> Answer<Json<Vec<Value>>> {
    let limit = query.number::<i64>("limit")?.unwrap_or(0);
    let filter = ListFilter {
        // A limit counts those that do not run, too.
        all: query.flag("all") || limit > 0,
        limit: usize::try_from(limit).unwrap_or(0),
        size: query.flag("size"),
        filters: query.filters()?.into_pairs(),
    };
    let views = state.list_containers(&filter).await?;
    let now = Timestamp::now();
    Ok(Json(views.iter().map(|view| summary::document(view, now)).collect()))
}

/// `GET /containers/{id}/json?size=`
pub(crate) async fn inspect(state: State, Name(name): Name, query: Query) -> Answer<Json<Value>> {
    let view = state.inspect_container(&name, query.flag("size")).await?;
    Ok(Json(inspect::document(&view)))
}

/// `GET /containers/{id}/top?ps_args=`
pub(crate) async fn top(state: State, Name(name): Name, query: Query) -> Answer<Json<Value>> {
    let (titles, processes) = state.top(&name, query.text("ps_args").unwrap_or("-ef")).await?;
    Ok(Json(json!({ "Titles": titles, "Processes": processes })))
}
