//! Whoever is inside an answer of the ledger asks it nothing.
//!
//! A lock that many may read lets a writer that waits go first. So a thread that reads, and reads again inside, waits
//! for a writer that waits for it: both for ever, and only when the moment is bad. A commit inside a read, or inside the
//! decision of another commit, waits for itself. Builds with debug assertions, and so all unit tests, refuse this at every
//! moment, with the place that did it; others, the released programs among them, spend nothing on it.

use std::cell::RefCell;
use std::marker::PhantomData;

/// What a thread is inside of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// A question to the tree: neither another one nor a commit may follow.
    Question,
    /// The decision of a commit: a question may follow, which no writer can come before.
    Decision,
}

thread_local! {
    /// The ledgers, by their addresses, that this thread is inside of.
    static INSIDE: RefCell<Vec<(usize, Within)>> = const { RefCell::new(Vec::new()) };
}

/// This thread is inside as long as this lives.
#[must_use]
pub struct Inside {
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl Inside {
    /// Enters a ledger, which is known by its address.
    #[track_caller]
    pub fn enter(ledger: usize, within: Within) -> Self {
        if cfg!(debug_assertions) {
            INSIDE.with_borrow_mut(|inside| {
                let forbids = |(known, outer): &(usize, Within)| {
                    *known == ledger && (*outer, within) != (Within::Decision, Within::Question)
                };
                let outer = inside.iter().find(|entry| forbids(entry));
                assert!(
                    outer.is_none(),
                    "invariant: nobody inside a {:?} of the ledger begins a {within:?}: this thread may wait for itself",
                    outer.map(|(_, outer)| outer)
                );
                inside.push((ledger, within));
            });
        }
        Self { _thread: PhantomData }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            INSIDE.with_borrow_mut(|inside| _ = inside.pop());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use super::super::{Ledger, SystemClock};
    use crate::ledger::tree::Tree;

    fn is_refused(nested: impl FnOnce()) -> bool {
        let Err(panic) = catch_unwind(AssertUnwindSafe(nested)) else { return false };
        panic.downcast_ref::<String>().is_some_and(|words| words.contains("may wait for itself"))
    }

    #[test]
    fn who_is_inside_an_answer_asks_nothing_and_commits_nothing() {
        let ledger = Ledger::in_memory(Arc::new(SystemClock));
        let read = || _ = ledger.read(Tree::position);
        let commit = || _ = ledger.commit_with(|_| (Vec::new(), ()));
        assert!(is_refused(|| ledger.read(|_| read())));
        assert!(is_refused(|| ledger.read(|_| commit())));
        assert!(is_refused(|| _ = ledger.commit_with(|_| (Vec::new(), commit()))));
        let deep = || _ = ledger.commit_with(|_| (Vec::new(), ledger.read(|_| read())));
        assert!(is_refused(deep));
    }

    #[test]
    fn one_after_the_other_in_a_decision_and_of_another_ledger_may_be_asked() {
        let ledger = Ledger::in_memory(Arc::new(SystemClock));
        let other = Ledger::in_memory(Arc::new(SystemClock));
        ledger.read(Tree::position);
        assert!(!is_refused(|| _ = ledger.read(|_| other.read(Tree::position))));
        assert!(!is_refused(|| _ = ledger.commit_with(|_| (Vec::new(), ledger.read(Tree::position)))));
        // Also after one was refused, and on other threads.
        assert!(is_refused(|| _ = ledger.read(|_| ledger.read(Tree::position))));
        assert_eq!(ledger.read(Tree::position), 0);
        ledger.read(|_| std::thread::scope(|scope| _ = scope.spawn(|| ledger.read(Tree::position)).join()));
    }
}
