//! Our own questions, below `/sluice/v1`: what the datapath does. Not part of Docker's API.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use sluice_agent::{
    AgentError, FILTERS, Filter, Follower, Monitor, Order, Wishes,
    view::{Exposure, Flow, Seen, Status, Telling},
};
use sluice_engine::{Carried, Direction};

use crate::{
    error::{Answer, ApiError},
    query::Query,
    routes::State,
    stream::lines_of,
    wire,
};

/// `GET /sluice/v1/status`
pub(crate) async fn status(state: State) -> Answer<Json<Status>> {
    state.agent().status().await.map(Json).map_err(failed)
}

/// `GET /sluice/v1/cluster`
pub(crate) async fn cluster(state: State) -> Answer<Json<serde_json::Value>> {
    Ok(Json(wire::cluster::document(&state.cluster_status().await?)))
}

/// `GET /sluice/v1/flows?sort=&limit=` and filters
pub(crate) async fn flows(state: State, query: Query) -> Answer<Json<Vec<Flow>>> {
    let word = query.text("sort").unwrap_or("idle");
    let order = Order::of_word(word)
        .ok_or_else(|| ApiError::invalid(format!("invalid sort {word:?}: idle, bytes, packets or age is wanted")))?;
    let (filter, limit) = (filter(&query)?, query.number("limit")?);
    let flows = state.agent().flows(filter, order, limit).await;
    flows.map(Json).map_err(failed)
}

fn filter(query: &Query) -> Result<Filter, ApiError> {
    let mut filter = Filter::default();
    for name in FILTERS {
        for value in query.values(name) {
            filter.add(name, value).map_err(ApiError::invalid)?;
        }
    }
    Ok(filter)
}

/// `GET /sluice/v1/endpoints`
pub(crate) async fn endpoints(state: State) -> Answer<Json<Vec<serde_json::Value>>> {
    let direction = |carried: &Direction| json!({ "bytes": carried.bytes, "packets": carried.packets });
    let endpoint = |carried: &Carried| {
        json!({
            "id": carried.endpoint,
            "container": carried.container,
            "network": carried.network,
            "received": direction(&carried.traffic.received),
            "sent": direction(&carried.traffic.sent),
        })
    };
    Ok(Json(state.carried().await?.iter().map(endpoint).collect()))
}

/// `GET /sluice/v1/exposure`
pub(crate) async fn exposure(state: State) -> Answer<Json<Exposure>> {
    Ok(Json(state.exposure().await?))
}

/// `GET /sluice/v1/drops?follow=`
pub(crate) async fn drops(state: State, query: Query) -> Answer<Response> {
    if query.flag("follow") {
        let follower = state.agent().follow_drops().await.map_err(failed)?;
        return Ok(lines_of(told(follower)));
    }
    let drops = state.agent().drops().await.map_err(failed)?;
    Ok(Json(drops).into_response())
}

/// `GET /sluice/v1/monitor?flows=&frames=` and filters
pub(crate) async fn monitor(state: State, query: Query) -> Answer<Response> {
    let filter = filter(&query)?;
    let wishes = Wishes {
        flows: query.flag("flows"),
        frames: query.flag("frames"),
    };
    let monitor = state.agent().monitor(filter, wishes).await.map_err(failed)?;
    Ok(lines_of(seen(monitor)))
}

/// `GET /sluice/v1/drops/telling`
pub(crate) async fn telling(state: State) -> Answer<Json<Telling>> {
    state.agent().telling().await.map(Json).map_err(failed)
}

fn told(follower: Follower) -> impl futures_util::Stream<Item = Bytes> {
    stream::unfold(follower, |mut follower| async move {
        let told = follower.next().await?;
        Some((line(&told), follower))
    })
}

fn seen(monitor: Monitor) -> impl futures_util::Stream<Item = Bytes> {
    stream::unfold(monitor, |mut monitor| async move {
        let seen: Seen = monitor.next().await?;
        Some((line(&seen), monitor))
    })
}

fn line(told: &impl serde::Serialize) -> Bytes {
    // Numbers, words and addresses: nothing that JSON could not say.
    let mut line = serde_json::to_vec(told).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn failed(error: AgentError) -> ApiError {
    ApiError::failed(error.to_string())
}
