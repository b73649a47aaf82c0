//! Where kinds of trouble become HTTP numbers; the one table.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use sluice_engine::{EngineError, Kind};

/// Trouble on its way to a client: `{"message": …}` under a number.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// What most routes answer.
pub(crate) type Answer<T> = Result<T, ApiError>;

// === impl ApiError ===

impl ApiError {
    /// The request makes no sense.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
        }
    }

    /// This version cannot do it. Clients that look for something by every road look for "not supported" and go on.
    pub(crate) fn not_offered(what: impl std::fmt::Display) -> Self {
        let message = format!(
            "{what} is not supported by this version of Sluice ({})",
            env!("CARGO_PKG_VERSION")
        );
        Self {
            status: StatusCode::NOT_IMPLEMENTED,
            message,
        }
    }

    /// Something here went wrong.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: message.into(),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let status = match error.kind {
            Kind::Invalid | Kind::Command => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Unauthorized => StatusCode::UNAUTHORIZED,
            Kind::NotOffered => StatusCode::NOT_IMPLEMENTED,
            Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            status,
            message: error.message,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED {
            tracing::error!(error = %self.message, "a request failed");
        } else {
            tracing::debug!(status = self.status.as_u16(), error = %self.message, "a request was refused");
        }
        (self.status, axum::Json(json!({ "message": self.message }))).into_response()
    }
}
