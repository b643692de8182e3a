//! What cannot be written now, and since when.
//!
//! A full disk is no error of whoever writes: it waits and tries again. Nobody may have to guess what it waits for, so
//! each tells here when that begins and when it is over; the log says both once, and `status` what stands. None of it is
//! in the journal, which may be the very thing that cannot be written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Clock;
use super::transition::Millis;

/// What waits. The first three keep jobs from being started, and excuse a trainer that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Waits {
    /// Every command, and everything that is to be journalled.
    Journal,
    /// All that is written into the state.
    State,
    /// Checkpoints.
    Checkpoints,
    /// Files of the watched folder.
    Shards,
    /// A job that is to be started.
    Jobs,
    /// Versions that are to be published.
    Releases,
    /// The version tree's copy in sled.
    View,
}

impl Waits {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Journal, Self::State, Self::Checkpoints, Self::Shards, Self::Jobs, Self::Releases, Self::View];

    /// Whether jobs are of no use meanwhile.
    fn holds_jobs(self) -> bool {
        matches!(self, Self::Journal | Self::State | Self::Checkpoints)
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Journal => "the journal",
            Self::State => "the state",
            Self::Checkpoints => "the next checkpoint",
            Self::Shards => "a shard",
            Self::Jobs => "a job",
            Self::Releases => "a release",
            Self::View => "the copy in sled",
        })
    }
}

/// Something that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// What.
    pub what: Waits,
    /// What for, a sentence.
    pub why: String,
    /// Since when.
    pub since: Millis,
}

/// What waits now. Clones are the same list.
#[derive(Clone)]
pub struct Hindrances {
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<BTreeMap<Waits, Waiting>>>,
}

impl Hindrances {
    /// Nothing waits.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Waits, Waiting>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something waits. Said in the log when it begins to; the newest reason stands.
    pub fn waits(&self, what: Waits, why: impl fmt::Display) {
        let why = why.to_string();
        match self.known().entry(what) {
            std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().why = why,
            std::collections::btree_map::Entry::Vacant(new) => {
                tracing::error!(why, "{what} waits, and goes on by itself when that has passed");
                new.insert(Waiting { what, why, since: self.clock.now() });
            }
        }
    }

    /// What waited goes on.
    pub fn goes_on(&self, what: Waits) {
        if let Some(known) = self.known().remove(&what) {
            let seconds = self.clock.now().saturating_sub(known.since) / 1000;
            tracing::info!("{what} goes on after {seconds} s");
        }
    }

    /// All that waits.
    pub fn all(&self) -> Vec<Waiting> {
        self.known().values().cloned().collect()
    }

    /// Whether this waits.
    pub fn has(&self, what: Waits) -> bool {
        self.known().contains_key(&what)
    }

    /// Whether jobs are held: none is started, and one that runs may have to wait without a word.
    pub fn holds_jobs(&self) -> bool {
        self.known().keys().any(|what| what.holds_jobs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::HandClock;

    #[test]
    fn what_waits_is_known_from_its_beginning_until_it_goes_on() {
        let clock = Arc::new(HandClock::default());
        let hindrances = Hindrances::new(clock.clone());
        assert!(hindrances.all().is_empty() && !hindrances.holds_jobs());
        clock.set(1_000);
        hindrances.waits(Waits::Releases, "no room");
        clock.set(2_000);
        hindrances.waits(Waits::Releases, "still no room");
        let waiting = Waiting { what: Waits::Releases, why: "still no room".to_owned(), since: 1_000 };
        assert_eq!(hindrances.all(), [waiting]);
        assert!(!hindrances.holds_jobs(), "a job can be trained all the same");
        hindrances.waits(Waits::Checkpoints, "no room");
        assert!(hindrances.clone().holds_jobs());
        hindrances.goes_on(Waits::Checkpoints);
        hindrances.goes_on(Waits::Releases);
        hindrances.goes_on(Waits::Releases);
        assert!(hindrances.all().is_empty());
    }
}
