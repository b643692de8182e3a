//! What went wrong, told to a person, and the number that a script sees.

use std::fmt;
use std::process::ExitCode;

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::look::Look;

/// Why a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It was refused, or failed.
    Refused = 1,
    /// It was not understood.
    Usage = 2,
    /// No daemon answers.
    NoDaemon = 3,
    /// The state is damaged.
    Damaged = 4,
}

/// The exit codes, for help and docs.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, or failed: the message says why
  2  the command line was not understood
  3  no daemon answers on the control socket
  4  `check` found damage";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that failed: a sentence, what is behind it, what to do.
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
            return format!("error: {}{cause}{hint}\n", self.message);
        }
        let theme = if look.colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(look.width).with_links(false);
        let mut text = String::new();
        match handler.render_report(&mut text, self) {
            Ok(()) => text,
            Err(_) => format!("error: {}\n", self.message),
        }
    }
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

/// A failure of anything that has a sentence.
macro_rules! from_error {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::new(error)
            }
        })*
    };
}
from_error!(
    crate::config::ConfigError,
    crate::config::NoTrainer,
    crate::ledger::LedgerError,
    crate::ledger::lock::LockError,
    artifacts::storage::Error,
    paradigm::report::ReportError,
);
