//! The routes that measure a public version on more increments than its own.
//!
//! What is known already is not measured again: the same weights on the same blocks give the same loss. What is not is
//! journalled as asked for, and a job measures it when a slot is free.

use std::collections::BTreeSet;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use paradigm::Paradigm;

use super::Backend;
use super::describe::NamedParadigm;
use super::refused::Refused;
use super::shared::{Answer, Shared, WaitAsked, blocking, body, waiting};
use super::types::{EvaluationAnswer, EvaluationAsked};
use super::upkeep::{increment, paradigm_of};
use crate::ledger::path::Version;
use crate::ledger::transition::Transition;
use crate::ledger::tree::Tree;

/// Asks for held-out losses of a public version.
#[utoipa::path(
    post,
    path = "/v1/evaluations",
    operation_id = "evaluate",
    request_body = EvaluationAsked,
    responses((status = 200, description = "The answer.", body = EvaluationAnswer))
)]
pub(super) async fn ask(
    State(shared): State<Shared>,
    bytes: Result<Bytes, BytesRejection>,
) -> Answer<EvaluationAnswer> {
    let asked: EvaluationAsked = body(bytes)?;
    let commit = move |backend: &Backend| {
        let (_, answer) = backend.ledger.commit_with(|tree| match judge(tree, &asked) {
            Ok(transition) => (transition.into_iter().collect(), Ok(())),
            Err(refused) => (Vec::new(), Err(refused)),
        })?;
        answer?;
        backend.ledger.read(|tree| answer_of(tree, asked.paradigm, asked.version))
    };
    blocking(&shared.backend, commit).await?.map(axum::Json)
}

/// What is known of a version's held-out losses.
#[utoipa::path(
    get,
    path = "/v1/evaluations/{paradigm}/{version}",
    operation_id = "evaluations",
    params(
        ("paradigm" = NamedParadigm, Path, description = "Whose version."),
        ("version" = u32, Path, description = "The version."),
        ("wait" = Option<u64>, Query, description = "Seconds to wait for what is pending, 30 at most."),
    ),
    responses((status = 200, description = "The answer.", body = EvaluationAnswer))
)]
pub(super) async fn known(
    State(shared): State<Shared>,
    of: Result<Path<(Paradigm, Version)>, PathRejection>,
    asked: Result<Query<WaitAsked>, QueryRejection>,
) -> Answer<EvaluationAnswer> {
    let (Path((paradigm, version)), Query(asked)) = (of?, asked?);
    let look = |tree: &Tree| answer_of(tree, Some(paradigm), version);
    waiting(shared, asked, look, |answer| !answer.pending.is_empty()).await
}

/// What is to be journalled, if anything is not known yet.
fn judge(tree: &Tree, asked: &EvaluationAsked) -> Result<Option<Transition>, Refused> {
    let (paradigm, version) = (paradigm_of(tree, asked.paradigm)?, asked.version);
    let step = increment(tree, version)?.end;
    let refused = |code: &str, error: String| Refused::new(StatusCode::CONFLICT, code, error);
    if !tree.releases().contains_key(&(paradigm, version)) {
        let state = tree.version_state(paradigm, version);
        let error = format!("version {version} of {paradigm} is {state}: only what is public is evaluated");
        return Err(refused("not-evaluated", error));
    }
    for on in &asked.on {
        increment(tree, *on)?;
        if !tree.stands(*on) {
            let error = format!("increment {on} was taken back by a rewind: there is nothing to evaluate on");
            return Err(refused("not-evaluated", error));
        }
    }
    let path = tree.version_path(paradigm, version);
    let wanted: BTreeSet<Version> = match asked.on.is_empty() {
        true => tree.standing().map(|increment| increment.version).collect(),
        false => asked.on.iter().copied().collect(),
    };
    let pending = tree.asked().get(&(paradigm, version));
    let is_new = |on: &Version| {
        tree.evaluation(path, step, *on).is_none() && pending.is_none_or(|pending| !pending.contains(on))
    };
    let increments: Vec<Version> = wanted.into_iter().filter(is_new).collect();
    Ok((!increments.is_empty()).then_some(Transition::EvaluationAsked { paradigm, version, increments }))
}

fn answer_of(tree: &Tree, paradigm: Option<Paradigm>, version: Version) -> Result<EvaluationAnswer, Refused> {
    let paradigm = paradigm_of(tree, paradigm)?;
    let step = increment(tree, version)?.end;
    let path = tree.version_path(paradigm, version);
    let measuring = tree.path(&tree.evaluation_path(paradigm, version));
    Ok(EvaluationAnswer {
        paradigm,
        version,
        step,
        evaluations: tree.evaluations(path, step).to_vec(),
        pending: tree.asked().get(&(paradigm, version)).into_iter().flatten().copied().collect(),
        failed: measuring.and_then(|state| state.failed.clone()),
    })
}
