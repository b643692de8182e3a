//! The trainers that run for a state, as the daemon writes them down.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// As the daemon writes it down; a pid is a process only together with its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Process {
    pid: i32,
    start_time: u64,
}

impl Process {
    /// The trainer of an attempt, if it was started.
    pub fn of(attempt: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(attempt.join("process.json")).ok()?).ok()
    }

    /// Whether any of its threads is left; one that is dead and not yet reaped is no more.
    pub fn lives(self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return false };
        let mut fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace();
        let is_undead = !matches!(fields.next(), Some("Z" | "X"));
        // Field 22 of the line, field 20 after the name.
        let is_this = fields.nth(18).and_then(|ticks| ticks.parse().ok()) == Some(self.start_time);
        let threads = || std::fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count);
        is_this && (is_undead || threads() > 1)
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.send(Signal::KILL);
    }

    fn send(self, signal: Signal) {
        // It may have ended by itself in this moment.
        let _ = Pid::from_raw(self.pid).map(|pid| kill_process(pid, signal));
    }
}

/// The trainers of a state that live now.
pub fn all(state: &Path) -> Vec<Process> {
    let attempts = std::fs::read_dir(state.join("jobs")).unwrap().map(Result::unwrap);
    attempts.filter_map(|entry| Process::of(&entry.path())).filter(|process| process.lives()).collect()
}

/// Trainers that stand still until this is dropped.
#[derive(Debug)]
pub struct Stopped(Vec<Process>);

impl Stopped {
    /// Stops all that live now.
    pub fn all(state: &Path) -> Self {
        let stopped = Self(all(state));
        stopped.0.iter().for_each(|process| process.send(Signal::STOP));
        stopped
    }

    /// Those that were stopped.
    pub fn processes(&self) -> &[Process] {
        &self.0
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.iter().filter(|process| process.lives()).for_each(|process| process.send(Signal::CONT));
    }
}
