//! Whether there is room for what comes next.
//!
//! A checkpoint that does not fit is found out when an hour of training hangs on it. So the disk is looked at before:
//! where the next checkpoint would not fit, or the state's folders cannot be written, no job is started and everybody is
//! told what is waited for; when that has passed, all goes on by itself. A trainer that comes to a checkpoint meanwhile
//! waits too, by what its job says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use artifacts::storage;
use paradigm::model::Model;
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::ledger::hindrances::Waits;
use crate::ledger::tree::Tree;

/// Between two looks: each is a few system calls.
const EVERY: Duration = Duration::from_secs(1);
/// Bytes beside the next checkpoint that events, logs and the journal have until it is written.
pub const SPARE: u64 = 1 << 20;
/// Bytes of a parameter in a checkpoint: its master weight and two moments, in f32.
const BYTES_OF_PARAMETER: u64 = 12;
/// What waited for room goes on when there is so much more than it needs, an eighth: else it would come and go with each
/// event.
const MARGIN: u64 = 8;

/// The state, and its folders that are written all the time.
const WRITTEN: [&str; 7] = ["", "journal", "tokens", "jobs", "checkpoints", "releases", "rejected"];

/// The actor.
pub struct Outlook {
    ledger: Ledger,
    state: PathBuf,
}

impl Outlook {
    /// The outlook of the state behind a ledger.
    pub fn new(ledger: Ledger, state: &Path) -> Self {
        Self { ledger, state: state.to_owned() }
    }

    /// Looks until shutdown.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        while !*shutdown.borrow() {
            tokio::task::block_in_place(|| self.look());
            tokio::select! {
                _ = shutdown.changed() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    /// Looks once.
    pub fn look(&self) {
        let checkpoint = self.ledger.read(next_checkpoint).saturating_add(SPARE);
        self.tell(Waits::Checkpoints, self.room("checkpoints", self.wanted(Waits::Checkpoints, checkpoint)));
        let spare = self.wanted(Waits::State, SPARE);
        let has_room = || ["", "journal", "jobs"].iter().try_for_each(|name| self.room(name, spare));
        self.tell(Waits::State, self.writable().and_then(|()| has_room()));
        if self.room("journal", SPARE).is_ok() {
            self.ledger.try_again();
        }
    }

    /// Bytes that something needs, and more where it waits already.
    fn wanted(&self, what: Waits, bytes: u64) -> u64 {
        let margin = if self.ledger.hindrances().has(what) { bytes / MARGIN } else { 0 };
        bytes.saturating_add(margin)
    }

    fn tell(&self, what: Waits, found: storage::Result<()>) {
        match found {
            Err(error) => self.ledger.hindrances().waits(what, error),
            Ok(()) => self.ledger.hindrances().goes_on(what),
        }
    }

    /// Each folder may be a disk of its own.
    fn room(&self, name: &str, bytes: u64) -> storage::Result<()> {
        storage::room_for(&self.folder(name), bytes)
    }

    /// A folder of the state; without a name it is the state itself.
    fn folder(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.state.clone() } else { self.state.join(name) }
    }

    fn writable(&self) -> storage::Result<()> {
        let folders = WRITTEN.iter().map(|name| self.folder(name)).filter(|folder| folder.exists());
        folders.filter_map(|folder| storage::may_write(&folder).err()).try_for_each(|error| {
            match error.hindrance() {
                Some(_) => Err(error),
                None => Ok(()),
            }
        })
    }
}

/// Bytes of the next checkpoint: as large as the largest one so far, else by the model's parameters.
fn next_checkpoint(tree: &Tree) -> u64 {
    let largest = tree.checkpoints().values().map(|checkpoint| checkpoint.bytes).max();
    largest.unwrap_or_else(|| {
        let model = tree.fixed().and_then(|fixed| serde_json::from_value::<Model>(fixed.model.clone()).ok());
        model.map_or(0, |model| model.parameters().saturating_mul(BYTES_OF_PARAMETER))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::samples::{HandClock, sample};
    use crate::ledger::transition::Transition;

    fn ledger() -> Ledger {
        Ledger::in_memory(Arc::new(HandClock::default()))
    }

    #[test]
    fn the_next_checkpoint_is_forecast_from_the_model_and_then_from_the_last_ones() {
        let ledger = ledger();
        assert_eq!(ledger.read(next_checkpoint), 0);
        let Transition::Initialized(mut fixed) = sample(1) else { panic!("the first sample begins a run") };
        fixed.model = serde_json::json!({
            "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2
        });
        ledger.commit(Transition::Initialized(fixed)).unwrap();
        // Embedding and head 2 * 512 * 64; a layer 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64; the last norm 64.
        let parameters = 65_536 + 2 * (8_192 + 4_096 + 24_576 + 128) + 64;
        assert_eq!(ledger.read(next_checkpoint), 12 * parameters);
    }
}
