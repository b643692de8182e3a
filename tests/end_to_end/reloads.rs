//! A configuration that is read again while jobs run, and a daemon that comes to rest.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::daemon::{Daemon, log_of, wait_for, wait_for_releases};
use harness::processes;
use harness::state::{State, byte_config, tokens};
use serde_json::{Value, json};

/// Tokens of a job of some seconds.
const LONG: usize = 240_000;

fn state() -> State {
    let tables =
        "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\nalpha = 0.5\n[checkpoints]\nevery = 10000";
    let config = byte_config("seed = 9", tables).replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n");
    State::new(&config)
}

fn drop_shard(state: &State, number: u64, count: usize) {
    state.drop_file(&format!("{number}.bin"), &tokens(number, count));
    wait_for(state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(number));
}

fn change(state: &State, from: &str, to: &str) {
    let file = state.path().join("lrpathd.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// The attempts of a job that is on its way, at least at a step.
fn under_way(state: &State, step: u64) -> Value {
    wait_for(state, "a job", 60, |status| status["jobs"][0]["step"].as_u64().is_some_and(|at| at > step))
}

fn until_logged(state: &State, words: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !log_of(state).contains(words) {
        assert!(Instant::now() < deadline, "{words}: {}", log_of(state));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn alpha_of(state: &State, version: usize) -> Value {
    state.ask(&["versions"])[version - 1]["alpha"].clone()
}

#[test]
fn what_is_reloaded_holds_from_the_next_cut_on_and_trainers_notice_nothing() {
    let state = state();
    let daemon = Daemon::start(&state);
    drop_shard(&state, 1, 700);
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 1, 60);
    drop_shard(&state, 2, LONG);
    state.ask(&["cut"]);
    under_way(&state, 50);
    let [trainer] = processes::trainers(&state.path())[..] else { panic!("one trainer runs") };

    change(&state, "alpha = 0.5", "alpha = 0.25");
    let reloaded = state.ask(&["reload"]);
    assert_eq!(reloaded["changed"], json!([{"key": "schedule.alpha", "before": "0.5", "now": "0.25"}]));
    // Whoever asks next finds the daemon there, with the new configuration in force.
    for shift in 3..=12 {
        let again = state.ask(&["reload"]);
        assert_eq!((&again["changed"], &again["shift"]), (&json!([]), &json!(shift)));
        assert_eq!(state.ask(&["status"])["shift"], json!(shift));
    }
    let [same] = processes::trainers(&state.path())[..] else { panic!("one trainer runs") };
    assert_eq!(same, trainer, "the same process trains on");
    wait_for_releases(&state, "path-switching", 2, 120);
    drop_shard(&state, 3, 700);
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 3, 60);
    assert_eq!([1, 2, 3].map(|version| alpha_of(&state, version)), [json!(0.5), json!(0.5), json!(0.25)]);
    for job in state.ask(&["jobs"]).as_array().unwrap() {
        assert_eq!(job["attempts"].as_array().unwrap().len(), 1, "{job}");
    }
    let starts = state.transitions().into_iter().filter(|one| one["kind"] == "daemon-started").count();
    assert_eq!(starts, 1, "it is the same daemon");
    daemon.stop();
    assert!(state.ctl(&["check", "--all"]).status.success());
}

/// A reload closed the socket for a moment, and who asked just then heard that no daemon answers.
#[test]
fn whoever_asks_during_a_reload_gets_an_answer() {
    let state = state();
    let daemon = Daemon::start(&state);
    for number in 0..5u32 {
        let (from, to) = (f64::from(number).mul_add(0.01, 0.5), f64::from(number + 1).mul_add(0.01, 0.5));
        change(&state, &format!("alpha = {from}"), &format!("alpha = {to}"));
        let hung_up = Command::new("kill").arg("-HUP").arg(daemon.pid().to_string()).status().unwrap();
        assert!(hung_up.success());
        // Each answer is asked for, however near the reload is.
        wait_for(&state, "the reload", 30, |status| status["shift"].as_u64() > Some(u64::from(number) + 1));
    }
}

#[test]
fn what_cannot_be_reloaded_is_told_and_changes_nothing() {
    let state = state();
    let daemon = Daemon::start(&state);
    let refused = |words: &str| {
        let output = state.ctl(&["reload"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(words), "{words}: {told}");
    };
    change(&state, "alpha = 0.5", "alpa = 0.5");
    refused("`schedule.alpha` was probably meant");
    change(&state, "alpa = 0.5", "alpha = 1.5");
    refused("schedule.alpha = 1.5");
    change(&state, "alpha = 1.5", "alpha = 0.5");
    change(&state, "peak = 1e-3", "peak = 2e-3");
    refused("`schedule.peak` is fixed for the life of a state");
    change(&state, "peak = 2e-3", "peak = 1e-3");
    let file = state.path().join("lrpathd.toml");
    let sound = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{sound}\n[control]\nsocket = \"other.sock\"\n")).unwrap();
    let socket = state.path().join("control.sock");
    let output = state.ctl(&["reload", "--socket", socket.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && told.contains("`control.socket` holds from the next start on"),
        "{told}"
    );
    fs::write(&file, sound).unwrap();

    // A signal says the same in the log.
    change(&state, "alpha = 0.5", "alpha = 0.0");
    let hang_up = || Command::new("kill").arg("-HUP").arg(daemon.pid().to_string()).status().unwrap();
    assert!(hang_up().success());
    until_logged(&state, "not reloaded: ");
    change(&state, "alpha = 0.0", "alpha = 0.75");
    assert!(hang_up().success());
    until_logged(&state, "now=\"0.75\"");
    drop_shard(&state, 1, 700);
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 1, 60);
    assert_eq!(alpha_of(&state, 1), json!(0.75));

    // What is sound and cannot be had, such as a port that another program holds, is taken back.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = state.path().join("lrpathd.toml");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{before}\n[control]\nlisten = \"{address}\"\n")).unwrap();
    assert!(state.ctl(&["reload"]).status.success());
    until_logged(&state, "it goes on as it was");
    drop_shard(&state, 2, 700);
    drop(taken);
    assert!(state.ctl(&["reload"]).status.success());
    let asked = Command::new("curl")
        .args(["--silent", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "--fail"])
        .arg(format!("http://{address}/v1/status"))
        .output()
        .unwrap();
    let status: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(status["shards"]["accepted"], json!(2));
    daemon.stop();
}

#[test]
fn a_drain_lets_what_runs_come_to_its_end_and_starts_nothing_new() {
    let state = state();
    let daemon = Daemon::start(&state);
    drop_shard(&state, 1, LONG);
    state.ask(&["cut"]);
    under_way(&state, 50);
    let at_once = state.ask(&["drain", "--no-wait"]);
    assert_eq!((&at_once["changed"], at_once["running"].as_array().unwrap().len()), (&json!(true), 1));
    let doing = state.ask(&["status"])["doing"].clone();
    assert!(doing.as_str().unwrap().ends_with(", and starts nothing after it"), "{doing}");
    let drained = state.ask(&["drain"]);
    assert_eq!((&drained["changed"], &drained["running"]), (&json!(false), &json!([])));
    let jobs = state.ask(&["jobs"]);
    assert_eq!(jobs.as_array().unwrap().len(), 1, "the main path, and not the branch after it");
    assert_eq!(jobs[0]["attempts"][0]["outcome"]["kind"], "finished");
    drop_shard(&state, 2, 700);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(state.ask(&["jobs"]).as_array().unwrap().len(), 1);
    assert_eq!(state.ask(&["status"])["doing"], "is drained; `lrpathctl resume` goes on");

    // It outlives the daemon, and is over when somebody says so.
    daemon.kill();
    let daemon = Daemon::start(&state);
    assert_eq!(state.ask(&["status"])["draining"], json!(true));
    assert_eq!(state.ask(&["resume"])["changed"], json!(true));
    wait_for_releases(&state, "path-switching", 1, 120);
    assert_eq!(state.ask(&["resume"])["changed"], json!(false));
    daemon.stop();
}

/// The trainer refused what had been trained with another one: no version was made any more until it was set back.
#[test]
fn a_run_goes_on_with_another_micro_batch() {
    let state = state();
    let daemon = Daemon::start(&state);
    drop_shard(&state, 1, 700);
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 1, 60);
    change(&state, "[trainer]\n", "[trainer]\nmicro_batch = 1\n");
    state.ask(&["reload"]);
    drop_shard(&state, 2, 700);
    state.ask(&["cut"]);
    wait_for_releases(&state, "path-switching", 2, 60);
    let logs = fs::read_dir(state.path().join("jobs")).unwrap();
    let said =
        logs.map(|attempt| fs::read_to_string(attempt.unwrap().path().join("log")).unwrap_or_default());
    let words = "was trained with a micro_batch of 2; going on with 1 gives other last bits";
    assert!(said.collect::<String>().contains(words), "{words}");
    daemon.stop();
}
