//! One job, trained by two processes together: the losses of one process, and the same bits after every death.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::sizes::Size;
use serde_json::{Value, json};

const STEPS: u64 = 40;
/// Checkpoints at every multiple of this.
const EVERY: u64 = 10;

/// A job in a folder, after a change.
fn job(folder: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let path = Size::named("tiny").job(folder, 32, 4, STEPS, Some(EVERY));
    let mut job: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (job["micro_batch"], job["threads"]) = (json!(2), json!(2));
    change(&mut job);
    fs::write(&path, job.to_string()).unwrap();
    path
}

fn started(path: &Path) -> Child {
    let mut command = Command::new(harness::program("lrpath-train"));
    command.arg("--job").arg(path).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// All that a job says, which must come to its end.
fn trained(path: &Path) -> Vec<Value> {
    let output = started(path).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// The digest of the weights at the end.
fn weights(folder: &Path) -> String {
    let file = folder.join(format!("checkpoints/path-switching.main.g1.s{STEPS}/model.safetensors"));
    blake3::hash(&fs::read(file).unwrap()).to_hex().to_string()
}

/// The processes of a job beside its first.
fn others(child: &Child) -> Vec<i32> {
    let file = format!("/proc/{0}/task/{0}/children", child.id());
    fs::read_to_string(file).unwrap_or_default().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Reads events until a step was made.
fn until(events: &mut impl BufRead, step: u64) -> Vec<Value> {
    let mut seen = Vec::new();
    for line in events.lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let is_there = event["event"] == "step" && event["step"].as_u64() >= Some(step);
        seen.push(event);
        if is_there {
            return seen;
        }
    }
    panic!("it ended before step {step}: {seen:?}")
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

#[test]
fn two_processes_train_as_one() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alone = trained(&job(one.path(), |_| {}));
    let together = trained(&job(two.path(), |job| job["ranks"] = json!(2)));
    assert_eq!(of(&together, "step").len(), STEPS as usize);
    for (alone, together) in of(&alone, "step").into_iter().zip(of(&together, "step")) {
        for key in ["step", "sequences", "batch", "learning_rate", "tokens"] {
            assert_eq!(alone[key], together[key], "{key}");
        }
        for key in ["loss", "grad_norm"] {
            let (alone, together) = (alone[key].as_f64().unwrap(), together[key].as_f64().unwrap());
            assert!((alone - together).abs() <= 1e-6 * alone, "{key}: {alone} and {together}");
        }
    }
    let kernels = |events: &[Value]| events[0]["kernels"].as_str().unwrap().to_owned();
    assert_eq!(kernels(&together), format!("{}-x2", kernels(&alone)));
}

/// Trains to a step, is killed by `kill`, and goes on from its last checkpoint.
fn resumed(folder: &Path, step: u64, kill: impl FnOnce(Child, i32)) {
    let path = job(folder, |job| job["ranks"] = json!(2));
    let mut child = started(&path);
    let mut events = BufReader::new(child.stdout.take().unwrap());
    let seen = until(&mut events, step);
    let [other] = others(&child)[..] else { panic!("one other rank was expected") };
    kill(child, other);
    let deadline = Instant::now() + Duration::from_secs(30);
    while lives(other) {
        assert!(Instant::now() < deadline, "a rank lives on without the first");
        std::thread::sleep(Duration::from_millis(5));
    }
    let rest: Vec<Value> =
        events.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect();
    let all = [seen, rest].concat();
    let checkpoint = *of(&all, "checkpoint").last().unwrap();
    let path = job(folder, |job| {
        job["ranks"] = json!(2);
        job["start"] = json!({
            "kind": "checkpoint",
            "path": folder.join("checkpoints").join(checkpoint["path"].as_str().unwrap()),
            "digest": checkpoint["digest"],
            "step": checkpoint["step"],
        });
    });
    trained(&path);
}

#[test]
fn whichever_of_two_processes_is_killed_the_bits_are_those_of_a_run_that_nobody_disturbed() {
    let undisturbed = tempfile::tempdir().unwrap();
    trained(&job(undisturbed.path(), |job| job["ranks"] = json!(2)));
    let expected = weights(undisturbed.path());

    let folder = tempfile::tempdir().unwrap();
    resumed(folder.path(), 2 * EVERY + 3, |mut first, _| {
        kill(first.id());
        first.wait().unwrap();
    });
    assert_eq!(weights(folder.path()), expected);

    let folder = tempfile::tempdir().unwrap();
    resumed(folder.path(), 2 * EVERY + 3, |first, other| {
        kill(other.cast_unsigned());
        let output = first.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(71));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("rank 1 has ended") && said.contains("parted"), "{said}");
    });
    assert_eq!(weights(folder.path()), expected);

    // Asked to stop, both save and end in order.
    let folder = tempfile::tempdir().unwrap();
    resumed(folder.path(), 2 * EVERY + 3, |mut first, _| {
        assert!(Command::new("kill").arg(first.id().to_string()).status().unwrap().success());
        assert_eq!(first.wait().unwrap().code(), Some(75));
    });
    assert_eq!(weights(folder.path()), expected);
}
