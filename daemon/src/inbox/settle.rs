//! When a file in the inbox is complete.
//!
//! Writers differ: some rename a finished file into place, some close it, some stall for minutes in the middle. No
//! event tells these apart, so completeness is a judgement over time, made here and nowhere else. Clocks and file facts
//! are passed in: the tests play a night of bad writers in a millisecond.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ledger::transition::FileFacts;

/// So many changes under the reader's eyes are worth a word.
pub const WORTH_A_WORD: u32 = 3;
/// Shortest time until a file that could not be taken is tried again.
pub const RETRY: Duration = Duration::from_secs(10);
/// Longest time until then: each failure doubles it.
const LONGEST_RETRY: Duration = Duration::from_secs(320);

/// What keeps a complete file from being taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The system does not let it be read, or moved.
    Trouble,
    /// The system does not even let it be looked at.
    Unseen,
    /// Nothing can be read at all.
    NoReader,
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
    /// It is complete, and cannot be taken.
    pub is_held: bool,
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
    /// It is complete, but could not be taken; tried again at this moment.
    Held { since: Duration, until: Duration, hold: Hold, why: String },
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
        let is_held =
            matches!(&file.state, State::Held { until, hold, .. } if *until > now && *hold != Hold::Unseen);
        if is_held && file.looks > 1 {
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
    pub fn hold(&mut self, now: Duration, name: &str, hold: Hold, why: String) -> bool {
        let Some(file) = self.files.get_mut(name) else { return false };
        let is_news = file.obstacle.replace(why.clone()).is_none_or(|last| last != why);
        let pause = match hold {
            Hold::NoReader => RETRY,
            Hold::Trouble | Hold::Unseen => {
                file.failures = file.failures.saturating_add(1);
                pause(file.failures)
            }
        };
        self.set(name, State::Held { since: now, until: now.saturating_add(pause), hold, why });
        is_news
    }

    /// Somebody has done something to a file, to its permissions perhaps: if it is held back, it is tried again as soon
    /// as after its first failure.
    pub fn hurry(&mut self, name: &str) {
        if let Some(State::Held { since, until, hold, why }) = self.files.get(name).map(|file| &file.state) {
            let until = since.saturating_add(RETRY).min(*until);
            let hurried = State::Held { since: *since, until, hold: *hold, why: why.clone() };
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

    /// No file is complete or may turn out to be: all are still written, or are held back.
    pub fn is_quiet(&self) -> bool {
        self.files.values().all(|file| match file.state {
            State::Watched(_) => file.grew || file.changes > 0,
            State::Complete | State::Taken => false,
            State::Held { .. } => true,
        })
    }

    /// What all files wait for, in byte order of their names.
    pub fn waiting(&self, now: Duration) -> Vec<Unsettled> {
        let describe = |(name, file): (&String, &File)| Unsettled {
            name: name.clone(),
            bytes: file.facts.bytes,
            waited: now.saturating_sub(file.first),
            is_complete: file.state == State::Complete,
            is_held: matches!(file.state, State::Held { .. }),
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
            State::Held { until, why, .. } => {
                let rest = until.saturating_sub(now).as_millis().div_ceil(1000);
                format!("{why}; it is tried again in {rest} s")
            }
        }
    }

    fn set(&mut self, name: &str, state: State) {
        self.unlist(name);
        let Some(file) = self.files.get_mut(name) else { return };
        match &state {
            State::Watched(at) | State::Held { until: at, .. } => _ = self.due.insert((*at, name.to_owned())),
            State::Complete => _ = self.complete.insert(name.to_owned()),
            State::Taken => {}
        }
        file.state = state;
    }

    fn unlist(&mut self, name: &str) {
        match self.files.get(name).map(|file| &file.state) {
            Some(State::Watched(at) | State::Held { until: at, .. }) => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTLE: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn file(bytes: u64, mtime: i64) -> Look {
        Look { facts: FileFacts { bytes, inode: 7, mtime }, moved_in: false, marked: false }
    }

    fn names(settle: &mut Settle) -> Vec<String> {
        settle.take().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_file_that_stood_still_over_two_looks_and_the_settle_time_is_taken() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", file(10, 1));
        assert_eq!(settle.next_due(), Some(at(5)));
        assert!(names(&mut settle).is_empty());
        settle.look(at(4), "a", file(10, 1));
        assert!(names(&mut settle).is_empty(), "two looks, but too early");
        settle.look(at(5), "a", file(10, 1));
        assert_eq!(names(&mut settle), ["a"]);
        assert!(names(&mut settle).is_empty(), "taken once");
    }

    #[test]
    fn one_look_is_not_enough_however_old_the_file_is() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(1_000_000), "a", file(10, 0));
        assert!(names(&mut settle).is_empty());
    }

    #[test]
    fn a_growing_file_is_not_taken() {
        let mut settle = Settle::new(SETTLE);
        for second in 0..100 {
            settle.look(at(second), "a", file(second, 1));
            assert!(names(&mut settle).is_empty());
        }
        settle.look(at(103), "a", file(99, 1));
        assert!(names(&mut settle).is_empty());
        settle.look(at(104), "a", file(99, 1));
        assert_eq!(names(&mut settle), ["a"]);
    }

    #[test]
    fn a_file_rewritten_in_place_with_the_same_size_is_seen_by_its_time() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", file(10, 1));
        settle.look(at(5), "a", file(10, 2));
        assert!(names(&mut settle).is_empty());
        let mut replaced = file(10, 2);
        replaced.facts.inode = 8;
        settle.look(at(10), "a", replaced);
        assert!(names(&mut settle).is_empty(), "another file under the same name");
        settle.look(at(15), "a", replaced);
        assert_eq!(names(&mut settle), ["a"]);
    }

    #[test]
    fn a_file_that_was_moved_in_is_taken_at_once() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
        assert_eq!(names(&mut settle), ["a"]);
    }

    #[test]
    fn a_file_that_is_written_on_after_it_was_moved_in_waits_again() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
        settle.look(at(1), "a", file(11, 2));
        assert!(names(&mut settle).is_empty());
        settle.look(at(6), "a", file(11, 2));
        assert_eq!(names(&mut settle), ["a"]);
    }

    #[test]
    fn a_marked_file_is_taken_at_once() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", file(10, 1));
        settle.look(at(1), "a", Look { marked: true, ..file(10, 1) });
        assert_eq!(names(&mut settle), ["a"]);
    }

    #[test]
    fn a_file_that_changes_under_the_reader_waits_and_is_counted() {
        let mut settle = Settle::new(SETTLE);
        let mut now = 0;
        for change in 1..=WORTH_A_WORD {
            settle.look(at(now), "a", file(u64::from(change), 1));
            settle.look(at(now + 5), "a", file(u64::from(change), 1));
            assert_eq!(names(&mut settle), ["a"]);
            now += 6;
            assert_eq!(settle.changed(at(now), "a"), change);
            let waiting = settle.waiting(at(now)).remove(0);
            assert_eq!(waiting.why.contains("changed 3 times"), change == WORTH_A_WORD, "{}", waiting.why);
        }
        settle.look(at(now), "a", file(9, 9));
        assert!(names(&mut settle).is_empty());
        settle.look(at(now + 5), "a", file(9, 9));
        assert_eq!(names(&mut settle), ["a"]);
    }

    #[test]
    fn a_file_that_was_moved_in_and_changed_under_the_reader_must_stand_still() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
        assert_eq!(names(&mut settle), ["a"]);
        settle.changed(at(1), "a");
        settle.look(at(1), "a", file(10, 1));
        assert!(names(&mut settle).is_empty());
        assert_eq!(settle.next_due(), Some(at(6)));
    }

    #[test]
    fn a_file_that_is_held_back_is_tried_again_later() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
        assert_eq!(names(&mut settle), ["a"]);
        let no_permission = || "no permission".to_owned();
        assert!(settle.hold(at(50), "a", Hold::Trouble, no_permission()), "worth a word in the log");
        assert!(settle.is_quiet());
        settle.look(at(55), "a", file(10, 1));
        assert!(names(&mut settle).is_empty());
        let waiting = settle.waiting(at(55)).remove(0);
        assert_eq!(waiting.why, "no permission; it is tried again in 5 s");
        assert!(waiting.is_held && !waiting.is_complete);
        assert_eq!(settle.due(at(60)), ["a"]);
        settle.look(at(60), "a", file(10, 1));
        assert_eq!(names(&mut settle), ["a"]);
        assert!(!settle.hold(at(60), "a", Hold::Trouble, no_permission()), "said before");
    }

    /// A file that was taken and could not be dealt with at these moments, one after the other.
    fn failed(settle: &mut Settle, hold: Hold, times: u32) -> Vec<u64> {
        settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..times {
            assert_eq!(names(settle), ["a"]);
            settle.hold(now, "a", hold, "no permission".to_owned());
            let due = settle.next_due().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
            settle.look(now, "a", file(10, 1));
        }
        pauses
    }

    #[test]
    fn a_file_that_cannot_be_read_is_tried_less_and_less_often_but_never_given_up() {
        let mut settle = Settle::new(SETTLE);
        let pauses = failed(&mut settle, Hold::Trouble, 9);
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 320, 320, 320]);
        assert_eq!(pause(u32::MAX), LONGEST_RETRY);
        let mut settle = Settle::new(SETTLE);
        assert_eq!(failed(&mut settle, Hold::NoReader, 3), [10, 10, 10], "that is not the file's doing");
    }

    #[test]
    fn other_bytes_under_the_name_are_tried_as_if_nothing_had_been() {
        let mut settle = Settle::new(SETTLE);
        failed(&mut settle, Hold::Trouble, 6);
        assert_eq!(names(&mut settle), ["a"]);
        settle.hold(at(1000), "a", Hold::Trouble, "no permission".to_owned());
        settle.look(at(1330), "a", Look { moved_in: true, ..file(11, 2) });
        assert_eq!(names(&mut settle), ["a"]);
        settle.hold(at(1330), "a", Hold::Trouble, "no permission".to_owned());
        assert_eq!(settle.next_due(), Some(at(1340)));
    }

    #[test]
    fn a_word_about_a_held_file_brings_its_turn_forward_and_no_flood_of_them_keeps_it_busy() {
        let mut settle = Settle::new(SETTLE);
        failed(&mut settle, Hold::Trouble, 6);
        assert_eq!(names(&mut settle), ["a"]);
        settle.hold(at(1000), "a", Hold::Trouble, "no permission".to_owned());
        assert_eq!(settle.next_due(), Some(at(1320)));
        for _ in 0..100 {
            settle.hurry("a");
            settle.look(at(1002), "a", file(10, 1));
        }
        assert!(names(&mut settle).is_empty());
        assert_eq!(settle.next_due(), Some(at(1010)));
        settle.look(at(1010), "a", file(10, 1));
        assert_eq!(names(&mut settle), ["a"]);
        settle.hurry("a");
        assert!(settle.is_taken("a"), "only what is held is hurried");
    }

    #[test]
    fn a_file_that_could_not_be_looked_at_is_tried_as_soon_as_it_is_seen() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
        settle.hold(at(1), "a", Hold::Unseen, "its folder is closed".to_owned());
        assert!(names(&mut settle).is_empty());
        settle.look(at(3), "a", file(10, 1));
        assert_eq!(names(&mut settle), ["a"]);
    }

    #[test]
    fn files_are_taken_in_byte_order_of_their_names() {
        let mut settle = Settle::new(SETTLE);
        for name in ["b", "a/b", "a.txt", "é", "B"] {
            settle.look(at(0), name, Look { moved_in: true, ..file(1, 1) });
        }
        assert_eq!(names(&mut settle), ["B", "a.txt", "a/b", "b", "é"]);
    }

    #[test]
    fn some_files_may_be_taken_before_others() {
        let mut settle = Settle::new(SETTLE);
        for name in ["a", "b", "c"] {
            settle.look(at(0), name, Look { moved_in: true, ..file(1, 1) });
        }
        settle.look(at(0), "d", file(1, 1));
        let some = settle.take_some(["d", "c", "a", "x"].into_iter());
        assert_eq!(some.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(names(&mut settle), ["b"]);
    }

    #[test]
    fn it_is_quiet_while_files_are_only_being_written() {
        let mut settle = Settle::new(SETTLE);
        settle.look(at(0), "slow", file(1, 1));
        assert!(!settle.is_quiet(), "it may be complete");
        settle.look(at(1), "slow", file(2, 2));
        assert!(settle.is_quiet());
        settle.look(at(6), "slow", file(2, 2));
        assert!(!settle.is_quiet());
        settle.take();
        assert!(!settle.is_quiet(), "it is being read");
        settle.forget("slow");
        assert!(settle.is_quiet() && settle.names().next().is_none());
    }

    /// What a writer does in one second.
    #[derive(Debug, Clone, Copy)]
    enum Deed {
        Writes,
        Stalls,
        Replaces,
    }

    proptest! {
        /// A night of bad writers, looked at every second: a file is taken exactly when it has stood still for the
        /// settle time, and never while it has not.
        #[test]
        fn a_night_of_bad_writers(deeds in prop::collection::vec(
            prop_oneof![4 => Just(Deed::Writes), 6 => Just(Deed::Stalls), 1 => Just(Deed::Replaces)], 1..300,
        )) {
            let mut settle = Settle::new(SETTLE);
            let mut facts = FileFacts { bytes: 0, inode: 1, mtime: 0 };
            let mut changed_at = 0;
            for (second, deed) in (0..).zip(deeds) {
                match deed {
                    Deed::Writes => { facts.bytes += 1; facts.mtime = second as i64; changed_at = second; }
                    Deed::Replaces => { facts.inode += 1; changed_at = second; }
                    Deed::Stalls => {}
                }
                settle.look(at(second), "a", Look { facts, moved_in: false, marked: false });
                let taken = settle.take();
                let still = second - changed_at;
                prop_assert_eq!(!taken.is_empty(), still >= SETTLE.as_secs(), "at {} after {}", second, still);
                if !taken.is_empty() {
                    prop_assert_eq!(taken[0].1, facts);
                    settle.put_back("a");
                }
            }
        }
    }
}
