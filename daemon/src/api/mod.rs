//! The control API: HTTP and JSON on a unix socket, and on a loopback port for those who look.
//!
//! Readers get the version tree as it stands; whoever asks for something has it journalled, or is told in a sentence why
//! not. What is no fact of the journal, such as how far a running trainer is, comes from the neighbours through [`Live`].

pub(crate) mod answers;
pub mod counters;
mod describe;
mod evaluations;
pub mod explain;
#[cfg(test)]
pub(crate) mod fixture;
mod gate;
mod live;
mod metrics;
mod page;
mod refused;
mod router;
mod routes;
mod server;
mod shared;
mod status;
mod stream;
#[cfg(test)]
mod tests;
pub mod types;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::alias::links::Links;
use crate::config::SlotConfig;
use crate::devices::Devices;
use crate::ledger::path::Step;
use crate::ledger::transition::{CutNumber, JobNumber, Millis};
use crate::ledger::tree::Tree;
use crate::ledger::{Clock, Ledger};
use crate::retention::Retention;
use crate::telemetry::Telemetry;
use types::{Refusal, ReloadAnswer, WaitingFile};

pub use gate::{Token, TokenError};
pub use page::Page;
pub use router::description;
pub use server::{Face, Loopback, Socket, SocketError, serve, serve_tcp};

/// How far a running attempt is, out of its own events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The attempt.
    pub attempt: u32,
    /// Updates done: one past the last step that it reported, or where it started.
    pub step: Step,
    /// Steps that this attempt has done.
    pub steps_done: u64,
    /// Loss of the last step, in nats a token.
    pub loss: Option<f64>,
    /// Rate of the last step.
    pub learning_rate: Option<f64>,
    /// Tokens a second in the last step.
    pub tokens_per_second: Option<f64>,
    /// When its first event was said.
    pub first_event_at: Option<Millis>,
    /// When its last event was said.
    pub last_event_at: Option<Millis>,
    /// What is told of it and is no failure.
    pub warning: Option<String>,
}

/// What the inbox and the jobs know beside the journal. All of it may block for some milliseconds.
pub trait Live: Send + Sync {
    /// Looks at the watched folder, and has a request to cut journalled with the files that are there.
    ///
    /// # Errors
    /// Why not, as a sentence.
    fn request_cut(&self, name: Option<String>) -> Result<CutNumber, String>;
    /// Files that are not taken yet.
    fn waiting(&self) -> Vec<WaitingFile>;
    /// Requests to cut whose markers still lie in the folder.
    fn markers(&self) -> BTreeSet<CutNumber>;
    /// Shows, once, the tree and how far the attempts are that run in it by all that they have said, both as they are at
    /// one moment: no step is in both, and none in neither.
    fn moment(&self, look: &mut dyn FnMut(&Tree, &BTreeMap<JobNumber, Progress>));
}

/// Who can read the configuration again.
pub trait Reload: Send + Sync {
    /// Reads it, and has it hold as soon as whoever asked was answered.
    ///
    /// # Errors
    /// What is wrong with it; then everything stays as it was.
    fn reload(&self) -> Result<ReloadAnswer, Refusal>;
}

/// What the API answers from.
pub struct Backend {
    /// The journal and the tree.
    pub ledger: Ledger,
    /// What is not in them.
    pub live: Arc<dyn Live>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The state folder.
    pub state: PathBuf,
    /// Where jobs run.
    pub slots: Vec<SlotConfig>,
    /// The GPUs of the machine.
    pub devices: Arc<Devices>,
    /// What keeps the state in order.
    pub retention: Retention,
    /// What lets names follow the tree.
    pub links: Links,
    /// How often a configuration took hold since the daemon was started.
    pub shift: u64,
    /// What reads the configuration again.
    pub reload: Arc<dyn Reload>,
    /// What was counted since the daemon was started.
    pub telemetry: Arc<Telemetry>,
}

impl Backend {
    /// What the daemon does now, a sentence, and when it will probably be done with that. It may block for a moment.
    pub fn doing(&self) -> (String, Option<Millis>) {
        let (waiting, now) = (self.live.waiting().len() as u64, self.clock.now());
        let is_held = self.ledger.hindrances().holds_jobs();
        self.at_one_moment(|tree, progress| {
            answers::doing(tree, &answers::running(tree, progress, now), waiting, now, is_held)
        })
    }

    /// Asks the tree and the running attempts as they are at one moment.
    fn at_one_moment<T>(&self, question: impl Fn(&Tree, &BTreeMap<JobNumber, Progress>) -> T) -> T {
        let mut answer = None;
        self.live.moment(&mut |tree, progress| answer = Some(question(tree, progress)));
        #[expect(clippy::expect_used, reason = "an invariant of the trait")]
        answer.expect("invariant: a moment is shown, as `Live::moment` promises")
    }
}
