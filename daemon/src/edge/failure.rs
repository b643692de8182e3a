//! What went wrong, told to a person, and the number that a script sees.

use std::fmt;
use std::io;
use std::process::ExitCode;

use artifacts::storage::{self, Hindrance};
use miette::{GraphicalReportHandler, GraphicalTheme};

use super::look::Look;
use crate::config::{Changed, ConfigError, Newer, NoTrainer};
use crate::ledger::LedgerError;
use crate::ledger::journal::JournalError;
use crate::ledger::lock::LockError;

/// How a failure begins where no person looks.
const ERROR: &str = "error: ";

/// Why a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was refused, or failed.
    Refused = 1,
    /// It was not understood.
    Usage = 2,
    /// No daemon answers.
    NoDaemon = 3,
    /// The state is damaged, or a newer version of the program made it.
    Damaged = 4,
    /// The configuration, or what it names, cannot be used: to try again changes nothing.
    Configuration = 5,
    /// Another program has the state or the socket.
    InUse = 6,
}

/// The exit codes, for help and docs.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, or failed: the message says why
  2  the command line was not understood
  3  no daemon answers on the control socket
  4  the state is damaged, or a newer version of the program made it
  5  the configuration, or what it names, cannot be used
  6  another program has the state or the socket";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What failed: a sentence, what is behind it, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The number that a script sees.
    pub exit: Exit,
    /// What went wrong.
    pub message: String,
    /// Why.
    pub cause: Option<Cause>,
    /// What to do.
    pub hint: Option<String>,
}

/// What is behind a failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub String);

impl Failure {
    /// A refusal.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Refused, message: message.to_string(), cause: None, hint: None }
    }

    /// With another exit code.
    pub fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// With what is behind it.
    pub fn because(self, cause: impl fmt::Display) -> Self {
        Self { cause: Some(Cause(cause.to_string())), ..self }
    }

    /// With what to do.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// As a person reads it on a terminal; as plain lines elsewhere.
    pub fn render(&self, look: &Look) -> String {
        if !look.terminal {
            let cause = self.cause.as_ref().map_or(String::new(), |cause| format!("\n  because: {cause}"));
            let hint = self.hint.as_ref().map_or(String::new(), |hint| format!("\n  hint: {hint}"));
            return format!("{ERROR}{}{cause}{hint}\n", self.message);
        }
        let theme = if look.colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(look.width).with_links(false);
        let mut text = String::new();
        match handler.render_report(&mut text, self) {
            Ok(()) => text,
            Err(_) => format!("{ERROR}{}\n", self.message),
        }
    }
}

/// The failure that a program told last, out of what it wrote where nobody looked: all of it, from its sentence to what
/// to do.
pub fn last_told(log: &str) -> Option<&str> {
    let begins = |at: &usize| *at == 0 || log[..*at].ends_with('\n');
    let (at, _) = log.rmatch_indices(ERROR).find(|(at, _)| begins(at))?;
    Some(log[at + ERROR.len()..].trim_end())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

impl miette::Diagnostic for Failure {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as _)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let is_unreadable = matches!(error, ConfigError::Unreadable { .. });
        let failure = Self::new(error).exit(Exit::Configuration);
        match is_unreadable {
            true => failure.hint(
                "name a file that is there and may be read; `lrpathctl init` writes one with all defaults",
            ),
            false => failure,
        }
    }
}

impl From<NoTrainer> for Failure {
    fn from(error: NoTrainer) -> Self {
        Self::new(error).exit(Exit::Configuration)
    }
}

impl From<Changed> for Failure {
    fn from(error: Changed) -> Self {
        Self::new(error)
            .exit(Exit::Configuration)
            .hint("change it back, or make a new state with `lrpathctl init`")
    }
}

impl From<Newer> for Failure {
    fn from(error: Newer) -> Self {
        Self::new(error).exit(Exit::Damaged).hint("it was made by a newer version: use that one")
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let is_held = matches!(error, LockError::Held { .. });
        let failure = Self::new(error);
        match is_held {
            true => failure
                .exit(Exit::InUse)
                .hint("two programs on one state would destroy it: stop that one first"),
            false => failure.hint("run it as the user who owns the state, where that can be written"),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Lock(error) => error.into(),
            error @ LedgerError::NoState(_) => Self::new(error)
                .exit(Exit::Configuration)
                .hint("name the folder with --state, or make one there with `lrpathctl init`"),
            error @ LedgerError::Unseen { .. } => {
                Self::new(error).hint("run it as the user who owns the state")
            }
            LedgerError::Journal(JournalError::Storage(error)) => error.into(),
            // What is damaged says itself what to do.
            error if error.blames_the_state() => Self::new(error).exit(Exit::Damaged),
            error @ LedgerError::View(_) => Self::new(error)
                .hint("the journal is untouched; when the state can be written and has room, run `lrpathctl rebuild`"),
            error => Self::new(error),
        }
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Self {
        let hint = what_to_do(&error);
        Self::new(error).hint(hint)
    }
}

/// What to do about an error of the storage, whatever it kept from being done.
pub fn what_to_do(error: &storage::Error) -> &'static str {
    match error.cause.kind() {
        _ if error.is_full() => "make room on that disk and try again: nothing that was acknowledged is lost",
        io::ErrorKind::PermissionDenied => "run it as the user who owns the folder, or let this user in",
        io::ErrorKind::ReadOnlyFilesystem => "mount that disk so that it can be written, and try again",
        _ if error.hindrance() == Some(Hindrance::Files) => Hindrance::Files.remedy(),
        io::ErrorKind::NotFound => "put it where it is looked for, or name another one",
        _ => "the system's log says more about that disk; mend it and try again",
    }
}

impl From<paradigm::report::ReportError> for Failure {
    fn from(error: paradigm::report::ReportError) -> Self {
        Self::new(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Look = Look { terminal: false, colour: false, width: 80 };

    #[test]
    fn of_a_log_the_whole_last_failure_is_told_and_nothing_before_it() {
        let failure = Failure::new("the state `/srv/run` is in use by process 7")
            .because("flock error: it is taken")
            .hint("stop that one first");
        let before = Failure::new("another one, long ago").hint("forget it");
        let log =
            format!("{}INFO error: in a line of the log\n{}", before.render(&LOG), failure.render(&LOG));
        assert_eq!(
            last_told(&log),
            Some(
                "the state `/srv/run` is in use by process 7\n  because: flock error: it is taken\n  hint: stop that \
                 one first"
            )
        );
        let told = Failure::new("the daemon does not run").because(last_told(&log).unwrap()).render(&LOG);
        assert_eq!(told.lines().nth(1), Some("  because: the state `/srv/run` is in use by process 7"));
        assert_eq!(last_told(&failure.render(&LOG)), last_told(&log));
        assert_eq!(last_told("INFO all is well\n"), None);
    }
}
