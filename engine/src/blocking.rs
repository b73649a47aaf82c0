//! Work that blocks (files, layers, mounts), taken off the threads that serve requests.

use crate::EngineError;

/// Runs it on a thread made for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let step = tracing::Span::current();
    match tokio::task::spawn_blocking(move || step.in_scope(work)).await {
        Ok(result) => result,
        Err(error) => Err(EngineError::failed(format!("a blocking task ended early: {error}"))),
    }
}
