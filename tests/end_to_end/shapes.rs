//! What `--json` prints is what its schema says: `State::ask` holds every answer against it, and here each command that
//! has one is asked.

use std::collections::BTreeSet;

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::shapes;
use harness::state::{State, byte_config, tokens};
use serde_json::json;

const TABLES: &str = "[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4\n[checkpoints]\nevery = 5";

#[test]
fn each_answer_has_the_shape_that_is_documented() {
    let config = byte_config("paradigm = [\"path-switching\", \"continual\"]\nseed = 9", TABLES);
    let state = State::new(&config.replace("[data]\n", "[data]\ntoken_width = \"uint16\"\n"));
    let mut asked = BTreeSet::new();
    let mut ask = |arguments: &[&str]| {
        asked.insert(shapes::command(arguments));
        state.ask(arguments)
    };
    let daemon = Daemon::start(&state);
    for number in 1..=3 {
        state.drop_file(&format!("{number}.bin"), &tokens(number, 700));
        state.drop_file("no.jsonl", b"{\"text\": 1}\n");
        wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(number));
        assert_eq!(ask(&["cut"])["outcome"]["kind"], "made");
        wait_for_releases(&state, "path-switching", number as usize, 60);
        wait_for_releases(&state, "continual", number as usize, 60);
    }
    for seen in
        [&["status"][..], &["tree"], &["versions"], &["shards"], &["jobs"], &["plan", "--increments", "9,8"]]
    {
        ask(seen);
    }
    assert_eq!(ask(&["explain", "v2"])["kind"], "version");
    assert_eq!(ask(&["explain", "2.bin"])["kind"], "shard");
    assert_eq!(ask(&["explain", "path-switching.v2.g1.s41"])["kind"], "checkpoint");
    ask(&["alias", "stable", "v2"]);
    ask(&["alias"]);
    assert_eq!(ask(&["evaluate", "v1"])["pending"], json!([]));
    ask(&["pause"]);
    // What a running attempt has done is in no journal yet, and the status knows it.
    wait_for(&state, "rest", 30, |status| status["jobs"] == json!([]));
    the_export_says_what_was_done(&ask(&["export"]), &state);
    state.drop_file("4.bin", &tokens(4, 700));
    wait_for(&state, "acceptance", 30, |status| status["shards"]["accepted"] == json!(4));
    assert_eq!(ask(&["cut"])["outcome"]["kind"], "made");
    ask(&["cancel", "v4"]);
    ask(&["retry", "v4"]);
    assert!(ask(&["withdraw", "3.bin", "--rewind"])["rewind"].is_object());
    ask(&["gc", "--dry-run"]);
    ask(&["drain"]);
    ask(&["reload"]);
    ask(&["resume"]);
    ask(&["gc"]);
    let backup = state.path().with_file_name("backup");
    ask(&["backup", backup.to_str().unwrap()]);
    ask(&["check", "--quick"]);
    assert!(state.transitions().len() > 50, "each is held against the schema of events");
    daemon.stop();
    ask(&["check", "--all"]);
    ask(&["rebuild"]);
    ask(&["config", "check"]);
    asked.insert("events".to_owned());

    // Those that make a state of their own.
    for (command, words) in [("init", &["init"][..]), ("restore", &["restore", backup.to_str().unwrap()])] {
        let made = state.path().with_file_name(command);
        let line = [words, &["--state", made.to_str().unwrap(), "--json"]].concat();
        let output = assert_cmd::Command::new(harness::program("lrpathctl")).args(line).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        shapes::hold(words, &serde_json::from_slice(&output.stdout).unwrap());
        asked.insert(command.to_owned());
    }
    // The demo takes minutes, and is looked at as people see it: tests/demo.
    let missing: Vec<&str> = shapes::commands().filter(|command| !asked.contains(*command)).collect();
    assert_eq!(missing, ["demo"]);
}

/// Three increments, whose steps are those of the trainers' own events.
fn the_export_says_what_was_done(exported: &serde_json::Value, state: &State) {
    let status = state.ask(&["status"]);
    let counted = |paradigm: &str| {
        let steps = &status["paradigms"][paradigm]["steps"];
        ["executed", "repeated", "ahead"].iter().map(|of| steps[of].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(exported["format"], "lrpath-export");
    let increments = exported["increments"].as_array().unwrap();
    assert_eq!(increments.len(), 3);
    assert!(increments.iter().all(|increment| increment["released"] == true), "{increments:?}");
    let steps: u64 = increments.iter().map(|increment| increment["steps"].as_u64().unwrap()).sum();
    assert_eq!(increments[2]["end"], steps);
    assert_eq!(exported["plan"]["increments"].as_array().unwrap().len(), 3);
    assert_eq!(exported["spent"]["steps"], counted("path-switching") + counted("continual"));
    assert!(exported["tokens_per_second"].as_f64().unwrap() > 0.0);
}
