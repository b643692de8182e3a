//! What is known of running attempts between two looks; none of it must survive the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use super::super::follow::{Follower, Progress};
use super::super::outcome::Reason;
use crate::ledger::transition::{JobNumber, JobStart, Millis};

/// Most time that counts between two looks: a clock that jumps, or a machine that slept, is no silence of a trainer.
const LONGEST_GAP: Millis = 5_000;
/// Time between two attempts to kill what does not die.
const BETWEEN_KILLS: Millis = 1_000;

/// What is known.
#[derive(Default)]
pub struct Desk {
    /// Attempts that are looked after.
    pub attempts: BTreeMap<JobNumber, Attended>,
    /// Jobs that are to save and stop.
    pub asked: BTreeSet<JobNumber>,
    /// The daemon ends.
    pub is_closing: bool,
    /// Time that passed while somebody looked.
    pub passed: Millis,
    last_look: Option<Millis>,
}

/// An attempt that is looked after.
pub struct Attended {
    /// The attempt at the job.
    pub attempt: u32,
    /// How far it is.
    pub phase: Phase,
}

/// How far an attempt is.
pub enum Phase {
    /// It is to be launched.
    Due(JobStart),
    /// It is being verified, prepared and started.
    Launching,
    /// It was started.
    Following(Box<Following>),
}

/// An attempt that was started.
pub struct Following {
    /// What it says.
    pub follower: Follower,
    /// Its folder.
    pub folder: PathBuf,
    /// When something new was heard last, in time that passed.
    pub heard: Millis,
    /// It was asked to end.
    pub ending: Option<Ending>,
    killed_at: Option<Millis>,
}

/// An attempt that was asked to end.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// Why.
    pub reason: Reason,
    since: Millis,
    is_told: bool,
}

/// What a trainer is to be told now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To save and stop.
    Stop,
    /// Nothing: it is to be ended.
    Kill,
}

/// What an attempt's end is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Pressure {
    /// Somebody wants it to stop.
    pub is_wanted: bool,
    /// The daemon ends, and leaves alone what does not stop.
    pub is_closing: bool,
    /// Silence that ends a trainer.
    pub silent: Millis,
    /// Time that it has to save and stop.
    pub stop: Millis,
}

impl Desk {
    /// Time passes.
    pub fn pass(&mut self, now: Millis) {
        let gap = now.saturating_sub(self.last_look.unwrap_or(now)).min(LONGEST_GAP);
        self.passed = self.passed.saturating_add(gap);
        self.last_look = Some(now);
    }

    /// Whether this attempt is looked after.
    pub fn attends(&self, start: &JobStart) -> bool {
        self.attempts.get(&start.job).is_some_and(|attended| attended.attempt == start.attempt)
    }

    /// The attempts to be launched; each is handed out once.
    pub fn hand_out(&mut self) -> Vec<JobStart> {
        let due = |attended: &mut Attended| match std::mem::replace(&mut attended.phase, Phase::Launching) {
            Phase::Due(start) => Some(start),
            other => {
                attended.phase = other;
                None
            }
        };
        self.attempts.values_mut().filter_map(due).collect()
    }

    /// How far an attempt is by all that it has said up to now. One that is just being started, or that this daemon has
    /// not yet looked at, is read anew.
    pub fn progress(&mut self, start: &JobStart, mut new: Follower) -> Progress {
        let passed = self.passed;
        let is_attended = self.attends(start);
        if let Some(following) = self.following(start.job).filter(|_| is_attended) {
            following.read(passed, Follower::read_up_to_now);
            return following.follower.progress().clone();
        }
        if let Err(error) = new.read_up_to_now() {
            tracing::warn!(job = start.job, %error, "cannot read what a trainer says");
        }
        new.progress().clone()
    }

    /// The attempt that runs of a job.
    pub fn following(&mut self, job: JobNumber) -> Option<&mut Following> {
        match &mut self.attempts.get_mut(&job)?.phase {
            Phase::Following(following) => Some(following),
            Phase::Due(_) | Phase::Launching => None,
        }
    }
}

impl Following {
    /// An attempt that was started, and nothing heard of before now.
    pub fn new(follower: Follower, folder: PathBuf, now: Millis) -> Self {
        Self { follower, folder, heard: now, ending: None, killed_at: None }
    }

    /// Reads what the trainer has said; false if that could not be read.
    pub fn read(&mut self, now: Millis, read: impl FnOnce(&mut Follower) -> io::Result<u64>) -> bool {
        match read(&mut self.follower) {
            Ok(0) => true,
            Ok(_) => {
                self.heard = now;
                true
            }
            Err(error) => {
                let folder = self.folder.display();
                tracing::warn!(%folder, %error, "cannot read what a trainer says; tried again");
                false
            }
        }
    }

    /// It was killed by this daemon.
    pub fn is_killed(&self) -> bool {
        self.killed_at.is_some()
    }

    /// What it is to be told now, if anything. What breaks the contract is not trusted to save, and what has said its
    /// last word has nothing to save.
    pub fn pressed(&mut self, pressure: &Pressure, now: Millis) -> Option<Signal> {
        let quiet = now.saturating_sub(self.heard);
        let is_done = self.follower.last_word().is_some();
        let reason = if self.follower.breach().is_some() {
            Some(Reason::Breach)
        } else if quiet >= pressure.silent && !is_done {
            Some(Reason::Silent)
        } else {
            pressure.is_wanted.then_some(Reason::Asked)
        };
        if let Some(reason) = reason {
            let ending = self.ending.get_or_insert(Ending { reason, since: now, is_told: false });
            if reason != Reason::Asked {
                ending.reason = reason;
            }
        }
        let is_over =
            |ending: &Ending| now.saturating_sub(ending.since) >= pressure.stop && !pressure.is_closing;
        let is_breach = |ending: &Ending| ending.reason == Reason::Breach;
        let lingers = is_done && quiet >= pressure.stop;
        if lingers || self.ending.as_ref().is_some_and(|ending| is_breach(ending) || is_over(ending)) {
            let is_due = self.killed_at.is_none_or(|at| now.saturating_sub(at) >= BETWEEN_KILLS);
            return is_due.then_some(Signal::Kill);
        }
        self.ending.is_some_and(|ending| !ending.is_told && !is_done).then_some(Signal::Stop)
    }

    /// It was told.
    pub fn told(&mut self, signal: Signal, now: Millis) {
        match signal {
            Signal::Kill => self.killed_at = Some(now),
            Signal::Stop => {
                if let Some(ending) = &mut self.ending {
                    ending.is_told = true;
                }
            }
        }
    }
}
