//! How far the demo is: a bar with the time left on a terminal, a line now and then in a pipe.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use paradigm::{Increments, Paradigm, Plan};

use super::era::ERAS;
use super::steps_of_an_increment;
use crate::api::types::Status;
use crate::ledger::tree::VersionState;

/// Time between two lines in a pipe.
const PAUSE: Duration = Duration::from_secs(10);

/// What is shown while the demo runs, on standard error.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    is_quiet: bool,
    total: u64,
    began: Option<Instant>,
    said: Option<Instant>,
    released: usize,
}

impl Progress {
    /// Nothing is shown where only JSON is wanted and nobody watches.
    pub fn new(json: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let total = planned().unwrap_or(0);
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} steps  {msg}") {
            bar.set_style(style);
        }
        if !is_terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { bar, is_terminal, is_quiet: json && !is_terminal, total, began: None, said: None, released: 0 }
    }

    /// Says something for people.
    pub fn say(&self, text: &str) {
        if !self.is_quiet {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    /// Shows where the daemon is, and up to which era its data are there.
    pub fn show(&mut self, status: &Status, era: u32) {
        let Some(own) = status.paradigms.get(&Paradigm::PathSwitching) else { return };
        for version in
            own.versions.iter().filter(|version| version.state == VersionState::Released).skip(self.released)
        {
            self.released += 1;
            self.say(&format!("v{} is published", version.number));
        }
        let done = (own.steps.executed + own.steps.ahead).min(self.total);
        if done > 0 {
            self.began.get_or_insert_with(Instant::now);
        }
        let left = self.left(done).map_or_else(String::new, |left| format!("{} left, ", clock(left)));
        let message = format!("{left}{} (data up to era {era} of {ERAS})", status.doing);
        self.bar.set_position(done);
        self.bar.set_message(message.clone());
        let is_time = self.said.is_none_or(|said| said.elapsed() >= PAUSE);
        if !self.is_terminal && !self.is_quiet && is_time && done > 0 {
            eprintln!("{done}/{} steps, {message}", self.total);
            self.said = Some(Instant::now());
        }
    }

    /// Nothing more comes.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }

    fn left(&self, done: u64) -> Option<Duration> {
        let elapsed = self.began?.elapsed();
        let left = u32::try_from(self.total - done).ok()?;
        let done = u32::try_from(done).ok().filter(|done| *done > 20)?;
        Some(elapsed.checked_div(done)?.saturating_mul(left))
    }
}

/// All steps of the demo.
fn planned() -> Option<u64> {
    let increments =
        Increments::new(&[steps_of_an_increment()?; ERAS], paradigm::increments::DEFAULT_ALPHA).ok()?;
    Plan::new(Paradigm::PathSwitching, &increments).ok().map(|plan| plan.steps)
}

fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A daemon that has done so many steps, some of them ahead, and published so many versions.
    fn status(done: u64, released: u32) -> Status {
        let version = |number: u32| {
            json!({
                "number": number, "name": null, "alpha": null, "branch_point": null, "decay_steps": null, "release": null,
                "state": if number <= released { "released" } else { "open" },
            })
        };
        let ahead = done / 10;
        let steps = json!({
            "main": 0, "branch": 0, "scratch": 0, "continual": 0, "executed": done - ahead, "repeated": 7, "ahead": ahead,
            "from_scratch": null, "ratio": null,
        });
        let own = json!({ "steps": steps, "versions": (1..=released + 1).map(version).collect::<Vec<_>>() });
        serde_json::from_value(json!({
            "program": "0.1.0", "state": "/nowhere", "position": 1, "at": 0, "until": null, "paused": false,
            "doing": "trains the branch of version 2, step 300 of 400", "paradigms": { "path-switching": own },
            "jobs": [], "slots": [], "shards": { "waiting": 0, "accepted": 0, "rejected": 0 },
            "disk": { "free": null, "checkpoints": 0, "releases": 0 }, "waiting_cut": null,
        }))
        .unwrap()
    }

    fn shown_after(seconds: f64, done: u64) -> (u64, String) {
        let mut progress = Progress::new(true);
        progress.began = Instant::now().checked_sub(Duration::from_secs_f64(seconds));
        progress.show(&status(done, 1), 2);
        (progress.bar.position(), progress.bar.message())
    }

    #[test]
    fn steps_are_shown_with_the_time_left() {
        assert_eq!(planned(), Some(1160));
        assert_eq!(Progress::new(true).bar.length(), Some(1160));
        // A quarter took 100.5 s, so the other three take 301.5 s.
        let (position, message) = shown_after(100.5, 290);
        assert_eq!(position, 290);
        assert_eq!(
            message,
            "5:01 left, trains the branch of version 2, step 300 of 400 (data up to era 2 of 4)"
        );
        let (_, message) = shown_after(200.5, 1159);
        assert!(message.starts_with("0:00 left, trains ") && message.ends_with(" era 2 of 4)"), "{message}");
    }

    #[test]
    fn no_time_is_told_while_there_is_too_little_to_tell_it_from() {
        for done in [0, 20] {
            let (position, message) = shown_after(30.0, done);
            assert_eq!(
                (position, message.starts_with("trains") && message.ends_with(" era 2 of 4)")),
                (done, true),
                "{message}"
            );
        }
        // Nor are there more steps than planned.
        let (position, message) = shown_after(200.0, 2000);
        assert_eq!((position, message.starts_with("0:00 left, trains")), (1160, true), "{message}");
    }

    #[test]
    fn each_version_is_announced_once() {
        let mut progress = Progress::new(true);
        for (released, announced) in [(0, 0), (1, 1), (1, 1), (3, 3), (4, 4)] {
            progress.show(&status(300, released), 4);
            assert_eq!(progress.released, announced);
        }
    }
}
