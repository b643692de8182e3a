use std::collections::BTreeSet;
use std::fs;
use std::path::Path as FilePath;

use artifacts::job::{LEARNING_RATES, SEQUENCES};
use paradigm::Paradigm;
use proptest::prelude::*;

use super::things::ThingKind;
use super::*;
use crate::api::fixture::World;
use crate::ledger::path::{CheckpointKey, Step, Version};
use crate::ledger::transition::{Outcome, Transition};
use crate::publish::failing::{Failing, Failure};
use crate::scheduler::decide::{Decisions, MicroBatch, Situation, Slot, decide};

/// A state on a disk, in which something lies for all that its journal says.
struct State {
    world: World,
    folder: tempfile::TempDir,
}

impl State {
    fn new(paradigms: &[Paradigm]) -> Self {
        let state = Self { world: World::new(paradigms), folder: tempfile::tempdir().unwrap() };
        for folder in ["checkpoints", "jobs", "tokens", "releases"] {
            fs::create_dir(state.path().join(folder)).unwrap();
        }
        state
    }

    fn path(&self) -> &FilePath {
        self.folder.path()
    }

    fn write(&self, name: &str, bytes: usize) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![7; bytes]).unwrap();
    }

    /// Puts on the disk what the journal says.
    fn lay_out(&self) {
        let tree = self.world.ledger.read(Clone::clone);
        for (key, checkpoint) in tree.checkpoints() {
            if checkpoint.is_usable() {
                self.write(&format!("checkpoints/{key}/manifest.json"), 2);
                self.write(&format!("checkpoints/{key}/model.safetensors"), 100);
            }
        }
        for (number, job) in tree.jobs() {
            for attempt in &job.attempts {
                let folder = format!("jobs/{number}-{}", attempt.start.attempt);
                self.write(&format!("{folder}/job.json"), 10);
                self.write(&format!("{folder}/events.jsonl"), 10);
                self.write(&format!("{folder}/learning_rates"), 20);
                self.write(&format!("{folder}/sequences"), 30);
            }
        }
        for shard in tree.shards() {
            self.write(&format!("tokens/{}/stream", shard.digest), 50);
        }
        for published in tree.releases().values() {
            self.write(&format!("{}/model.safetensors", published.release.folder), 40);
        }
    }

    fn retention(&self) -> Retention {
        self.world.retention(self.path().to_owned())
    }

    fn collect(&self, only_asked: bool) -> Collected {
        self.retention().collect(Scope::All, only_asked).unwrap()
    }

    /// All files, by their names below the state.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        let mut folders = vec![self.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => {
                        let name = path.strip_prefix(self.path()).unwrap();
                        files.insert(name.to_str().unwrap().to_owned());
                    }
                }
            }
        }
        files
    }

    /// What would be started now if there were slots for all of it.
    fn decisions(&self, whole_steps: Step) -> Decisions {
        let slots: Vec<Slot> = (0..100)
            .map(|i| Slot { name: format!("slot{i}"), devices: vec!["cpu".to_owned()], shared: false })
            .collect();
        let stopping = BTreeSet::new();
        let situation = Situation {
            whole_steps,
            next_branch_point: None,
            ahead_steps: Some(1),
            slots: &slots,
            micro_batch: MicroBatch { wanted: 4, shrinks_within: None },
            stopping: &stopping,
            holds_jobs: false,
            now: 1,
        };
        self.world.ledger.read(|tree| decide(tree, &situation))
    }
}

/// The files that went by the word of what was judged: all of a folder, or the two of an attempt.
fn is_of(thing: &Thing, file: &str) -> bool {
    let Some(rest) = file.strip_prefix(&thing.name).and_then(|rest| rest.strip_prefix('/')) else {
        return false;
    };
    thing.kind != ThingKind::Given || [LEARNING_RATES, SEQUENCES].contains(&rest)
}

/// A run of months: all paradigms or some, versions public but for the last few, two jobs on their way, data beyond the last
/// cut, names, damage, withdrawn shards.
fn long_run(paradigms: &[Paradigm], versions: Version, grid: Step, seed: u64) -> State {
    let random = &mut fastrand::Rng::with_seed(seed);
    let mut state = State::new(paradigms);
    let world = &mut state.world;
    // A token is four bytes here: 2,000,000 steps of 4 sequences.
    world.accept("all.txt", 1 << 34);
    let unpublished = random.u32(1..4);
    for version in 1..=versions {
        world.cut(random.u64(3..60), &format!("v{version}"));
        if version + unpublished > versions {
            continue;
        }
        for paradigm in paradigms {
            world.train_version(*paradigm, version);
            world.release(*paradigm, version);
        }
    }
    for name in ["stable", "candidate", "best-so-far"] {
        let version = Some(random.u32(1..=versions - unpublished));
        world.commit(Transition::AliasMoved { paradigm: paradigms[0], name: name.to_owned(), version });
    }
    if paradigms.contains(&Paradigm::PathSwitching) {
        let end = world.ledger.read(|tree| tree.end());
        let last = world.ledger.read(|tree| tree.main_checkpoint_before(Step::MAX));
        let from = last.map_or(0, |last| last.step);
        world.train(world.main(), None, end.max(from + 1), last, grid);
        let last = world.ledger.read(|tree| tree.main_checkpoint_before(Step::MAX));
        let job = world.start(world.main(), None, end + 500, last);
        world.save(world.main(), end + grid);
        if random.bool() {
            world.end(job, 1, Outcome::Stopped, end + grid);
            world.start(
                world.main(),
                None,
                end + 500,
                Some(CheckpointKey { path: world.main(), step: end + grid }),
            );
        }
    }
    let next = versions - unpublished + 1;
    let increment = world.ledger.read(|tree| tree.increment(next).cloned()).unwrap();
    let paradigm = *random.choice(paradigms).unwrap();
    let path = world.path(paradigm, next);
    let point = increment.plans[&paradigm].branch_point;
    let begins = world.ledger.read(|tree| match paradigm {
        Paradigm::PathSwitching => tree.main_checkpoint(point),
        Paradigm::FromScratch => None,
        Paradigm::Continual => {
            Some(CheckpointKey { path: tree.version_path(paradigm, next - 1), step: point })
        }
    });
    if begins.is_some() || point == 0 {
        world.start(path, Some(next), increment.end, begins);
        for step in (point + 1..increment.end).filter(|step| step % 5 == 0) {
            world.save(path, step);
        }
    }
    let starts: Vec<_> =
        world.ledger.read(|tree| tree.running().filter_map(|(_, attempt)| attempt.start.start).collect());
    let all: Vec<CheckpointKey> = world.ledger.read(|tree| tree.checkpoints().keys().copied().collect());
    for _ in 0..random.usize(0..4) {
        let checkpoint = *random.choice(&all).unwrap();
        if !starts.contains(&checkpoint) && world.ledger.read(|tree| tree.checkpoint(&checkpoint).is_some()) {
            world.commit(Transition::CheckpointSetAside { checkpoint, reason: "a bit".to_owned() });
        }
    }
    state.lay_out();
    state.write("checkpoints/.set-aside-1-path-switching.main.g1.s3/manifest.json", 5);
    state.write("checkpoints/notes/by-hand.txt", 5);
    state.write("tokens/notes/by-hand.txt", 5);
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn what_a_dry_run_names_goes_and_nothing_that_is_needed(
        paradigms in proptest::sample::subsequence(Paradigm::ALL.to_vec(), 1..=3).prop_shuffle(),
        versions in 5u32..30,
        grid in 1u64..40,
        seed in any::<u64>(),
    ) {
        what_goes_is_named_and_not_needed(&paradigms, versions, grid, seed)?;
    }
}

#[test]
fn of_two_hundred_versions_what_a_dry_run_names_goes_and_nothing_that_is_needed() {
    what_goes_is_named_and_not_needed(&Paradigm::ALL, 200, 7, 1).unwrap();
}

fn what_goes_is_named_and_not_needed(
    paradigms: &[Paradigm],
    versions: Version,
    grid: Step,
    seed: u64,
) -> Result<(), TestCaseError> {
    let state = long_run(paradigms, versions, grid, seed);
    let whole_steps = state.retention().ledger.read(|tree| {
        let mut length = RunLength::new(tree.fixed().unwrap()).unwrap();
        length.follow(tree).unwrap();
        length.whole_steps()
    });
    let (before, decided) = (state.files(), state.decisions(whole_steps));
    let asked = state.collect(true);
    prop_assert_eq!(&state.files(), &before, "a question removes nothing");
    let collected = state.collect(false);
    prop_assert_eq!(&collected.left, &Vec::<String>::new());
    let named = |collected: &Collected| -> Vec<Thing> {
        collected.things.iter().filter(|thing| thing.goes).cloned().collect()
    };
    let going = named(&asked);
    prop_assert_eq!(&going, &named(&collected), "a dry run names what goes, in the same words");
    let gone = before.difference(&state.files()).cloned().collect::<BTreeSet<_>>();
    let of_named = before.iter().filter(|file| going.iter().any(|thing| is_of(thing, file)));
    prop_assert_eq!(&gone, &of_named.cloned().collect(), "exactly what was named is gone");
    prop_assert!(!going.is_empty() && going.iter().all(|thing| thing.bytes > 0));
    // What a later command needs: each job that could be started, each running job's start, each release, each token,
    // and what a person has put there.
    prop_assert_eq!(state.decisions(whole_steps), decided);
    let tree = state.world.ledger.read(Clone::clone);
    for (_, attempt) in tree.running() {
        let folder = format!("jobs/{}-{}", attempt.start.job, attempt.start.attempt);
        let files = [LEARNING_RATES, SEQUENCES].map(|file| format!("{folder}/{file}"));
        prop_assert!(files.iter().all(|file| !gone.contains(file)));
        if let Some(start) = attempt.start.start {
            let manifest = format!("checkpoints/{start}/manifest.json");
            prop_assert!(!gone.contains(&manifest));
        }
    }
    for kept in ["releases/", "tokens/", "checkpoints/notes"] {
        prop_assert!(gone.iter().all(|file| !file.starts_with(kept)), "{}", kept);
    }
    let is_there = |key: &CheckpointKey| state.path().join("checkpoints").join(key.to_string()).is_dir();
    let usable = tree.checkpoints().iter().filter(|(_, checkpoint)| checkpoint.is_usable());
    for (key, _) in usable {
        prop_assert!(is_there(key), "the journal says that {} is there", key);
    }
    prop_assert!(named(&state.collect(true)).is_empty(), "what was collected needs no second time");
    Ok(())
}

#[test]
fn each_thing_says_why() {
    let mut state = State::new(&[Paradigm::PathSwitching]);
    let world = &mut state.world;
    world.accept("a.txt", 1 << 30);
    world.accept("wrong.txt", 1 << 20);
    for version in 1..=3 {
        world.cut(1000, &format!("v{version}"));
        if version < 3 {
            world.make(Paradigm::PathSwitching, version);
        }
    }
    let wrong = world.ledger.read(|tree| tree.shards()[1].digest);
    let alias = |name: &str| Transition::AliasMoved {
        paradigm: Paradigm::PathSwitching,
        name: name.to_owned(),
        version: Some(1),
    };
    world.commit(alias("stable"));
    world.commit(alias("best"));
    let start = world.ledger.read(|tree| tree.main_checkpoint_before(2400));
    world.start(world.main(), Some(3), 2400, start);
    state.lay_out();
    state.world.commit(Transition::ShardWithdrawn {
        digest: wrong,
        step: 60_000,
        seen_by: Vec::new(),
        generation: None,
    });
    state.write("checkpoints/.set-aside-1-path-switching.main.g1.s3/manifest.json", 5);
    state.write("checkpoints/path-switching.main.g1.s2200/manifest.json", 5);
    let lines: Vec<String> = state
        .collect(true)
        .things
        .into_iter()
        .map(|thing| {
            let verb = if thing.goes { "goes" } else { "stays" };
            format!("{:<60} {:>4} B {verb}: {}", thing.name, thing.bytes, thing.why)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_goes_by_itself_leaves_what_was_set_aside_for_somebody_to_look_at() {
    let state = State::new(&[Paradigm::PathSwitching]);
    state.world.accept("a.txt", 1 << 30);
    state.write("checkpoints/.set-aside-1-path-switching.main.g1.s3/manifest.json", 5);
    let daily = state.retention().collect(Scope::Daily, false).unwrap();
    assert!(daily.things.iter().all(|thing| !thing.goes));
    assert!(state.collect(false).things.iter().any(|thing| thing.goes));
    assert!(state.files().is_empty());
}

/// A deletion was journalled, and the daemon died before the folder went. Meanwhile a job repeats those steps and has just
/// written the checkpoint again: its event is still to be read.
#[test]
fn a_checkpoint_that_a_running_job_has_written_again_is_left_to_it() {
    let mut state = State::new(&[Paradigm::PathSwitching]);
    let world = &mut state.world;
    world.accept("a.txt", 1 << 30);
    let main = world.main();
    world.train(main, None, 100, None, 50);
    let checkpoint = CheckpointKey { path: main, step: 50 };
    world.commit(Transition::CheckpointDeleted { checkpoint, reason: "thinned".to_owned() });
    let folder = format!("checkpoints/{checkpoint}/manifest.json");
    state.write(&folder, 5);
    let job = state.world.start(main, None, 90, None);
    state.collect(false);
    assert!(state.files().contains(&folder));
    state.world.end(job, 1, Outcome::Stopped, 60);
    state.collect(false);
    assert!(!state.files().contains(&folder));
}

#[test]
fn two_who_collect_at_once_do_not_get_in_each_others_way() {
    let state = long_run(&[Paradigm::PathSwitching, Paradigm::Continual], 20, 3, 5);
    let retention = state.retention();
    std::thread::scope(|scope| {
        let collect = || retention.clone().collect(Scope::All, false).unwrap();
        let others: Vec<_> = (0..3).map(|_| scope.spawn(collect)).collect();
        for other in others {
            assert_eq!(other.join().unwrap().left, Vec::<String>::new());
        }
    });
    assert!(state.collect(true).things.iter().all(|thing| !thing.goes));
}

/// The journal says that it is gone before it goes: who dies in between finds it so.
#[test]
fn a_deletion_is_journalled_before_a_file_is_touched() {
    let mut state = State::new(&[Paradigm::PathSwitching]);
    state.world.accept("a.txt", 1 << 30);
    let main = state.world.main();
    state.world.train(main, None, 100, None, 10);
    state.lay_out();
    // The four folders are listed first.
    let disk = Failing::at(8, Failure::ForGood);
    let retention = Retention { storage: Arc::new(disk.clone()), ..state.retention() };
    let collected = retention.collect(Scope::All, false).unwrap();
    let going = collected.things.iter().filter(|thing| thing.goes).count();
    assert!(going > 0);
    assert_eq!(collected.left.len(), going, "each is said");
    let deleted = state
        .world
        .ledger
        .read(|tree| tree.checkpoints().values().filter(|checkpoint| checkpoint.deleted.is_some()).count());
    assert!(deleted > 0);
    state.collect(false);
    assert!(state.collect(true).things.iter().all(|thing| !thing.goes), "the next look removes them");
}
