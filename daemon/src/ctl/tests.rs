use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::storage::Disk;
use clap::CommandFactory;
use paradigm::Paradigm::PathSwitching;
use tokio::sync::watch;

use super::*;
use crate::api::fixture::World;
use crate::api::{Socket, serve};
use crate::edge::failure::{EXIT_CODES, Failure};
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::{Outcome, Transition};
use crate::ledger::{Ledger, SystemClock};

/// What a command prints into a pipe, or how it fails.
fn run(arguments: &[&str], state: &Path) -> Result<String, Failure> {
    let state = state.to_str().unwrap();
    let cli = Cli::try_parse_from([&["lrpathctl", "--state", state], arguments].concat()).unwrap();
    let mut out = Vec::new();
    let look = Look { terminal: false, colour: false, width: 80 };
    commands::run(&cli.place, cli.command, &mut Screen { out: &mut out, look })?;
    Ok(String::from_utf8(out).unwrap())
}

/// A daemon's API for a world, on a thread of its own.
struct Served {
    folder: tempfile::TempDir,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn new(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut backend = world.backend();
        backend.state = folder.path().to_owned();
        let path = folder.path().join("control.sock");
        let (stop, stopping) = watch::channel(false);
        let (ready, listens) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let socket = Socket::bind(&path).unwrap();
                ready.send(()).unwrap();
                serve(Arc::new(socket), Arc::new(backend), stopping).await;
            });
        });
        listens.recv().unwrap();
        Self { folder, stop, thread: Some(thread) }
    }

    fn run(&self, arguments: &[&str]) -> Result<String, Failure> {
        run(arguments, self.folder.path())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn the_flags_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_names_every_command_and_exit_code() {
    insta::assert_snapshot!(Cli::command().render_help());
}

#[test]
fn the_documentation_names_every_command_and_exit_code() {
    let page = include_str!("../../../docs/operating.md");
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        let stands =
            [format!("`{name}`"), format!("`{name} ")].iter().any(|text| page.contains(text.as_str()));
        assert!(stands, "{name} is missing in docs/operating.md");
    }
    for line in EXIT_CODES.lines().skip(1) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        assert!(page.contains(&format!("| {code} | {meaning} |")), "{line}");
    }
}

#[test]
fn without_a_daemon_it_says_so_with_a_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["status", "tree", "versions", "shards", "jobs", "events", "pause", "cut"] {
        let failure = run(&[command], folder.path()).unwrap_err();
        assert_eq!(failure.exit, Exit::NoDaemon, "{command}");
    }
}

#[test]
fn every_listing_has_json() {
    let mut world = World::new(&[PathSwitching]);
    world.accept("a.txt", 4000);
    world.cut(100, "june");
    world.make(PathSwitching, 1);
    let served = Served::new(&world);
    for command in ["status", "tree", "versions", "shards", "jobs"] {
        let text = served.run(&[command, "--json"]).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{command}: {text}");
        assert!(!served.run(&[command]).unwrap().is_empty(), "{command}");
    }
    let events = served.run(&["events", "--json"]).unwrap();
    let position = world.ledger.read(|tree| tree.position());
    assert_eq!(events.lines().count() as u64, position, "all pages");
    assert_eq!(served.run(&["events", "--after", "3"]).unwrap().lines().count() as u64, position - 3);
}

/// What came to nothing once was told whenever the version was asked for again, though all of that was known.
#[test]
fn an_evaluation_that_failed_says_nothing_of_what_is_known() {
    let mut world = World::new(&[PathSwitching]);
    world.accept("a.txt", 4_000_000);
    for (version, name) in [(1, "june"), (2, "july")] {
        world.cut(100, name);
        world.make(PathSwitching, version);
    }
    world.commit(Transition::EvaluationAsked { paradigm: PathSwitching, version: 1, increments: vec![2] });
    let path = world.ledger.read(|tree| tree.evaluation_path(PathSwitching, 1));
    let last = CheckpointKey { path: world.path(PathSwitching, 1), step: 100 };
    let job = world.start(path, Some(1), 100, Some(last));
    world.end(job, 1, Outcome::Crashed { message: "gone".into() }, 100);
    world.commit(Transition::PathFailed { path, reason: "gone".into() });
    let served = Served::new(&world);
    let known = served.run(&["evaluate", "june", "--on", "june"]).unwrap();
    assert!(known.contains("v1"), "{known}");
    let again = served.run(&["evaluate", "june", "--no-wait"]).unwrap();
    assert!(again.contains("evaluated on v2 as soon as a slot is free"), "{again}");
}

#[test]
fn a_cut_is_waited_for() {
    let world = World::new(&[PathSwitching]);
    let served = Served::new(&world);
    let asked = served.run(&["cut", "--no-wait"]).unwrap();
    assert!(asked.contains("is asked for"), "{asked}");
    let number = world.ledger.read(|tree| tree.waiting_cut().unwrap().0);
    world.commit(Transition::CutRefused { cut: number, reason: "there is nothing".into() });

    let ledger = world.ledger.clone();
    let refuses = std::thread::spawn(move || {
        loop {
            if let Some((cut, _)) =
                ledger.read(|tree| tree.waiting_cut().map(|(number, cut)| (number, cut.clone())))
            {
                let reason = "at least 3 steps are needed".to_owned();
                return ledger.commit(Transition::CutRefused { cut, reason }).unwrap();
            }
            std::thread::yield_now();
        }
    });
    let refused = served.run(&["cut", "june"]).unwrap_err();
    refuses.join().unwrap();
    assert_eq!(refused.exit, Exit::Refused);
    assert_eq!(refused.cause.unwrap().to_string(), "at least 3 steps are needed");
}

#[test]
fn a_path_is_tried_again_by_its_versions_name() {
    let mut world = World::new(&[PathSwitching]);
    world.cut(100, "june");
    let job = world.start(world.main(), Some(1), 40, None);
    world.end(job, 1, Outcome::Crashed { message: "gone".into() }, 3);
    world.commit(Transition::PathFailed { path: world.main(), reason: "gone".into() });
    let served = Served::new(&world);
    assert!(served.run(&["retry", "july"]).unwrap_err().message.contains("there is no version july"));
    assert_eq!(served.run(&["retry", "june"]).unwrap(), "path-switching.main.g1 is tried again\n");
}

#[test]
fn logs_are_handed_on_as_they_are() {
    let mut world = World::new(&[PathSwitching]);
    let job = world.start(world.main(), None, 40, None);
    let served = Served::new(&world);
    let folder = served.folder.path().join(format!("jobs/{job}-1"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("log"), "one\ntwo").unwrap();
    assert_eq!(served.run(&["logs", &job.to_string()]).unwrap(), "one\ntwo");
    assert_eq!(served.run(&["logs", "99"]).unwrap_err().message, "there is no job 99");
}

#[test]
fn a_plan_needs_no_daemon() {
    let nowhere = Path::new("/nowhere");
    let sizes = "10000,10000,10000,10000";
    let text = run(&["plan", "--increments", sizes, "--alpha", "0.6", "--json"], nowhere).unwrap();
    let begins = r#"{"increments":[10000,10000,10000,10000],"alpha":0.6,"paradigms":{"path-switching":{"steps":58000,"ratio":0.58,"segments":[{"kind":"main","version":1,"from":0,"to":4000},"#;
    assert!(text.starts_with(begins), "{text}");
    assert!(run(&["plan", "--increments", "10,10"], nowhere).is_ok(), "counts alone need no warm-up");
    let refused = run(&["plan", "--increments", "10,10", "--warmup-steps", "2000"], nowhere).unwrap_err();
    let cause = refused.cause.unwrap().to_string();
    assert!(cause.contains("the first increment needs at least 4999 steps"), "{cause}");
    assert!(run(&["plan", "--increments", "10,10", "--warmup-steps", "4"], nowhere).is_ok());
}

/// A state as `init` makes it, with one checkpoint and one release.
fn state() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    run(&["init"], &state).unwrap();
    (folder, state)
}

#[test]
fn a_sound_state_is_found_sound() {
    let (_folder, state) = state();
    let text = run(&["check"], &state).unwrap();
    assert!(text.contains("the journal is sound, with 1 record\n"), "{text}");
    assert!(text.ends_with("nothing is damaged\n"), "{text}");
    assert!(run(&["rebuild"], &state).unwrap().contains("made anew, from 1 records"));
    assert!(run(&["config", "check"], &state).unwrap().contains("\npeak = 0.0003\n"));
}

#[test]
fn damage_is_named_and_has_a_code_of_its_own() {
    let (_folder, state) = state();
    let ledger = Ledger::open(&state, Arc::new(Disk), Arc::new(SystemClock)).unwrap();
    let checkpoint = "path-switching.main.g1.s5".parse().unwrap();
    let digest = artifacts::Digest::of(b"manifest");
    ledger
        .commit(Transition::CheckpointSaved { checkpoint, digest, bytes: 5, job: None, took: None })
        .unwrap();
    ledger.close();
    for flag in [&["check"][..], &["check", "--quick"]] {
        let failure = run(flag, &state).unwrap_err();
        assert_eq!(failure.exit, Exit::Damaged);
    }
    let findings = check::check(&state, check::Depth::Structure).unwrap();
    assert_eq!(findings.damage[0].file, "checkpoints/path-switching.main.g1.s5");

    let segment = std::fs::read_dir(state.join("journal")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let failure = run(&["check"], &state).unwrap_err();
    assert_eq!(failure.exit, Exit::Damaged);
    assert!(failure.message.contains("the journal is damaged"), "{failure}");
}

#[test]
fn a_changed_fixed_value_is_refused_by_config_check() {
    let (_folder, state) = state();
    let file = state.join("lrpathd.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("#peak = 3e-4", "peak = 5e-4");
    std::fs::write(&file, text).unwrap();
    let failure = run(&["config", "check"], &state).unwrap_err();
    assert!(failure.message.contains("`schedule.peak` is fixed for the life of a state"), "{failure}");
    assert!(
        run(&["config", "check", file.to_str().unwrap()], &state).is_ok(),
        "a file on its own is no state's"
    );
}

#[test]
fn the_socket_is_where_the_configuration_says() {
    let folder = tempfile::tempdir().unwrap();
    let place = flags::Place { state: Some(folder.path().to_owned()), socket: None };
    assert_eq!(place.socket(), folder.path().join("control.sock"));
    std::fs::write(folder.path().join("lrpathd.toml"), "nonsense = 1\n[control]\nsocket = \"/run/x.sock\"\n")
        .unwrap();
    assert_eq!(place.socket(), Path::new("/run/x.sock"));
}

#[test]
fn a_version_is_cancelled_by_its_name_and_wanted_after_all() {
    let world = World::new(&[PathSwitching]);
    world.cut(100, "june");
    let served = Served::new(&world);
    let refused = served.run(&["cancel", "jun"]).unwrap_err();
    assert_eq!(refused.message, "there is no version jun");
    assert_eq!(refused.hint.as_deref(), Some("did you mean `june`? `lrpathctl versions` lists them"));
    assert_eq!(refused.exit, Exit::Refused);
    assert_eq!(
        served.run(&["cancel", "june"]).unwrap(),
        "version 1 of path-switching is cancelled\n`lrpathctl retry 1` makes it after all\n"
    );
    assert_eq!(served.run(&["cancel", "v1"]).unwrap_err().exit, Exit::Refused);
    assert_eq!(served.run(&["cancel", "cut"]).unwrap_err().message, "no request to cut is waiting");
    assert_eq!(served.run(&["retry", "june"]).unwrap(), "path-switching.v1.g1 is tried again\n");
}

#[test]
fn names_are_moved_and_listed() {
    let mut world = World::new(&[PathSwitching]);
    for (version, name) in [(1, "may"), (2, "june")] {
        world.cut(100, name);
        world.make(PathSwitching, version);
    }
    let served = Served::new(&world);
    for arguments in [["alias", "stable", "may"], ["alias", "stable", "june"], ["alias", "old", "v1"]] {
        served.run(&arguments).unwrap();
    }
    let listed = served.run(&["alias"]).unwrap();
    let history = served.run(&["alias", "stable"]).unwrap();
    let removed = served.run(&["alias", "old", "--remove"]).unwrap();
    let refused = served.run(&["alias", "stabel"]).unwrap_err();
    insta::assert_snapshot!(format!("{listed}\n{history}\n{}\n{refused}", removed.lines().next().unwrap()));
    assert_eq!(refused.exit, Exit::Refused);
    assert_eq!(refused.hint.as_deref(), Some("did you mean `stable`?"));
    assert_eq!(
        served.run(&["alias", "stable", "junes"]).unwrap_err().hint.as_deref(),
        Some("did you mean `june`? `lrpathctl versions` lists them")
    );
}
