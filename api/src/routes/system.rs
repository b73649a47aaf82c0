//! The daemon itself.

use axum::{
    Json,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::Value;

use crate::{error::Answer, routes::State, wire::system};

/// `GET /_ping`: clients read the headers, which the door writes, and these.
pub(crate) async fn ping() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
    ];
    let mut response = (headers, "OK").into_response();
    // No BuildKit here: the classic builder is what a client may ask for.
    response
        .headers_mut()
        .insert("Builder-Version", header::HeaderValue::from_static("1"));
    response
        .headers_mut()
        .insert("Swarm", header::HeaderValue::from_static("inactive"));
    response
}

/// `GET /version`
pub(crate) async fn version() -> Json<Value> {
    Json(system::version_document())
}

/// `GET /info`
pub(crate) async fn info(state: State) -> Answer<Json<Value>> {
    Ok(Json(system::info_document(&state.info().await?)))
}
