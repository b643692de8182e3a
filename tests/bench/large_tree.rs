//! A run of years: a version tree of a hundred thousand nodes, and how long its daemon takes to be there and to answer.
//!
//! The state is made by the ledger itself, transition by transition, and then looked at from outside like any other.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use artifacts::Digest;
use artifacts::storage::Disk;
use daemon::ledger::path::{CheckpointKey, Path as TrainingPath};
use daemon::ledger::transition::{
    CutReason, Evaluation, FileFacts, Increment, IncrementPlan, JobStart, Outcome, Release, ShardTokens,
    Transition,
};
use daemon::ledger::{Ledger, SystemClock};
use harness::program;
use harness::state::{State, byte_config};
use paradigm::{Decay, Paradigm, SegmentKind};
use serde_json::{Value, json};

use super::trainer::median;

/// Versions of the run; a version makes about 49 nodes.
const VERSIONS: u32 = 2_050;
/// Shards of an increment, and held-out losses of a version at most.
const SHARDS: u32 = 12;
const LOSSES: u32 = 30;
/// Steps of an increment.
const STEPS: u64 = 120;
/// Starts, and questions, of which the median counts.
const STARTS: usize = 5;
const QUESTIONS: usize = 50;

/// Seconds of starts and answers.
pub fn measure() -> Value {
    let tables = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n";
    let config = byte_config("seed = 9\nmain_path = \"lazy\"", tables);
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let (nodes, records) = grow(&state.path());
    let clean: Vec<f64> = (0..STARTS).map(|_| start(&state, |daemon, _| stop(daemon))).collect();
    let mut answers = Vec::new();
    let mut resident = 0;
    let killed: Vec<f64> = (0..STARTS)
        .map(|_| {
            fs::remove_dir_all(state.path().join("tree.sled")).unwrap();
            start(&state, |daemon, socket| {
                answers.extend((0..QUESTIONS).map(|_| seconds(|| _ = ask(socket, "/v1/status"))));
                resident = resident_bytes(daemon.id());
                stop(daemon);
            })
        })
        .collect();
    let whole: Vec<f64> = {
        let mut told = Vec::new();
        start(&state, |daemon, _| {
            told = (0..20).map(|_| seconds(|| assert!(state.ctl(&["status"]).status.success()))).collect();
            stop(daemon);
        });
        told
    };
    let figures = [median(&clean), median(&killed), median(&answers), median(&whole)];
    let [clean_start, rebuilding_start, status, command] = figures;
    println!("A version tree of {nodes} nodes, {records} records in the journal");
    println!("  start after a clean stop until it answers        {clean_start:8.3} s");
    println!("  start without the copy in sled until it answers  {rebuilding_start:8.3} s");
    println!("  an answer of /v1/status                          {:8.1} ms", status * 1e3);
    println!("  lrpathctl status                                 {:8.1} ms", command * 1e3);
    println!("  resident                                         {:8.1} MB", resident as f64 / 1e6);
    json!({
        "nodes": nodes, "records": records, "clean_start_s": clean_start, "rebuilding_start_s": rebuilding_start,
        "status_s": status, "lrpathctl_status_s": command, "resident_bytes": resident
    })
}

/// Starts the daemon, and says how long it took until it answered.
fn start(state: &State, then: impl FnOnce(&mut Child, &Path)) -> f64 {
    let socket = state.path().join("control.sock");
    let begun = Instant::now();
    let mut daemon = Command::new(program("lrpathd"))
        .arg("--state")
        .arg(state.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while ask(&socket, "/v1/status").is_none() {
        assert!(begun.elapsed() < Duration::from_secs(120) && daemon.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed().as_secs_f64();
    then(&mut daemon, &socket);
    took
}

/// Stops it in order.
fn stop(daemon: &mut Child) {
    Command::new("kill").arg("-TERM").arg(daemon.id().to_string()).status().unwrap();
    assert!(daemon.wait().unwrap().success());
}

/// What the daemon answers, if it does.
fn ask(socket: &Path, path: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// Bytes of memory that a process has for itself.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    kilobytes.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Lets years pass. Says how many nodes and records there are.
fn grow(state: &Path) -> (usize, u64) {
    let ledger = Ledger::open(state, Arc::new(Disk), Arc::new(SystemClock)).unwrap();
    for version in 1..=VERSIONS {
        let transitions = ledger.read(|tree| {
            let shards: Vec<String> =
                (0..SHARDS).map(|shard| format!("{version:05}/{shard:02}.bin")).collect();
            one_version(version, tree.end(), tree.shards().len() as u32, tree.next_job(), &shards)
        });
        ledger.commit_all(transitions).unwrap();
    }
    let counts = ledger.read(|tree| (tree.nodes().count(), tree.position()));
    ledger.close();
    counts
}

/// All that happens to one version, from its shards to its release; what it leaves on the disk is gone again.
fn one_version(version: u32, start: u64, before: u32, job: u64, shards: &[String]) -> Vec<Transition> {
    let tokens = STEPS * 32 / u64::from(SHARDS) + u64::from(version == 1);
    let mut all: Vec<Transition> = shards
        .iter()
        .map(|name| Transition::ShardAccepted {
            digest: Digest::of(name.as_bytes()),
            name: name.clone(),
            file: FileFacts { bytes: tokens * 2, inode: 1, mtime: 1 },
            tokens: Some(ShardTokens { stream: tokens, held_out: 64, held_out_blocks: 2, documents: 3 }),
            unpacked: None,
        })
        .collect();
    let cut = paradigm::Increment::cut(version, start, STEPS, 0.6).unwrap();
    let plan = IncrementPlan {
        alpha: Some(0.6),
        branch_point: cut.branch_point,
        decay_steps: cut.end - cut.branch_point,
        decay: Decay::Cosine,
        hold: 0.0,
        peak: 1e-3,
        min: 1e-4,
        warmup_steps: 2,
        rewarmup_steps: 0,
    };
    all.push(Transition::IncrementCut(Box::new(Increment {
        version,
        name: format!("v{version}"),
        reason: CutReason::Tokens,
        steps: STEPS,
        end: cut.end,
        shards: before + SHARDS,
        plans: [(Paradigm::PathSwitching, plan)].into(),
    })));
    let path = |name: &str| -> TrainingPath { format!("path-switching.{name}.g1").parse().unwrap() };
    let (main, own) = (path("main"), path(&format!("v{version}")));
    let last = (version > 1).then(|| CheckpointKey { path: main, step: start - STEPS * 6 / 10 });
    let branch_point = CheckpointKey { path: main, step: cut.branch_point };
    let end = CheckpointKey { path: own, step: cut.end };
    for (number, path, from, to) in [(job, main, last, branch_point), (job + 1, own, Some(branch_point), end)]
    {
        let segment = if path == main { SegmentKind::Main } else { SegmentKind::Branch };
        all.push(Transition::JobStarted(Box::new(JobStart {
            job: number,
            attempt: 1,
            path,
            segment,
            version: Some(version),
            from: from.map_or(0, |key| key.step),
            to: to.step,
            start: from,
            slot: "cpu".to_owned(),
            devices: vec!["cpu".to_owned()],
            ranks: 1,
            micro_batch: 2,
        })));
        let digest = Digest::of(to.to_string().as_bytes());
        all.push(Transition::CheckpointSaved {
            checkpoint: to,
            digest,
            bytes: 2_400_000_000,
            job: Some(number),
            took: None,
        });
        if path == own {
            all.extend((version.saturating_sub(LOSSES) + 1..=version).map(|increment| {
                Transition::Evaluated {
                    path,
                    step: cut.end,
                    evaluation: Evaluation {
                        increment,
                        loss: 2.25,
                        perplexity: 2.25_f64.exp(),
                        bits_per_byte: Some(0.8),
                        tokens: 131_072,
                    },
                }
            }));
        }
        let (outcome, reached) = (Outcome::Finished, to.step);
        all.push(Transition::JobEnded { job: number, attempt: 1, outcome, reached, retry_at: None });
    }
    let files = ["model.safetensors", "config.json", "tokenizer.json", "lrpath.json", "README.md"];
    all.push(Transition::Released(Box::new(Release {
        paradigm: Paradigm::PathSwitching,
        version,
        checkpoint: end,
        folder: format!("releases/v{version}"),
        files: files.map(|file| (file.to_owned(), Digest::of(file.as_bytes()))).into(),
        latest: true,
    })));
    let reason = "the version is public".to_owned();
    all.push(Transition::CheckpointDeleted { checkpoint: end, reason: reason.clone() });
    all.extend(last.map(|checkpoint| Transition::CheckpointDeleted { checkpoint, reason }));
    all
}
