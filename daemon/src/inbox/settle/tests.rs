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
fn a_file_that_is_blocked_is_tried_again_later() {
    let mut settle = Settle::new(SETTLE);
    settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
    assert_eq!(names(&mut settle), ["a"]);
    let no_permission = || "no permission".to_owned();
    assert!(settle.block(at(50), "a", Blocker::File, no_permission()), "worth a word in the log");
    assert!(settle.is_quiet());
    settle.look(at(55), "a", file(10, 1));
    assert!(names(&mut settle).is_empty());
    let waiting = settle.waiting(at(55)).remove(0);
    assert_eq!(waiting.why, "no permission; it is tried again in 5 s");
    assert!(waiting.is_blocked && !waiting.is_complete);
    assert_eq!(settle.due(at(60)), ["a"]);
    settle.look(at(60), "a", file(10, 1));
    assert_eq!(names(&mut settle), ["a"]);
    assert!(!settle.block(at(60), "a", Blocker::File, no_permission()), "said before");
}

/// A file that was taken and could not be dealt with at these moments, one after the other.
fn failed(settle: &mut Settle, by: Blocker, times: u32) -> Vec<u64> {
    settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..times {
        assert_eq!(names(settle), ["a"]);
        settle.block(now, "a", by, "no permission".to_owned());
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
    let pauses = failed(&mut settle, Blocker::File, 9);
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 320, 320, 320]);
    assert_eq!(pause(u32::MAX), LONGEST_RETRY);
    let mut settle = Settle::new(SETTLE);
    assert_eq!(failed(&mut settle, Blocker::Daemon, 3), [10, 10, 10], "that is not the file's doing");
}

#[test]
fn other_bytes_under_the_name_are_tried_as_if_nothing_had_been() {
    let mut settle = Settle::new(SETTLE);
    failed(&mut settle, Blocker::File, 6);
    assert_eq!(names(&mut settle), ["a"]);
    settle.block(at(1000), "a", Blocker::File, "no permission".to_owned());
    settle.look(at(1330), "a", Look { moved_in: true, ..file(11, 2) });
    assert_eq!(names(&mut settle), ["a"]);
    settle.block(at(1330), "a", Blocker::File, "no permission".to_owned());
    assert_eq!(settle.next_due(), Some(at(1340)));
}

#[test]
fn a_word_about_a_blocked_file_brings_its_turn_forward_and_no_flood_of_them_keeps_it_busy() {
    let mut settle = Settle::new(SETTLE);
    failed(&mut settle, Blocker::File, 6);
    assert_eq!(names(&mut settle), ["a"]);
    settle.block(at(1000), "a", Blocker::File, "no permission".to_owned());
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
    assert!(settle.is_taken("a"), "only what is blocked is hurried");
}

#[test]
fn a_file_that_could_not_be_looked_at_is_tried_as_soon_as_it_is_seen() {
    let mut settle = Settle::new(SETTLE);
    settle.look(at(0), "a", Look { moved_in: true, ..file(10, 1) });
    settle.block(at(1), "a", Blocker::Unseen, "its folder is closed".to_owned());
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
