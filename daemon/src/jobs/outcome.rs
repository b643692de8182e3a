//! How an attempt ended, and whether there is a next one: judgements without a process or a file.
//!
//! A trainer's last word counts first, since it is the same for a daemon that started it and for one that found it
//! again; an exit status is known to the former alone. Only where there is no last word does the status decide.

use super::executor::Exit;
use super::follow::{Follower, LastWord};
use crate::ledger::transition::{Millis, Outcome};

/// The exit status of a trainer that was asked to stop, and saved.
const SAVED: i32 = 75;
/// SIGTERM, and how a shell reports it.
const TERM: (i32, i32) = (15, 143);
/// Longest message in the journal, in bytes.
const LONGEST_MESSAGE: usize = 8 << 10;

/// The trainer's words for a file that it could not write.
const WRITING: [&str; 3] = ["no-space", "cannot-create", "io"];
/// Shortest wait after the machine would not: none of it counts, so that there is no longer one.
const BETWEEN_TRIES: Millis = 10_000;

/// The trainer's word for a loss or a gradient that is not finite.
const NOT_FINITE: &str = "not-finite";
/// The word for a trainer that broke the contract.
pub const CONTRACT: &str = "contract";
/// The word for a trainer that said nothing.
pub const SILENT: &str = "silent";
/// The word for a trainer that did not stop.
pub const STOP: &str = "stop";
/// The word for an attempt that could not be prepared.
pub const PREPARE: &str = "prepare";
/// The word for a trainer that could not be started.
pub const START: &str = "start";
/// The word for an attempt whose checkpoint to start from does not verify.
pub const DAMAGED: &str = "damaged-checkpoint";

/// Why this daemon asked an attempt to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The scheduler, a pause, or the daemon's own end.
    Asked,
    /// No event for too long.
    Silent,
    /// It broke the contract.
    Breach,
}

/// What is known of an attempt that is gone.
#[derive(Debug)]
pub struct Ended<'a> {
    /// All that it said.
    pub follower: &'a Follower,
    /// How its process ended, where this daemon started it.
    pub exit: Option<Exit>,
    /// Why it was asked to end, if it was.
    pub reason: Option<Reason>,
    /// It was killed.
    pub is_killed: bool,
    /// A checkpoint at its last step is there.
    pub is_saved: bool,
    /// Something in the state cannot be written.
    pub is_held: bool,
    /// The last lines of its log.
    pub log: &'a str,
    /// Silence that ends a trainer.
    pub silent: Millis,
    /// Time that it has to save and stop.
    pub stop: Millis,
}

/// How an attempt ended.
pub fn outcome(ended: &Ended<'_>) -> Outcome {
    let failed = |failure: &str, what: &str| Outcome::Failed {
        failure: failure.to_owned(),
        message: with_circumstances(what, ended),
        step: None,
    };
    if let Some(breach) = ended.follower.breach() {
        return failed(CONTRACT, &format!("the trainer broke its contract and was ended: {breach}"));
    }
    match ended.follower.last_word() {
        Some(LastWord::Failed { kind, message, .. }) if ended.is_held && WRITING.contains(&kind.as_str()) => {
            Outcome::Hindered { message: message.clone() }
        }
        Some(LastWord::Failed { kind, message, step }) => {
            // Only of the step that comes next can it be said that it cannot be made.
            let step = step.filter(|step| kind == NOT_FINITE && *step == ended.follower.progress().step);
            Outcome::Failed { failure: kind.clone(), message: message.clone(), step }
        }
        Some(LastWord::Finished) if ended.is_saved => Outcome::Finished,
        Some(LastWord::Finished) if ended.is_held => {
            Outcome::Hindered { message: "the last checkpoint cannot be looked at".to_owned() }
        }
        Some(LastWord::Finished) => {
            let to = ended.follower.start().to;
            failed(
                CONTRACT,
                &format!("the trainer says that it has finished, but saved no checkpoint at step {to}"),
            )
        }
        _ if ended.reason == Some(Reason::Silent) => {
            failed(SILENT, &format!("the trainer said nothing for {} s and was ended", seconds(ended.silent)))
        }
        Some(LastWord::Stopped) => Outcome::Stopped,
        None if ended.is_killed => {
            let stop = seconds(ended.stop);
            failed(STOP, &format!("the trainer did not save and stop within {stop} s and was ended"))
        }
        None if has_stopped(ended) => Outcome::Stopped,
        None => {
            let what = match ended.exit {
                Some(_) => "the trainer ended without a last word",
                None => "the trainer was gone, without a last word, when it was looked for",
            };
            let message = with_circumstances(what, ended);
            // Its last word may be what it could not write.
            if ended.is_held { Outcome::Hindered { message } } else { Outcome::Crashed { message } }
        }
    }
}

/// Whether an attempt without a last word stopped in order: it says so by its exit status, or it had been asked and did
/// not yet listen.
fn has_stopped(ended: &Ended<'_>) -> bool {
    let is_asked = ended.reason == Some(Reason::Asked);
    match ended.exit {
        Some(Exit::Code(SAVED)) => true,
        Some(Exit::Signal(signal)) => is_asked && signal == TERM.0,
        Some(Exit::Code(code)) => is_asked && code == TERM.1,
        None => is_asked,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time to be read by people")]
fn seconds(time: Millis) -> f64 {
    time as f64 / 1000.0
}

fn with_circumstances(what: &str, ended: &Ended<'_>) -> String {
    let mut message = what.to_owned();
    if let Some(exit) = ended.exit {
        message.push_str(&format!(" ({exit})"));
    }
    if !ended.log.is_empty() {
        message.push_str("; the last lines of its log:\n");
        message.push_str(ended.log);
    }
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

/// How often and when a path is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retries {
    /// Failures without progress after which a path is given up.
    pub attempts: u32,
    /// Wait before the second attempt; doubled for each further one.
    pub backoff: Millis,
    /// Longest wait.
    pub longest: Millis,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The path goes on, not before this moment.
    At(Option<Millis>),
    /// The path is given up.
    GiveUp,
}

impl Retries {
    /// What follows an attempt that ended `now`, after so many failures without progress. One that stopped of its own
    /// accord waits too: a trainer that always does would else be started without end.
    pub fn next(&self, outcome: &Outcome, failures: u32, is_asked: bool, now: Millis) -> Next {
        match outcome {
            Outcome::Finished => Next::At(None),
            Outcome::Stopped if is_asked => Next::At(None),
            Outcome::Stopped => Next::At(Some(now.saturating_add(self.backoff))),
            Outcome::Hindered { .. } => Next::At(Some(now.saturating_add(self.backoff.max(BETWEEN_TRIES)))),
            Outcome::Failed { .. } | Outcome::Crashed { .. }
                if failures.saturating_add(1) >= self.attempts =>
            {
                Next::GiveUp
            }
            Outcome::Failed { .. } | Outcome::Crashed { .. } => {
                Next::At(Some(now.saturating_add(self.wait(failures))))
            }
        }
    }

    fn wait(&self, failures: u32) -> Millis {
        let factor = 1_u64.checked_shl(failures).unwrap_or(u64::MAX);
        self.backoff.saturating_mul(factor).min(self.longest)
    }
}
