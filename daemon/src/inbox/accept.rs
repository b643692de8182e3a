//! Takes complete files, one after the other in the order of their names, some of them at the same time.
//!
//! A window moves over the queue of complete files. Those in it are hashed and read in parallel, and what becomes of them
//! is committed from its front: so the order of acceptance is that of the names, however long each takes. A file's
//! attempt is journalled before a child sees it, and no more attempts are open than there are children. What goes wrong
//! with the reading and not with the file puts the file back to those that wait, and nothing behind it waits for that.

use std::collections::{BTreeSet, VecDeque};

use artifacts::Digest;

use super::scan::Found;
use super::sources::Obstacle;
use super::workers::{Contents, Outcome};
use crate::ledger::transition::Transition;
use crate::ledger::tree::Tree;

/// Deaths of a child, under a living daemon, after which its shard is rejected.
const CHILD_DEATHS: u32 = 2;
/// Deaths of the daemon, running, in which a shard was open, after which it is rejected.
const DAEMON_DEATHS: u32 = 5;

/// Complete files on their way.
#[derive(Debug, Default)]
pub struct Window {
    queue: VecDeque<Found>,
    items: VecDeque<Item>,
}

#[derive(Debug)]
struct Item {
    subject: Found,
    stage: Stage,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has looked into it.
    New,
    /// A worker hashes it.
    Hashing,
    /// It may be read.
    Hashed(Digest),
    /// A worker reads it; the attempt is journalled.
    Reading(Digest),
    /// The child that read it died; not yet journalled.
    Died(Digest, String),
    /// It is to be put back; the attempt, if there was one, is still open in the journal.
    Leaving(Option<Digest>, Obstacle),
    /// It cannot be taken, and lies in `rejected/` if it was moved.
    Refused { digest: Digest, reason: String, is_moved: bool },
    /// It can be accepted.
    Taken(Digest, Contents),
    /// Its bytes were accepted before.
    Duplicate(Digest),
}

/// A file that has left the window.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// It was accepted, or is a duplicate: it lies where it lay.
    Known(Found),
    /// It was rejected.
    Rejected(Found),
    /// It waits again.
    Back(Found, Obstacle),
}

/// What is to be committed together, and what follows once it is.
#[derive(Debug, Default)]
pub struct Step {
    /// What to commit.
    pub transitions: Vec<Transition>,
    starts: Vec<usize>,
    died: Vec<usize>,
    leaving: Vec<usize>,
    settled: usize,
}

impl Step {
    /// Whether there is nothing to commit and nothing follows.
    pub fn is_empty(&self) -> bool {
        self.transitions.is_empty() && self.leaving.is_empty()
    }
}

impl Window {
    /// Puts complete files into the queue.
    pub fn enqueue(&mut self, files: impl IntoIterator<Item = Found>) {
        self.queue.extend(files);
    }

    /// Whether nothing is queued.
    pub fn is_drained(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether there is nothing on its way.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.items.is_empty()
    }

    /// How many files the window holds.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The next file of the queue.
    pub fn dequeue(&mut self) -> Option<Found> {
        self.queue.pop_front()
    }

    /// Takes a file into the window.
    pub fn admit(&mut self, subject: Found) {
        self.items.push_back(Item { subject, stage: Stage::New });
    }

    /// The first file that is to be hashed, which is then being hashed.
    pub fn next_to_hash(&mut self) -> Option<Found> {
        let item = self.items.iter_mut().find(|item| item.stage == Stage::New)?;
        item.stage = Stage::Hashing;
        Some(item.subject.clone())
    }

    fn item(&mut self, subject: &Found) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.subject == *subject)
    }

    /// A file was hashed.
    pub fn hashed(&mut self, subject: &Found, digest: Result<Digest, Obstacle>) {
        if let Some(item) = self.item(subject) {
            item.stage = match digest {
                Ok(digest) => Stage::Hashed(digest),
                Err(obstacle) => Stage::Leaving(None, obstacle),
            };
        }
    }

    /// A file was read.
    pub fn read(&mut self, subject: &Found, outcome: Outcome) {
        let Some(item) = self.item(subject) else { return };
        let Stage::Reading(digest) = item.stage else { return };
        item.stage = match outcome {
            Outcome::Taken(contents) => Stage::Taken(digest, contents),
            Outcome::Refused(reason) => Stage::Refused { digest, reason, is_moved: false },
            Outcome::Died(how) => Stage::Died(digest, how),
            Outcome::Abandoned(obstacle) => Stage::Leaving(Some(digest), obstacle),
        };
    }

    /// The refused files at the front that are still to be moved; `move_away` may find that one cannot be.
    pub fn move_refused(&mut self, mut move_away: impl FnMut(&Found, Digest, &str) -> Result<(), Obstacle>) {
        for item in &mut self.items {
            match &mut item.stage {
                Stage::Refused { digest, reason, is_moved } if !*is_moved => {
                    match move_away(&item.subject, *digest, reason) {
                        Ok(()) => *is_moved = true,
                        Err(obstacle) => item.stage = Stage::Leaving(Some(*digest), obstacle),
                    }
                }
                Stage::Refused { .. } | Stage::Taken(..) | Stage::Duplicate(_) => {}
                _ => return,
            }
        }
    }

    /// What is to be committed now. At most so many readings are begun.
    pub fn step(&self, tree: &Tree, free: usize) -> Step {
        let mut step = Step::default();
        self.settle(&mut step);
        self.put_back(tree, &mut step);
        self.begin(free, &mut step);
        step
    }

    /// Looks at hashed files: some need not be read.
    pub fn judge(&mut self, tree: &Tree) {
        for item in &mut self.items {
            let Stage::Hashed(digest) = item.stage else { continue };
            if let Some((_, shard)) = tree.shard(&digest) {
                item.stage = match shard.withdrawn {
                    None => Stage::Duplicate(digest),
                    Some(_) => Stage::Refused { digest, reason: withdrawn(&shard.name), is_moved: false },
                };
            } else if let Some(reason) = killer(tree, &digest, &item.subject.name) {
                item.stage = Stage::Refused { digest, reason, is_moved: false };
            }
        }
    }

    fn settle(&self, step: &mut Step) {
        for Item { subject, stage } in &self.items {
            let (name, file) = (subject.name.clone(), subject.facts);
            let transition = match stage {
                Stage::Taken(digest, Contents { tokens, unpacked }) => Transition::ShardAccepted {
                    digest: *digest,
                    name,
                    file,
                    tokens: *tokens,
                    unpacked: *unpacked,
                },
                Stage::Duplicate(digest) => Transition::ShardDuplicate { digest: *digest, name, file },
                Stage::Refused { digest, reason, is_moved: true } => Transition::ShardRejected {
                    digest: Some(*digest),
                    name,
                    bytes: file.bytes,
                    reason: reason.clone(),
                },
                _ => return,
            };
            step.transitions.push(transition);
            step.settled += 1;
        }
    }

    fn put_back(&self, tree: &Tree, step: &mut Step) {
        let is_open = |digest: &Digest| tree.readings().get(digest).is_some_and(|reading| reading.open);
        for (index, item) in self.items.iter().enumerate() {
            match &item.stage {
                Stage::Died(digest, how) => {
                    let (digest, how) = (*digest, how.clone());
                    step.transitions.push(Transition::ReadingDied { digest, how });
                    step.died.push(index);
                }
                Stage::Leaving(attempt, _) => {
                    let open = attempt.filter(is_open);
                    step.transitions.extend(open.map(|digest| Transition::ReadingAbandoned { digest }));
                    step.leaving.push(index);
                }
                _ => {}
            }
        }
    }

    fn begin(&self, free: usize, step: &mut Step) {
        let mut twins = BTreeSet::new();
        for (index, item) in self.items.iter().enumerate() {
            let digest = match &item.stage {
                // It may turn out to be the twin of one behind it, and goes first then.
                Stage::New | Stage::Hashing => return,
                Stage::Leaving(None, _) | Stage::Duplicate(_) => continue,
                Stage::Hashed(digest)
                | Stage::Reading(digest)
                | Stage::Taken(digest, _)
                | Stage::Died(digest, _)
                | Stage::Refused { digest, .. }
                | Stage::Leaving(Some(digest), _) => *digest,
            };
            let is_first = twins.insert(digest);
            if matches!(item.stage, Stage::Hashed(_)) && is_first && step.starts.len() < free {
                let name = item.subject.name.clone();
                step.transitions.push(Transition::ReadingStarted { digest, name });
                step.starts.push(index);
            }
        }
    }

    /// The step is committed: gives the files to be read now, and those that have left the window.
    pub fn committed(&mut self, step: &Step) -> (Vec<(Found, Digest)>, Vec<Left>) {
        let mut starts = Vec::new();
        for index in step.starts.iter().chain(&step.died) {
            let Some(item) = self.items.get_mut(*index) else { continue };
            match item.stage {
                Stage::Hashed(digest) => {
                    item.stage = Stage::Reading(digest);
                    starts.push((item.subject.clone(), digest));
                }
                Stage::Died(digest, _) => item.stage = Stage::Hashed(digest),
                _ => {}
            }
        }
        let mut left = Vec::new();
        for index in step.leaving.iter().rev() {
            if let Some(Item { subject, stage: Stage::Leaving(_, obstacle) }) = self.items.remove(*index) {
                left.push(Left::Back(subject, obstacle));
            }
        }
        left.reverse();
        for item in self.items.drain(..step.settled) {
            left.push(match item.stage {
                Stage::Refused { .. } => Left::Rejected(item.subject),
                _ => Left::Known(item.subject),
            });
        }
        (starts, left)
    }

    /// The daemon stops: nothing that is on its way will be heard of.
    pub fn abandon(&mut self) {
        self.queue.clear();
        for item in &mut self.items {
            item.stage = match &item.stage {
                Stage::Reading(digest) | Stage::Taken(digest, _) => {
                    Stage::Leaving(Some(*digest), Obstacle::Stopped)
                }
                Stage::Leaving(..) | Stage::Died(..) | Stage::Refused { is_moved: true, .. } => continue,
                _ => Stage::Leaving(None, Obstacle::Stopped),
            };
        }
    }
}

/// Why a file with the bytes of a withdrawn shard is not taken.
fn withdrawn(name: &str) -> String {
    format!("it has the bytes of {name}, which was withdrawn: what was withdrawn once is not taken again")
}

/// Why a shard is not given to another child, if it is not.
fn killer(tree: &Tree, digest: &Digest, name: &str) -> Option<String> {
    let reading = tree.readings().get(digest)?;
    if reading.deaths >= CHILD_DEATHS {
        return Some(format!(
            "{name}: the process that read it died {} times: it needs more memory or time than it may take, or no \
             program can read it; split it, or raise `data.reader_memory` and `data.reader_seconds`",
            reading.deaths
        ));
    }
    (reading.daemon_deaths >= DAEMON_DEATHS).then(|| {
        format!("{name}: the daemon died {} times while it was being read; split it", reading.daemon_deaths)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::transition::FileFacts;

    fn subject(name: &str) -> Found {
        Found { name: name.to_owned(), facts: FileFacts { bytes: 1, inode: 1, mtime: 1 } }
    }

    /// A window with files that are being hashed.
    fn window(names: &[&str]) -> Window {
        let mut window = Window::default();
        names.iter().for_each(|name| window.admit(subject(name)));
        while window.next_to_hash().is_some() {}
        window
    }

    fn step(window: &mut Window, free: usize) -> (Vec<&'static str>, Vec<String>, Vec<Left>) {
        let step = window.step(&Tree::default(), free);
        let kinds = step.transitions.iter().map(|transition| match transition {
            Transition::ReadingStarted { .. } => "started",
            Transition::ReadingDied { .. } => "died",
            Transition::ShardAccepted { .. } => "accepted",
            Transition::ShardDuplicate { .. } => "duplicate",
            Transition::ShardRejected { .. } => "rejected",
            _ => "other",
        });
        let kinds = kinds.collect();
        let (starts, left) = window.committed(&step);
        (kinds, starts.into_iter().map(|(subject, _)| subject.name).collect(), left)
    }

    #[test]
    fn files_are_committed_in_order_whichever_is_read_first() {
        let mut window = window(&["a", "b"]);
        for name in ["b", "a"] {
            window.hashed(&subject(name), Ok(Digest::of(name.as_bytes())));
        }
        let (kinds, starts, _) = step(&mut window, 2);
        assert_eq!((kinds, starts), (vec!["started", "started"], vec!["a".to_owned(), "b".to_owned()]));
        window.read(&subject("b"), Outcome::Taken(Contents::default()));
        assert!(window.step(&Tree::default(), 2).is_empty());
        window.read(&subject("a"), Outcome::Taken(Contents::default()));
        let (kinds, _, left) = step(&mut window, 2);
        assert_eq!(kinds, ["accepted", "accepted"]);
        assert_eq!(left, [Left::Known(subject("a")), Left::Known(subject("b"))]);
        assert!(window.is_empty());
    }

    #[test]
    fn of_twins_the_first_is_read_whichever_is_hashed_first() {
        let mut window = window(&["a", "b"]);
        let digest = Digest::of(b"twins");
        window.hashed(&subject("b"), Ok(digest));
        assert!(window.step(&Tree::default(), 2).is_empty(), "the other may be its twin");
        window.hashed(&subject("a"), Ok(digest));
        let (_, starts, _) = step(&mut window, 2);
        assert_eq!(starts, ["a"]);
        window.read(&subject("a"), Outcome::Abandoned(Obstacle::Changed));
        let (_, starts, left) = step(&mut window, 2);
        assert_eq!(left, [Left::Back(subject("a"), Obstacle::Changed)]);
        assert!(starts.is_empty());
        let (_, starts, _) = step(&mut window, 2);
        assert_eq!(starts, ["b"]);
    }

    #[test]
    fn no_more_attempts_are_open_than_there_are_workers() {
        let mut window = window(&["a", "b", "c"]);
        for name in ["a", "b", "c"] {
            window.hashed(&subject(name), Ok(Digest::of(name.as_bytes())));
        }
        assert_eq!(step(&mut window, 1).1, ["a"]);
        assert!(step(&mut window, 0).1.is_empty());
        assert_eq!(step(&mut window, 2).1, ["b", "c"]);
    }

    #[test]
    fn a_death_is_journalled_before_the_next_attempt() {
        let mut window = window(&["a"]);
        window.hashed(&subject("a"), Ok(Digest::of(b"a")));
        step(&mut window, 1);
        window.read(&subject("a"), Outcome::Died("of a cold".to_owned()));
        assert_eq!(step(&mut window, 1).0, ["died"]);
        assert_eq!(step(&mut window, 1).0, ["started"]);
    }

    #[test]
    fn a_refused_file_is_journalled_after_it_was_moved() {
        let mut window = window(&["a", "b"]);
        for name in ["a", "b"] {
            window.hashed(&subject(name), Ok(Digest::of(name.as_bytes())));
        }
        step(&mut window, 2);
        for name in ["a", "b"] {
            window.read(&subject(name), Outcome::Refused("why".to_owned()));
        }
        assert!(window.step(&Tree::default(), 0).is_empty());
        window.move_refused(|subject, _, _| match subject.name.as_str() {
            "a" => Ok(()),
            _ => Err(Obstacle::Changed),
        });
        let (kinds, _, left) = step(&mut window, 0);
        assert_eq!(kinds, ["rejected"]);
        assert_eq!(left, [Left::Back(subject("b"), Obstacle::Changed), Left::Rejected(subject("a"))]);
    }
}
