//! The processes that run for a state: trainers, as the daemon writes them down, and its own children.

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

    /// A process of this machine, if it lives.
    pub fn of_pid(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        Some(Self { pid: i32::try_from(pid).ok()?, start_time: fields.nth(19)?.parse().ok()? })
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
pub fn trainers(state: &Path) -> Vec<Process> {
    let attempts = std::fs::read_dir(state.join("jobs")).unwrap().map(Result::unwrap);
    attempts.filter_map(|entry| Process::of(&entry.path())).filter(|process| process.lives()).collect()
}

/// The children of a daemon that were started with this word.
pub fn children(daemon: u32, word: &str) -> Vec<Process> {
    let is_child = |pid: &u32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let stat = read("stat");
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
        parent == Some(&daemon.to_string()) && read("cmdline").split('\0').any(|argument| argument == word)
    };
    let entries = std::fs::read_dir("/proc").unwrap().map(Result::unwrap);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_child).filter_map(Process::of_pid).collect()
}

/// Processes that stand still until this is dropped.
#[derive(Debug)]
pub struct Standing(Vec<Process>);

impl Standing {
    /// Stops some processes.
    pub fn still(processes: Vec<Process>) -> Self {
        processes.iter().for_each(|process| process.send(Signal::STOP));
        Self(processes)
    }

    /// Those that stand still.
    pub fn processes(&self) -> &[Process] {
        &self.0
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.0.iter().filter(|process| process.lives()).for_each(|process| process.send(Signal::CONT));
    }
}
