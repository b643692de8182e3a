//! How an attempt's process is started, found again and stopped, whatever machine it runs on.
//!
//! The daemon may die at any moment and trainers outlive it, so an executor is asked by the attempt's folder alone:
//! what it must remember lies there. What a trainer has *said* is no business of an executor; that is read from the
//! events file, which is the same for all of them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use artifacts::storage::Hindrance;

use crate::devices::Missing;
use crate::ledger::transition::JobNumber;

/// What the trainer is told, in the attempt's folder.
pub const JOB: &str = "job.json";
/// What it says: its standard output.
pub const EVENTS: &str = "events.jsonl";
/// What it tells people: its standard error.
pub const LOG: &str = "log";

/// What is to be started.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The attempt's folder, with [`JOB`] in it.
    pub folder: &'a Path,
    /// The job.
    pub job: JobNumber,
    /// The attempt.
    pub attempt: u32,
    /// Threads to compute with.
    pub threads: u32,
    /// What it computes on, as its slot names them.
    pub devices: &'a [String],
    /// Whether others may use them at the same time.
    pub shared: bool,
}

/// What has become of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever started, or it died before its first word with nobody to see it: it may be started.
    NotStarted,
    /// A process of it lives.
    Running,
    /// It was started, and all of it is gone.
    Gone {
        /// How it ended, where this daemon started it.
        exit: Option<Exit>,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why an attempt was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It was started before: an attempt has one process in its life.
    #[error("`{}` was started before: an attempt is started once", folder.display())]
    Taken {
        /// The attempt's folder.
        folder: PathBuf,
    },
    /// The command cannot be run.
    #[error("cannot start the trainer `{command}`: {cause}; set `trainer.command` to one that can be run")]
    Command {
        /// The program.
        command: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A device of its slot cannot be had.
    #[error(transparent)]
    Device(#[from] Missing),
    /// A file in the attempt's folder cannot be used.
    #[error("cannot {doing} `{}`: {cause}", path.display())]
    File {
        /// What was tried, as it follows "cannot".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl StartError {
    /// Whether the machine has run out of something, or misses it: room, memory, processes, files that may be open, a device.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Taken { .. } => false,
            Self::Device(_) => true,
            // What the system says when it has no process left.
            Self::Command { cause, .. } if cause.kind() == io::ErrorKind::WouldBlock => true,
            Self::Command { cause, .. } => Hindrance::of(cause).is_some_and(Hindrance::is_shortage),
            Self::File { cause, .. } => Hindrance::of(cause).is_some(),
        }
    }
}

/// Runs attempts.
pub trait Executor: Send + Sync {
    /// Starts an attempt, once in its life: of two callers, and of two daemons after each other, one is refused with
    /// [`StartError::Taken`].
    fn start(&self, launch: &Launch<'_>) -> Result<(), StartError>;

    /// What has become of an attempt, started by this daemon or by one before it.
    ///
    /// # Errors
    /// The system would not say; this tells nothing of the attempt.
    fn find_again(&self, folder: &Path) -> io::Result<Found>;

    /// Asks the trainer to save and stop: SIGTERM. No error if it is gone.
    fn stop(&self, folder: &Path) -> io::Result<()>;

    /// Asks the trainer to save and go on: SIGUSR1. No error if it is gone.
    fn save(&self, folder: &Path) -> io::Result<()>;

    /// Ends the trainer and whatever it has started: SIGKILL. No error if it is gone.
    fn kill(&self, folder: &Path) -> io::Result<()>;

    /// The attempt's end is in the journal: what is kept of it in memory may go.
    fn forget(&self, folder: &Path);
}
