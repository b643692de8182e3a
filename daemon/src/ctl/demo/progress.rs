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

    /// Shows where the daemon is.
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
        let message = format!("{left}era {era} of {ERAS}: {}", status.doing);
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
