//! When a file in the watched folder is complete.
//!
//! Writers differ: some rename a finished file into place, some close it, some stall for minutes in the middle. No event
//! tells these apart, so completeness is a judgement over time, made here and nowhere else. Clocks and file facts are
//! passed in: the tests play a night of bad writers in a millisecond.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ledger::transition::{FileFacts, Millis};

/// Changes of one file while it was read, from which on people are told.
const WORTH_SAYING: u32 = 3;

/// A file that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Path below the watched folder.
    pub name: String,
    /// Its size now.
    pub bytes: u64,
    /// Since when it looks as it does now.
    pub since: Millis,
    /// Why it waits.
    pub why: String,
    /// How often it changed while it was read.
    pub changes: u32,
}

#[derive(Debug, Clone)]
struct Watched {
    facts: FileFacts,
    since: Millis,
    /// Two looks that saw the same are the least.
    looks: u32,
    /// It was moved in, or has a marker: it is complete as it is.
    is_announced: bool,
    changes: u32,
}

/// All files that are not taken yet.
#[derive(Debug)]
pub struct Settle {
    still: Millis,
    files: BTreeMap<String, Watched>,
    announced: BTreeSet<String>,
}

impl Settle {
    /// A file is complete when it stood still for so long.
    pub fn new(still: Millis) -> Self {
        Self { still, files: BTreeMap::new(), announced: BTreeSet::new() }
    }

    /// A file was renamed or moved to this name.
    pub fn announce(&mut self, name: &str) {
        self.announced.insert(name.to_owned());
    }

    /// What a scan saw: all files that are not taken yet, and which of them have a marker that says they are ready.
    pub fn look(&mut self, seen: &BTreeMap<String, FileFacts>, ready: &BTreeSet<String>, now: Millis) {
        self.files.retain(|name, _| seen.contains_key(name));
        for (name, facts) in seen {
            let was_announced = self.announced.remove(name);
            let file = self.files.entry(name.clone()).or_insert(Watched {
                facts: *facts,
                since: now,
                looks: 0,
                is_announced: false,
                changes: 0,
            });
            if file.facts == *facts {
                file.looks = file.looks.saturating_add(1);
            } else {
                *file = Watched { facts: *facts, since: now, looks: 1, is_announced: false, ..*file };
            }
            file.is_announced |= was_announced || ready.contains(name);
        }
        self.announced.clear();
    }

    /// A file changed while it was read: it waits until it is still, whoever announced it.
    pub fn changed(&mut self, name: &str, facts: Option<FileFacts>, now: Millis) {
        match (self.files.get_mut(name), facts) {
            (Some(file), Some(facts)) => {
                let changes = file.changes.saturating_add(1);
                *file = Watched { facts, since: now, looks: 1, is_announced: false, changes };
            }
            (Some(_), None) => _ = self.files.remove(name),
            (None, _) => {}
        }
    }

    /// A file could not be read this time: it waits as if it had just come.
    pub fn postpone(&mut self, name: &str, now: Millis) {
        if let Some(file) = self.files.get_mut(name) {
            *file = Watched { since: now, looks: 1, is_announced: false, ..*file };
        }
    }

    /// A file is settled: accepted, rejected, or found to be a duplicate.
    pub fn remove(&mut self, name: &str) {
        self.files.remove(name);
    }

    /// Files that are complete, in byte order of their names.
    pub fn complete(&self, now: Millis) -> Vec<(String, FileFacts)> {
        let complete = self.files.iter().filter(|(_, file)| self.is_complete(file, now));
        complete.map(|(name, file)| (name.clone(), file.facts)).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Names of all files that wait.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// When the next file may be complete if it stays as it is.
    pub fn next(&self, now: Millis) -> Option<Millis> {
        let open = self.files.values().filter(|file| !self.is_complete(file, now));
        open.map(|file| file.since.saturating_add(self.still).max(now)).min()
    }

    fn is_complete(&self, file: &Watched, now: Millis) -> bool {
        file.is_announced || file.looks >= 2 && now >= file.since.saturating_add(self.still)
    }

    /// The files that wait, for people.
    pub fn waiting(&self, now: Millis) -> Vec<Waiting> {
        let say = |(name, file): (&String, &Watched)| {
            let why = match file.changes {
                changes if changes >= WORTH_SAYING => {
                    format!(
                        "it changed {changes} times while it was read: it is taken when it stays as it is"
                    )
                }
                _ if self.is_complete(file, now) => "it is complete, and is taken in its turn".to_owned(),
                _ => "its size or time changed a moment ago: it is taken when it stays as it is".to_owned(),
            };
            Waiting {
                name: name.clone(),
                bytes: file.facts.bytes,
                since: file.since,
                why,
                changes: file.changes,
            }
        };
        self.files.iter().map(say).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Millis = 1000;

    struct Night {
        settle: Settle,
        files: BTreeMap<String, FileFacts>,
        ready: BTreeSet<String>,
        now: Millis,
    }

    impl Night {
        fn new() -> Self {
            Self { settle: Settle::new(STILL), files: BTreeMap::new(), ready: BTreeSet::new(), now: 1 }
        }

        fn write(&mut self, name: &str, bytes: u64) {
            let mtime = i64::try_from(self.now).unwrap();
            self.files.insert(name.to_owned(), FileFacts { bytes, inode: 7, mtime });
        }

        fn pass(&mut self, millis: Millis) -> Vec<String> {
            self.now += millis;
            self.settle.look(&self.files, &self.ready, self.now);
            self.settle.complete(self.now).into_iter().map(|(name, _)| name).collect()
        }
    }

    #[test]
    fn a_stalled_writer_is_not_taken() {
        let mut night = Night::new();
        for bytes in 1..20 {
            night.write("slow.txt", bytes);
            assert!(night.pass(STILL - 1).is_empty());
        }
        assert_eq!(night.pass(STILL), ["slow.txt"]);
    }

    #[test]
    fn a_first_look_is_never_enough() {
        let mut night = Night::new();
        night.write("old.txt", 5);
        assert!(night.pass(100 * STILL).is_empty());
        assert_eq!(night.pass(STILL), ["old.txt"]);
    }

    #[test]
    fn what_was_moved_in_is_taken_at_once_unless_it_changes() {
        let mut night = Night::new();
        night.write("moved.txt", 5);
        night.settle.announce("moved.txt");
        assert_eq!(night.pass(1), ["moved.txt"]);
        night.write("moved.txt", 6);
        assert!(night.pass(1).is_empty());
    }

    #[test]
    fn a_marker_says_that_a_file_is_ready() {
        let mut night = Night::new();
        night.write("big.bin", 5);
        assert!(night.pass(1).is_empty());
        night.ready.insert("big.bin".to_owned());
        assert_eq!(night.pass(1), ["big.bin"]);
    }

    #[test]
    fn an_announcement_of_what_is_not_there_is_forgotten() {
        let mut night = Night::new();
        night.settle.announce("gone.txt");
        assert!(night.pass(1).is_empty());
        night.write("gone.txt", 1);
        assert!(night.pass(1).is_empty());
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_waits_and_is_talked_of_after_the_third_time() {
        let mut night = Night::new();
        night.write("busy.txt", 1);
        night.settle.announce("busy.txt");
        for change in 1..=3 {
            assert!(!night.settle.waiting(night.now).iter().any(|waiting| waiting.why.contains("times")));
            night.pass(STILL);
            night.write("busy.txt", 1 + change);
            let facts = night.files["busy.txt"];
            night.settle.changed("busy.txt", Some(facts), night.now);
            assert!(night.settle.complete(night.now).is_empty());
        }
        assert!(night.settle.waiting(night.now)[0].why.contains("3 times"));
        assert_eq!(night.pass(STILL), ["busy.txt"]);
    }

    #[test]
    fn files_are_taken_in_the_order_of_their_names() {
        let mut night = Night::new();
        for name in ["b", "a", "C", "ä"] {
            night.write(name, 1);
            night.settle.announce(name);
        }
        assert_eq!(night.pass(1), ["C", "a", "b", "ä"]);
    }
}
