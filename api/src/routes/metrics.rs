//! `GET /metrics`.

use std::sync::Arc;

use axum::{
    Extension,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    error::Answer,
    metrics::{CONTENT_TYPE, Measures},
    routes::State,
};

/// Figures for Prometheus.
pub(crate) async fn metrics(state: State, Extension(measures): Extension<Arc<Measures>>) -> Answer<Response> {
    let text = measures.collect(&state).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
