//! What every route has, and how it does what may block.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
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

/// What a route answers.
pub(super) type Answer<T> = Result<axum::Json<T>, Refused>;

/// Answers from what is known.
pub(super) async fn reading<T: Serialize + Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&Backend) -> T + Send + 'static,
) -> Answer<T> {
    blocking(&shared.backend, work).await.map(axum::Json)
}

/// A body of JSON; none at all means the default.
pub(super) fn body<T: DeserializeOwned + Default>(
    bytes: Result<Bytes, BytesRejection>,
) -> Result<T, Refused> {
    let bytes = bytes.map_err(|rejection| {
        let status = rejection.status();
        Refused::new(status, "bad-request", "the body cannot be read").because(rejection.body_text())
    })?;
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Refused::bad("the body is not understood").because(error.to_string()))
}
