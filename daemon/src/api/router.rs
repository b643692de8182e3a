//! The routes, their description, and what holds for all of them.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::describe;
use super::refused::Refused;
use super::routes::routes;
use super::shared::Shared;

/// Longest body of a request, in bytes.
const LONGEST_BODY: usize = 64 << 10;
/// A request is answered within this time, or refused; what streams only has to begin.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);

/// The description of all routes, as JSON.
pub fn description() -> String {
    let (_, api) = routes().split_for_parts();
    format!("{:#}\n", describe::document(&api))
}

/// All routes.
pub(super) fn router(shared: Shared) -> Router {
    router_with(shared, Router::new())
}

/// All routes, and more that are no part of the API.
pub(super) fn router_with(shared: Shared, more: Router<Shared>) -> Router {
    let (router, _) = routes().split_for_parts();
    let document = Bytes::from(description());
    let described = || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    router
        .merge(more)
        .route("/v1/openapi.json", get(described))
        .fallback(|request: Request| async move { Refused::no_route(&request) })
        .method_not_allowed_fallback(|request: Request| async move { Refused::no_method(&request) })
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .layer(middleware::from_fn(in_time))
        .with_state(shared)
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(LONGEST_ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let error = "the daemon did not answer in time".to_owned();
            Refused::new(StatusCode::GATEWAY_TIMEOUT, "timeout", error).into_response()
        }
    }
}
