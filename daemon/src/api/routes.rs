//! The routes: each reads the tree, or commits what was asked.
//!
//! Everything that may block runs on a thread for blocking work, so that a slow disk holds up one request and not the
//! socket.

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use paradigm::Paradigm;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::describe::NamedParadigm;
use super::refused::Refused;
use super::shared::{Answer, Shared, WaitAsked, blocking, body, reading, waiting};
use super::types::{
    Curve, CurvePoint, CutAnswer, CutAsked, DrainAnswer, Explained, JobDetail, PauseAnswer, ReloadAnswer,
    Shards, Status, TreeView, VersionDetail, WithdrawAnswer, WithdrawAsked,
};
use super::{Backend, answers, evaluations, explain, live, metrics, status, stream, upkeep};
use crate::ledger::transition::{CutNumber, JobNumber, Record, Transition};
use crate::ledger::tree::{CutOutcome, Tree};
use crate::publish::curve;
use crate::withdrawal;

/// Records that one answer holds at most.
const MOST_RECORDS: usize = 1000;

/// All routes, and their description.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(tree))
        .routes(routes!(versions))
        .routes(routes!(shards))
        .routes(routes!(jobs))
        .routes(routes!(log))
        .routes(routes!(curve))
        .routes(routes!(live::live))
        .routes(routes!(events))
        .routes(routes!(cut_outcome))
        .routes(routes!(cut))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(drain))
        .routes(routes!(reload))
        .routes(routes!(upkeep::retry))
        .routes(routes!(upkeep::cancel))
        .routes(routes!(evaluations::ask))
        .routes(routes!(evaluations::known))
        .routes(routes!(upkeep::gc))
        .routes(routes!(upkeep::aliases, upkeep::alias))
        .routes(routes!(withdraw))
        .routes(routes!(explained))
        .routes(routes!(metrics::metrics))
}

/// What the daemon does, and how far everything is.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, description = "The answer.", body = Status))
)]
async fn status(State(shared): State<Shared>) -> Answer<Status> {
    reading(&shared, status::of).await
}

/// The version tree.
#[utoipa::path(
    get,
    path = "/v1/tree",
    responses((status = 200, description = "The answer.", body = TreeView))
)]
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

/// All versions.
#[utoipa::path(
    get,
    path = "/v1/versions",
    responses((status = 200, description = "The answer.", body = Vec<VersionDetail>))
)]
async fn versions(State(shared): State<Shared>) -> Answer<Vec<VersionDetail>> {
    reading(&shared, |backend| backend.at_one_moment(answers::versions)).await
}

/// All files that are known, in the watched folder and taken.
#[utoipa::path(
    get,
    path = "/v1/shards",
    params(("last" = Option<usize>, Query, description = "Only so many of each list, the last ones; all if not given.")),
    responses((status = 200, description = "The answer.", body = Shards))
)]
async fn shards(
    State(shared): State<Shared>,
    asked: Result<Query<ShardsAsked>, QueryRejection>,
) -> Answer<Shards> {
    let Query(asked) = asked?;
    let most = asked.last.unwrap_or(usize::MAX);
    let files = move |backend: &Backend| {
        let waiting = backend.live.waiting();
        backend.ledger.read(|tree| answers::shards(tree, waiting, most))
    };
    reading(&shared, files).await
}

/// All jobs with their attempts.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    responses((status = 200, description = "The answer.", body = Vec<JobDetail>))
)]
async fn jobs(State(shared): State<Shared>) -> Answer<Vec<JobDetail>> {
    reading(&shared, |backend| backend.at_one_moment(answers::jobs)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardsAsked {
    last: Option<usize>,
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

/// What an attempt wrote on standard error.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/log",
    params(
        ("job" = u64, Path, description = "The job's number."),
        ("attempt" = Option<u32>, Query, description = "The attempt; the last one if not given."),
        ("follow" = Option<bool>, Query, description = "Go on while it runs."),
    ),
    responses((status = 200, description = "The text.", body = String, content_type = "text/plain; charset=utf-8"))
)]
async fn log(
    State(shared): State<Shared>,
    job: Result<Path<JobNumber>, PathRejection>,
    asked: Result<Query<LogAsked>, QueryRejection>,
) -> Result<Response, Refused> {
    let (Path(job), Query(asked)) = (job?, asked?);
    let last = shared.backend.ledger.read(|tree| tree.attempt(job).map(|last| last.start.attempt));
    let last = last.ok_or_else(|| no_such_job(job))?;
    let attempt = asked.attempt.unwrap_or(last);
    if !(1..=last).contains(&attempt) {
        let error = format!("job {job} has no attempt {attempt}");
        return Err(Refused::new(StatusCode::NOT_FOUND, "not-found", error));
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

/// The losses and learning rates of a job, all its attempts', with at most some hundred points.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/curve",
    params(("job" = u64, Path, description = "The job's number.")),
    responses((status = 200, description = "The answer.", body = Curve))
)]
async fn curve(State(shared): State<Shared>, job: Result<Path<JobNumber>, PathRejection>) -> Answer<Curve> {
    let Path(job) = job?;
    let known = shared.backend.ledger.read(|tree| tree.jobs().get(&job).cloned());
    let known = known.ok_or_else(|| no_such_job(job))?;
    let _reading = shared.reading.acquire().await;
    let points = blocking(&shared.backend, move |backend| {
        curve::of(&curve::said_of(&backend.state.join("jobs"), &known))
    });
    let point = |point: curve::Point| CurvePoint {
        step: point.step,
        loss: point.loss,
        learning_rate: point.learning_rate,
    };
    Ok(axum::Json(Curve { job, points: points.await?.into_iter().map(point).collect() }))
}

fn no_such_job(job: JobNumber) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not-found", format!("there is no job {job}"))
        .hint("`lrpathctl jobs` lists them")
}

/// The journal's records, one JSON object a line.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(
        ("after" = Option<u64>, Query, description = "The position behind which the records begin."),
        ("limit" = Option<usize>, Query, description = "Records at most; 1000 if not given, and never more."),
        ("follow" = Option<bool>, Query, description = "Go on with those that come."),
    ),
    responses((status = 200, description = "The records.", body = Record, content_type = "application/x-ndjson"))
)]
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

/// What became of a request to cut.
#[utoipa::path(
    get,
    path = "/v1/cuts/{cut}",
    params(
        ("cut" = u64, Path, description = "The request's number."),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for what is undecided, 30 at most."),
    ),
    responses((status = 200, description = "The answer.", body = CutAnswer))
)]
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

/// Asks for a cut: the open increment becomes a version.
#[utoipa::path(
    post,
    path = "/v1/cut",
    request_body = CutAsked,
    responses((status = 200, description = "The answer.", body = CutAnswer))
)]
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

/// Why something is as it is.
#[utoipa::path(
    get,
    path = "/v1/explain",
    params(
        ("what" = String, Query, description = "A version, a shard or a checkpoint."),
        ("paradigm" = Option<NamedParadigm>, Query, description = "Whose version; the first one's if not given."),
    ),
    responses((status = 200, description = "The answer.", body = Explained))
)]
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

/// Trainers save and stop, and none is started.
#[utoipa::path(
    post,
    path = "/v1/pause",
    responses((status = 200, description = "The answer.", body = PauseAnswer))
)]
async fn pause(State(shared): State<Shared>) -> Answer<PauseAnswer> {
    set_paused(&shared, true).await
}

/// Nothing new is started; trainers go on to their ends.
#[utoipa::path(
    post,
    path = "/v1/drain",
    responses((status = 200, description = "The answer.", body = DrainAnswer))
)]
async fn drain(State(shared): State<Shared>) -> Answer<DrainAnswer> {
    let commit = |backend: &Backend| {
        backend.ledger.commit_with(|tree| {
            let changed = !tree.run().draining;
            let running = tree.running().map(|(job, _)| job).collect();
            let transition = changed.then_some(Transition::Draining);
            (transition.into_iter().collect(), DrainAnswer { draining: true, changed, running })
        })
    };
    let (_, answer) = blocking(&shared.backend, commit).await??;
    Ok(axum::Json(answer))
}

/// The configuration is read again, and holds from now on; what is fixed for the life of a state is refused.
#[utoipa::path(
    post,
    path = "/v1/reload",
    responses((status = 200, description = "The answer.", body = ReloadAnswer))
)]
async fn reload(State(shared): State<Shared>) -> Answer<ReloadAnswer> {
    let answer = blocking(&shared.backend, |backend| backend.reload.reload()).await?;
    answer.map(axum::Json).map_err(|refusal| Refused::from_refusal(StatusCode::CONFLICT, refusal))
}

/// Ends a pause, and a drain.
#[utoipa::path(
    post,
    path = "/v1/resume",
    responses((status = 200, description = "The answer.", body = PauseAnswer))
)]
async fn resume(State(shared): State<Shared>) -> Answer<PauseAnswer> {
    set_paused(&shared, false).await
}

async fn set_paused(shared: &Shared, paused: bool) -> Answer<PauseAnswer> {
    let commit = move |backend: &Backend| {
        backend.ledger.commit_with(|tree| {
            let changed = tree.run().paused != paused || !paused && tree.run().draining;
            let transition = if paused { Transition::Paused } else { Transition::Resumed };
            (changed.then_some(transition).into_iter().collect(), changed)
        })
    };
    let (_, changed) = blocking(&shared.backend, commit).await??;
    Ok(axum::Json(PauseAnswer { paused, changed }))
}

/// Takes a shard out of the stream.
#[utoipa::path(
    post,
    path = "/v1/withdraw",
    request_body = WithdrawAsked,
    responses((status = 200, description = "The answer.", body = WithdrawAnswer))
)]
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
