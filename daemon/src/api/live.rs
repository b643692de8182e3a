//! What is so, for whoever keeps looking: the status each time that it changes, as server-sent events.
//!
//! A look costs some milliseconds, so there is at most one each fifth of a second for each who looks, and only so many may.
//! The connection that breaks is noticed by the browser, which comes back by itself.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use tokio::time::{Instant, sleep, timeout};

use super::refused::Refused;
use super::shared::{Shared, blocking};
use super::status;
use super::types::Status;

/// Looks that wait for a reader.
const QUEUE: usize = 2;
/// Between two looks at least, whatever happens.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at most: a trainer's steps are in no journal.
const LOOK: Duration = Duration::from_secs(1);
/// Who looks and sees no change is sent a sign of life so often.
const BEAT: Duration = Duration::from_secs(10);
/// That sign: an event, since a browser tells a page nothing of comments.
const ALIVE: &[u8] = b"event: beat\ndata: {}\n\n";
/// Milliseconds after which a browser comes back.
const COME_BACK: u32 = 1000;

/// The status each time that it changes, as server-sent events of the kind `status`; `beat` where nothing has.
#[utoipa::path(
    get,
    path = "/v1/live",
    responses((status = 200, description = "The status.", body = Status, content_type = "text/event-stream"))
)]
pub(super) async fn live(State(shared): State<Shared>) -> Result<Response, Refused> {
    let Ok(seat) = shared.seats.clone().try_acquire_owned() else {
        let error = "too many look on already";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too-many", error)
            .hint("close a page, or ask `/v1/status` now and then"));
    };
    let (sender, channel) = Channel::<Bytes, Infallible>::new(QUEUE);
    tokio::spawn(async move {
        follow(shared, sender).await;
        drop(seat);
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(channel)).into_response())
}

async fn follow(mut shared: Shared, mut sender: Sender<Bytes>) {
    let mut position = shared.backend.ledger.watch();
    let mut told: Option<Status> = None;
    let mut heard = Instant::now();
    while !*shared.shutdown.borrow() {
        position.borrow_and_update();
        let Ok(now) = blocking(&shared.backend, status::of).await else { return };
        let piece = match &told {
            Some(before) if is_same(before, &now) => {
                (heard.elapsed() >= BEAT).then_some(Bytes::from_static(ALIVE))
            }
            _ => event(&now, told.is_none()),
        };
        if let Some(piece) = piece {
            if sender.send_data(piece).await.is_err() {
                return;
            }
            heard = Instant::now();
        }
        told = Some(now);
        sleep(PAUSE).await;
        tokio::select! {
            changed = timeout(LOOK - PAUSE, position.changed()) => if matches!(changed, Ok(Err(_))) { return },
            _ = shared.shutdown.changed() => return,
        }
    }
}

/// Whether nothing has changed but the time.
fn is_same(before: &Status, now: &Status) -> bool {
    let then = Status { at: now.at, until: now.until, ..before.clone() };
    then == *now
}

fn event(status: &Status, is_first: bool) -> Option<Bytes> {
    let data = serde_json::to_string(status).ok()?;
    let come_back = if is_first { format!("retry: {COME_BACK}\n") } else { String::new() };
    Some(Bytes::from(format!("{come_back}event: status\ndata: {data}\n\n")))
}
