//! Our own questions, below `/sluice/v1`: what the datapath does. Not part of Docker's API.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use sluice_agent::{
    AgentError, Follower,
    view::{Exposure, Flow, Status, Telling, Told},
};

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

/// `GET /sluice/v1/flows`
pub(crate) async fn flows(state: State) -> Answer<Json<Vec<Flow>>> {
    state.agent().flows().await.map(Json).map_err(failed)
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

fn line(told: &Told) -> Bytes {
    // Numbers, words and addresses: nothing that JSON could not say.
    let mut line = serde_json::to_vec(told).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn failed(error: AgentError) -> ApiError {
    ApiError::failed(error.to_string())
}
