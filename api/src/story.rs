//! Stories are told to their end.

use sluice_engine::EngineError;

use crate::error::{Answer, ApiError};

/// Lets the engine do something that changes the world. A client that goes away ends the *request*, which is dropped where it stands; what has
/// begun goes on to its end, so that nothing half-made is left behind.
pub(crate) async fn to_its_end<T, F>(story: F) -> Answer<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, EngineError>> + Send + 'static,
{
    match tokio::spawn(story).await {
        Ok(outcome) => outcome.map_err(ApiError::from),
        Err(fault) => Err(ApiError::failed(format!("the daemon met a fault of its own: {fault}"))),
    }
}
