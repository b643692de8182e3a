//! What every route has, and how it does what may block.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::watch;

use super::Backend;
use super::refused::Refused;

/// What every route has.
#[derive(Clone)]
pub(super) struct Shared {
    pub backend: Arc<Backend>,
    pub shutdown: watch::Receiver<bool>,
}

/// Runs what may block.
pub(super) async fn blocking<T: Send + 'static>(
    backend: &Arc<Backend>,
    work: impl FnOnce(&Backend) -> T + Send + 'static,
) -> Result<T, Refused> {
    let backend = backend.clone();
    tokio::task::spawn_blocking(move || work(&backend)).await.map_err(|error| {
        let refused =
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed inside");
        refused.because(error.to_string())
    })
}
