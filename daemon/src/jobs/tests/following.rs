//! What is made of a trainer's words, without a process.

use std::io::Write;

use proptest::prelude::*;

use super::super::executor::Exit;
use super::super::follow::{Finding, Follower, LastWord};
use super::super::outcome::{Ended, Next, Reason, outcome};
use super::*;

fn main_job(to: Step) -> JobStart {
    JobStart {
        job: 1,
        attempt: 1,
        path: Path { paradigm: Paradigm::PathSwitching, generation: 1, trajectory: Trajectory::Main },
        segment: SegmentKind::Main,
        version: None,
        from: 0,
        to,
        start: None,
        slot: "cpu".to_owned(),
        devices: Vec::new(),
        ranks: 1,
        micro_batch: 1,
    }
}

fn line(event: Event) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Line { time: 1.0, event }).unwrap();
    line.push(b'\n');
    line
}

fn checkpoint_said(at: Step) -> Event {
    let path = format!("path-switching.main.g1.s{at}");
    Event::Checkpoint {
        path,
        step: at,
        digest: Digest::of(b"x"),
        bytes: 5,
        seconds: None,
        stalled_seconds: None,
    }
}

/// A follower that has read some bytes.
fn having_read(start: JobStart, bytes: &[u8]) -> Follower {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(EVENTS), bytes).unwrap();
    let mut follower = Follower::new(folder.path(), start, SEQUENCES);
    assert_eq!(follower.read(u64::MAX).unwrap(), bytes.len() as u64);
    follower
}

fn of_events(to: Step, events: impl IntoIterator<Item = Event>) -> Follower {
    let start = main_job(to);
    let bytes: Vec<u8> = [started(&start)].into_iter().chain(events).flat_map(line).collect();
    having_read(start, &bytes)
}

proptest! {
    #[test]
    fn it_does_not_matter_in_which_pieces_words_arrive(
        steps in 0_u64..8,
        garbage in proptest::option::of((any::<proptest::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..40))),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let start = main_job(steps);
        let mut bytes: Vec<u8> = [started(&start)]
            .into_iter()
            .chain((0..steps).map(step))
            .chain([checkpoint_said(steps), Event::Finished { step: steps }])
            .flat_map(line)
            .collect();
        if let Some((at, garbage)) = garbage {
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, garbage);
        }
        let whole = having_read(start.clone(), &bytes);

        let folder = tempfile::tempdir().unwrap();
        let mut file = fs::File::create(folder.path().join(EVENTS)).unwrap();
        let mut follower = Follower::new(folder.path(), start, SEQUENCES);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let mut at = 0;
        for end in ends {
            file.write_all(&bytes[at..end]).unwrap();
            prop_assert_eq!(follower.read(u64::MAX).unwrap(), (end - at) as u64);
            at = end;
        }
        prop_assert_eq!(follower.progress(), whole.progress());
        prop_assert_eq!(follower.findings(), whole.findings());
        prop_assert_eq!(follower.last_word(), whole.last_word());
        prop_assert_eq!(follower.breach(), whole.breach());
    }
}

#[test]
fn a_line_counts_when_its_end_is_there() {
    let start = main_job(4);
    let mut bytes: Vec<u8> = [started(&start), step(0), step(1)].into_iter().flat_map(line).collect();
    bytes.pop();
    let follower = having_read(start, &bytes);
    assert_eq!((follower.progress().step, follower.breach()), (1, None));
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let start = main_job(4);
    let mut bytes = line(started(&start));
    bytes.resize(10 << 20, b'x');
    fs::write(folder.path().join(EVENTS), &bytes).unwrap();
    let mut follower = Follower::new(folder.path(), start, SEQUENCES);
    let mut read = 0;
    while read < bytes.len() as u64 {
        let more = follower.read(1 << 20).unwrap();
        assert!((1 << 20..2 << 20).contains(&more));
        read += more;
    }
    assert_eq!(follower.breach(), None);
    fs::File::options().append(true).open(folder.path().join(EVENTS)).unwrap().write_all(b"\n").unwrap();
    follower.read(u64::MAX).unwrap();
    assert!(follower.breach().unwrap().contains("line 2 is longer than"));
}

#[test]
fn findings_keep_their_order_and_are_settled_once() {
    let mut follower = of_events(4, [step(0), checkpoint_said(1), step(1), checkpoint_said(2)]);
    let steps: Vec<Step> = follower
        .findings()
        .iter()
        .map(|finding| match finding {
            Finding::Checkpoint { key, .. } => key.step,
            Finding::Evaluation { step, .. } | Finding::Skipped { step, .. } => *step,
        })
        .collect();
    assert_eq!(steps, [1, 2]);
    follower.settle_findings();
    assert!(follower.findings().is_empty());
}

#[test]
fn what_breaks_the_contract_is_named_and_the_steps_still_count() {
    let cases: [(Vec<Event>, &str); 8] = [
        (vec![step(0), step(0)], "line 3 reports step 0; step 1 was expected"),
        (vec![step(0), step(1), step(2), step(3), step(4)], "step 4; no further step was expected"),
        (vec![started(&main_job(4))], "expected was one start"),
        (vec![checkpoint_said(1)], "a checkpoint after 1 steps"),
        (vec![step(0), Event::Finished { step: 1 }], "finished after 1 steps; 1 are done, and it goes to 4"),
        (vec![Event::Stopped { step: 0 }, step(0)], "comes after the last word"),
        (vec![Event::Stopped { step: 3 }], "a stop after 3 steps"),
        (
            vec![match step(0) {
                Event::Step {
                    step,
                    batch,
                    loss,
                    learning_rate,
                    grad_norm,
                    tokens,
                    tokens_per_second,
                    skipped,
                    ..
                } => {
                    let sequences = [0, 1];
                    Event::Step {
                        step,
                        sequences,
                        batch,
                        loss,
                        learning_rate,
                        grad_norm,
                        tokens,
                        tokens_per_second,
                        skipped,
                    }
                }
                other => other,
            }],
            "sequences [0, 1] for step 0, which takes [0, 2]",
        ),
    ];
    for (events, expected) in cases {
        let steps = events.iter().filter(|event| matches!(event, Event::Step { .. })).count();
        let follower = of_events(4, events);
        assert!(follower.breach().unwrap().contains(expected), "{expected}: {:?}", follower.breach());
        assert!(follower.progress().step as usize >= steps.saturating_sub(1), "{expected}");
    }
    let silent_start = having_read(main_job(4), &line(step(0)));
    assert!(silent_start.breach().unwrap().contains("before the event `started`"));
    assert_eq!(silent_start.progress().step, 1);
}

#[test]
fn a_long_last_word_is_cut() {
    let failed = Event::Failed { kind: "ö".repeat(100), message: "é".repeat(10_000), step: None };
    let follower = of_events(4, [failed]);
    let Some(LastWord::Failed { kind, message, .. }) = follower.last_word() else { panic!() };
    assert_eq!((kind.len(), message.len()), (64, 4096));
}

#[test]
fn an_end_is_judged_by_the_last_word_first_and_then_by_the_status() {
    let silent_word = || of_events(4, [step(0)]);
    let stopped = || of_events(4, [Event::Stopped { step: 0 }]);
    let finished = || of_events(1, [step(0), Event::Finished { step: 1 }]);
    let asked = Some(Reason::Asked);
    let term = Some(Exit::Signal(15));
    // The follower, exit, reason, killed, saved: and what follows.
    type Case = (Follower, Option<Exit>, Option<Reason>, bool, bool, &'static str);
    let cases: Vec<Case> = vec![
        (finished(), Some(Exit::Code(0)), None, false, true, "finished"),
        (finished(), Some(Exit::Code(1)), asked, true, true, "finished"),
        (finished(), None, Some(Reason::Silent), false, true, "finished"),
        (finished(), Some(Exit::Code(0)), None, false, false, "contract"),
        (stopped(), None, None, false, false, "stopped"),
        (stopped(), Some(Exit::Code(75)), Some(Reason::Silent), false, false, "silent"),
        (silent_word(), Some(Exit::Code(75)), None, false, false, "stopped"),
        (silent_word(), term, asked, false, false, "stopped"),
        (silent_word(), Some(Exit::Code(143)), asked, false, false, "stopped"),
        (silent_word(), None, asked, false, false, "stopped"),
        (silent_word(), Some(Exit::Signal(9)), asked, true, false, "stop"),
        (silent_word(), Some(Exit::Signal(9)), asked, false, false, "crashed"),
        (silent_word(), term, None, false, false, "crashed"),
        (silent_word(), Some(Exit::Code(0)), None, false, false, "crashed"),
        (silent_word(), None, None, false, false, "crashed"),
        (silent_word(), None, Some(Reason::Silent), true, false, "silent"),
    ];
    for (index, (follower, exit, reason, is_killed, is_saved, expected)) in cases.iter().enumerate() {
        let ended = Ended {
            follower,
            exit: *exit,
            reason: *reason,
            is_killed: *is_killed,
            is_saved: *is_saved,
            is_held: false,
            log: "the log",
            silent: 1_500,
            stop: 60_000,
        };
        let outcome = outcome(&ended);
        let found = match &outcome {
            Outcome::Finished => "finished",
            Outcome::Stopped => "stopped",
            Outcome::Crashed { message } => {
                assert!(message.ends_with("the log"));
                "crashed"
            }
            Outcome::Failed { failure, .. } => failure,
            Outcome::Hindered { .. } => "hindered",
        };
        assert_eq!(found, *expected, "case {index}: {outcome:?}");
    }
}

#[test]
fn what_could_not_be_written_is_no_failure_while_the_state_cannot_be_written() {
    let failed = |kind: &str| {
        let event = Event::Failed { kind: kind.into(), message: "no space left".into(), step: None };
        of_events(4, [step(0), event])
    };
    let silent = of_events(4, [step(0)]);
    let unsaved = of_events(1, [step(0), Event::Finished { step: 1 }]);
    let judge = |follower: &Follower, is_held| {
        let exit = Some(Exit::Code(74));
        let ended = Ended {
            follower,
            exit,
            reason: None,
            is_killed: false,
            is_saved: false,
            is_held,
            log: "",
            silent: 1_500,
            stop: 60_000,
        };
        outcome(&ended)
    };
    for word in ["no-space", "io", "cannot-create"] {
        let failed = failed(word);
        assert_eq!(judge(&failed, true), Outcome::Hindered { message: "no space left".to_owned() });
        assert!(matches!(judge(&failed, false), Outcome::Failed { failure, .. } if failure == word));
    }
    assert!(matches!(judge(&failed("data"), true), Outcome::Failed { .. }), "no room mends that");
    for follower in [silent, unsaved] {
        assert!(matches!(judge(&follower, true), Outcome::Hindered { .. }));
        assert!(!matches!(judge(&follower, false), Outcome::Hindered { .. }));
    }
    let retries = Retries { attempts: 2, backoff: 1_000, longest: 7_000 };
    let hindered = Outcome::Hindered { message: String::new() };
    assert_eq!(retries.next(&hindered, 99, false, 100), Next::At(Some(10_100)), "it is never given up");
}

#[test]
fn waits_double_up_to_the_longest_and_the_last_failure_gives_up() {
    let retries = Retries { attempts: 70, backoff: 1_000, longest: 7_000 };
    let crashed = Outcome::Crashed { message: String::new() };
    let wait = |failures| match retries.next(&crashed, failures, false, 100) {
        Next::At(Some(at)) => at - 100,
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1, 2, 3, 63, 64, 68].map(wait), [1_000, 2_000, 4_000, 7_000, 7_000, 7_000, 7_000]);
    assert_eq!(retries.next(&crashed, 69, false, 100), Next::GiveUp);
    assert_eq!(retries.next(&Outcome::Finished, 99, false, 100), Next::At(None));
    assert_eq!(retries.next(&Outcome::Stopped, 99, true, 100), Next::At(None));
    assert_eq!(retries.next(&Outcome::Stopped, 99, false, 100), Next::At(Some(1_100)));
}
