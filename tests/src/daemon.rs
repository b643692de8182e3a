//! A running daemon of a test.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program;
use crate::state::State;
use crate::text::sentences;

/// A daemon on a state; it is killed with the test.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts `lrpathd` and waits until it answers.
    pub fn start(state: &State) -> Self {
        let mut daemon = Self::launch(state, &[]);
        daemon.wait(state);
        daemon
    }

    /// Starts `lrpathd` by another program, if one is given with its arguments, and waits for nothing.
    pub fn launch(state: &State, by: &[&str]) -> Self {
        let program = program("lrpathd");
        let mut command = match by {
            [] => Command::new(program),
            [by, arguments @ ..] => {
                let mut command = Command::new(by);
                command.args(arguments).arg(program);
                command
            }
        };
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(state.path().join("../daemon.log"))
            .unwrap();
        let child = command
            .arg("--state")
            .arg(state.path())
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("lrpathd starts");
        Self { child }
    }

    /// Waits until it answers.
    pub fn wait(&mut self, state: &State) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !state.ctl(&["status", "--json"]).status.success() {
            assert!(self.lives(), "the daemon ended: {}", log_of(state));
            assert!(Instant::now() < deadline, "the daemon does not answer: {}", log_of(state));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has not ended.
    pub fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop with SIGTERM, and waits for it.
    pub fn stop(mut self) {
        Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the daemon stopped with {status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the daemons of a state have logged.
pub fn log_of(state: &State) -> String {
    std::fs::read_to_string(state.path().join("../daemon.log")).unwrap_or_default()
}

/// Asks for the status until it is as wanted.
pub fn wait_for(state: &State, what: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let status = state.ask(&["status"]);
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what} did not happen: {status:#}\n{}", log_of(state));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Drops small shards, one after the other, until so many increments are cut: their data and hardly more.
pub fn feed_until_cut(state: &State, increments: usize) {
    for number in 0..10_000u64 {
        let cut = |status: &Value| {
            let paradigms = status["paradigms"].as_object().unwrap();
            let versions = paradigms.values().next().unwrap()["versions"].as_array().unwrap();
            versions.iter().filter(|version| version["state"] != "open").count()
        };
        if cut(&state.ask(&["status"])) >= increments {
            return;
        }
        state.drop_file(&format!("shard{number:04}.txt"), sentences(number, 400).as_bytes());
        wait_for(state, "acceptance", 30, |status| status["shards"]["accepted"].as_u64() == Some(number + 1));
        // The cut follows the acceptance in a moment.
        std::thread::sleep(Duration::from_millis(30));
    }
    panic!("ten thousand shards were not enough for {increments} increments");
}

/// Waits until so many versions of a paradigm are released.
pub fn wait_for_releases(state: &State, paradigm: &str, count: usize, seconds: u64) -> Value {
    wait_for(state, "the releases", seconds, |status| released(status, paradigm) >= count)
}

/// How many versions of a paradigm are released.
pub fn released(status: &Value, paradigm: &str) -> usize {
    let versions = status["paradigms"][paradigm]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    versions.iter().filter(|version| version["state"] == "released").count()
}
