use std::collections::BTreeMap;

use paradigm::Paradigm::{Continual, FromScratch, PathSwitching};

use super::*;
use crate::api::fixture::{World, two_devices};
use crate::api::types::{BlockedFiles, Disk, EvaluationAnswer, ShardCounts, Status, TreeView, WaitingFile};
use crate::api::{Progress, answers};
use crate::edge::failure::{Exit, Failure};
use crate::ledger::hindrances::Waits;
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::{Outcome, Transition};
use crate::ledger::{Clock, tree::Tree};

const PIPE: Look = Look { terminal: false, colour: false, width: 80 };
const TERMINAL: Look = Look { terminal: true, colour: false, width: 80 };

fn tree_of(world: &World, look: &Look) -> String {
    let progress = world.live.progress.lock().unwrap().clone();
    let view = world.ledger.read(|tree| TreeView {
        position: tree.position(),
        digest: tree.digest(),
        paradigms: answers::branches(tree, &progress),
    });
    super::tree::draw(&view, look)
}

/// A version that stands, one that saw a wrong file, and one that was made without it.
fn rewound() -> World {
    let mut world = World::new(&[PathSwitching, Continual]);
    world.accept("speeches.txt", 150_000_000);
    world.cut(1000, "january");
    world.accept("wrong.txt", 4_000_000);
    world.cut(1000, "february");
    for version in 1..=2 {
        world.make(PathSwitching, version);
        world.make(Continual, version);
    }
    world.train(world.main(), None, 1900, None, 100);
    let withdrawal = world.ledger.read(|tree| crate::withdrawal::judge(tree, "wrong.txt", true)).unwrap();
    world.commit(withdrawal.transition());
    world.cut(1200, "march");
    world.make(PathSwitching, 3);
    world
}

fn status_of(world: &World) -> Status {
    let progress = world.live.progress.lock().unwrap().clone();
    let now = world.clock.now();
    world.ledger.read(|tree: &Tree| {
        let jobs = answers::running(tree, &progress, now);
        let (doing, until) = answers::doing(tree, &jobs, 1, now, false);
        Status {
            program: "0.1.0".to_owned(),
            shift: 1,
            state: "/var/lib/lrpath".to_owned(),
            position: tree.position(),
            at: now,
            doing,
            until,
            paused: tree.run().paused,
            draining: tree.run().draining,
            hindrances: world.ledger.hindrances().all(),
            paradigms: answers::paradigms(tree, &progress),
            jobs,
            shards: ShardCounts { waiting: 1, accepted: 12, rejected: 2, withdrawn: 0 },
            slots: answers::slots(tree, &world.backend().slots, &[]),
            devices: world.devices.clone(),
            disk: Disk { free: Some(79_400_000_000), checkpoints: 480_000_000, releases: 96_000_000 },
            waiting_cut: answers::waiting_cut(tree),
            refused_markers: answers::refused_markers(tree, &world.live.markers.lock().unwrap()),
            blocked: BlockedFiles::default(),
        }
    })
}

/// Two released versions, one whose branch trains, one that has failed, and a main path that is ahead.
fn busy() -> World {
    let mut world = World::new(&[PathSwitching, Continual]);
    let main = world.main();
    for (number, name) in [(1, "january"), (2, "february-with-a-long-name"), (3, "march"), (4, "v4")] {
        world.cut(10_000, name);
        if number <= 2 {
            world.make(PathSwitching, number);
        }
    }
    world.make(Continual, 1);
    world.train(main, None, 36_000, None, 2000);
    let damaged = CheckpointKey { path: main, step: 22_000 };
    world.commit(Transition::CheckpointSetAside {
        checkpoint: damaged,
        reason: "`model.safetensors` has digest 1f2e3d; 4c5b6a was expected, which is a very long reason"
            .into(),
    });
    world.save(main, 24_000);
    let second = world.path(Continual, 2);
    let begins = CheckpointKey { path: world.path(Continual, 1), step: 10_000 };
    let job = world.start(second, Some(2), 20_000, Some(begins));
    world.end(
        job,
        1,
        Outcome::Failed { failure: "data".into(), message: "token 9000 is too large".into(), step: None },
        10_400,
    );
    world.commit(Transition::PathFailed { path: second, reason: "data: token 9000 is too large".into() });

    let third = world.path(PathSwitching, 3);
    let point = CheckpointKey { path: main, step: 24_000 };
    let job = world.start(third, Some(3), 30_000, Some(point));
    let now = world.clock.now();
    let progress = Progress {
        attempt: 1,
        step: 26_600,
        steps_done: 2600,
        loss: Some(2.91342),
        learning_rate: Some(2e-4),
        tokens_per_second: Some(12_345.0),
        first_event_at: Some(now - 1_300_000),
        last_event_at: Some(now),
        warning: None,
    };
    *world.live.progress.lock().unwrap() = BTreeMap::from([(job, progress)]);
    world
}

fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn a_tree_fits_eighty_columns() {
    let world = busy();
    let text = tree_of(&world, &TERMINAL);
    assert_fits(&text);
    insta::assert_snapshot!(text);
    let plain = tree_of(&world, &PIPE);
    assert!(plain.contains("which is a very long reason"), "a pipe gets every word");
}

#[test]
fn a_tree_begins_with_nothing() {
    let mut world = World::new(&[PathSwitching, FromScratch, Continual]);
    let mut text = tree_of(&world, &TERMINAL);
    world.cut(10, "v1");
    for paradigm in [PathSwitching, FromScratch, Continual] {
        world.make(paradigm, 1);
    }
    world.cut(1, "v2");
    text.push_str(&tree_of(&world, &TERMINAL));
    insta::assert_snapshot!(text);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let world = busy();
    let colourful = tree_of(&world, &Look { colour: true, ..TERMINAL });
    assert!(colourful.contains("\u{1b}[32mreleased\u{1b}[0m"));
    for look in [PIPE, TERMINAL] {
        assert!(!tree_of(&world, &look).contains('\u{1b}'));
        assert!(!super::status::draw(&status_of(&world), &look).contains('\u{1b}'));
    }
}

#[test]
fn the_status_says_what_is_done_and_what_goes_on() {
    let world = busy();
    let text = super::status::draw(&status_of(&world), &TERMINAL);
    assert_fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn a_status_tells_of_the_gpus_what_their_driver_tells() {
    let mut world = World::new(&[PathSwitching]);
    world.devices = two_devices();
    world.devices[1].name =
        "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition with a very long name".to_owned();
    let text = super::status::draw(&status_of(&world), &TERMINAL);
    assert_fits(&text);
    let of_gpus: Vec<&str> = text.lines().filter(|line| line.starts_with("gpu ")).collect();
    assert_eq!(
        of_gpus,
        [
            "gpu 0   NVIDIA H200, 12.3 GB of 151 GB in use, 87 % busy",
            "gpu 1   NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition with a very lon…",
        ]
    );
}

#[test]
fn a_status_tells_what_a_cut_waits_for() {
    let world = World::new(&[PathSwitching]);
    let waits_for = (0..9).map(|number| format!("part-{number}.jsonl")).collect();
    let source = crate::ledger::transition::CutSource::Command;
    world.commit(Transition::CutRequested { name: Some("june".into()), source, waits_for });
    insta::assert_snapshot!(super::status::draw(&status_of(&world), &TERMINAL));
}

#[test]
fn a_status_says_what_waits_for_a_disk_and_which_version_is_evaluated() {
    let mut world = World::new(&[PathSwitching]);
    world.accept("all.txt", 150_000_000);
    for (version, name) in [(1, "january"), (2, "february")] {
        world.cut(1000, name);
        world.make(PathSwitching, version);
    }
    world.commit(Transition::EvaluationAsked { paradigm: PathSwitching, version: 1, increments: vec![2] });
    let path = world.ledger.read(|tree| tree.evaluation_path(PathSwitching, 1));
    world.start(path, Some(1), 1000, Some(CheckpointKey { path: world.path(PathSwitching, 1), step: 1000 }));
    let why = "cannot find room in `/var/lib/lrpath/checkpoints`: 40.2 MB are needed, and 12.9 MB are free";
    world.ledger.hindrances().waits(Waits::Checkpoints, why);
    insta::assert_snapshot!(super::status::draw(&status_of(&world), &TERMINAL));
}

#[test]
fn an_increment_without_held_out_blocks_is_told() {
    let answer = EvaluationAnswer {
        paradigm: PathSwitching,
        version: 1,
        step: 1000,
        evaluations: Vec::new(),
        pending: vec![4],
        failed: None,
    };
    assert_eq!(
        super::upkeep::evaluated(&answer, &[2, 3], &TERMINAL),
        "no held-out block lies in v2, v3: there is nothing to measure on\n\
         version 1 of path-switching is evaluated on v4 as soon as a slot is free\n"
    );
}

#[test]
fn a_status_names_the_files_that_cannot_be_taken() {
    let world = World::new(&[PathSwitching]);
    let blocked = |number| WaitingFile {
        name: format!("part-{number}.jsonl"),
        bytes: 99_000,
        since: 0,
        why: format!(
            "`/data/part-{number}.jsonl` cannot be read: Permission denied (os error 13). Let the daemon's user read it, \
             or take it out of the folder; it is tried again in 40 s"
        ),
        changes: 0,
        blocked: true,
    };
    let mut status = status_of(&world);
    status.blocked = BlockedFiles { count: 5, first: (0..4).map(blocked).collect() };
    let text = super::status::draw(&status, &TERMINAL);
    assert_fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn lists_wrap_on_a_terminal_and_not_in_a_pipe() {
    let world = busy();
    world.accept("speeches/1790_Washington.txt", 40_000);
    world.accept("b.txt", 1_234_567);
    world.commit(Transition::ShardRejected {
        digest: None,
        name: "broken.txt".into(),
        bytes: 17,
        reason: "broken.txt:3: byte 12 (0xff) is no UTF-8: save the file as UTF-8".into(),
    });
    let waiting = vec![WaitingFile {
        name: "growing.txt".into(),
        bytes: 99_000,
        since: 0,
        why: "it must stand still for 5 s".into(),
        changes: 3,
        blocked: false,
    }];
    world.accept("wrong.txt", 4000);
    let digest = artifacts::Digest::of(b"wrong.txt");
    world.commit(Transition::ShardWithdrawn { digest, step: 50_000, seen_by: Vec::new(), generation: None });
    let (versions, shards, jobs) = world.ledger.read(|tree| {
        (
            answers::versions(tree, &BTreeMap::new()),
            answers::shards(tree, waiting, usize::MAX),
            answers::jobs(tree, &BTreeMap::new()),
        )
    });
    for (name, look) in [("terminal", TERMINAL), ("pipe", PIPE)] {
        let all =
            [lists::versions(&versions, &look), lists::shards(&shards, &look), lists::jobs(&jobs, &look)];
        insta::assert_snapshot!(format!("lists_in_a_{name}"), all.join("\n----\n"));
    }
}

#[test]
fn what_a_rewind_has_left_behind_is_told_everywhere() {
    let world = rewound();
    let tree = tree_of(&world, &TERMINAL);
    let status = status::draw(&status_of(&world), &TERMINAL);
    let versions = world.ledger.read(|tree| answers::versions(tree, &BTreeMap::new()));
    let versions = lists::versions(&versions, &TERMINAL);
    let records = world.ledger.records(0, 1000).unwrap();
    let withdrawn = |record: &&crate::ledger::transition::Record| {
        matches!(record.transition, Transition::ShardWithdrawn { .. })
    };
    let record =
        records.iter().filter(withdrawn).map(|record| events::line(record, &PIPE)).collect::<String>();
    let all = [tree, status, versions];
    all.iter().for_each(|text| assert_fits(text));
    insta::assert_snapshot!(format!("{}\n----\n{record}", all.join("\n----\n")));
}

#[test]
fn every_record_is_a_sentence() {
    let world = busy();
    world.accept("b.txt", 1_234_567);
    let digest = artifacts::Digest::of(b"b.txt");
    world.commit(Transition::ShardWithdrawn { digest, step: 50_000, seen_by: Vec::new(), generation: None });
    let records = world.ledger.records(0, 1000).unwrap();
    let mut lines: Vec<String> = records.iter().map(|record| events::line(record, &PIPE)).collect();
    lines.dedup_by_key(|line| line.split_whitespace().skip(3).take(1).collect::<String>());
    insta::assert_snapshot!(lines.concat());
}

#[test]
fn a_plan_is_two_tables() {
    let report = paradigm::Report::new(&[10_000, 10_000, 10_000, 10_000], 0.6).unwrap();
    let text = plan::draw(&report, &TERMINAL);
    assert_fits(&text);
    insta::assert_snapshot!(text);
}

#[test]
fn errors_say_what_why_and_what_to_do() {
    let failure = Failure::new("no daemon answers on `/var/lib/lrpath/control.sock`")
        .because("No such file or directory (os error 2)")
        .hint("start it with `lrpathd --state <folder>`, or name another with --state or --socket")
        .exit(Exit::NoDaemon);
    insta::assert_snapshot!(format!("{}\n{}", failure.render(&TERMINAL), failure.render(&PIPE)));
}

#[test]
fn what_would_go_and_what_stays_is_said_with_its_reason() {
    let thing = |name: &str, bytes, goes, why: &str| crate::api::types::ThingLine {
        name: name.to_owned(),
        bytes,
        goes,
        why: why.to_owned(),
    };
    let things = vec![
        thing(
            "checkpoints/path-switching.main.g1.s3400",
            480_000_000,
            false,
            "the way to the next branch begins at it",
        ),
        thing("checkpoints/path-switching.v1.g1.s1000", 480_000_000, true, "v1 is public"),
        thing(
            "jobs/4-1",
            1_200_000,
            true,
            "its job has ended: its rates and sequences are of no use any more",
        ),
        thing("releases/v1", 160_000_000, false, "it is public, also as stable"),
    ];
    let mut answer = crate::api::types::GcAnswer { dry_run: true, things, left: Vec::new() };
    let asked = upkeep::collected(&answer, &TERMINAL);
    answer.dry_run = false;
    let went = upkeep::collected(&answer, &PIPE);
    answer.things.retain(|thing| !thing.goes);
    insta::assert_snapshot!(format!("{asked}----\n{went}----\n{}", upkeep::collected(&answer, &PIPE)));
    assert!(asked.lines().all(|line| line.chars().count() <= 80), "{asked}");
}

fn explained(world: &World, what: &str, paradigm: Option<paradigm::Paradigm>) -> String {
    let explained = crate::api::explain::explain(&world.backend(), what, paradigm).unwrap();
    let text = explain::draw(&explained, &TERMINAL);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    text
}

#[test]
fn a_version_a_shard_and_a_checkpoint_are_explained() {
    let world = rewound();
    world.commit(Transition::AliasMoved {
        paradigm: PathSwitching,
        name: "stable".to_owned(),
        version: Some(1),
    });
    let told: Vec<String> = [
        ("january", None),
        ("v2", None),
        ("2", Some(Continual)),
        ("march", None),
        ("speeches.txt", None),
        ("wrong.txt", None),
        ("path-switching.main.g1.s400", None),
        ("path-switching.main.g1.s1900", None),
    ]
    .into_iter()
    .map(|(what, paradigm)| explained(&world, what, paradigm))
    .collect();
    insta::assert_snapshot!(told.join("\n"));
    let refused = |what| {
        let error = crate::api::explain::explain(&world.backend(), what, None).unwrap_err();
        format!("{error} [{}]", error.hint().unwrap_or_default())
    };
    assert_eq!(
        refused("januari"),
        "no version, shard or checkpoint is called `januari` [did you mean `january`?]"
    );
    assert_eq!(
        refused("path-switching.main.g1.s401"),
        "no version, shard or checkpoint is called `path-switching.main.g1.s401` [did you mean \
         `path-switching.main.g1.s400`?]"
    );
    assert_eq!(
        refused("v9"),
        "no version, shard or checkpoint is called `v9` [`lrpathctl versions`, `shards` and `tree` list them]"
    );
}

#[test]
fn a_warning_stands_below_the_job_that_it_is_about() {
    let mut world = World::new(&[PathSwitching]);
    let job = world.start(world.main(), None, 1000, None);
    let warning =
        Some("the loss stands still at 5.545177, for 200 steps and more: nothing is learned".to_owned());
    let live = Progress { attempt: 1, step: 300, steps_done: 300, warning, ..Progress::default() };
    world.live.progress.lock().unwrap().insert(job, live);
    let text = status::draw(&status_of(&world), &PIPE);
    let lines: Vec<&str> = text.lines().collect();
    let place = lines.iter().position(|line| line.contains("job 1 main ahead")).unwrap();
    assert_eq!(
        lines[place + 1],
        "    warning: the loss stands still at 5.545177, for 200 steps and more: nothing is learned"
    );
}
