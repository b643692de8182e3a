//! A request that is not met: a status for programs, a sentence for people.

use axum::extract::Request;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::explain::NotExplained;
use super::types::Refusal;
use crate::alias::NotMoved;
use crate::ledger::LedgerError;
use crate::withdrawal::NotWithdrawn;

/// A request that is not met.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    refusal: Refusal,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &str, error: impl Into<String>) -> Self {
        let refusal = Refusal { error: error.into(), cause: None, hint: None, code: code.to_owned() };
        Self { status, refusal }
    }

    /// One that was made elsewhere.
    pub(super) fn from_refusal(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }

    pub(super) fn because(mut self, cause: impl Into<String>) -> Self {
        self.refusal.cause = Some(cause.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.refusal.hint = Some(hint.into());
        self
    }

    fn hinted(mut self, hint: Option<String>) -> Self {
        self.refusal.hint = hint;
        self
    }

    pub(super) fn no_route(request: &Request) -> Self {
        let error = format!("there is nothing at {}", request.uri().path());
        Self::new(StatusCode::NOT_FOUND, "not-found", error)
    }

    pub(super) fn no_method(request: &Request) -> Self {
        let error = format!("{} is not possible at {}", request.method(), request.uri().path());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", error)
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, axum::Json(self.refusal)).into_response()
    }
}

impl From<NotWithdrawn> for Refused {
    fn from(error: NotWithdrawn) -> Self {
        let (status, code) = match &error {
            NotWithdrawn::Unknown { .. } => (StatusCode::NOT_FOUND, "not-found"),
            _ => (StatusCode::CONFLICT, "not-withdrawn"),
        };
        Self::new(status, code, error.to_string()).hinted(error.hint())
    }
}

impl From<NotExplained> for Refused {
    fn from(error: NotExplained) -> Self {
        let (status, code) = match &error {
            NotExplained::Unknown { .. } => (StatusCode::NOT_FOUND, "not-found"),
            _ => (StatusCode::CONFLICT, "not-explained"),
        };
        Self::new(status, code, error.to_string()).hinted(error.hint())
    }
}

impl From<NotMoved> for Refused {
    fn from(error: NotMoved) -> Self {
        let (status, code) = match &error {
            NotMoved::NotPublic { .. } | NotMoved::Unknown { .. } => (StatusCode::NOT_FOUND, "not-found"),
            NotMoved::Name(_) | NotMoved::Taken(..) => (StatusCode::CONFLICT, "not-moved"),
        };
        Self::new(status, code, error.to_string()).hinted(error.hint())
    }
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        let hindrance = error.hindrance();
        let word = hindrance.map(|hindrance| hindrance.to_string());
        let (status, code) = match &error {
            LedgerError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            _ => match &word {
                Some(word) => (StatusCode::INSUFFICIENT_STORAGE, word.as_str()),
                None => (StatusCode::INTERNAL_SERVER_ERROR, "ledger"),
            },
        };
        let hint = hindrance.map(|hindrance| format!("{}, and try again", hindrance.remedy()));
        Self::new(status, code, "the journal did not take it").because(error.to_string()).hinted(hint)
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad("the query is not understood").because(rejection.body_text())
    }
}

impl From<PathRejection> for Refused {
    fn from(rejection: PathRejection) -> Self {
        Self::bad("a number was expected in the path").because(rejection.body_text())
    }
}
