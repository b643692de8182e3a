//! What every route has, and how it does what may block.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::Backend;
use super::refused::Refused;
use crate::ledger::tree::Tree;

/// Longest wait that a request may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Who may keep looking at a time.
const MOST_SEATS: usize = 32;

/// What every route has.
#[derive(Clone)]
pub(super) struct Shared {
    pub backend: Arc<Backend>,
    pub shutdown: watch::Receiver<bool>,
    /// Places for those who keep looking.
    pub seats: Arc<Semaphore>,
    /// The right to read trainers' words from their beginning: one at a time, since they may be long.
    pub reading: Arc<Semaphore>,
}

impl Shared {
    pub fn new(backend: Arc<Backend>, shutdown: watch::Receiver<bool>) -> Self {
        Self {
            backend,
            shutdown,
            seats: Arc::new(Semaphore::new(MOST_SEATS)),
            reading: Arc::new(Semaphore::new(1)),
        }
    }
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

/// A question that may wait for its answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitAsked {
    /// Seconds to wait for what is still undecided.
    #[serde(default)]
    wait: u64,
}

/// Answers out of the tree as soon as that is decided, or when it was waited long enough.
pub(super) async fn waiting<T: Serialize>(
    mut shared: Shared,
    asked: WaitAsked,
    look: impl Fn(&Tree) -> Result<T, Refused>,
    is_undecided: impl Fn(&T) -> bool,
) -> Answer<T> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(asked.wait).min(LONGEST_WAIT);
    let mut position = shared.backend.ledger.watch();
    loop {
        position.borrow_and_update();
        let answer = shared.backend.ledger.read(&look)?;
        if !is_undecided(&answer) || *shared.shutdown.borrow() {
            return Ok(axum::Json(answer));
        }
        tokio::select! {
            changed = position.changed() => if changed.is_err() { return Ok(axum::Json(answer)) },
            _ = shared.shutdown.changed() => {}
            () = tokio::time::sleep_until(deadline) => return Ok(axum::Json(answer)),
        }
    }
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
