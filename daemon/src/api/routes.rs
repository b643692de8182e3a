//! The routes: each reads the tree, or commits what was asked.
//!
//! Everything that may block runs on a thread for blocking work, so that a slow disk holds up one request and not the
//! socket.

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use artifacts::storage;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use paradigm::Paradigm;
use serde::Deserialize;

use super::refused::Refused;
use super::shared::{Answer, Shared, WaitAsked, blocking, body, reading, waiting};
use super::types::{
    BlockedFiles, CutAnswer, CutAsked, Disk, Explained, PauseAnswer, ShardCounts, Status, TreeView,
    WaitingFile, WithdrawAnswer, WithdrawAsked,
};
use super::{Backend, answers, evaluations, explain, stream, upkeep};
use crate::ledger::transition::{CutNumber, JobNumber, Transition};
use crate::ledger::tree::{CutOutcome, Tree};
use crate::withdrawal;

/// Longest body of a request, in bytes.
const LONGEST_BODY: usize = 64 << 10;
/// A request is answered within this time, or refused; what streams only has to begin.
const LONGEST_ANSWER: Duration = Duration::from_secs(60);
/// Records that one answer holds at most.
const MOST_RECORDS: usize = 1000;
/// Blocked files of which a status tells at most; it counts all.
const MOST_BLOCKED: usize = 16;

/// All routes.
pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/tree", get(tree))
        .route("/v1/versions", get(versions))
        .route("/v1/shards", get(shards))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{job}/log", get(log))
        .route("/v1/events", get(events))
        .route("/v1/cuts/{cut}", get(cut_outcome))
        .route("/v1/cut", post(cut))
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
        .route("/v1/retry", post(upkeep::retry))
        .route("/v1/cancel", post(upkeep::cancel))
        .route("/v1/evaluations", post(evaluations::ask))
        .route("/v1/evaluations/{paradigm}/{version}", get(evaluations::known))
        .route("/v1/gc", post(upkeep::gc))
        .route("/v1/alias", get(upkeep::aliases).post(upkeep::alias))
        .route("/v1/withdraw", post(withdraw))
        .route("/v1/explain", get(explained))
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

async fn status(State(shared): State<Shared>) -> Answer<Status> {
    reading(&shared, status_of).await
}

fn status_of(backend: &Backend) -> Status {
    let files = backend.live.waiting();
    let waiting = files.len() as u64;
    let blocked: Vec<WaitingFile> = files.into_iter().filter(|file| file.blocked).collect();
    let blocked =
        BlockedFiles { count: blocked.len() as u64, first: blocked.into_iter().take(MOST_BLOCKED).collect() };
    let markers = backend.live.markers();
    let now = backend.clock.now();
    let hindrances = backend.ledger.hindrances();
    let (mut status, releases) = backend.at_one_moment(|tree, progress| {
        let jobs = answers::running(tree, progress, now);
        let (doing, until) = answers::doing(tree, &jobs, waiting, now, hindrances.holds_jobs());
        let status = Status {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            state: backend.state.display().to_string(),
            position: tree.position(),
            at: now,
            doing,
            until,
            paused: tree.run().paused,
            hindrances: hindrances.all(),
            paradigms: answers::paradigms(tree, progress),
            jobs,
            shards: ShardCounts {
                waiting,
                accepted: tree.shards().len() as u64 - u64::from(tree.withdrawals()),
                rejected: tree.rejected().len() as u64,
                withdrawn: tree.withdrawals().into(),
            },
            slots: answers::slots(tree, &backend.slots),
            disk: Disk { free: None, checkpoints: checkpoint_bytes(tree), releases: 0 },
            waiting_cut: answers::waiting_cut(tree),
            refused_markers: answers::refused_markers(tree, &markers),
            blocked: blocked.clone(),
        };
        (status, release_files(tree))
    });
    status.disk.free = storage::free_bytes(&backend.state);
    status.disk.releases = releases.iter().map(|file| file_bytes(&backend.state.join(file))).sum();
    status
}

fn checkpoint_bytes(tree: &Tree) -> u64 {
    let usable = tree.checkpoints().values().filter(|checkpoint| checkpoint.is_usable());
    usable.map(|checkpoint| checkpoint.bytes).sum()
}

fn release_files(tree: &Tree) -> Vec<PathBuf> {
    let releases = tree.releases().values().map(|published| &published.release);
    releases
        .flat_map(|release| release.files.keys().map(|file| FilePath::new(&release.folder).join(file)))
        .collect()
}

fn file_bytes(path: &FilePath) -> u64 {
    path.symlink_metadata().map_or(0, |metadata| metadata.len())
}

async fn tree(State(shared): State<Shared>) -> Answer<TreeView> {
    let view = |backend: &Backend| {
        let (tree, progress) = backend.at_one_moment(|tree, progress| (tree.clone(), progress.clone()));
        TreeView {
            position: tree.position(),
            digest: tree.digest(),
            paradigms: answers::branches(&tree, &progress),
        }
    };
    reading(&shared, view).await
}

async fn versions(State(shared): State<Shared>) -> Answer<Vec<super::types::VersionDetail>> {
    reading(&shared, |backend| backend.at_one_moment(answers::versions)).await
}

async fn shards(State(shared): State<Shared>) -> Answer<super::types::Shards> {
    let files = |backend: &Backend| {
        let waiting = backend.live.waiting();
        backend.ledger.read(|tree| answers::shards(tree, waiting))
    };
    reading(&shared, files).await
}

async fn jobs(State(shared): State<Shared>) -> Answer<Vec<super::types::JobDetail>> {
    reading(&shared, |backend| backend.at_one_moment(answers::jobs)).await
}

/// `?follow`, `?follow=true`, `?follow=1`.
fn is_set(flag: &Option<String>) -> bool {
    flag.as_ref().is_some_and(|value| !matches!(value.as_str(), "0" | "false"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogAsked {
    attempt: Option<u32>,
    follow: Option<String>,
}

async fn log(
    State(shared): State<Shared>,
    job: Result<Path<JobNumber>, PathRejection>,
    asked: Result<Query<LogAsked>, QueryRejection>,
) -> Result<Response, Refused> {
    let (Path(job), Query(asked)) = (job?, asked?);
    let last = shared.backend.ledger.read(|tree| tree.attempt(job).map(|last| last.start.attempt));
    let no_such = |what: String| Refused::new(StatusCode::NOT_FOUND, "not-found", what);
    let last =
        last.ok_or_else(|| no_such(format!("there is no job {job}")).hint("`lrpathctl jobs` lists them"))?;
    let attempt = asked.attempt.unwrap_or(last);
    if !(1..=last).contains(&attempt) {
        return Err(no_such(format!("job {job} has no attempt {attempt}")));
    }
    let body = stream::log(shared, job, attempt, is_set(&asked.follow));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsAsked {
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
    follow: Option<String>,
}

async fn events(
    State(shared): State<Shared>,
    asked: Result<Query<EventsAsked>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(asked) = asked?;
    let lines = [(header::CONTENT_TYPE, "application/x-ndjson")];
    if is_set(&asked.follow) {
        return Ok((lines, stream::events(shared, asked.after)).into_response());
    }
    let limit = asked.limit.unwrap_or(MOST_RECORDS).min(MOST_RECORDS);
    let records =
        blocking(&shared.backend, move |backend| backend.ledger.records(asked.after, limit)).await??;
    Ok((lines, Body::from(stream::lines(&records))).into_response())
}

async fn cut_outcome(
    State(shared): State<Shared>,
    cut: Result<Path<CutNumber>, PathRejection>,
    asked: Result<Query<WaitAsked>, QueryRejection>,
) -> Answer<CutAnswer> {
    let (Path(cut), Query(asked)) = (cut?, asked?);
    let none = || Refused::new(StatusCode::NOT_FOUND, "not-found", format!("there is no cut {cut}"));
    let look = |tree: &Tree| answers::cut(tree, cut).ok_or_else(none);
    waiting(shared, asked, look, |answer| answer.outcome == CutOutcome::Waiting).await
}

async fn cut(State(shared): State<Shared>, bytes: Result<Bytes, BytesRejection>) -> Answer<CutAnswer> {
    let asked: CutAsked = body(bytes)?;
    let request = move |backend: &Backend| {
        let number = backend.live.request_cut(asked.name)?;
        backend
            .ledger
            .read(|tree| answers::cut(tree, number))
            .ok_or_else(|| format!("cut {number} is not journalled"))
    };
    let asked = blocking(&shared.backend, request).await?;
    asked.map(axum::Json).map_err(|reason| Refused::new(StatusCode::CONFLICT, "refused", reason))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainAsked {
    what: String,
    paradigm: Option<Paradigm>,
}

async fn explained(
    State(shared): State<Shared>,
    asked: Result<Query<ExplainAsked>, QueryRejection>,
) -> Answer<Explained> {
    let Query(asked) = asked?;
    let explained =
        blocking(&shared.backend, move |backend| explain::explain(backend, &asked.what, asked.paradigm))
            .await?;
    Ok(axum::Json(explained?))
}

async fn pause(State(shared): State<Shared>) -> Answer<PauseAnswer> {
    set_paused(&shared, true).await
}

async fn resume(State(shared): State<Shared>) -> Answer<PauseAnswer> {
    set_paused(&shared, false).await
}

async fn set_paused(shared: &Shared, paused: bool) -> Answer<PauseAnswer> {
    let commit = move |backend: &Backend| {
        backend.ledger.commit_with(|tree| {
            let changed = tree.run().paused != paused;
            let transition = if paused { Transition::Paused } else { Transition::Resumed };
            (changed.then_some(transition).into_iter().collect(), changed)
        })
    };
    let (_, changed) = blocking(&shared.backend, commit).await??;
    Ok(axum::Json(PauseAnswer { paused, changed }))
}

async fn withdraw(
    State(shared): State<Shared>,
    bytes: Result<Bytes, BytesRejection>,
) -> Answer<WithdrawAnswer> {
    let asked: WithdrawAsked = body(bytes)?;
    let commit = move |backend: &Backend| {
        backend.ledger.commit_with(|tree| match withdrawal::judge(tree, &asked.shard, asked.rewind) {
            Ok(withdrawal) => (vec![withdrawal.transition()], Ok(answers::withdrawn(tree, &withdrawal))),
            Err(refusal) => (Vec::new(), Err(refusal)),
        })
    };
    let (_, answer) = blocking(&shared.backend, commit).await??;
    Ok(axum::Json(answer?))
}
