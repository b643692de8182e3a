//! Checkpoints: what is damaged, and what nobody recorded.

use super::*;

#[test]
fn a_damaged_checkpoint_is_set_aside_and_nothing_is_trained_on_it() {
    type Harm = fn(&FilePath);
    let harms: [Harm; 4] = [
        |folder| {
            let path = folder.join(checkpoint::MODEL);
            let mut bytes = fs::read(&path).unwrap();
            bytes[100] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        |folder| fs::remove_file(folder.join("manifest.json")).unwrap(),
        |folder| fs::remove_dir_all(folder).unwrap(),
        |folder| {
            // Sound in itself, but another one.
            fs::write(folder.join(checkpoint::OPTIMIZER), b"others").unwrap();
            fs::remove_file(folder.join("manifest.json")).unwrap();
            Manifest::of(folder).unwrap().write(&Disk, folder).unwrap();
        },
    ];
    for harm in harms {
        let world = World::with_steps(6);
        let key = world.main_key(2);
        // A job must have run there for the path to be known.
        let first = world.start_main(0, 2);
        world.script(&first).in_order();
        world.end_of(&first);
        let folder = world.state().join("checkpoints").join(key.to_string());
        harm(&folder);
        let start = world.start_main(2, 4);
        let end = world.end_of(&start);
        assert!(is_failure(&end.outcome, "damaged-checkpoint", &key.to_string()), "{:?}", end.outcome);
        assert_eq!((end.reached, world.launches(&start)), (2, 0));
        assert!(!world.is_saved(key) && !folder.exists());
        let path = world.ledger.read(|tree| tree.path(&start.path).unwrap().clone());
        assert_eq!((path.retry_at, path.failed), (Some(world.clock.now()), None));
        // The path is repeated, and the checkpoint is there again.
        let again = world.start_main(0, 2);
        fs::remove_dir_all(world.state().join("ready").join(key.to_string())).unwrap();
        world.script(&again).in_order();
        assert_eq!(world.end_of(&again).outcome, Outcome::Finished);
        assert!(world.is_saved(key) && folder.exists());
    }
}

#[test]
fn a_checkpoint_whose_writer_was_killed_before_it_spoke_is_taken_over() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 4);
    let key = world.main_key(2);
    world.write_checkpoint("ready", key);
    let script = world.script(&start).started().steps(0..3).run(&format!("save {key}"));
    script.run("mkdir $state/checkpoints/.tmp-path-switching.main.g1.s3-0; kill -9 $$").write();
    let end = world.end_of(&start);
    assert!(matches!(end.outcome, Outcome::Crashed { .. }));
    assert_eq!(end.reached, 3);
    assert!(world.is_saved(key));
    let names: Vec<_> = fs::read_dir(world.state().join("checkpoints")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn only_what_verifies_and_can_be_ours_is_taken_over() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 4);
    world.script(&start).in_order();
    world.end_of(&start);
    let folder = world.state().join("checkpoints");
    world.write_checkpoint("checkpoints", world.main_key(2));
    world.write_checkpoint("checkpoints", world.main_key(3));
    fs::write(folder.join(world.main_key(3).to_string()).join(checkpoint::MODEL), "cut").unwrap();
    // Further than any job went, and another under a wrong name.
    world.write_checkpoint("checkpoints", world.main_key(5));
    world.write_checkpoint("ready", world.main_key(6));
    fs::rename(
        world.state().join("ready").join(world.main_key(6).to_string()),
        folder.join(world.main_key(1).to_string()),
    )
    .unwrap();
    fs::create_dir(folder.join("my notes")).unwrap();
    fs::create_dir(folder.join(".tmp-path-switching.main.g1.s4-3")).unwrap();
    assert_eq!(world.supervisor.adopt().unwrap(), 1);
    assert_eq!(world.supervisor.adopt().unwrap(), 0);
    assert!(world.is_saved(world.main_key(2)) && world.is_saved(world.main_key(4)));
    let mut names: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        ".set-aside-1-path-switching.main.g1.s1",
        ".set-aside-1-path-switching.main.g1.s5",
        "my notes",
        "path-switching.main.g1.s2",
        "path-switching.main.g1.s4",
    ];
    assert_eq!(names, expected);
}

/// Two removed the same folder at once, and the one who came second took that for a broken disk: the daemon stopped.
#[test]
fn what_the_journal_says_is_deleted_is_left_to_who_deletes_it() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 4);
    world.script(&start).in_order();
    world.end_of(&start);
    let checkpoint = world.main_key(4);
    world.ledger.commit(Transition::CheckpointDeleted { checkpoint, reason: "passed".to_owned() }).unwrap();
    let folder = world.state().join("checkpoints").join(checkpoint.to_string());
    assert_eq!(world.supervisor.adopt().unwrap(), 0, "as it was");
    fs::remove_file(folder.join("manifest.json")).unwrap();
    assert_eq!(world.supervisor.adopt().unwrap(), 0, "half gone");
    assert!(folder.is_dir());
    assert!(!world.is_saved(checkpoint));
}

#[test]
fn where_a_trainer_writes_nothing_is_touched() {
    let world = World::with_steps(6);
    let start = world.start_main(0, 4);
    let script =
        world.script(&start).started().run("mkdir $state/checkpoints/.tmp-path-switching.main.g1.s3-0");
    script
        .run("touch $state/ran; until_there go; rmdir $state/checkpoints/.tmp-*")
        .steps(0..4)
        .checkpoint(4)
        .finished()
        .write();
    world.look_until("it runs", || world.state().join("ran").exists());
    world.write_checkpoint("checkpoints", world.main_key(2));
    assert_eq!(world.supervisor.adopt().unwrap(), 0);
    assert_eq!(fs::read_dir(world.state().join("checkpoints")).unwrap().count(), 2);
    fs::write(world.state().join("go"), "").unwrap();
    assert_eq!(world.end_of(&start).outcome, Outcome::Finished);
}
