use artifacts::Digest;
use artifacts::stream::Stream;
use paradigm::Paradigm;

use super::*;
use crate::api::fixture::World;
use crate::ledger::transition::{FileFacts, ShardTokens};

/// Tokens of a step, in this world.
fn tokens_of_a_step(world: &World) -> u64 {
    world.ledger.read(|tree| {
        let fixed = tree.fixed().unwrap();
        u64::from(fixed.sequence_length) * u64::from(fixed.sequences_per_step)
    })
}

fn accept(world: &World, digest: &[u8], name: &str, tokens: Option<u64>) {
    let tokens = tokens.map(|stream| ShardTokens { stream, held_out: 8, held_out_blocks: 1, documents: 1 });
    world.commit(Transition::ShardAccepted {
        digest: Digest::of(digest),
        name: name.to_owned(),
        file: FileFacts { bytes: 1000, inode: 1, mtime: 1 },
        tokens,
        unpacked: None,
    });
}

/// Three shards: ten steps, five, and five.
fn world() -> World {
    let world = World::new(&[Paradigm::PathSwitching]);
    let step = tokens_of_a_step(&world);
    for (name, steps) in [("a.txt", 10), ("wrong.txt", 5), ("c.txt", 5)] {
        accept(&world, name.as_bytes(), name, Some(steps * step));
    }
    world
}

fn judged(world: &World, asked: &str) -> Result<Withdrawal, NotWithdrawn> {
    world.ledger.read(|tree| judge(tree, asked, false))
}

fn withdraw(world: &World, asked: &str) -> Step {
    let withdrawal = judged(world, asked).unwrap();
    world.commit(withdrawal.transition());
    withdrawal.step
}

fn order(stream: &Stream) -> Vec<u64> {
    stream.order(stream.places_of_steps(0..stream.whole_steps())).unwrap()
}

#[test]
fn what_was_withdrawn_might_never_have_been_there() {
    let world = world();
    world.cut(8, "v1");
    let mut follower = world.ledger.read(|tree| RunStream::new(tree.fixed().unwrap()).unwrap());
    world.ledger.read(|tree| follower.follow(tree)).unwrap();
    let before = order(follower.stream());
    // The sequence at the border has its last token in the second shard, and lies in step 9.
    assert_eq!(withdraw(&world, "wrong.txt"), 9);
    world.ledger.read(|tree| follower.follow(tree)).unwrap();
    let (fixed, end) = world.ledger.read(|tree| (tree.fixed().unwrap().clone(), tree.end()));
    let step = tokens_of_a_step(&world);
    let mut without = Stream::new(fixed.seed, fixed.sequence_length, fixed.sequences_per_step).unwrap();
    without.push(Digest::of(b"a.txt"), 10 * step).unwrap();
    without.push(Digest::of(b"c.txt"), 5 * step).unwrap();
    let after = order(follower.stream());
    assert_eq!(after, order(&without));
    let fixed_places = (end * u64::from(fixed.sequences_per_step)) as usize;
    assert_eq!(after[..fixed_places], before[..fixed_places]);
    assert_eq!(follower.shards()[1], ShardTokens::default());

    assert_eq!(judged(&world, "wrong.txt").unwrap_err().to_string(), "wrong.txt was withdrawn already");
    // A tree that is put together from its parts knows it too.
    world.ledger.read(|tree| {
        assert_eq!(tree.withdrawals(), 1);
        assert_eq!(crate::ledger::tree::Tree::from_nodes(tree.position(), tree.nodes()).as_ref(), Ok(tree));
    });
}

#[test]
fn what_a_version_or_a_job_has_seen_is_not_withdrawn() {
    let seen = world();
    seen.cut(10, "v1");
    let refused = judged(&seen, "wrong.txt").unwrap_err();
    let told = "wrong.txt cannot be withdrawn without a rewind: version 1 is made of the steps up to 10, and from \
                step 9 on their data would be another";
    assert_eq!(refused.to_string(), told);
    let offer = "with `--rewind`, the main path goes back to step 0; what is public of v1 is marked; the next cut \
                 makes a version of the other data; what is not public yet of v1 is not made";
    assert_eq!(refused.hint().as_deref(), Some(offer));
    assert_eq!(withdraw(&seen, "c.txt"), 14);

    let mut trained = world();
    let main = trained.main();
    let job = trained.start(main, None, 12, None);
    let told = "wrong.txt cannot be withdrawn without a rewind: a job was started on the steps up to 12, and from \
                step 9 on their data would be another";
    let refused = judged(&trained, "wrong.txt").unwrap_err();
    assert_eq!(refused.to_string(), told);
    assert_eq!(refused.hint().as_deref(), Some("with `--rewind`, the main path goes back to step 0"));
    // What it reached stays; what it only had before it does not count once it has ended.
    trained.end(job, 1, crate::ledger::transition::Outcome::Stopped, 10);
    let rewind = Rewind { generation: 2, to: Some(0), versions: Vec::new(), unmade: Vec::new() };
    assert_eq!(
        judged(&trained, "wrong.txt"),
        Err(NotWithdrawn::Trained { name: "wrong.txt".to_owned(), upto: 10, step: 9, rewind })
    );
    assert_eq!(withdraw(&trained, "c.txt"), 14);

    // Whoever commits it without asking is stopped by the tree.
    let digest = Digest::of(b"wrong.txt");
    let forced = Transition::ShardWithdrawn { digest, step: 9, seen_by: Vec::new(), generation: None };
    let contradiction = seen.ledger.commit(forced).unwrap_err().to_string();
    assert!(contradiction.contains("the data of steps up to 10 is fixed"), "{contradiction}");
}

#[test]
fn a_shard_is_known_by_its_name_and_by_its_digest() {
    let world = world();
    let refused = judged(&world, "wrng.txt").unwrap_err();
    assert_eq!(refused.to_string(), "no accepted shard has the name or digest `wrng.txt`");
    assert_eq!(refused.hint().unwrap(), "did you mean `wrong.txt`? `lrpathctl shards` lists them");
    assert_eq!(judged(&world, "june").unwrap_err().hint().unwrap(), "`lrpathctl shards` lists them");
    let digest = Digest::of(b"wrong.txt").to_string();
    for digits in [&digest, &digest[..12], &digest[..6].to_uppercase()] {
        assert_eq!(judged(&world, digits).unwrap().order, 1, "{digits}");
    }
    assert!(matches!(judged(&world, &digest[..5]), Err(NotWithdrawn::Unknown { .. })), "too few digits");

    // The same name with other bytes, later.
    accept(&world, b"other bytes", "wrong.txt", Some(1));
    let refused = judged(&world, "wrong.txt").unwrap_err();
    assert_eq!(refused.to_string(), "`wrong.txt` names 2 shards");
    assert!(refused.hint().unwrap().contains(&digest[..12]), "{refused:?}");
    withdraw(&world, &digest);
    assert_eq!(judged(&world, "wrong.txt").unwrap().order, 3, "the one that is still there is meant");
}

#[test]
fn a_shard_that_waits_for_its_tokens_can_go_and_takes_a_plan_for_the_tokenizer_with_it() {
    let world = world();
    accept(&world, b"d", "d.txt", None);
    accept(&world, b"e", "e.txt", None);
    world.commit(Transition::TokenizerPlanned { shards: 4, bytes: 4000 });
    assert_eq!(withdraw(&world, "e.txt"), 19, "all whole steps stay");
    let planned = || world.ledger.read(|tree| tree.run().tokenizer_shards);
    assert_eq!(planned(), Some(4), "it is none of those that the tokenizer is trained on");
    withdraw(&world, "d.txt");
    assert_eq!(planned(), None);
    let nothing = Transition::TokenizerPlanned { shards: 4, bytes: 4000 };
    assert!(world.ledger.commit(nothing).is_err(), "no text is left to train on");
    let trained = Transition::TokenizerTrained { digest: Digest::of(b"tokenizer"), end_of_text: Some(0) };
    assert!(world.ledger.commit(trained).is_err(), "what was trained meanwhile is not what was planned");
    assert!(world.ledger.read(|tree| tree.shards().iter().all(|shard| !shard.is_untokenised())));
}

fn rewind(world: &World, asked: &str) -> Withdrawal {
    let withdrawal = world.ledger.read(|tree| judge(tree, asked, true)).unwrap();
    world.commit(withdrawal.transition());
    world.ledger.read(|tree| {
        assert_eq!(crate::ledger::tree::Tree::from_nodes(tree.position(), tree.nodes()).as_ref(), Ok(tree));
    });
    withdrawal
}

fn versions(world: &World, of: impl Fn(&Tree) -> Vec<Version>) -> Vec<Version> {
    world.ledger.read(|tree| of(tree))
}

fn standing(world: &World) -> Vec<Version> {
    versions(world, |tree| tree.standing().map(|increment| increment.version).collect())
}

fn made_of(world: &World, version: Version) -> Vec<Version> {
    versions(world, |tree| tree.made_of(version).map(|increment| increment.version).collect())
}

fn marks(world: &World, version: Version) -> Vec<u32> {
    world.ledger.read(|tree| tree.marks(version).collect())
}

#[test]
fn a_rewind_leaves_behind_what_saw_the_shard_and_keeps_the_rest() {
    let mut world = world();
    world.cut(8, "before");
    world.cut(4, "saw it");
    world.make(Paradigm::PathSwitching, 1);
    world.make(Paradigm::PathSwitching, 2);
    let first_main = world.main();
    // Version 2's branch leaves at step 10, behind the first step with another token, 9.
    let refused = judged(&world, "wrong.txt").unwrap_err();
    let told = "wrong.txt cannot be withdrawn without a rewind: version 2 is made of the steps up to 12, and from step 9 \
                on their data would be another";
    assert_eq!(refused.to_string(), told);
    let offer = "with `--rewind`, the main path goes back to step 3; what is public of v2 is marked; the next cut makes a \
                 version of the other data";
    assert_eq!(refused.hint().as_deref(), Some(offer));

    let withdrawal = rewind(&world, "wrong.txt");
    assert_eq!((withdrawal.step, withdrawal.seen_by.as_slice()), (9, [2].as_slice()));
    assert_eq!(
        withdrawal.rewind,
        Some(Rewind { generation: 2, to: Some(3), versions: vec![2], unmade: Vec::new() })
    );
    assert_eq!((standing(&world), marks(&world, 1), marks(&world, 2)), (vec![1], vec![], vec![1]));
    world.ledger.read(|tree| {
        assert_eq!((tree.end(), tree.fixed_steps(), tree.generation()), (8, 9, 2));
        assert_eq!((tree.generation_of(2), tree.generation_of(3)), (1, 2));
        assert_eq!(
            tree.main_checkpoint_before(Step::MAX).map(|key| (key.path, key.step)),
            Some((first_main, 3))
        );
    });

    // The next version has the next number, and follows the last one that stands.
    world.cut(5, "clean");
    let end = versions(&world, |tree| vec![tree.increment(3).unwrap().end as Version]);
    assert_eq!((end, standing(&world)), (vec![13], vec![1, 3]));
    assert_eq!((made_of(&world, 2), made_of(&world, 3)), (vec![1, 2], vec![1, 3]));
    assert_eq!(world.main().generation, 2);
    assert_eq!(world.path(Paradigm::PathSwitching, 1).generation, 1);

    // What is behind cannot be trained any more: whoever asks for it is stopped by the tree.
    let start = world.ledger.read(|tree| tree.attempt(3).unwrap().start.clone());
    assert_eq!(start.path, first_main);
    let behind = crate::ledger::transition::JobStart { job: 5, attempt: 1, to: 12, ..start };
    let contradiction =
        world.ledger.commit(Transition::JobStarted(Box::new(behind))).unwrap_err().to_string();
    assert!(contradiction.contains("would train what a rewind has left behind"), "{contradiction}");
}

#[test]
fn a_second_rewind_marks_all_that_saw_the_second_shard_in_whatever_generation() {
    let world = world();
    world.cut(8, "before");
    world.cut(8, "saw two");
    assert_eq!(rewind(&world, "wrong.txt").seen_by, [2]);
    world.cut(5, "saw one");
    // Without the wrong one, the last shard begins in step 9; with it, in step 14: version 2 saw it as well.
    let refused = judged(&world, "c.txt").unwrap_err();
    assert!(
        refused.to_string().contains("version 3 is made of the steps up to 13, and from step 9 on"),
        "{refused}"
    );
    assert_eq!(rewind(&world, "c.txt").seen_by, [2, 3]);
    assert_eq!((marks(&world, 1), marks(&world, 2), marks(&world, 3)), (vec![], vec![1, 2], vec![2]));
    assert_eq!(standing(&world), [1]);

    // Back beyond the first rewind: its step is no part of the main path any more.
    accept(&world, b"d.txt", "d.txt", Some(20 * tokens_of_a_step(&world)));
    world.cut(10, "later");
    let withdrawal = rewind(&world, "a.txt");
    assert_eq!((withdrawal.step, withdrawal.seen_by.as_slice()), (0, [1, 2, 3, 4].as_slice()));
    world.ledger.read(|tree| {
        assert_eq!((tree.generation(), tree.end(), tree.standing().count()), (4, 0, 0));
        assert_eq!(tree.main_checkpoint_before(Step::MAX), None);
        let limits: Vec<_> = tree.main_line().map(|(path, limit)| (path.generation, limit)).collect();
        assert_eq!(limits, [(4, Step::MAX), (3, 0), (2, 0), (1, 0)]);
        let of_version_4: Vec<_> =
            tree.main_line_of(4).map(|(path, limit)| (path.generation, limit)).collect();
        assert_eq!(of_version_4, [(3, Step::MAX), (2, 9), (1, 9)]);
    });
}

#[test]
fn a_rewind_that_does_not_fit_the_tree_is_refused() {
    let world = world();
    world.cut(8, "before");
    world.cut(4, "saw it");
    let digest = Digest::of(b"wrong.txt");
    let refused = |step, seen_by: &[Version], generation| {
        let forced = Transition::ShardWithdrawn { digest, step, seen_by: seen_by.to_vec(), generation };
        world.ledger.commit(forced).unwrap_err().to_string()
    };
    for (step, seen_by, generation, told) in [
        (9, [2].as_slice(), None, "the data of steps up to 12 is fixed, and step 9 would change"),
        (9, &[2], Some(3), "generation Some(3) does not begin at step 9: that would be Some(2)"),
        (12, &[], Some(2), "generation Some(2) does not begin at step 12: that would be None"),
        (9, &[], Some(2), "versions [2] saw data from step 9 on, not []"),
        (9, &[1, 2], Some(2), "versions [2] saw data from step 9 on, not [1, 2]"),
    ] {
        let contradiction = refused(step, seen_by, generation);
        assert!(contradiction.contains(told), "{contradiction}");
    }
    assert_eq!(standing(&world), [1, 2]);
}

#[test]
fn a_rewind_is_asked_for_but_not_needed_where_nothing_came_as_far() {
    let world = world();
    world.cut(8, "before");
    let withdrawal = rewind(&world, "c.txt");
    assert_eq!((withdrawal.rewind, withdrawal.seen_by), (None, vec![]));
    world.ledger.read(|tree| assert_eq!(tree.generation(), 1));
}

#[test]
fn versions_are_listed_in_short() {
    assert_eq!(list(&[]), "");
    assert_eq!(list(&[3]), "v3");
    assert_eq!(list(&[3, 4]), "v3, v4");
    assert_eq!(list(&[1, 2, 3, 4, 6, 8, 9, 10]), "v1 to v4, v6, v8 to v10");
}
