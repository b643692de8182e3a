use super::*;
use crate::api::fixture::World;
use crate::ledger::transition::{Outcome, Transition};

fn rules(branch_points: u32) -> Rules {
    Rules { branch_points, alpha: 0.6 }
}

/// What is said of each checkpoint, in the order of the names.
fn verdicts(world: &World, branch_points: u32, whole_steps: Step) -> Vec<String> {
    let judged = world.ledger.read(|tree| checkpoints(tree, &rules(branch_points), whole_steps));
    let line = |(key, verdict): (CheckpointKey, Verdict)| match verdict {
        Verdict::Goes(reason) => format!("{key} goes: {reason}"),
        Verdict::Stays(needs) => {
            let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
            format!("{key} stays: {}", needs.join("; "))
        }
    };
    judged.into_iter().map(line).collect()
}

/// Three public versions of 1,000 steps each; their branches leave at 400, 1,400 and 2,400.
fn three_versions() -> World {
    let mut world = World::new(&[Paradigm::PathSwitching]);
    world.accept("a.txt", 1 << 30);
    for version in 1..=3 {
        world.cut(1000, &format!("v{version}"));
        world.make(Paradigm::PathSwitching, version);
    }
    world
}

#[test]
fn of_what_is_public_the_last_branch_points_stay() {
    let world = three_versions();
    assert_eq!(
        verdicts(&world, 2, 3000),
        [
            "path-switching.main.g1.s400 goes: the next branches leave the main path behind a later one",
            "path-switching.main.g1.s1400 stays: the branch of v2, one of the last, left from it",
            "path-switching.main.g1.s2000 goes: the next branches leave the main path behind a later one",
            "path-switching.main.g1.s2400 stays: the branch of v3, one of the last, left from it; the way to the next \
             branch begins at it",
            "path-switching.v1.g1.s1000 goes: v1 is public",
            "path-switching.v2.g1.s2000 goes: v2 is public",
            "path-switching.v3.g1.s3000 goes: v3 is public",
        ]
    );
}

#[test]
fn without_branch_points_the_next_branch_still_has_a_way() {
    let stays: Vec<_> =
        verdicts(&three_versions(), 0, 3000).into_iter().filter(|line| line.contains("stays")).collect();
    assert_eq!(stays, ["path-switching.main.g1.s2400 stays: the way to the next branch begins at it"]);
}

#[test]
fn what_lies_before_the_next_branch_point_stays_until_the_main_path_has_passed_it_with_a_later_one() {
    let mut world = three_versions();
    let main = world.main();
    let start = world.ledger.read(|tree| tree.main_checkpoint_before(Step::MAX));
    world.train(main, None, 4000, start, 500);
    // Cut now, with 4,000 whole steps, the fourth branch would leave at 3,400.
    let stays: Vec<_> = verdicts(&world, 0, 4000).into_iter().filter(|line| line.contains("stays")).collect();
    assert_eq!(
        stays,
        [
            "path-switching.main.g1.s3000 stays: the way to the next branch begins at it",
            "path-switching.main.g1.s3500 stays: the main path is here, and the next branch may leave from it",
            "path-switching.main.g1.s4000 stays: the main path is here, and the next branch may leave from it",
        ]
    );
}

#[test]
fn many_checkpoints_of_the_open_increment_are_thinned_but_never_the_first_or_the_last() {
    let mut world = World::new(&[Paradigm::PathSwitching]);
    world.accept("a.txt", 1 << 30);
    let main = world.main();
    world.train(main, None, 1000, None, 100);
    let stays = |whole_steps| -> Vec<Step> {
        let judged = world.ledger.read(|tree| checkpoints(tree, &rules(2), whole_steps));
        let kept = judged.into_iter().filter(|(_, verdict)| matches!(verdict, Verdict::Stays(_)));
        kept.map(|(key, _)| key.step).collect()
    };
    // The branch point is 480: 400 and six behind it are seven in all.
    assert_eq!(stays(1200), [400, 500, 600, 700, 800, 900, 1000]);
    // It is 200: nine in all.
    assert_eq!(stays(500), [200, 400, 600, 800, 1000]);
    // It is 100: ten in all, and the last would be the second of a pair.
    assert_eq!(stays(250), [100, 300, 500, 700, 900, 1000]);
    // There is none before it: ten in all.
    assert_eq!(stays(100), [100, 300, 500, 700, 900, 1000]);
}

#[test]
fn a_version_keeps_what_it_goes_on_from_until_it_is_public_and_also_when_it_is_cancelled() {
    let mut world = World::new(&[Paradigm::PathSwitching]);
    world.accept("a.txt", 1 << 30);
    world.cut(1000, "v1");
    let main = world.main();
    world.train(main, Some(1), 400, None, 200);
    let path = world.path(Paradigm::PathSwitching, 1);
    let begins = world.ledger.read(|tree| tree.main_checkpoint(400));
    let job = world.start(path, Some(1), 1000, begins);
    world.save(path, 600);
    world.save(path, 800);
    let expected = [
        "path-switching.main.g1.s200 goes: the next branches leave the main path behind a later one",
        "path-switching.main.g1.s400 stays: job 2 starts from it; the way to the branch of v1 begins at it; the way to \
         the next branch begins at it",
        "path-switching.v1.g1.s600 goes: its path has a later one",
        "path-switching.v1.g1.s800 stays: v1 of path-switching goes on from it",
    ];
    assert_eq!(verdicts(&world, 0, 1000), expected);
    world.end(job, 1, Outcome::Stopped, 800);
    world.commit(Transition::VersionCancelled { paradigm: Paradigm::PathSwitching, version: 1 });
    let later: Vec<String> = expected.iter().map(|line| line.replace("job 2 starts from it; ", "")).collect();
    assert_eq!(verdicts(&world, 0, 1000), later);
}

#[test]
fn a_continual_version_keeps_its_last_checkpoint_until_the_next_one_has_one() {
    let mut world = World::new(&[Paradigm::Continual]);
    world.accept("a.txt", 1 << 30);
    world.cut(1000, "v1");
    world.make(Paradigm::Continual, 1);
    assert_eq!(verdicts(&world, 2, 1000), ["continual.v1.g1.s1000 stays: v2 of continual begins at it"]);
    world.cut(1000, "v2");
    let path = world.path(Paradigm::Continual, 2);
    let begins = Some(CheckpointKey { path: world.path(Paradigm::Continual, 1), step: 1000 });
    world.start(path, Some(2), 2000, begins);
    assert_eq!(
        verdicts(&world, 2, 2000),
        ["continual.v1.g1.s1000 stays: job 2 starts from it; v2 of continual begins at it"]
    );
    world.save(path, 1500);
    assert_eq!(
        verdicts(&world, 2, 2000),
        [
            "continual.v1.g1.s1000 stays: job 2 starts from it",
            "continual.v2.g1.s1500 stays: v2 of continual goes on from it"
        ]
    );
}

#[test]
fn what_a_rewind_has_left_behind_goes() {
    let mut world = three_versions();
    world.accept("b.txt", 1 << 20);
    world.cut(500, "v4");
    let digest = world.ledger.read(|tree| tree.shards()[0].digest);
    let main = world.main();
    world.train(main, Some(4), 3200, world.ledger.read(|tree| tree.main_checkpoint_before(Step::MAX)), 5000);
    let versions = vec![1, 2, 3, 4];
    world.commit(Transition::ShardWithdrawn { digest, step: 0, seen_by: versions, generation: Some(2) });
    let goes = verdicts(&world, 2, 100);
    assert!(goes.iter().all(|line| line.contains(" goes: ")), "{goes:?}");
    assert!(
        goes.contains(&"path-switching.main.g1.s3200 goes: a rewind has left it behind".to_owned()),
        "{goes:?}"
    );
}

#[test]
fn damaged_and_deleted_ones_are_not_judged() {
    let mut world = World::new(&[Paradigm::PathSwitching]);
    world.accept("a.txt", 1 << 30);
    let main = world.main();
    world.train(main, None, 300, None, 100);
    let key = |step| CheckpointKey { path: main, step };
    world.commit(Transition::CheckpointSetAside { checkpoint: key(100), reason: "a bit".to_owned() });
    world.commit(Transition::CheckpointDeleted { checkpoint: key(200), reason: "behind".to_owned() });
    let judged = world.ledger.read(|tree| checkpoints(tree, &rules(2), 300));
    assert_eq!(judged.into_keys().collect::<Vec<_>>(), [key(300)]);
}
