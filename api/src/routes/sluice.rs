//! Our own questions, below `/sluice/v1`: what the datapath does. Not part of Docker's API.

use axum::Json;
use sluice_agent::{
    AgentError,
    view::{Drop, Flow, Status},
};

use crate::{
    error::{Answer, ApiError},
    routes::State,
};

/// `GET /sluice/v1/status`
pub(crate) async fn status(state: State) -> Answer<Json<Status>> {
    state.agent().status().await.map(Json).map_err(failed)
}

/// `GET /sluice/v1/flows`
pub(crate) async fn flows(state: State) -> Answer<Json<Vec<Flow>>> {
    state.agent().flows().await.map(Json).map_err(failed)
}

/// `GET /sluice/v1/drops`
pub(crate) async fn drops(state: State) -> Answer<Json<Vec<Drop>>> {
    state.agent().drops().await.map(Json).map_err(failed)
}

fn failed(error: AgentError) -> ApiError {
    ApiError::failed(error.to_string())
}
