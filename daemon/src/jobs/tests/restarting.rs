//! The daemon dies at every point of an attempt's life, and another goes on.

use super::super::executor::Found;
use super::super::process::Identity;
use super::*;

/// An attempt that has done two steps of four and waits.
fn waiting(world: &World) -> JobStart {
    let start = world.start_main(0, 4);
    let script = world.script(&start).run("trap 'is_asked=1' TERM; is_asked=").started().steps(0..2);
    let script =
        script.run("touch $state/ran; while [ ! -e $state/go ] && [ -z \"$is_asked\" ]; do pause; done");
    script.steps(2..4).checkpoint(4).finished().write();
    world.look_until("it runs", || world.state().join("ran").exists());
    start
}

fn go(world: &World) {
    fs::write(world.state().join("go"), "").unwrap();
}

#[test]
fn a_running_trainer_is_found_again_and_not_started_twice() {
    let mut world = World::with_steps(6);
    let start = waiting(&world);
    for _ in 0..3 {
        world.restart();
        world.supervisor.tidy().unwrap();
        // Before anybody has looked, its steps count.
        assert_eq!(world.supervisor.snapshot(|_, progress| progress[&start.job].steps_done), 2);
        world.look();
        assert_eq!(world.executor.find_again(&world.folder_of(&start)).unwrap(), Found::Running);
    }
    go(&world);
    let end = world.end_of(&start);
    assert_eq!((end.outcome, end.reached), (Outcome::Finished, 4));
    assert_eq!(world.launches(&start), 1);
}

#[test]
fn no_commit_waits_while_the_words_of_trainers_are_read() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 4);
    fs::create_dir(world.folder_of(&start)).unwrap();
    // A pipe: whoever opens it to read stands there until somebody writes.
    let events = world.folder_of(&start).join(EVENTS);
    assert!(std::process::Command::new("mkfifo").arg(&events).status().unwrap().success());
    let (tell, told) = std::sync::mpsc::channel();
    let (done, committed) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            tell.send(rustix::thread::gettid()).unwrap();
            world.supervisor.snapshot(|tree, progress| (tree.run().paused, progress.len()))
        });
        let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap().as_raw_nonzero());
        let begun = Instant::now();
        while !fs::read_to_string(&stat).unwrap().contains(") S ") {
            assert!(begun.elapsed() < PATIENCE, "it does not wait for the file");
        }
        let world = &world;
        scope.spawn(move || {
            world.commit(Transition::Paused);
            done.send(()).unwrap();
        });
        let committed = committed.recv_timeout(PATIENCE);
        fs::write(&events, "").unwrap();
        assert!(committed.is_ok(), "the commit waits for the file");
        assert_eq!(asked.join().unwrap(), (true, 1));
    });
}

#[test]
fn a_trainer_that_ended_while_there_was_no_daemon_is_recorded_once() {
    let mut world = World::with_steps(6);
    let start = waiting(&world);
    go(&world);
    let executor = world.executor.clone();
    let folder = world.folder_of(&start);
    while executor.find_again(&folder).unwrap() == Found::Running {
        std::thread::yield_now();
    }
    world.restart();
    world.look();
    assert_eq!(world.ended(&start).unwrap().outcome, Outcome::Finished);
    let position = world.ledger.read(Tree::position);
    world.restart();
    world.supervisor.tidy().unwrap();
    world.look();
    assert_eq!(world.ledger.read(Tree::position), position, "nothing is said twice");
}

#[test]
fn what_was_committed_before_the_restart_is_not_committed_again() {
    let mut world = World::with_steps(6);
    let start = world.start_main(0, 4);
    let script = world.script(&start).started().steps(0..2).checkpoint(2).run("until_there go").steps(2..4);
    script.checkpoint(4).finished().write();
    world.look_until("the checkpoint is known", || world.is_saved(world.main_key(2)));
    let position = world.ledger.read(Tree::position);
    world.restart();
    world.look();
    assert_eq!(world.ledger.read(Tree::position), position);
    go(&world);
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
}

#[test]
fn a_trainer_that_crashed_while_there_was_no_daemon_has_crashed() {
    let mut world = World::with_steps(6);
    let start = waiting(&world);
    world.executor.kill(&world.folder_of(&start)).unwrap();
    world.restart();
    let end = world.end_of(&start);
    let Outcome::Crashed { message } = end.outcome else { panic!("{:?}", end.outcome) };
    assert!(message.contains("gone, without a last word"), "{message}");
    assert_eq!(end.reached, 2);
}

#[test]
fn a_trainer_without_its_identity_is_found_by_its_lock_and_stopped_by_its_output() {
    let mut world = World::with_steps(6);
    let start = waiting(&world);
    fs::remove_file(world.folder_of(&start).join("process.json")).unwrap();
    world.restart();
    world.look();
    assert_eq!(world.executor.find_again(&world.folder_of(&start)).unwrap(), Found::Running);
    world.supervisor.ask_to_stop(start.job);
    // The signal was heard: the script goes on to its end.
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
    assert_eq!(world.launches(&start), 1);
}

#[test]
fn an_identity_of_another_boot_is_nobody_and_gets_no_signal() {
    let mut world = World::with_steps(6);
    let start = world.start_main(0, 4);
    let folder = world.folder_of(&start);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(EVENTS), "").unwrap();
    // The pid is given away again: to this very test.
    let me = Identity::of(i32::try_from(std::process::id()).unwrap(), 1).unwrap();
    let before = Identity { boot_id: "before".to_owned(), ..me };
    fs::write(folder.join("process.json"), serde_json::to_vec(&before).unwrap()).unwrap();
    world.restart();
    assert_eq!(world.executor.find_again(&folder).unwrap(), Found::Gone { exit: None });
    world.executor.stop(&folder).unwrap();
    world.executor.kill(&folder).unwrap();
    assert!(matches!(world.end_of(&start).outcome, Outcome::Crashed { .. }));
}

#[test]
fn an_attempt_that_was_journalled_but_not_started_is_started_once() {
    // Before the folder; a half-written folder; the whole folder; the events file, without a process.
    for death in 0..4 {
        let mut world = World::with_steps(6);
        let start = world.start_main(0, 2);
        world.script(&start).in_order();
        let folder = world.folder_of(&start);
        match death {
            0 => {}
            1 => fs::create_dir(world.state().join("jobs/.tmp-1-1-0")).unwrap(),
            _ => {
                super::preparing::prepare(&world, &start, &world.settings.choices).unwrap();
                if death == 3 {
                    fs::write(folder.join(EVENTS), "").unwrap();
                }
            }
        }
        world.restart();
        world.supervisor.tidy().unwrap();
        assert!(!world.state().join("jobs/.tmp-1-1-0").exists());
        // Whoever asks for the state first does not make it look started.
        assert_eq!(world.supervisor.snapshot(|_, progress| progress[&start.job].steps_done), 0);
        assert_eq!(world.end_of(&start).outcome, Outcome::Finished, "death {death}");
        assert_eq!(world.launches(&start), 1);
    }
}

#[test]
fn two_daemons_after_each_other_stop_the_same_trainer() {
    let mut world = World::with_steps(6);
    let start = waiting(&world);
    world.restart();
    world.look();
    world.supervisor.ask_to_stop(start.job);
    world.look();
    world.restart();
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
    assert_eq!(world.launches(&start), 1);
}

#[test]
fn at_the_end_of_the_daemon_a_deaf_trainer_is_left_alone() {
    let mut world = World::with_steps(6);
    let start = world.start_main(0, 4);
    let script = world.script(&start).run("trap '' TERM").started().steps(0..2);
    script.run("touch $state/ran; until_there go").steps(2..4).checkpoint(4).finished().write();
    world.look_until("it runs", || world.state().join("ran").exists());
    world.supervisor.close();
    world.pass(300_000);
    assert_eq!(world.ended(&start), None);
    world.restart();
    world.look();
    go(&world);
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
    assert_eq!(world.launches(&start), 1);
}

/// It was taken for a lie, and the trainer that had told it was ended.
#[test]
fn a_checkpoint_that_was_deleted_since_is_no_breach_when_it_is_read_again() {
    let mut world = World::with_steps(6);
    let start = world.start_main(0, 4);
    let key = world.main_key(2);
    let script = world.script(&start).started().steps(0..2).checkpoint(2);
    script.run("touch $state/ran; until_there go").steps(2..4).checkpoint(4).finished().write();
    world.look_until("it is saved", || world.is_saved(key));
    let delete = Transition::CheckpointDeleted { checkpoint: key, reason: "thinned".to_owned() };
    world.ledger.commit(delete).unwrap();
    // Before the folder goes, and after that.
    world.restart();
    world.look();
    assert!(!world.is_saved(key), "what is deleted is not saved again");
    fs::remove_dir_all(world.state().join("checkpoints").join(key.to_string())).unwrap();
    world.restart();
    world.look();
    fs::write(world.state().join("go"), "").unwrap();
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
    assert!(!world.is_saved(key) && world.is_saved(world.main_key(4)));
}
