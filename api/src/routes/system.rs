//! The daemon itself.

use axum::{
    Json,
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use sluice_engine::UsageOf;

use crate::{
    body,
    credentials::Login,
    error::{Answer, ApiError},
    query::Query,
    routes::State,
    version::Version,
    wire::system,
};

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

/// `POST /auth`: does the registry take these credentials?
pub(crate) async fn login(state: State, body::Json(login): body::Json<Login>) -> Answer<Json<Value>> {
    let server = login.serveraddress.clone();
    let credentials = login.credentials().unwrap_or_default();
    let identity = state.login(&server, credentials).await?.unwrap_or_default();
    Ok(Json(json!({ "Status": "Login Succeeded", "IdentityToken": identity })))
}

/// `GET /system/df?type=`
pub(crate) async fn usage(state: State, version: Version, query: Query) -> Answer<Json<Value>> {
    const TYPES: [&str; 4] = ["image", "container", "volume", "build-cache"];
    if let Some(unknown) = query.values("type").find(|kind| !TYPES.contains(kind)) {
        return Err(ApiError::invalid(format!("unknown object type: {unknown}")));
    }
    let wanted = |kind: &str| query.values("type").next().is_none() || query.values("type").any(|asked| asked == kind);
    let of = UsageOf {
        images: wanted("image"),
        containers: wanted("container"),
        volumes: wanted("volume"),
    };
    let usage = state.disk_usage(of).await?;
    Ok(Json(system::usage_document(&usage, of, wanted("build-cache"), version)))
}
