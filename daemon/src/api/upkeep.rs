//! The routes that keep a state in order: `gc`, `cancel`, `retry`, `alias`.
//!
//! Each judges the tree as it stands under the ledger's lock, so that what is refused and what is journalled never
//! disagree; what only repeats the journal on the disk is done after.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use paradigm::Paradigm;

use super::Backend;
use super::refused::Refused;
use super::shared::{Answer, Shared, blocking, body, reading};
use super::types::{
    AliasAnswer, AliasAsked, AliasLine, CancelAnswer, CancelAsked, GcAnswer, GcAsked, MoveLine, RetryAnswer,
    RetryAsked, ThingLine,
};
use crate::alias;
use crate::ledger::path::{Path, Version};
use crate::ledger::transition::{Increment, Transition};
use crate::ledger::tree::{Tree, VersionState};
use crate::retention::things::{Scope, Thing};

/// Removes what is not needed, or says what would go.
#[utoipa::path(
    post,
    path = "/v1/gc",
    request_body = GcAsked,
    responses((status = 200, description = "The answer.", body = GcAnswer))
)]
pub(super) async fn gc(
    State(shared): State<Shared>,
    bytes: Result<Bytes, BytesRejection>,
) -> Answer<GcAnswer> {
    let GcAsked { dry_run } = body(bytes)?;
    let collected =
        blocking(&shared.backend, move |backend| backend.retention.collect(Scope::All, dry_run)).await?;
    let collected = collected.map_err(|error| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "not-collected", "nothing was removed")
            .because(error.to_string())
    })?;
    let line =
        |thing: Thing| ThingLine { name: thing.name, bytes: thing.bytes, goes: thing.goes, why: thing.why };
    let things = collected.things.into_iter().map(line).collect();
    Ok(axum::Json(GcAnswer { dry_run, things, left: collected.left }))
}

/// A version is not made, or a request to cut waits no more.
#[utoipa::path(
    post,
    path = "/v1/cancel",
    request_body = CancelAsked,
    responses((status = 200, description = "The answer.", body = CancelAnswer))
)]
pub(super) async fn cancel(
    State(shared): State<Shared>,
    bytes: Result<Bytes, BytesRejection>,
) -> Answer<CancelAnswer> {
    let asked: CancelAsked = body(bytes)?;
    let commit = move |backend: &Backend| {
        backend.ledger.commit_with(|tree| match cancelled(tree, &asked) {
            Ok((transition, answer)) => (vec![transition], Ok(answer)),
            Err(refused) => (Vec::new(), Err(refused)),
        })
    };
    let (_, answer) = blocking(&shared.backend, commit).await??;
    answer.map(axum::Json)
}

fn cancelled(tree: &Tree, asked: &CancelAsked) -> Result<(Transition, CancelAnswer), Refused> {
    let Some(version) = asked.version else {
        let (cut, request) = tree.waiting_cut().ok_or_else(|| {
            Refused::new(StatusCode::CONFLICT, "not-cancelled", "no request to cut is waiting")
        })?;
        let refusal = Transition::CutRefused { cut, reason: "it was cancelled".to_owned() };
        return Ok((refusal, CancelAnswer::Cut { cut, name: request.name.clone() }));
    };
    let paradigm = paradigm_of(tree, asked.paradigm)?;
    increment(tree, version)?;
    let state = tree.version_state(paradigm, version);
    if !state.is_to_be_made() {
        let error = format!("version {version} of {paradigm} is {state}: there is nothing to cancel");
        return Err(Refused::new(StatusCode::CONFLICT, "not-cancelled", error));
    }
    let running = tree.running().any(|(_, attempt)| {
        attempt.start.path.paradigm == paradigm && attempt.start.version == Some(version)
    });
    let transition = Transition::VersionCancelled { paradigm, version };
    Ok((transition, CancelAnswer::Version { paradigm, version, running }))
}

/// What has failed or was cancelled is tried again.
#[utoipa::path(
    post,
    path = "/v1/retry",
    request_body = RetryAsked,
    responses((status = 200, description = "The answer.", body = RetryAnswer))
)]
pub(super) async fn retry(
    State(shared): State<Shared>,
    bytes: Result<Bytes, BytesRejection>,
) -> Answer<RetryAnswer> {
    let asked: RetryAsked = body(bytes)?;
    let commit = move |backend: &Backend| {
        backend.ledger.commit_with(|tree| match retried(tree, &asked) {
            Ok((transitions, path)) => (transitions, Ok(path)),
            Err(refused) => (Vec::new(), Err(refused)),
        })
    };
    let (_, path) = blocking(&shared.backend, commit).await??;
    Ok(axum::Json(RetryAnswer { path: path? }))
}

/// What lets a version, or the main path, be tried again, and the path that goes on.
fn retried(tree: &Tree, asked: &RetryAsked) -> Result<(Vec<Transition>, Path), Refused> {
    let paradigm = paradigm_of(tree, asked.paradigm)?;
    let has_failed = |path: &Path| tree.path(path).is_some_and(|state| state.failed.is_some());
    let refused = |error: String| Refused::new(StatusCode::CONFLICT, "not-failed", error);
    let main = tree.main_path();
    let of_path = |path: Path| Ok((vec![Transition::PathRetried { path }], path));
    let Some(version) = asked.version else {
        return match has_failed(&main) {
            _ if paradigm != Paradigm::PathSwitching => {
                Err(refused(format!("{paradigm} has no main path")).hint("name a version"))
            }
            true => of_path(main),
            false => Err(refused("the main path has not failed".to_owned())),
        };
    };
    increment(tree, version)?;
    let own = tree.version_path(paradigm, version);
    match tree.version_state(paradigm, version) {
        VersionState::Cancelled => {
            let wanted = Transition::VersionRetried { paradigm, version };
            let again = has_failed(&own).then_some(Transition::PathRetried { path: own });
            Ok((std::iter::once(wanted).chain(again).collect(), own))
        }
        VersionState::Vetoed => Ok((vec![Transition::VersionRetried { paradigm, version }], own)),
        VersionState::Failed if has_failed(&own) => of_path(own),
        VersionState::Failed => of_path(main),
        state => Err(refused(format!("version {version} of {paradigm} has not failed: it is {state}"))),
    }
}

pub(super) fn paradigm_of(tree: &Tree, asked: Option<Paradigm>) -> Result<Paradigm, Refused> {
    let paradigm = asked.or(tree.paradigms().first().copied()).unwrap_or_default();
    match tree.paradigms().contains(&paradigm) {
        true => Ok(paradigm),
        false => {
            let error = format!("this run has no {paradigm}");
            Err(Refused::new(StatusCode::CONFLICT, "no-paradigm", error))
        }
    }
}

pub(super) fn increment(tree: &Tree, version: Version) -> Result<&Increment, Refused> {
    if let Some(increment) = tree.increment(version) {
        return Ok(increment);
    }
    let refused = Refused::new(StatusCode::NOT_FOUND, "not-found", format!("there is no version {version}"));
    Err(match tree.increments().last() {
        Some(last) => {
            refused.hint(format!("the last one is {}; `lrpathctl versions` lists them", last.version))
        }
        None => refused.hint("no version is cut yet"),
    })
}

/// The names of public versions, with their history.
#[utoipa::path(
    get,
    path = "/v1/alias",
    responses((status = 200, description = "The answer.", body = Vec<AliasLine>))
)]
pub(super) async fn aliases(State(shared): State<Shared>) -> Answer<Vec<AliasLine>> {
    reading(&shared, |backend| backend.ledger.read(alias_lines)).await
}

fn alias_lines(tree: &Tree) -> Vec<AliasLine> {
    let mut lines = Vec::new();
    for paradigm in tree.paradigms() {
        let public = tree.releases().keys().filter(|(of, _)| of == paradigm).map(|(_, version)| *version);
        lines.extend(public.max().map(|version| AliasLine {
            paradigm: *paradigm,
            name: artifacts::release::LATEST.to_owned(),
            version: Some(version),
            moves: Vec::new(),
        }));
        let own = tree.aliases().iter().filter(|((of, _), _)| of == paradigm);
        lines.extend(own.map(|((_, name), moves)| AliasLine {
            paradigm: *paradigm,
            name: name.clone(),
            version: tree.alias(*paradigm, name),
            moves: moves.iter().map(|one| MoveLine { version: one.version, at: one.at }).collect(),
        }));
    }
    lines
}

/// Points a name to a public version, or takes it away.
#[utoipa::path(
    post,
    path = "/v1/alias",
    request_body = AliasAsked,
    responses((status = 200, description = "The answer.", body = AliasAnswer))
)]
pub(super) async fn alias(
    State(shared): State<Shared>,
    bytes: Result<Bytes, BytesRejection>,
) -> Answer<AliasAnswer> {
    let asked: AliasAsked = body(bytes)?;
    blocking(&shared.backend, move |backend| point(backend, &asked)).await?.map(axum::Json)
}

fn point(backend: &Backend, asked: &AliasAsked) -> Result<AliasAnswer, Refused> {
    let releases = backend.links.releases();
    let (_, moved) = backend.ledger.commit_with(|tree| {
        let paradigm = match paradigm_of(tree, asked.paradigm) {
            Ok(paradigm) => paradigm,
            Err(refused) => return (Vec::new(), Err(refused)),
        };
        let before = tree.alias(paradigm, &asked.name);
        let folder = alias::folder(tree, releases, paradigm);
        match alias::judge(tree, releases, paradigm, &asked.name, asked.version) {
            Ok(transition) => (transition.into_iter().collect(), Ok((paradigm, before, folder))),
            Err(refusal) => (Vec::new(), Err(refusal.into())),
        }
    })?;
    let (paradigm, before, folder) = moved?;
    let pending = backend.links.point().err().map(|error| error.to_string());
    Ok(AliasAnswer {
        paradigm,
        name: asked.name.clone(),
        version: asked.version,
        before,
        link: folder.join(&asked.name).display().to_string(),
        pending,
    })
}
