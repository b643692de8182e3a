//! When a file in the inbox is complete.
//!
//! Writers differ: some rename a finished file into place, some close it, some stall for minutes in the middle. No
//! event tells these apart, so completeness is a judgement over time, made here and nowhere else. Clocks and file facts
//! are passed in: the tests play a night of bad writers in a millisecond.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::transition::FileFacts;

/// So many changes under the reader's eyes are worth a word.
pub const WORTH_A_WORD: u32 = 3;
/// Shortest time until a file that could not be taken is tried again.
pub const RETRY: Duration = Duration::from_secs(10);
/// Longest time until then: each failure doubles it.
const LONGEST_RETRY: Duration = Duration::from_secs(320);

/// What blocks a file: why it cannot be taken now, although it may be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocker {
    /// The system does not let it be read, or moved.
    File,
    /// The system does not even let it be looked at.
    Unseen,
    /// The daemon lacks something of its own: room, a folder, a process to read with. No file can help that.
    Daemon,
}

/// A file that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Path below the watched folder.
    pub name: String,
    /// Its size at the last look.
    pub bytes: u64,
    /// How long ago it was first seen.
    pub waited: Duration,
    /// It is complete, and only waits for its turn.
    pub is_complete: bool,
    /// It cannot be taken now.
    pub is_blocked: bool,
    /// What it waits for.
    pub why: String,
    /// How often it changed while it was read.
    pub changes: u32,
}

/// What a look at a file has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Size, inode and modification time.
    pub facts: FileFacts,
    /// It was just renamed or moved into place.
    pub moved_in: bool,
    /// A marker beside it, not older than itself, says that it is complete.
    pub marked: bool,
}

/// All files that were seen and are not settled.
#[derive(Debug)]
pub struct Settle {
    settle: Duration,
    files: BTreeMap<String, File>,
    /// When which file is to be looked at again.
    due: BTreeSet<(Duration, String)>,
    /// Files that are complete, and that nobody has taken yet.
    complete: BTreeSet<String>,
}

#[derive(Debug)]
struct File {
    facts: FileFacts,
    first: Duration,
    still: Duration,
    /// Looks that found it as it is.
    looks: u32,
    grew: bool,
    moved_in: bool,
    changes: u32,
    /// What was last in the way of taking it.
    obstacle: Option<String>,
    /// How often, one after the other, it could not be taken for a reason that may be its own.
    failures: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It is looked at again at this moment.
    Watched(Duration),
    /// It is complete.
    Complete,
    /// Somebody reads it.
    Taken,
    /// It could not be taken, or not even be looked at; tried again at this moment.
    Blocked { since: Duration, until: Duration, by: Blocker, why: String },
}

impl Settle {
    /// Files must have stood still for so long.
    pub fn new(settle: Duration) -> Self {
        Self { settle, files: BTreeMap::new(), due: BTreeSet::new(), complete: BTreeSet::new() }
    }

    /// Takes down what a look at a file has found.
    pub fn look(&mut self, now: Duration, name: &str, look: Look) {
        let facts = look.facts;
        let file = self.files.entry(name.to_owned()).or_insert_with(|| File {
            facts,
            first: now,
            still: now,
            looks: 0,
            grew: false,
            moved_in: false,
            changes: 0,
            obstacle: None,
            failures: 0,
            state: State::Watched(now),
        });
        if file.state == State::Taken {
            // Who reads it looks again at the end.
            return;
        }
        if file.facts != facts {
            file.facts = facts;
            file.still = now;
            file.looks = 0;
            file.grew = true;
            file.moved_in = false;
            file.failures = 0;
        }
        file.looks = file.looks.saturating_add(1);
        file.moved_in |= look.moved_in;
        // Where it could not be looked at, this look says that it can be now.
        let is_blocked =
            matches!(&file.state, State::Blocked { until, by, .. } if *until > now && *by != Blocker::Unseen);
        if is_blocked && file.looks > 1 {
            return;
        }
        let stood_still = file.looks >= 2 && now.saturating_sub(file.still) >= self.settle;
        let state = match stood_still || file.moved_in || look.marked {
            true => State::Complete,
            false => State::Watched(file.still.saturating_add(self.settle).max(now)),
        };
        self.set(name, state);
    }

    /// Files to be looked at again.
    pub fn due(&self, now: Duration) -> Vec<String> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone()).collect()
    }

    /// When the next file is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes all complete files, in byte order of their names.
    pub fn take(&mut self) -> Vec<(String, FileFacts)> {
        let names = std::mem::take(&mut self.complete);
        self.take_down(names)
    }

    /// Takes those of these files that are complete, in byte order of their names.
    pub fn take_some<'n>(&mut self, names: impl Iterator<Item = &'n str>) -> Vec<(String, FileFacts)> {
        let some: BTreeSet<String> = names.filter_map(|name| self.complete.take(name)).collect();
        self.take_down(some)
    }

    fn take_down(&mut self, names: BTreeSet<String>) -> Vec<(String, FileFacts)> {
        let mut taken = Vec::with_capacity(names.len());
        for name in names {
            if let Some(file) = self.files.get_mut(&name) {
                file.state = State::Taken;
                taken.push((name, file.facts));
            }
        }
        taken
    }

    /// Puts a file back that was taken: it is still complete.
    pub fn put_back(&mut self, name: &str) {
        if self.files.get(name).is_some_and(|file| file.state == State::Taken) {
            self.set(name, State::Complete);
        }
    }

    /// A file could not be dealt with, for a reason that is none to reject it; it is tried again later, and later each
    /// time where the reason may be its own. Says whether the reason is another than the last time.
    pub fn block(&mut self, now: Duration, name: &str, by: Blocker, why: String) -> bool {
        let Some(file) = self.files.get_mut(name) else { return false };
        let is_news = file.obstacle.replace(why.clone()).is_none_or(|last| last != why);
        let pause = match by {
            Blocker::Daemon => RETRY,
            Blocker::File | Blocker::Unseen => {
                file.failures = file.failures.saturating_add(1);
                pause(file.failures)
            }
        };
        self.set(name, State::Blocked { since: now, until: now.saturating_add(pause), by, why });
        is_news
    }

    /// Somebody has done something to a file, to its permissions perhaps: if it is blocked, it is tried again as soon
    /// as after its first failure.
    pub fn hurry(&mut self, name: &str) {
        if let Some(State::Blocked { since, until, by, why }) = self.files.get(name).map(|file| &file.state) {
            let until = since.saturating_add(RETRY).min(*until);
            let hurried = State::Blocked { since: *since, until, by: *by, why: why.clone() };
            self.set(name, hurried);
        }
    }

    /// A file that was taken has changed meanwhile: it waits as if it were new. Says how often that has happened.
    pub fn changed(&mut self, now: Duration, name: &str) -> u32 {
        let Some(file) = self.files.get_mut(name) else { return 0 };
        file.changes += 1;
        file.still = now;
        file.looks = 0;
        file.moved_in = false;
        let changes = file.changes;
        // The next look, which is at once, tells the new size and time.
        self.set(name, State::Watched(now));
        changes
    }

    /// The file is settled, or gone.
    pub fn forget(&mut self, name: &str) {
        self.unlist(name);
        self.files.remove(name);
    }

    /// Names of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Whether somebody reads the file, or is about to.
    pub fn is_taken(&self, name: &str) -> bool {
        self.files.get(name).is_some_and(|file| file.state == State::Taken)
    }

    /// No file is complete or may turn out to be: all are still written, or are blocked.
    pub fn is_quiet(&self) -> bool {
        self.files.values().all(|file| match file.state {
            State::Watched(_) => file.grew || file.changes > 0,
            State::Complete | State::Taken => false,
            State::Blocked { .. } => true,
        })
    }

    /// What all files wait for, in byte order of their names.
    pub fn waiting(&self, now: Duration) -> Vec<Unsettled> {
        let describe = |(name, file): (&String, &File)| Unsettled {
            name: name.clone(),
            bytes: file.facts.bytes,
            waited: now.saturating_sub(file.first),
            is_complete: file.state == State::Complete,
            is_blocked: matches!(file.state, State::Blocked { .. }),
            why: self.why(now, file),
            changes: file.changes,
        };
        self.files.iter().map(describe).collect()
    }

    fn why(&self, now: Duration, file: &File) -> String {
        match &file.state {
            State::Watched(_) if file.changes >= WORTH_A_WORD => {
                format!(
                    "it changed {} times while it was read; it is taken when it stands still",
                    file.changes
                )
            }
            State::Watched(_) => {
                format!("its size and time must stand still for {} s", self.settle.as_secs_f64())
            }
            State::Complete => "it is complete and waits for its turn".to_owned(),
            State::Taken => "it is being read".to_owned(),
            State::Blocked { until, why, .. } => {
                let rest = until.saturating_sub(now).as_millis().div_ceil(1000);
                format!("{why}; it is tried again in {rest} s")
            }
        }
    }

    fn set(&mut self, name: &str, state: State) {
        self.unlist(name);
        let Some(file) = self.files.get_mut(name) else { return };
        match &state {
            State::Watched(at) | State::Blocked { until: at, .. } => {
                _ = self.due.insert((*at, name.to_owned()))
            }
            State::Complete => _ = self.complete.insert(name.to_owned()),
            State::Taken => {}
        }
        file.state = state;
    }

    fn unlist(&mut self, name: &str) {
        match self.files.get(name).map(|file| &file.state) {
            Some(State::Watched(at) | State::Blocked { until: at, .. }) => {
                _ = self.due.remove(&(*at, name.to_owned()))
            }
            Some(State::Complete) => _ = self.complete.remove(name),
            Some(State::Taken) | None => {}
        }
    }
}

/// Time from the last of so many failures in a row to the next attempt.
fn pause(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    RETRY.saturating_mul(doubled).min(LONGEST_RETRY)
}
