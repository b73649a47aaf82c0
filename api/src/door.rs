//! What every request passes on its way in and out.

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;

use crate::{error::ApiError, version};

/// `Server:` of every answer.
const SERVER: &str = concat!("Sluice/", env!("CARGO_PKG_VERSION"), " (linux)");

/// Checks the version, lets the router answer, and writes the headers by which clients know an engine.
pub(crate) async fn door(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let asked = format!("{} {}", request.method(), request.uri().path());
    let mut response = match version::admit(&mut request) {
        Ok(()) => answer(request, next, &asked).await,
        Err(refused) => refused.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", header_of(&version::NEWEST.to_string()));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    tracing::debug!(status = response.status().as_u16(), took = ?began.elapsed(), "{asked}");
    response
}

/// A fault in one request is that request's alone.
async fn answer(request: Request, next: Next, asked: &str) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::failed(format!(
            "the daemon met a fault of its own while it answered {asked}; its log says where"
        ))
        .into_response(),
    }
}

fn header_of(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
