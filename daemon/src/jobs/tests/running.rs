//! One daemon, and trainers that behave well or badly.

use super::super::executor::{Found, Launch, StartError};
use super::super::{Jobs, process};
use super::*;
use crate::ledger::transition::Evaluation;

#[test]
fn a_job_is_prepared_run_and_recorded() {
    let world = World::with_steps(6);
    world.cut(4);
    let start = world.start_main(0, 4);
    let evaluation = Event::Evaluation {
        step: 4,
        increment: 1,
        loss: 2.5,
        perplexity: 12.2,
        bits_per_byte: None,
        tokens: 100,
        seconds: 0.1,
    };
    world.script(&start).started().steps(0..4).checkpoint(4).say(evaluation).finished().write();
    let end = world.end_of(&start);
    assert_eq!((end.outcome, end.reached), (Outcome::Finished, 4));
    let last = world.main_key(4);
    world.ledger.read(|tree| {
        let saved = tree.checkpoint(&last).unwrap();
        assert_eq!(saved.job, Some(start.job));
        let expected =
            Evaluation { increment: 1, loss: 2.5, perplexity: 12.2, bits_per_byte: None, tokens: 100 };
        assert_eq!(tree.evaluation(start.path, 4, 1), Some(&expected));
        let path = tree.path(&start.path).unwrap();
        assert_eq!((path.ran, path.finished, path.failures, path.retry_at), (4, 4, 0, None));
    });
    assert_eq!(world.launches(&start), 1);
    assert_eq!(world.supervisor.look().unwrap().open, 0);
}

#[test]
fn a_trainer_gets_its_job_its_folder_and_nothing_of_the_daemon() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 1);
    let script = world.script(&start).run("env > seen; pwd >> seen; echo \"$@\" >> seen; cat >> seen");
    script
        .run("cut -d' ' -f1,5 /proc/$$/stat > group")
        .started()
        .steps(0..1)
        .checkpoint(1)
        .finished()
        .write();
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
    let folder = world.folder_of(&start);
    let seen = fs::read_to_string(folder.join("seen")).unwrap();
    assert!(!seen.contains("SECRET") && seen.contains("PATH="), "{seen}");
    assert!(seen.contains("RAYON_NUM_THREADS=2"), "{seen}");
    let job = folder.join("job.json");
    assert!(seen.ends_with(&format!("{}\n--job {}\n", folder.display(), job.display())), "{seen}");
    let group = fs::read_to_string(folder.join("group")).unwrap();
    let mut numbers = group.split_whitespace();
    assert_eq!(numbers.next(), numbers.next(), "it leads a group of its own");
}

#[test]
fn a_job_that_is_asked_to_make_room_saves_and_stops() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 6);
    let script = world.script(&start).run("trap 'is_asked=1' TERM; is_asked=").started().steps(0..2);
    let script = script.run("touch $state/ran; while [ -z \"$is_asked\" ]; do pause; done").checkpoint(2);
    script.say(Event::Stopped { step: 2 }).run("exit 75").write();
    world.look_until("it runs", || world.state().join("ran").exists());
    for _ in 0..3 {
        world.supervisor.ask_to_stop(start.job);
    }
    let end = world.end_of(&start);
    assert_eq!((end.outcome, end.reached), (Outcome::Stopped, 2));
    assert!(world.is_saved(world.main_key(2)));
    let path = world.ledger.read(|tree| tree.path(&start.path).unwrap().clone());
    assert_eq!((path.failures, path.retry_at), (0, None));
}

#[test]
fn a_trainer_that_stops_of_its_own_accord_is_stopped_and_waits() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 6);
    world.script(&start).started().run("exit 75").write();
    assert_eq!(world.end_of(&start).outcome, Outcome::Stopped);
    let path = world.ledger.read(|tree| tree.path(&start.path).unwrap().clone());
    assert_eq!((path.failures, path.retry_at), (0, Some(world.clock.now() + 1_000)));
}

#[test]
fn a_crash_is_retried_later_and_later_and_then_the_path_has_failed() {
    let world = World::with_steps(6);
    let mut start = world.start_main(0, 6);
    for (attempt, wait) in [(1, Some(1_000)), (2, Some(2_000)), (3, None)] {
        let script = world.script(&start).started().steps(0..attempt);
        script.run("echo the reason >&2; kill -9 $$").write();
        let end = world.end_of(&start);
        assert_eq!(end.reached, attempt);
        let Outcome::Crashed { message } = end.outcome else { panic!("{:?}", end.outcome) };
        assert!(message.contains("signal 9") && message.ends_with("the reason"), "{message}");
        let path = world.ledger.read(|tree| tree.path(&start.path).unwrap().clone());
        assert_eq!(path.retry_at, wait.map(|wait| world.clock.now() + wait));
        assert_eq!(path.failed.is_some(), wait.is_none());
        if wait.is_some() {
            start = world.start_again(&start);
        }
    }
}

#[test]
fn the_trainers_own_reason_is_kept() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 6);
    let failed = Event::Failed { kind: "config".to_owned(), message: "no such model".to_owned(), step: None };
    world.script(&start).say(failed).run("exit 78").write();
    assert!(is_failure(&world.end_of(&start).outcome, "config", "no such model"));
}

#[test]
fn a_silent_trainer_that_does_not_listen_is_ended_with_all_that_it_started() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 6);
    let script = world.script(&start).run("trap '' TERM").started().steps(0..2);
    script.run("sleep 300 & touch $state/ran; while :; do pause; done").write();
    world.look_until("it runs", || world.state().join("ran").exists());
    world.look();
    // A clock that jumps is no silence.
    world.set_clock(world.clock.now() + 10_000_000);
    world.look();
    world.pass(500_000);
    assert_eq!(world.ended(&start), None);
    world.pass(100_000 + 60_000);
    let end = world.end_of(&start);
    assert!(is_failure(&end.outcome, "silent", "said nothing for 600 s"), "{:?}", end.outcome);
    assert!(is_failure(&end.outcome, "silent", "signal 9"), "{:?}", end.outcome);
    assert_eq!(end.reached, 2);
    assert_eq!(process::writers(&world.folder_of(&start).join(EVENTS)).unwrap(), Vec::<i32>::new());
}

#[test]
fn a_trainer_that_does_not_stop_when_asked_is_ended() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 6);
    world
        .script(&start)
        .run("trap '' TERM")
        .started()
        .run("touch $state/ran; while :; do pause; done")
        .write();
    world.look_until("it runs", || world.state().join("ran").exists());
    world.supervisor.ask_to_stop(start.job);
    world.pass(65_000);
    assert!(is_failure(&world.end_of(&start).outcome, "stop", "within 60 s"));
}

#[test]
fn rubbish_ends_the_attempt_and_the_steps_before_it_count() {
    type Spoil = fn(Script<'_>) -> Script<'_>;
    let cases: [(Spoil, &str); 9] = [
        (|s| s.run("say 'Loading weights...'"), "line 4 is no event"),
        (|s| s.run("say ''"), "line 4 is no event"),
        (|s| s.run("printf '\\377\\376\\n'"), "line 4 is no event"),
        (|s| s.run("head -c 70000 /dev/zero; say ''"), "line 4 is longer than 65536 bytes"),
        (|s| s.run("say '{\"time\":1,\"event\":\"party\"}'"), "unknown variant `party`"),
        (|s| s.say(step(5)), "reports step 5; step 2 was expected"),
        (|s| s.say(Event::Finished { step: 4 }), "finished after 4 steps; 2 are done"),
        (
            |s| {
                let digest = Digest::of(b"");
                let path = "path-switching.main.g1.s2".to_owned();
                s.say(Event::Checkpoint {
                    path,
                    step: 2,
                    digest,
                    bytes: 1,
                    seconds: None,
                    stalled_seconds: None,
                })
            },
            "says that checkpoint path-switching.main.g1.s2 is saved, but",
        ),
        (
            |s| {
                let digest = Digest::of(b"");
                s.say(Event::Checkpoint {
                    path: "../../etc".to_owned(),
                    step: 2,
                    digest,
                    bytes: 1,
                    seconds: None,
                    stalled_seconds: None,
                })
            },
            "calls a checkpoint `../../etc`",
        ),
    ];
    for (spoil, expected) in cases {
        let world = World::with_steps(6);
        let start = world.start_main(0, 4);
        let script = spoil(world.script(&start).run("trap '' TERM").started().steps(0..2));
        script.run("while :; do pause; done").write();
        let end = world.end_of(&start);
        assert!(is_failure(&end.outcome, "contract", expected), "{expected}: {:?}", end.outcome);
        assert_eq!(end.reached, 2);
        assert_eq!(world.recount() - u64::from(expected.contains("step 5")), 2);
    }
}

#[test]
fn a_trainer_that_finishes_without_its_checkpoint_has_not_finished() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 2);
    world.script(&start).started().steps(0..2).finished().write();
    assert!(is_failure(&world.end_of(&start).outcome, "contract", "saved no checkpoint at step 2"));
}

#[test]
fn a_trainer_that_lingers_after_its_last_word_is_ended_and_has_finished() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 2);
    let script = world.script(&start).started().steps(0..2).checkpoint(2).finished();
    script.run("touch $state/ran; while :; do pause; done").write();
    world.look_until("it is done", || world.state().join("ran").exists());
    world.look();
    world.pass(55_000);
    assert_eq!(world.ended(&start), None);
    world.pass(10_000);
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
}

#[test]
fn a_command_that_cannot_be_run_is_one_failed_job() {
    let mut world = World::with_steps(6);
    world.executor = Arc::new(Local::new(vec!["/no/such/trainer".into()], [], Arc::new(Disk), no_gpus()));
    let (settings, ledger) = (world.settings.clone(), world.ledger.clone());
    world.supervisor = Supervisor::new(settings, ledger, world.executor.clone(), world.clock.clone());
    let start = world.start_main(0, 2);
    assert!(is_failure(
        &world.end_of(&start).outcome,
        "start",
        "cannot start the trainer `/no/such/trainer`"
    ));
}

#[test]
fn given_weights_that_are_not_those_of_init_start_no_trainer() {
    let given = tempfile::tempdir().unwrap();
    let put = |bytes: &str| fs::write(given.path().join("model.safetensors"), bytes).unwrap();
    put("weights");
    let expected = crate::config::weights_digest(given.path()).unwrap();
    let mut world = World::made_with(Fixed { weights: Some(expected), ..fixed() });
    world.shard("first", 33, 0.0);
    world.settings.choices.weights = Some(given.path().to_owned());
    world.restart();

    put("weighty");
    let start = world.start_main(0, 2);
    world.script(&start).started().write();
    let end = world.end_of(&start);
    let found = crate::config::weights_digest(given.path()).unwrap();
    let words = format!("have digest {found}, and the run was made with those of {expected}. Put these back");
    assert!(is_failure(&end.outcome, "prepare", &words), "{end:?}");

    fs::remove_file(given.path().join("model.safetensors")).unwrap();
    let again = world.start_again(&start);
    world.script(&again).started().write();
    let end = world.end_of(&again);
    assert!(is_failure(&end.outcome, "prepare", "cannot be read"), "{end:?}");
    assert_eq!((world.launches(&start), world.launches(&again)), (0, 0));

    put("weights");
    let last = world.start_again(&again);
    world.script(&last).in_order();
    assert_eq!(world.end_of(&last).outcome, Outcome::Finished);

    // What goes on from a checkpoint does not need them any more.
    put("gone");
    let on = world.start_main(2, 4);
    world.script(&on).in_order();
    assert_eq!(world.end_of(&on).outcome, Outcome::Finished);
}

#[test]
fn a_pause_stops_what_runs_and_starts_nothing() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 6);
    world.script(&start).started().steps(0..1).run("touch $state/ran; while :; do pause; done").write();
    world.look_until("it runs", || world.state().join("ran").exists());
    world.commit(Transition::Paused);
    // It has no trap: the signal ends it, which is no failure when it was asked.
    assert_eq!(world.end_of(&start).outcome, Outcome::Stopped);
    let next = world.start_main(0, 6);
    assert_eq!(world.end_of(&next).outcome, Outcome::Stopped);
    assert!(!world.folder_of(&next).exists());
}

#[test]
fn an_attempt_is_started_once_whoever_starts_it() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 6);
    world.script(&start).run("until_there end").write();
    let folder = world.folder_of(&start);
    fs::create_dir(&folder).unwrap();
    let launch = Launch { folder: &folder, job: 1, attempt: 1, threads: 1, devices: &[], shared: false };
    let other = Local::new(vec!["/bin/sh".into(), "/dev/null".into()], [], Arc::new(Disk), no_gpus());
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| world.executor.start(&launch).is_ok())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).filter(|ok| *ok).count()
    });
    assert_eq!(started, 1);
    assert!(matches!(other.start(&launch), Err(StartError::Taken { .. })));
    fs::write(world.state().join("end"), "").unwrap();
    let gone = || matches!(world.executor.find_again(&folder).unwrap(), Found::Gone { .. });
    world.look_until("it ends", gone);
    // It is gone and has said nothing, and still it was started.
    assert!(matches!(other.start(&launch), Err(StartError::Taken { .. })));
    assert_eq!(world.launches(&start), 1);
}

#[test]
fn the_counters_equal_a_recount_of_the_events_at_any_moment() {
    let world = World::with_steps(300);
    let start = world.start_main(0, 300);
    let steps = (0..300).fold(world.script(&start).started(), |script, number| {
        let script = script.say(step(number));
        if number % 30 == 29 {
            script.run(&format!("touch $state/at{number}; until_there go{number}"))
        } else {
            script
        }
    });
    steps.checkpoint(300).finished().write();
    let counted = || {
        world.supervisor.snapshot(|tree, progress| {
            let ended = tree.path(&start.path).map_or(0, |path| path.ran);
            ended + progress.values().map(|progress| progress.steps_done).sum::<u64>()
        })
    };
    for moment in (29..300).step_by(30) {
        let at = world.state().join(format!("at{moment}"));
        // On the way the file grows beside the count.
        world.look_until("the steps are done", || {
            let (before, counted, after) = (world.recount(), counted(), world.recount());
            assert!((before..=after).contains(&counted), "{before} {counted} {after}");
            at.exists()
        });
        assert_eq!((counted(), world.recount()), (moment + 1, moment + 1));
        let progress = world.supervisor.snapshot(|_, progress| progress[&start.job].clone());
        assert_eq!((progress.step, progress.last_event_at), (moment + 1, Some(1_234_500)));
        fs::write(world.state().join(format!("go{moment}")), "").unwrap();
    }
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
    assert_eq!((counted(), world.recount()), (300, 300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_actor_runs_jobs_and_at_its_end_asks_trainers_to_stop() {
    let world = World::with_steps(12);
    let (jobs, handle) =
        Jobs::new(world.settings.clone(), world.ledger.clone(), world.executor.clone(), world.clock.clone());
    let (send, shutdown) = tokio::sync::watch::channel(false);
    let (_leave, never) = tokio::sync::watch::channel(false);
    let actor = tokio::spawn(jobs.run(shutdown, never));
    let first = world.main_job(0, 4);
    world.script(&first).in_order();
    let second = JobStart { job: 2, from: 4, to: 12, start: Some(world.main_key(4)), ..first.clone() };
    let script = world.script(&second).run("trap 'is_asked=1' TERM; is_asked=").started().steps(4..6);
    let script = script.run("touch $state/ran; while [ -z \"$is_asked\" ]; do pause; done").checkpoint(6);
    script.say(Event::Stopped { step: 6 }).run("exit 75").write();
    world.commit(Transition::JobStarted(Box::new(first.clone())));
    wait_for(|| world.ended(&first).is_some()).await;
    assert_eq!(world.ended(&first).unwrap().outcome, Outcome::Finished);
    world.commit(Transition::JobStarted(Box::new(second.clone())));
    wait_for(|| world.state().join("ran").exists()).await;
    assert_eq!(handle.snapshot(|_, progress| progress[&2].step), 6);
    send.send(true).unwrap();
    actor.await.unwrap().unwrap();
    assert_eq!(world.ended(&second).unwrap().outcome, Outcome::Stopped);
    assert!(world.is_saved(world.main_key(6)));
}

async fn wait_for(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
