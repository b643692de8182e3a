//! What is not needed any more goes.
//!
//! What goes is decided by a pure function under the ledger's lock and journalled before a file is touched: a crash in
//! between leaves a folder that the journal says is deleted, and the next look removes it. The same look serves `gc`,
//! which also names what stays, and why.

pub mod judge;
pub mod things;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use artifacts::storage::{self, Storage};
use artifacts::stream;
use tokio::sync::watch;

use crate::ledger::{Ledger, LedgerError};
use crate::run_stream::RunLength;
use judge::Rules;
use things::{Found, Scope, Thing};

/// The state that is kept in order, and by what rules.
#[derive(Clone)]
pub struct Retention {
    /// What is known.
    pub ledger: Ledger,
    /// The state's folder.
    pub state: PathBuf,
    /// Where things are removed.
    pub storage: Arc<dyn Storage>,
    /// What is kept.
    pub rules: Rules,
    /// Held by the one who removes: two at once would take what the other removes for a broken disk.
    pub turn: Arc<Mutex<()>>,
}

/// Why nothing could be judged.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The ledger refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A folder cannot be read.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The stream cannot be counted.
    #[error(transparent)]
    Stream(#[from] stream::Error),
    /// There is no run.
    #[error("the state says nothing of its sequences: it was not made by `lrpathctl init`")]
    NotMade,
}

/// What a look found, and what became of it.
#[derive(Debug, Default)]
pub struct Collected {
    /// Everything that was judged.
    pub things: Vec<Thing>,
    /// What was to go and could not be removed, a sentence each.
    pub left: Vec<String>,
}

impl Retention {
    /// Judges everything and, unless it is only asked, removes what goes.
    ///
    /// # Errors
    /// Nothing was judged, and nothing removed.
    pub fn collect(&self, scope: Scope, only_asked: bool) -> Result<Collected, RetentionError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let found = Found::in_state(&*self.storage, &self.state)?;
        let fixed = self.ledger.read(|tree| tree.fixed().cloned()).ok_or(RetentionError::NotMade)?;
        let mut length = RunLength::new(&fixed)?;
        let (_, things) = self.ledger.commit_with(|tree| {
            let followed = length.follow(tree);
            let things =
                followed.map(|_| things::judge(tree, &found, &self.rules, length.whole_steps(), scope));
            let gone = match &things {
                Ok(things) if !only_asked => things::transitions(things),
                _ => Vec::new(),
            };
            (gone, things)
        })?;
        let mut things = things?;
        if scope == Scope::All {
            things::measure(&self.state, &mut things);
        }
        let mut left = Vec::new();
        if !only_asked {
            for thing in things.iter().filter(|thing| thing.goes) {
                match things::remove(&*self.storage, &self.state, thing) {
                    Ok(()) => tracing::info!(thing = thing.name, why = thing.why, "removed"),
                    Err(error) => left.push(error.to_string()),
                }
            }
        }
        Ok(Collected { things, left })
    }

    /// Keeps the state in order until shutdown.
    ///
    /// # Errors
    /// What stops the daemon: the ledger or the stream refuses. What cannot be removed is said in the log and tried again.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> Result<(), RetentionError> {
        let mut position = self.ledger.watch();
        while !*shutdown.borrow() {
            position.borrow_and_update();
            match tokio::task::block_in_place(|| self.collect(Scope::Daily, false)) {
                Ok(collected) => {
                    for error in collected.left {
                        tracing::warn!(error, "what is not needed could not be removed: will retry");
                    }
                }
                Err(RetentionError::Storage(error)) => {
                    tracing::warn!(%error, "what is not needed cannot be looked for: will retry");
                }
                // The ledger tells everybody what it waits for.
                Err(RetentionError::Ledger(error)) if error.hindrance().is_some() => position.mark_changed(),
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = moved(&mut position) => {}
                _ = shutdown.changed() => {}
            }
        }
        Ok(())
    }
}

/// After the tree has moved, and not at once: what moves it comes in bursts.
async fn moved(position: &mut watch::Receiver<u64>) {
    tokio::time::sleep(SHORTEST_PAUSE).await;
    let _ = tokio::time::timeout(LONGEST_PAUSE, position.changed()).await;
}

/// The disk is looked at no more often than this, and no less.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
