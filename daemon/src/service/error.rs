//! Why the daemon does not run, and how that is told.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use artifacts::storage::Hindrance;

use crate::api::{SocketError, TokenError};
use crate::config::{Changed, ConfigError, Newer, NoTrainer};
use crate::edge::failure::{Exit, Failure, what_to_do};
use crate::jobs::{CheckpointsError, JobsError};
use crate::ledger::LedgerError;
use crate::ledger::lock::LockError;
use crate::retention::RetentionError;
use crate::scheduler::SchedulerError;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something that is fixed was changed.
    #[error(transparent)]
    Changed(#[from] Changed),
    /// The state was made by a newer version of the program.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// The state is in use.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no trainer.
    #[error(transparent)]
    NoTrainer(#[from] NoTrainer),
    /// There is no state, or its journal cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The scheduler cannot go on.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The state cannot be kept in order.
    #[error(transparent)]
    Retention(#[from] RetentionError),
    /// The jobs cannot be supervised.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// The control socket cannot be used.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The token of the door over TCP cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The daemon's user may not use the state: no restart changes that.
    #[error("the state `{}` is not for this user: {cause}", state.display())]
    NotOurs {
        /// The state.
        state: PathBuf,
        /// What was refused.
        cause: String,
    },
    /// Each GPU is to be a slot, and there is none.
    #[error("`gpu_slots` makes a slot of each GPU, and no driver tells of one")]
    NoGpus,
    /// A part of the daemon panicked.
    #[error("a part of the daemon ended without a word: {0}")]
    Task(String),
    /// The system refuses something that a daemon cannot do without.
    #[error("{what}: {cause}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        cause: std::io::Error,
    },
}

impl ServiceError {
    /// Tells what only a state's owner can mend from what may pass by itself.
    pub fn of_a_state_that_is_not_ours(self, state: &Path) -> Self {
        let hindrance = match &self {
            Self::Lock(LockError::Io { cause, .. }) | Self::Ledger(LedgerError::Unseen { cause, .. }) => {
                Hindrance::of(cause)
            }
            Self::Ledger(error) => error.hindrance(),
            _ => None,
        };
        match hindrance {
            Some(Hindrance::Permission) => Self::NotOurs { state: state.to_owned(), cause: self.to_string() },
            _ => self,
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Config(error) => {
                Self::from(error).hint("`lrpathctl config check` looks at it again, and starts nothing")
            }
            ServiceError::Changed(error) => error.into(),
            ServiceError::Newer(error) => error.into(),
            ServiceError::Lock(error) => error.into(),
            ServiceError::NoTrainer(error) => error.into(),
            ServiceError::Ledger(error) => error.into(),
            ServiceError::Socket(error) => of_socket(error),
            ServiceError::Token(error) => Self::new(error).exit(Exit::Configuration).hint(TOKEN),
            ServiceError::Scheduler(error) => of_scheduler(error),
            ServiceError::Retention(error) => of_retention(error),
            ServiceError::Jobs(error) => of_jobs(error),
            ServiceError::NotOurs { ref state, .. } => {
                let owner = format!(
                    "let it belong to the user that lrpathd runs as: `chown -R lrpath:lrpath {}`",
                    state.display()
                );
                Self::new(&error).exit(Exit::Configuration).hint(owner)
            }
            error @ ServiceError::NoGpus => Self::new(error).hint(
                "`nvidia-smi` says whether the driver works; as a service the daemon needs the drop-in gpu.conf; or list \
                 [[slots]]",
            ),
            error @ ServiceError::Task(_) => Self::new(error).hint(AGAIN),
            error @ ServiceError::System { .. } => Self::new(error).hint(
                "look at what this user may have (`ulimit -a`) and at the system's log, and start it again",
            ),
        }
    }
}

/// What to do about what should not happen.
const AGAIN: &str = "start it again: nothing that was acknowledged is lost";

/// How a token is made.
const TOKEN: &str =
    "`openssl rand -hex 32` makes one; let only this user read the file, or remove `control.token_file`";

fn of_retention(error: RetentionError) -> Failure {
    match error {
        RetentionError::Ledger(error) => error.into(),
        error => Failure::new(error).hint(AGAIN),
    }
}

fn of_scheduler(error: SchedulerError) -> Failure {
    match error {
        SchedulerError::Ledger(error) => error.into(),
        error @ SchedulerError::Stream(_) => Failure::new(error).hint(
            "this state takes no more data; its releases stay, and `lrpathctl init` makes another state",
        ),
        error @ SchedulerError::NotMade => {
            Failure::new(error).hint("make a state with `lrpathctl init` and start it for that one")
        }
    }
}

fn of_jobs(error: JobsError) -> Failure {
    let failure = Failure::new(&error);
    match error {
        JobsError::Ledger(error) | JobsError::Checkpoints(CheckpointsError::Ledger(error)) => error.into(),
        JobsError::Storage(error) | JobsError::Checkpoints(CheckpointsError::Storage(error)) => {
            failure.hint(what_to_do(&error))
        }
        JobsError::Task(_) => failure.hint(AGAIN),
    }
}

fn of_socket(error: SocketError) -> Failure {
    let exit = match &error {
        SocketError::InUse(_) => Exit::InUse,
        SocketError::Port { cause, .. } if cause.kind() == ErrorKind::AddrInUse => Exit::InUse,
        SocketError::Port { .. } => Exit::Configuration,
        SocketError::InTheWay(_) | SocketError::TooLong(_) => Exit::Configuration,
        SocketError::Io { .. } => Exit::Refused,
    };
    let hint = match &error {
        SocketError::InUse(_) => "stop that one, or set `control.socket` to another path",
        SocketError::InTheWay(_) => "remove it, or set `control.socket` to another path",
        SocketError::TooLong(_) => "set `control.socket` to a shorter path",
        SocketError::Port { .. } => "set `control.listen` to another port of 127.0.0.1, above 1023",
        SocketError::Io { .. } => "set `control.socket` to a path in a folder where this user may write",
    };
    Failure::new(error).exit(exit).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use artifacts::{storage, stream};

    use super::*;
    use crate::ledger::journal::JournalError;

    #[test]
    fn a_script_can_tell_what_to_try_again_and_a_person_what_to_do() {
        let io = || std::io::Error::from_raw_os_error(13);
        let path = || PathBuf::from("/srv/state");
        let storage = || storage::Error::at("write", &path())(io());
        let table: [(ServiceError, Exit); 13] = [
            (LedgerError::Unseen { state: path(), cause: io() }.into(), Exit::Refused),
            (LedgerError::from(JournalError::Storage(storage())).into(), Exit::Refused),
            (SchedulerError::Stream(stream::Error::Shape).into(), Exit::Refused),
            (JobsError::Storage(storage()).into(), Exit::Refused),
            (JobsError::Checkpoints(CheckpointsError::Storage(storage())).into(), Exit::Refused),
            (JobsError::Task("it was cancelled".to_owned()).into(), Exit::Refused),
            (LedgerError::NoState(path()).into(), Exit::Configuration),
            (Changed { file: path(), differences: Vec::new() }.into(), Exit::Configuration),
            (Newer { state: path(), found: 9 }.into(), Exit::Damaged),
            (LockError::Held { state: path(), pid: Some(7) }.into(), Exit::InUse),
            (LockError::Io { path: path(), cause: io() }.into(), Exit::Refused),
            (SocketError::InUse(path()).into(), Exit::InUse),
            (ServiceError::System { what: "the runtime cannot be started", cause: io() }, Exit::Refused),
        ];
        for (error, exit) in table {
            let failure = Failure::from(error);
            assert_eq!(failure.exit, exit, "{failure}");
            assert!(failure.hint.is_some(), "what is to be done? {failure}");
        }
    }

    #[test]
    fn what_only_the_states_owner_can_mend_is_not_tried_again() {
        let state = PathBuf::from("/srv/state");
        let error = |code| {
            let cause = std::io::Error::from_raw_os_error(code);
            let error = ServiceError::from(LockError::Io { path: state.join("lock"), cause });
            Failure::from(error.of_a_state_that_is_not_ours(&state))
        };
        let forbidden = error(13);
        assert_eq!(forbidden.exit, Exit::Configuration);
        assert_eq!(
            forbidden.message,
            "the state `/srv/state` is not for this user: cannot lock `/srv/state/lock`: Permission denied (os error 13)"
        );
        assert!(forbidden.hint.unwrap().contains("chown"));
        // A disk that is full, or can only be read for a while.
        assert_eq!((error(28).exit, error(30).exit), (Exit::Refused, Exit::Refused));
    }

    #[test]
    fn a_socket_that_cannot_be_used_is_told_with_what_to_do() {
        let cause = std::io::Error::from_raw_os_error(13);
        let failure =
            Failure::from(ServiceError::from(SocketError::Io { path: "/run/x.sock".into(), cause }));
        assert_eq!(failure.message, "cannot listen on `/run/x.sock`: Permission denied (os error 13)");
        assert!(failure.hint.unwrap().contains("`control.socket`"));
    }
}
