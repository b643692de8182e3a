//! Cuts that cannot be: each is refused with what is there and what would do, and the data stays.

use std::time::Duration;

use harness::daemon::{Daemon, wait_for, wait_for_releases};
use harness::state::{State, byte_config};
use harness::text::sentences;

fn started(tables: &str) -> (State, Daemon) {
    let state = State::new(&byte_config("main_path = \"lazy\"", tables));
    let daemon = Daemon::start(&state);
    (state, daemon)
}

fn drop_text(state: &State, number: u64, bytes: usize) {
    state.drop_file(&format!("text{number}.txt"), sentences(number, bytes).as_bytes());
    wait_for(state, "acceptance", 30, |s| s["shards"]["accepted"].as_u64() == Some(number));
}

/// Why a cut is refused.
fn refusal(state: &State, arguments: &[&str]) -> String {
    let cut = state.ctl(&[&["cut"], arguments].concat());
    assert_eq!(cut.status.code(), Some(1), "{}", String::from_utf8_lossy(&cut.stdout));
    String::from_utf8(cut.stderr).unwrap()
}

fn names(state: &State) -> Vec<String> {
    let status = state.ask(&["status"]);
    let versions = status["paradigms"]["path-switching"]["versions"].as_array().unwrap();
    versions.iter().filter_map(|version| version["name"].as_str()).map(str::to_owned).collect()
}

/// The markers that asked for a cut.
fn markers(state: &State) -> Vec<String> {
    let transitions = state.transitions();
    let asked = transitions.iter().filter(|transition| transition["kind"] == "cut-requested");
    asked.filter_map(|asked| asked["source"]["file"].as_str()).map(str::to_owned).collect()
}

#[test]
fn a_cut_that_is_too_small_is_refused_with_what_would_do_and_the_data_stays() {
    let (state, daemon) = started("[schedule]\nwarmup_steps = 4\npeak = 1e-3\nmin = 1e-4");
    let told = refusal(&state, &[]);
    assert!(told.contains("not one whole step of data is there: at least 9 steps are needed"), "{told}");
    drop_text(&state, 1, 200);
    let told = refusal(&state, &["early"]);
    let why = "the warm-up of 4 steps ends after the first branch point, step 2 (alpha 0.6): the first increment needs at \
               least 9 steps";
    assert!(told.contains("no version `early` was cut") && told.contains(why), "{told}");
    assert_eq!(names(&state), Vec::<String>::new());

    drop_text(&state, 2, 300);
    let cut = state.ctl(&["cut", "early"]);
    assert!(cut.status.success(), "the name is still free: {}", String::from_utf8_lossy(&cut.stderr));
    wait_for_releases(&state, "path-switching", 1, 60);
    let told = refusal(&state, &["late"]);
    assert!(
        told.contains("not one whole step of data is there since version 1: one step is needed"),
        "{told}"
    );
    drop_text(&state, 3, 100);
    let told = refusal(&state, &["early"]);
    assert!(told.contains("the name `early` belongs to version 1: take another"), "{told}");
    let told = refusal(&state, &["../up"]);
    assert!(told.contains("`../up`"), "{told}");
    assert_eq!(names(&state), ["early"]);
    daemon.stop();
}

#[test]
fn of_two_cuts_at_once_one_is_made_and_one_is_refused() {
    let (state, daemon) = started("[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4");
    drop_text(&state, 1, 600);
    let cuts = std::thread::scope(|scope| {
        let both = ["one", "other"].map(|name| scope.spawn(|| state.ctl(&["cut", name])));
        both.map(|cut| cut.join().unwrap())
    });
    let made: Vec<bool> = cuts.iter().map(|cut| cut.status.success()).collect();
    assert_eq!(made.iter().filter(|made| **made).count(), 1, "{cuts:?}");
    let refused = cuts.iter().find(|cut| !cut.status.success()).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(told.contains("not one whole step of data is there since version 1"), "{told}");
    let name = if made[0] { "one" } else { "other" };
    assert_eq!(names(&state), [name]);
    wait_for_releases(&state, "path-switching", 1, 60);
    daemon.stop();
}

#[test]
fn a_marker_that_stays_counts_once() {
    let (state, daemon) = started("[schedule]\nwarmup_steps = 2\npeak = 1e-3\nmin = 1e-4");
    drop_text(&state, 1, 600);
    state.drop_file("spring.cut", b"");
    wait_for_releases(&state, "path-switching", 1, 60);
    drop_text(&state, 2, 600);
    daemon.stop();
    let daemon = Daemon::start(&state);
    // The folder is scanned every second.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(names(&state), ["spring"]);
    assert!(state.path().join("data/spring.cut").exists());
    assert_eq!(markers(&state), ["spring.cut"], "it was asked once");
    assert_eq!(state.ask(&["status"])["refused_markers"], serde_json::json!([]), "and nothing was refused");

    // Written anew it is another request, for a name that is used.
    state.drop_file("spring.cut", b"again");
    let status = wait_for(&state, "the refusal", 30, |status| status["refused_markers"][0].is_object());
    let why = "the name `spring` belongs to version 1: take another";
    assert_eq!(status["refused_markers"][0]["file"], "spring.cut");
    assert_eq!(status["refused_markers"][0]["reason"], why);
    assert_eq!(markers(&state), ["spring.cut", "spring.cut"]);
    for listing in ["status", "events"] {
        let drawn = String::from_utf8(state.ctl(&[listing]).stdout).unwrap();
        assert!(drawn.contains(why), "{drawn}");
    }
    state.drop_file("summer.cut", b"");
    wait_for_releases(&state, "path-switching", 2, 60);
    assert_eq!(names(&state), ["spring", "summer"]);
    let refused = &state.ask(&["status"])["refused_markers"];
    assert_eq!(refused.as_array().map(Vec::len), Some(0), "a later marker was taken");
    daemon.stop();
}
