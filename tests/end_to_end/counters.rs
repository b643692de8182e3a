//! The counters of `status` at any moment equal a recount from what the trainers said.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use artifacts::event::Event;
use harness::daemon::{Daemon, feed_until_cut, wait_for_releases};
use harness::processes::{Process, Standing, trainers};
use harness::recount::{Counters, PathSteps, events, recount};
use harness::state::{State, config};
use harness::text::Chance;
use serde_json::Value;

const PARADIGMS: [&str; 3] = ["path-switching", "from-scratch", "continual"];
const MOMENTS: usize = 10;
/// At every third moment.
const KILLS: usize = MOMENTS / 3;

/// A status and what the trainers had said when it was given: they stand still, and nobody said anything meanwhile.
fn moment(state: &State) -> (Value, BTreeMap<String, PathSteps>, Standing) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stopped = Standing::still(trainers(&state.path()));
        let before = recount(&state.path());
        let status = state.ask(&["status"]);
        if recount(&state.path()) == before {
            return (status, before, stopped);
        }
        // A trainer that was just being started was not among those that stand still.
        assert!(Instant::now() < deadline, "trainers that stand still go on: {stopped:?}");
    }
}

/// As [`moment`], but one at which a trainer has done steps that it has not saved.
fn moment_between_checkpoints(state: &State) -> (Value, BTreeMap<String, PathSteps>, Standing) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, paths, stopped) = moment(state);
        if stopped.processes().iter().any(|trainer| has_unsaved_steps(state, *trainer)) {
            return (status, paths, stopped);
        }
        drop(stopped);
        assert!(Instant::now() < deadline, "no trainer is met between two checkpoints: {status:#}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn has_unsaved_steps(state: &State, trainer: Process) -> bool {
    let mut attempts =
        std::fs::read_dir(state.path().join("jobs")).unwrap().map(|entry| entry.unwrap().path());
    let attempt = attempts.find(|attempt| Process::of(attempt) == Some(trainer)).unwrap();
    matches!(events(&attempt).last(), Some(Event::Step { .. }))
}

/// What `status` says of a paradigm.
fn told(status: &Value, paradigm: &str) -> Counters {
    let steps = &status["paradigms"][paradigm]["steps"];
    let count = |key: &str| steps[key].as_u64().unwrap();
    Counters {
        main: count("main"),
        branch: count("branch"),
        scratch: count("scratch"),
        continual: count("continual"),
        executed: count("executed"),
        repeated: count("repeated"),
        ahead: count("ahead"),
    }
}

/// The step at which the last branch leaves the main path, as far as increments are cut.
fn last_branch_point(status: &Value) -> u64 {
    let versions = status["paradigms"]["path-switching"]["versions"].as_array().unwrap();
    versions.iter().filter_map(|version| version["branch_point"].as_u64()).max().unwrap_or(0)
}

fn check(status: &Value, paths: &BTreeMap<String, PathSteps>, moment: &str) -> BTreeMap<String, Counters> {
    let point = last_branch_point(status);
    let mut all = BTreeMap::new();
    for paradigm in PARADIGMS {
        let recounted = Counters::of(paths, paradigm, point);
        assert_eq!(told(status, paradigm), recounted, "{paradigm}, {moment}: {status:#}");
        all.insert(paradigm.to_owned(), recounted);
    }
    all
}

#[test]
fn at_ten_random_moments_the_counters_equal_a_recount() {
    let state = State::new(&config(
        "paradigm = [\"path-switching\", \"from-scratch\", \"continual\"]\nseed = 4",
        "[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = 6400\n[eager]\nmin_steps = 5\n\
         [checkpoints]\nevery = 40",
    ));
    let daemon = Daemon::start(&state);
    let mut chance = Chance(4);
    let (mut seen, mut killed) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| feed_until_cut(&state, 3));
        for number in 0..MOMENTS {
            std::thread::sleep(Duration::from_millis(chance.below(600)));
            let is_fatal = number % 3 == 2;
            let (status, paths, stopped) =
                if is_fatal { moment_between_checkpoints(&state) } else { moment(&state) };
            seen.push(check(&status, &paths, &format!("moment {number}")));
            if is_fatal {
                // What it had not saved is done again.
                stopped.processes().iter().for_each(|trainer| trainer.kill());
                killed.extend_from_slice(stopped.processes());
            }
        }
    });
    for paradigm in PARADIGMS {
        wait_for_releases(&state, paradigm, 3, 120);
    }
    let (status, paths, _) = moment(&state);
    let last = check(&status, &paths, "at the end");
    assert_eq!(last["from-scratch"].scratch, 200 + 400 + 600);
    assert_eq!((last["continual"].scratch, last["continual"].continual), (200, 400));
    assert_eq!((last["path-switching"].main, last["path-switching"].branch), (480, 360));
    assert!(seen.windows(2).any(|pair| pair[0] != pair[1]), "it moved meanwhile: {seen:?}");
    assert!(seen.iter().any(|all| all["path-switching"].ahead > 0), "it was never ahead: {seen:?}");
    assert_eq!(killed.len(), KILLS, "{killed:?}");
    assert!(killed.iter().all(|trainer| !trainer.lives()), "{killed:?}");
    let repeated: Vec<u64> = PARADIGMS.iter().map(|paradigm| last[*paradigm].repeated).collect();
    assert!(
        repeated.iter().sum::<u64>() > 0,
        "what a killed trainer had not saved was done again: {repeated:?}"
    );
    daemon.stop();
}
