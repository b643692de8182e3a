mod description;
mod live;
mod metrics;
mod tcp;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use paradigm::Paradigm::{Continual, FromScratch, PathSwitching};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::fixture::World;
use super::types::Steps;
use super::*;
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::{CutReason, CutSource, Evaluation, Outcome, Transition};

fn steps(world: &World, paradigm: paradigm::Paradigm) -> Steps {
    world.backend().at_one_moment(|tree, progress| counters::steps(tree, paradigm, progress))
}

#[test]
fn four_versions_cost_what_the_plan_says() {
    let mut world = World::new(&[PathSwitching, FromScratch, Continual]);
    assert_eq!(steps(&world, PathSwitching), Steps::default());
    for version in 1..=4 {
        world.cut(10_000, &format!("v{version}"));
        for paradigm in [PathSwitching, FromScratch, Continual] {
            world.make(paradigm, version);
            let sizes = vec![10_000; version as usize];
            let planned = paradigm::Report::new(&sizes, 0.6).unwrap();
            let counted = steps(&world, paradigm);
            assert_eq!(counted.executed, planned.part(paradigm).steps, "{paradigm} at version {version}");
            assert_eq!(counted.ratio, Some(planned.part(paradigm).ratio), "{paradigm} at version {version}");
            assert_eq!((counted.repeated, counted.ahead), (0, 0));
        }
    }
    let counted = steps(&world, PathSwitching);
    assert_eq!((counted.main, counted.branch, counted.from_scratch), (34_000, 24_000, Some(100_000)));
    assert_eq!(steps(&world, FromScratch).scratch, 100_000);
    let continual = steps(&world, Continual);
    assert_eq!((continual.scratch, continual.continual), (10_000, 30_000));
}

#[test]
fn steps_are_executed_repeated_or_ahead() {
    let mut world = World::new(&[PathSwitching]);
    let main = world.main();
    let job = world.start(main, None, 1000, None);
    let live = |attempt, step, steps_done| Progress { attempt, step, steps_done, ..Progress::default() };
    *world.live.progress.lock().unwrap() = BTreeMap::from([(job, live(1, 300, 300))]);
    let counted = steps(&world, PathSwitching);
    assert_eq!((counted.ahead, counted.main, counted.executed), (300, 0, 0), "nothing is cut yet");
    assert_eq!((counted.from_scratch, counted.ratio), (None, None));

    // It dies at 450, with a checkpoint at 400; what was said of it last is not counted beside the tree.
    world.save(main, 400);
    world.end(job, 1, Outcome::Crashed { message: "signal 9".into() }, 450);
    assert_eq!(steps(&world, PathSwitching).ahead, 450);
    world.attempt(job, 2, main, None, 1000, None);
    assert_eq!(steps(&world, PathSwitching).ahead, 450, "the first attempt's words are not the second's");
    *world.live.progress.lock().unwrap() = BTreeMap::from([(job, live(2, 430, 30))]);
    let counted = steps(&world, PathSwitching);
    assert_eq!((counted.ahead, counted.repeated), (450, 30));
    *world.live.progress.lock().unwrap() = BTreeMap::from([(job, live(2, 600, 200))]);
    let counted = steps(&world, PathSwitching);
    assert_eq!((counted.ahead, counted.repeated), (600, 50));

    // T = 1000, D = 600, B = 400.
    world.cut(1000, "first");
    let counted = steps(&world, PathSwitching);
    assert_eq!((counted.main, counted.ahead, counted.repeated, counted.executed), (400, 200, 50, 400));
    let branch = world.path(PathSwitching, 1);
    let point = CheckpointKey { path: main, step: 400 };
    let own = world.start(branch, Some(1), 1000, Some(point));
    world.live.progress.lock().unwrap().insert(own, live(1, 410, 10));
    let counted = steps(&world, PathSwitching);
    assert_eq!((counted.branch, counted.executed, counted.ahead, counted.repeated), (10, 410, 200, 50));
    let said: u64 = 450 + 200 + 10;
    assert_eq!(counted.executed + counted.ahead + counted.repeated, said);
}

#[test]
fn a_version_that_is_left_out_costs_nothing_on_the_way_to_the_others() {
    let mut world = World::new(&[PathSwitching]);
    for version in 1..=3 {
        world.cut(100, &format!("v{version}"));
    }
    world.make(PathSwitching, 3);
    let counted = steps(&world, PathSwitching);
    assert_eq!((counted.main, counted.branch), (240, 60));
    assert_eq!((counted.from_scratch, counted.ratio), (Some(300), Some(1.0)));
}

#[test]
fn what_a_rewind_leaves_behind_was_done_in_vain() {
    let mut world = World::new(&[PathSwitching]);
    world.accept("a.txt", 150_000_000);
    world.cut(1000, "first");
    world.make(PathSwitching, 1);
    world.accept("wrong.txt", 4_000_000);
    world.cut(1000, "second");
    world.make(PathSwitching, 2);
    world.train(world.main(), None, 1700, None, 2000);
    let before = steps(&world, PathSwitching);
    assert_eq!((before.main, before.branch, before.ahead, before.repeated), (1400, 1200, 300, 0));

    let withdrawal = world.ledger.read(|tree| crate::withdrawal::judge(tree, "wrong.txt", true)).unwrap();
    let kept = withdrawal.step;
    assert!((1000..1400).contains(&kept), "{kept}");
    world.commit(withdrawal.transition());
    let after = steps(&world, PathSwitching);
    // The last branch point that stands is 400; what lies between it and the rewind is ahead again.
    assert_eq!((after.main, after.branch, after.ahead, after.repeated), (400, 1200, kept - 400, 1700 - kept));
    assert_eq!(
        (after.from_scratch, after.ratio),
        (Some(1000), Some(1.0)),
        "version 2 is no part of the comparison"
    );

    world.cut(1000, "third");
    world.make(PathSwitching, 3);
    let last = steps(&world, PathSwitching);
    // The main path went on from the checkpoint at 400.
    assert_eq!((last.main, last.branch, last.ahead, last.repeated), (1400, 1800, 0, 1700 - 400));
    assert_eq!((last.from_scratch, last.ratio), (Some(3000), Some(2600.0 / 3000.0)));
    assert_eq!(last.executed + last.repeated, 400 + 1000 + 300 + 1000 + 3 * 600);
}

#[test]
fn the_tree_is_the_one_that_the_progress_belongs_to() {
    let mut world = World::new(&[PathSwitching]);
    let job = world.start(world.main(), None, 1000, None);
    let live = Progress { attempt: 1, step: 300, steps_done: 300, ..Progress::default() };
    world.live.progress.lock().unwrap().insert(job, live);
    let mut backend = world.backend();
    // Another look at the ledger would find another tree: here, one in which no job was ever started.
    backend.ledger = World::new(&[PathSwitching]).ledger;
    let counted = backend.at_one_moment(|tree, progress| counters::steps(tree, PathSwitching, progress));
    assert_eq!(counted.ahead, 300);
}

#[test]
fn all_refused_markers_are_told_until_they_are_gone_or_an_increment_is_closed() {
    let world = World::new(&[PathSwitching]);
    let request = |file: Option<&str>| {
        let source = match file {
            Some(file) => CutSource::Marker { file: file.to_owned(), inode: 7, mtime: 1 },
            None => CutSource::Command,
        };
        world.commit(Transition::CutRequested { name: None, source, waits_for: Vec::new() })
    };
    let lies_there = |cut| world.live.markers.lock().unwrap().insert(cut);
    let refuse = |cut, reason: &str| world.commit(Transition::CutRefused { cut, reason: reason.to_owned() });
    let told = || {
        let markers = world.live.markers();
        let told = world.ledger.read(|tree| answers::refused_markers(tree, &markers));
        told.into_iter().map(|marker| format!("{}: {}", marker.file, marker.reason)).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    refuse(request(None), "too small");
    assert_eq!(told(), nothing, "whoever gave a command has read the answer");
    let spring = request(Some("spring.cut"));
    lies_there(spring);
    assert_eq!(told(), nothing, "it is not decided");
    refuse(spring, "a used name");
    let summer = request(Some("summer.cut"));
    lies_there(summer);
    refuse(summer, "too small");
    refuse(request(None), "too small");
    assert_eq!(told(), ["spring.cut: a used name", "summer.cut: too small"]);
    world.live.markers.lock().unwrap().remove(&spring);
    assert_eq!(told(), ["summer.cut: too small"], "the other one was taken away");
    // It is asked for before an increment is closed by its tokens, and refused after it.
    let autumn = request(Some("autumn.cut"));
    lies_there(autumn);
    world.cut_for(100, "v1", CutReason::Tokens);
    assert_eq!(told(), nothing, "what it stood in the way of has come");
    refuse(autumn, "too small");
    assert_eq!(told(), ["autumn.cut: too small"]);
    let cut = request(None);
    world.cut_for(100, "v2", CutReason::Request { cut });
    assert_eq!(told(), nothing);
}

/// A daemon's API on a socket of its own.
struct Served {
    folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    fn new(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut backend = world.backend();
        backend.state = folder.path().to_owned();
        let socket = Socket::bind(&folder.path().join("control.sock")).unwrap();
        let (stop, stopping) = watch::channel(false);
        let server = tokio::spawn(serve(Arc::new(socket), Arc::new(backend), stopping));
        Self { folder, stop, server }
    }

    /// Sends bytes and reads to the end.
    async fn send(&self, request: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.folder.path().join("control.sock")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server that refuses to read on resets the connection after its answer.
        let read = stream.read_to_end(&mut answer).await;
        assert!(read.is_ok() || !answer.is_empty());
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        let (status, text) = self.send(&format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_has_the_fields_that_scripts_read() {
    let mut world = World::new(&[PathSwitching, Continual]);
    world.accept("a.txt", 40_000);
    world.cut(10_000, "january");
    world.make(PathSwitching, 1);
    let served = Served::new(&world);
    let (code, status) = served.ask("GET", "/v1/status", "").await;
    assert_eq!(code, 200);
    let switching = &status["paradigms"]["path-switching"];
    assert_eq!(
        switching["steps"],
        json!({"main": 4000, "branch": 6000, "scratch": 0, "continual": 0, "executed": 10_000, "repeated": 0,
               "ahead": 0, "from_scratch": 10_000, "ratio": 1.0})
    );
    assert_eq!(
        switching["versions"],
        json!([
            {"number": 1, "name": "january", "state": "released", "alpha": 0.6, "branch_point": 4000,
             "decay_steps": 6000, "release": "releases/v1", "saw_withdrawn": []},
            {"number": 2, "name": null, "state": "open", "alpha": null, "branch_point": null,
             "decay_steps": null, "release": null, "saw_withdrawn": []},
        ])
    );
    let continual = &status["paradigms"]["continual"];
    assert_eq!(continual["steps"]["ratio"], Value::Null);
    assert_eq!(continual["versions"][0]["state"], "cut");
    assert_eq!(status["shards"], json!({"waiting": 0, "accepted": 1, "rejected": 0, "withdrawn": 0}));
    assert_eq!(status["slots"], json!([{"name": "cpu", "devices": ["cpu"], "job": null, "missing": null}]));
    assert_eq!(status["disk"]["checkpoints"], 48_000_000 * 3);
    assert!(status["disk"]["free"].as_u64().is_some_and(|free| free > 0));
    assert_eq!((&status["doing"], &status["until"]), (&json!("waits for shards"), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_the_first_of_the_files_that_cannot_be_taken() {
    let world = World::new(&[PathSwitching]);
    let file = |number: u64| crate::api::types::WaitingFile {
        name: format!("{number:02}.txt"),
        bytes: number,
        since: 7,
        why: "it may not be read".to_owned(),
        changes: 0,
        blocked: number > 0,
    };
    *world.live.waiting.lock().unwrap() = (0..30).map(file).collect();
    let served = Served::new(&world);
    let (_, status) = served.ask("GET", "/v1/status", "").await;
    assert_eq!((&status["shards"]["waiting"], &status["blocked"]["count"]), (&json!(30), &json!(29)));
    let first = status["blocked"]["first"].as_array().unwrap();
    assert_eq!(first.len(), 16);
    assert_eq!(
        first[0],
        json!({"name": "01.txt", "bytes": 1, "since": 7, "why": "it may not be read", "changes": 0, "blocked": true})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_tells_how_far_it_is_and_until_when() {
    let mut world = World::new(&[PathSwitching]);
    let job = world.start(world.main(), None, 1000, None);
    let now = world.backend().clock.now();
    let progress = Progress {
        attempt: 1,
        step: 100,
        steps_done: 100,
        loss: Some(4.5),
        first_event_at: Some(now - 10_000),
        last_event_at: Some(now),
        ..Progress::default()
    };
    world.live.progress.lock().unwrap().insert(job, progress);
    let served = Served::new(&world);
    let (_, status) = served.ask("GET", "/v1/status", "").await;
    assert_eq!(status["doing"], "trains the main path ahead, step 100 of 1000");
    assert_eq!(status["until"], now + 90_000);
    assert_eq!(status["jobs"][0]["loss"], 4.5);
    assert_eq!(status["slots"][0]["job"], job);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_journalled_once() {
    let world = World::new(&[PathSwitching]);
    let served = Served::new(&world);
    assert_eq!(served.ask("POST", "/v1/pause", "").await.1, json!({"paused": true, "changed": true}));
    let position = world.ledger.read(|tree| tree.position());
    assert_eq!(served.ask("POST", "/v1/pause", "").await.1, json!({"paused": true, "changed": false}));
    assert_eq!(world.ledger.read(|tree| tree.position()), position);
    assert_eq!(served.ask("POST", "/v1/resume", "").await.1, json!({"paused": false, "changed": true}));

    let (code, cut) = served.ask("POST", "/v1/cut", r#"{"name": "june"}"#).await;
    assert_eq!((code, &cut["outcome"]["kind"]), (200, &json!("waiting")));
    let (code, again) = served.ask("POST", "/v1/cut", r#"{"name": "june"}"#).await;
    assert_eq!(
        (code, again),
        (409, json!({"error": "the name june is taken", "cause": null, "hint": null, "code": "refused"}))
    );
    let number = cut["cut"].as_u64().unwrap();

    let asked = format!("/v1/cuts/{number}?wait=30");
    let (decided, ()) = tokio::join!(served.ask("GET", &asked, ""), async {
        world.commit(Transition::CutRefused { cut: number, reason: "there is nothing".into() });
    });
    assert_eq!(decided.1["outcome"], json!({"kind": "refused", "reason": "there is nothing", "open": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_version_is_not_measured_again() {
    let mut world = World::new(&[PathSwitching]);
    world.accept("all.txt", 150_000_000);
    for (name, version) in [("january", 1), ("february", 2), ("march", 3)] {
        world.cut(1000, name);
        if version < 3 {
            world.make(PathSwitching, version);
        }
    }
    let served = Served::new(&world);
    let (code, own) = served.ask("POST", "/v1/evaluations", r#"{"version": 2, "on": [1, 2]}"#).await;
    assert_eq!((code, &own["pending"]), (200, &json!([])));
    assert_eq!(own["evaluations"].as_array().unwrap().len(), 2);

    let (code, refused) = served.ask("POST", "/v1/evaluations", r#"{"version": 3}"#).await;
    assert_eq!(code, 409);
    assert_eq!(refused["error"], "version 3 of path-switching is cut: only what is public is evaluated");
    assert_eq!(served.ask("POST", "/v1/evaluations", r#"{"version": 9}"#).await.0, 404);
    assert_eq!(served.ask("POST", "/v1/evaluations", r#"{"version": 1, "on": [4]}"#).await.0, 404);

    let (_, asked) = served.ask("POST", "/v1/evaluations", r#"{"version": 1}"#).await;
    assert_eq!(asked["pending"], json!([2, 3]));
    let position = world.ledger.read(|tree| tree.position());
    assert_eq!(served.ask("POST", "/v1/evaluations", r#"{"version": 1, "on": [3]}"#).await.1, asked);
    assert_eq!(world.ledger.read(|tree| tree.position()), position, "it is asked for once");

    let path = world.path(PathSwitching, 1);
    let (answer, ()) =
        tokio::join!(served.ask("GET", "/v1/evaluations/path-switching/1?wait=30", ""), async {
            for increment in [2, 3] {
                let evaluation = Evaluation {
                    increment,
                    loss: 4.0,
                    perplexity: 4.0_f64.exp(),
                    bits_per_byte: None,
                    tokens: 9,
                };
                world.commit(Transition::Evaluated { path, step: 1000, evaluation });
            }
        });
    assert_eq!(answer.1["pending"], json!([]));
    assert_eq!(answer.1["evaluations"][2]["loss"], 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_has_failed_is_tried_again() {
    let mut world = World::new(&[PathSwitching]);
    world.cut(100, "v1");
    let main = world.main();
    let served = Served::new(&world);
    let retry = |body: &'static str| served.ask("POST", "/v1/retry", body);
    let (code, refused) = retry(r#"{"version": 1}"#).await;
    assert_eq!((code, &refused["code"]), (409, &json!("not-failed")));
    assert_eq!(refused["error"], "version 1 of path-switching has not failed: it is cut");
    assert_eq!(retry(r#"{"version": 9}"#).await.0, 404);
    assert_eq!(retry(r#"{"paradigm": "continual", "version": 1}"#).await.0, 409);

    let job = world.start(main, Some(1), 40, None);
    world.end(job, 1, Outcome::Crashed { message: "gone".into() }, 3);
    world.commit(Transition::PathFailed { path: main, reason: "gone".into() });
    assert_eq!(retry(r#"{"version": 1}"#).await, (200, json!({"path": "path-switching.main.g1"})));
    assert_eq!(retry("").await.0, 409, "the main path has not failed any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_cancelled_is_not_made_until_it_is_wanted_after_all() {
    let mut world = World::new(&[PathSwitching]);
    world.cut(100, "v1");
    world.make(PathSwitching, 1);
    world.cut(100, "v2");
    world.start(world.main(), Some(2), 140, None);
    let served = Served::new(&world);
    let state = || world.ledger.read(|tree| tree.version_state(PathSwitching, 2).to_string());
    let (code, refused) = served.ask("POST", "/v1/cancel", r#"{"version": 1}"#).await;
    assert_eq!(code, 409);
    assert_eq!(refused["error"], "version 1 of path-switching is released: there is nothing to cancel");
    let (code, refused) = served.ask("POST", "/v1/cancel", r#"{"version": 3}"#).await;
    assert_eq!((code, &refused["error"]), (404, &json!("there is no version 3")));
    assert_eq!(refused["hint"], "the last one is 2; `lrpathctl versions` lists them");
    let (code, refused) = served.ask("POST", "/v1/cancel", "").await;
    assert_eq!((code, &refused["error"]), (409, &json!("no request to cut is waiting")));

    let cancelled = served.ask("POST", "/v1/cancel", r#"{"version": 2}"#).await;
    let expected = json!({"kind": "version", "paradigm": "path-switching", "version": 2, "running": true});
    assert_eq!(cancelled, (200, expected));
    assert_eq!(state(), "cancelled");
    let position = world.ledger.read(|tree| tree.position());
    assert_eq!(served.ask("POST", "/v1/cancel", r#"{"version": 2}"#).await.0, 409);
    assert_eq!(world.ledger.read(|tree| tree.position()), position, "nothing was journalled");

    let wanted = served.ask("POST", "/v1/retry", r#"{"version": 2}"#).await;
    assert_eq!(wanted, (200, json!({"path": "path-switching.v2.g1"})));
    assert_eq!(state(), "training");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_cut_that_waits_can_be_cancelled() {
    let world = World::new(&[PathSwitching]);
    let waits_for = vec!["never-comes.txt".to_owned()];
    let cut = world.commit(Transition::CutRequested {
        name: Some("june".to_owned()),
        source: CutSource::Command,
        waits_for,
    });
    let served = Served::new(&world);
    let cancelled = served.ask("POST", "/v1/cancel", "").await;
    assert_eq!(cancelled, (200, json!({"kind": "cut", "cut": cut, "name": "june"})));
    let outcome = served.ask("GET", &format!("/v1/cuts/{cut}"), "").await.1["outcome"].clone();
    assert_eq!(outcome, json!({"kind": "refused", "reason": "it was cancelled", "open": 1}));
    assert!(world.ledger.read(|tree| tree.waiting_cut().is_none()), "later files do not wait any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_listed_with_their_history() {
    let mut world = World::new(&[PathSwitching]);
    for version in 1..=2 {
        world.cut(100, &format!("v{version}"));
        world.make(PathSwitching, version);
    }
    let served = Served::new(&world);
    let ask = |body: &'static str| served.ask("POST", "/v1/alias", body);
    let (code, answer) = ask(r#"{"name": "stable", "version": 1}"#).await;
    assert_eq!(code, 200);
    assert_eq!(answer["before"], Value::Null);
    assert!(answer["pending"].is_string(), "there is no such folder in this test: {answer}");
    let (_, answer) = ask(r#"{"name": "stable", "version": 2}"#).await;
    assert_eq!((&answer["before"], &answer["version"]), (&json!(1), &json!(2)));
    let (code, refused) = ask(r#"{"name": "stable", "version": 7}"#).await;
    assert_eq!((code, &refused["hint"]), (404, &json!("version 2 is; `lrpathctl versions` lists them")));
    let (_, listed) = served.ask("GET", "/v1/alias", "").await;
    assert_eq!(listed[0]["name"], "latest");
    assert_eq!((&listed[1]["name"], &listed[1]["version"]), (&json!("stable"), &json!(2)));
    let versions: Vec<&Value> =
        listed[1]["moves"].as_array().unwrap().iter().map(|one| &one["version"]).collect();
    assert_eq!(versions, [&json!(1), &json!(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_explained() {
    let mut world = World::new(&[PathSwitching]);
    world.accept("a shard & more.txt", 1 << 30);
    world.cut(100, "v1");
    world.make(PathSwitching, 1);
    let served = Served::new(&world);
    for (what, kind) in
        [("v1", "version"), ("a+shard+%26+more.txt", "shard"), ("path-switching.main.g1.s40", "checkpoint")]
    {
        let (code, answer) = served.ask("GET", &format!("/v1/explain?what={what}"), "").await;
        assert_eq!((code, &answer["kind"]), (200, &json!(kind)), "{what}: {answer}");
    }
    let (code, refused) = served.ask("GET", "/v1/explain?what=nothing", "").await;
    assert_eq!((code, &refused["code"]), (404, &json!("not-found")));
    assert_eq!(served.ask("GET", "/v1/explain?what=v1&paradigm=continual", "").await.0, 409);
    assert_eq!(served.ask("GET", "/v1/explain", "").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_in_json() {
    let world = World::new(&[PathSwitching]);
    let served = Served::new(&world);
    let mut told = Vec::new();
    for (method, path, body) in [
        ("GET", "/v1/nothing", ""),
        ("GET", "/v1/cut", ""),
        ("POST", "/v1/cut", "{"),
        ("POST", "/v1/cut", r#"{"nam": "x"}"#),
        ("GET", "/v1/jobs/7/log", ""),
        ("GET", "/v1/jobs/x/log", ""),
        ("GET", "/v1/events?after=x", ""),
        ("GET", "/v1/events?before=1", ""),
        ("GET", "/v1/cuts/99", ""),
    ] {
        let (code, answer) = served.ask(method, path, body).await;
        told.push(format!("{method} {path} {body} -> {code} {}", serde_json::to_string(&answer).unwrap()));
    }
    insta::assert_snapshot!(told.join("\n"));

    let (code, _) = served.ask("POST", "/v1/cut", &" ".repeat(100_000)).await;
    assert_eq!(code, 413);
    let (code, _) =
        served.send(&format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(40_000))).await;
    assert_eq!(code, 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_they_happen() {
    let world = World::new(&[PathSwitching]);
    let served = Served::new(&world);
    let (_, first) =
        served.send("GET /v1/events?limit=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(first.starts_with(r#"{"position":1,"#) && first.ends_with("}\n"), "{first}");

    let mut stream = UnixStream::connect(served.folder.path().join("control.sock")).await.unwrap();
    stream.write_all(b"GET /v1/events?after=1&follow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    world.commit(Transition::Paused);
    while !String::from_utf8_lossy(&seen).contains("paused") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    world.commit(Transition::Resumed);
    while !String::from_utf8_lossy(&seen).contains("resumed") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
    }
    served.stop.send(true).unwrap();
    stream.read_to_end(&mut seen).await.unwrap();
    served.server.await.unwrap();
    assert!(!served.folder.path().join("control.sock").exists(), "the socket goes with the daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_to_the_end_of_its_attempt() {
    let mut world = World::new(&[PathSwitching]);
    let job = world.start(world.main(), None, 10, None);
    let served = Served::new(&world);
    let folder = served.folder.path().join(format!("jobs/{job}-1"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("log"), "begins\n").unwrap();
    let get = |follow: &str| {
        format!("GET /v1/jobs/{job}/log{follow} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    };
    assert!(served.send(&get("")).await.1.contains("begins\n"));
    let following = get("?follow");
    let (whole, ()) = tokio::join!(served.send(&following), async {
        std::fs::write(folder.join("log"), "begins\nends\n").unwrap();
        world.end(job, 1, Outcome::Finished, 10);
    });
    assert!(whole.1.contains("ends\n"), "{}", whole.1);
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone_and_a_stale_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let socket = Socket::bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    let told = Socket::bind(&path).unwrap_err().to_string();
    assert!(told.contains("is in use: another daemon answers on it"), "{told}");

    // A daemon that is killed removes nothing.
    let stale = path.with_extension("stale");
    std::fs::hard_link(&path, &stale).unwrap();
    drop(socket);
    assert!(!path.exists());
    std::fs::rename(&stale, &path).unwrap();
    let again = Socket::bind(&path).unwrap();
    drop(again);

    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(Socket::bind(&path), Err(SocketError::InTheWay(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    let long = folder.path().join("x".repeat(100));
    assert!(matches!(Socket::bind(&long), Err(SocketError::TooLong(_))));
}
