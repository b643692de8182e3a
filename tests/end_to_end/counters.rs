//! The counters of `status` at any moment equal a recount from what the trainers said.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::daemon::{Daemon, feed_until_cut, wait_for_releases};
use harness::recount::recount;
use harness::state::{State, config};
use harness::text::Chance;
use serde_json::Value;

const PARADIGMS: [&str; 3] = ["path-switching", "from-scratch", "continual"];
const MOMENTS: usize = 10;

/// All steps of each paradigm that trainers have said they did.
fn said(state: &State) -> BTreeMap<&'static str, u64> {
    let paths = recount(&state.path());
    let of = |paradigm: &str| {
        paths.iter().filter(|(path, _)| path.starts_with(paradigm)).map(|(_, steps)| steps.ran).sum()
    };
    PARADIGMS.into_iter().map(|paradigm| (paradigm, of(paradigm))).collect()
}

fn counted(status: &Value, paradigm: &str) -> u64 {
    let steps = &status["paradigms"][paradigm]["steps"];
    let kinds: u64 =
        ["main", "branch", "scratch", "continual"].iter().map(|kind| steps[kind].as_u64().unwrap()).sum();
    assert_eq!(Some(kinds), steps["executed"].as_u64(), "{paradigm}: {steps}");
    ["executed", "repeated", "ahead"].iter().map(|count| steps[count].as_u64().unwrap()).sum()
}

#[test]
fn at_ten_moments_the_counters_lie_between_two_recounts() {
    let state = State::new(&config(
        "paradigm = [\"path-switching\", \"from-scratch\", \"continual\"]\nseed = 4",
        "[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4\n[cut]\nevery_tokens = 6400\n[eager]\nmin_steps = 5\n\
         [checkpoints]\nevery = 40",
    ));
    let daemon = Daemon::start(&state);
    let mut chance = Chance(4);
    std::thread::scope(|scope| {
        scope.spawn(|| feed_until_cut(&state, 3));
        for moment in 0..MOMENTS {
            std::thread::sleep(Duration::from_millis(chance.below(400)));
            let before = said(&state);
            let status = state.ask(&["status"]);
            let after = said(&state);
            for paradigm in PARADIGMS {
                let counted = counted(&status, paradigm);
                assert!(
                    before[paradigm] <= counted && counted <= after[paradigm],
                    "moment {moment}, {paradigm}: {} <= {counted} <= {}",
                    before[paradigm],
                    after[paradigm]
                );
            }
        }
    });
    for paradigm in PARADIGMS {
        wait_for_releases(&state, paradigm, 3, 120);
    }
    daemon.stop();
}
