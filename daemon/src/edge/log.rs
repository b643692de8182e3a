//! Where the daemon's log goes: to the journal of the machine with its fields, or to standard error for people or programs.

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::look::Look;

/// Beginning of the names of fields in the journal.
const PREFIX: &str = "LRPATH";
/// What the log leaves out where `RUST_LOG` says nothing.
const FILTER: &str = "info,sled=warn";

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// The journal where systemd has connected it, else text.
    Auto,
    /// The journal: each field of a line can be asked for there.
    Journal,
    /// Lines for people, on standard error.
    Text,
    /// A JSON object a line, on standard error.
    Json,
}

/// Begins the log. Where the journal is asked for and is not there, text takes its place.
pub fn begin(form: Form, look: &Look) {
    // systemd names the journal's stream where standard error goes there.
    let is_connected = std::env::var_os("JOURNAL_STREAM").is_some();
    let journal = match form {
        Form::Journal => true,
        Form::Auto => is_connected,
        Form::Text | Form::Json => false,
    };
    let journal = journal.then(tracing_journald::layer).and_then(Result::ok);
    let layer = match (journal, form) {
        (Some(journal), _) => journal.with_field_prefix(Some(PREFIX.to_owned())).boxed(),
        (None, Form::Json) => fmt::layer().json().with_writer(std::io::stderr).boxed(),
        (None, _) => fmt::layer().with_ansi(look.colour).with_writer(std::io::stderr).boxed(),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
