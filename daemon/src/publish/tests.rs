//! A disk that fails in the middle of a publication, once or until somebody mends it, and what is found afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use artifacts::Digest;
use artifacts::checkpoint;
use artifacts::manifest::Manifest;
use artifacts::storage::{Disk, is_temporary};
use paradigm::Paradigm::{Continual, PathSwitching};

use super::failing::{Failing, Failure};
use super::*;
use crate::api::fixture::{self, World};
use crate::config::HookSettings;
use crate::hooks::Hooks;
use crate::ledger::path::Step;
use crate::tokenizer::{Corpus, train};

const SEPARATOR: &str = "<|endoftext|>";

/// A state with version 1 of two paradigms ready to be published.
fn ready_state(folder: &Path) -> World {
    for name in ["checkpoints", "releases", "jobs"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let mut corpus = Corpus::new(Some(SEPARATOR));
    corpus.add(&"the cat sat on the mat\n".repeat(30)).unwrap();
    fs::write(folder.join(release::TOKENIZER), train(corpus, 300).unwrap()).unwrap();
    let mut world = World::new(&[PathSwitching, Continual]);
    world.accept("a.txt", 40_000);
    world.cut(100, "v1");
    let (main, branch) = (world.main(), world.path(PathSwitching, 1));
    world.train(main, Some(1), 40, None, Step::MAX);
    let point = CheckpointKey { path: main, step: 40 };
    world.train(branch, Some(1), 100, Some(point), Step::MAX);
    world.train(world.path(Continual, 1), Some(1), 100, None, Step::MAX);
    for paradigm in [PathSwitching, Continual] {
        write_checkpoint(folder, CheckpointKey { path: world.path(paradigm, 1), step: 100 });
    }
    world
}

fn write_checkpoint(state: &Path, key: CheckpointKey) {
    let header = br#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend_from_slice(header);
    weights.extend_from_slice(&[7; 16]);
    fixture::write_checkpoint(&state.join("checkpoints"), key, &[(checkpoint::MODEL, &weights)]);
}

/// A checkpoint of the same shape, one of whose weights is none.
fn write_not_finite(state: &Path, key: CheckpointKey) {
    let folder = state.join("checkpoints").join(key.to_string());
    let mut weights = fs::read(folder.join(checkpoint::MODEL)).unwrap();
    let place = weights.len() - 4;
    weights[place..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.join(checkpoint::MODEL), weights).unwrap();
    fs::remove_file(folder.join("manifest.json")).unwrap();
    Manifest::of(&folder).unwrap().write(&Disk, &folder).unwrap();
}

#[test]
fn a_model_with_a_number_that_is_none_is_never_published() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let world = ready_state(state);
    let path = world.path(PathSwitching, 1);
    write_not_finite(state, CheckpointKey { path, step: 100 });
    let publisher = publisher(&world, state, Arc::new(Disk));
    assert!(publisher.publish_all().unwrap(), "there is nothing to be tried again by itself");
    world.ledger.read(|tree| {
        assert_eq!(tree.version_state(PathSwitching, 1), VersionState::Failed);
        let reason = tree.path(&path).unwrap().failed.clone().unwrap();
        assert!(reason.contains("the tensor `w`") && reason.contains("not finite"), "{reason}");
        assert_eq!(tree.version_state(Continual, 1), VersionState::Released, "the other goes on");
    });
    assert_eq!(names(&state.join("releases")).into_iter().filter(|name| name.starts_with("v1")).count(), 0);
    assert!(fs::read_link(state.join("releases/latest")).is_err());
    // Asked for again, it is looked at again.
    world.commit(Transition::PathRetried { path });
    assert!(publisher.publish_all().unwrap());
    assert!(world.ledger.read(|tree| tree.path(&path).unwrap().failed.is_some()));
}

/// All names below a folder, without the folder's own.
fn names(folder: &Path) -> BTreeSet<PathBuf> {
    fn collect(folder: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), &name, found);
            }
            found.insert(name);
        }
    }
    let mut found = BTreeSet::new();
    collect(folder, Path::new(""), &mut found);
    found
}

fn publisher(world: &World, state: &Path, storage: Arc<dyn Storage>) -> Publisher {
    let publishing = Publishing { state: state.to_owned(), storage, split_above: u64::MAX };
    let links = Links::new(world.ledger.clone(), &publishing.state, publishing.storage.clone());
    let (_, never) = watch::channel(false);
    let hooks = Hooks::new(HookSettings::default(), state, never);
    Publisher::new(world.ledger.clone(), publishing, links, hooks)
}

/// Every release of the tree is there, as it says.
fn assert_whole(state: &Path, ledger: &Ledger) -> usize {
    let releases =
        ledger.read(|tree| tree.releases().values().map(|r| r.release.clone()).collect::<Vec<_>>());
    for release in &releases {
        let folder = state.join(&release.folder);
        let digest = |name: PathBuf| {
            let digest = Digest::of_file(&folder.join(&name)).unwrap();
            (name.to_str().unwrap().to_owned(), digest)
        };
        let found: BTreeMap<String, Digest> = names(&folder).into_iter().map(digest).collect();
        assert_eq!(found, release.files);
    }
    releases.len()
}

/// Both versions are public, `latest` points to each, and below `releases` there is nothing else.
fn assert_published(state: &Path, ledger: &Ledger) {
    let releases = state.join("releases");
    assert_eq!(assert_whole(state, ledger), 2);
    for folder in [releases.clone(), releases.join("continual")] {
        assert_eq!(fs::read_link(folder.join(release::LATEST)).unwrap(), Path::new("v1"));
    }
    assert_eq!(names(&releases), undisturbed());
}

/// What lies below `releases` when nothing has failed: the folders, their files, and both `latest`.
fn undisturbed() -> BTreeSet<PathBuf> {
    let files = [
        release::WEIGHTS,
        release::TOKENIZER,
        release::TOKENIZER_CONFIG,
        release::CONFIG,
        release::GENERATION_CONFIG,
        release::PROVENANCE,
        release::CARD,
    ];
    let of = |folder: &str| {
        let folder = PathBuf::from(folder);
        let own = [folder.join("v1"), folder.join(release::LATEST)];
        files.iter().map(|file| folder.join("v1").join(file)).chain(own).collect::<Vec<_>>()
    };
    of("").into_iter().chain(of("continual")).chain([PathBuf::from("continual")]).collect()
}

/// Before `latest` or the journal speak of it, a folder under a release's name is whole already: nothing is ever seen
/// half. Left-over temporary names are returned.
fn assert_never_half(releases: &Path) -> BTreeSet<PathBuf> {
    let is_left_over = |path: &PathBuf| path.iter().any(is_temporary);
    let (left, seen): (BTreeSet<_>, BTreeSet<_>) = names(releases).into_iter().partition(is_left_over);
    let expected = undisturbed();
    for version in ["v1", "continual/v1"].map(Path::new).into_iter().filter(|version| seen.contains(*version))
    {
        let missing: Vec<_> =
            expected.iter().filter(|path| path.starts_with(version) && !seen.contains(*path)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
    assert!(seen.is_subset(&expected), "{seen:?}");
    left
}

#[test]
fn whichever_operation_fails_once_nothing_stays_behind_and_the_next_try_publishes() {
    let mut failed = 0;
    for operations in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let world = ready_state(state);
        let storage = Failing::at(operations, Failure::Once);
        let publisher = publisher(&world, state, Arc::new(storage.clone()));

        let is_settled = publisher.publish_all().unwrap();
        assert_eq!(is_settled, !storage.has_failed(), "operation {operations}");
        if is_settled {
            assert_published(state, &world.ledger);
            break;
        }
        failed += 1;
        let left = assert_never_half(&state.join("releases"));
        assert!(left.is_empty(), "operation {operations}: {left:?}");
        let public = assert_whole(state, &world.ledger);
        assert_eq!(public, 1, "operation {operations}: the other paradigm's version is public all the same");
        assert!(publisher.publish_all().unwrap());
        assert_published(state, &world.ledger);
    }
    assert!(failed > 60, "only {failed} operations were tried");
}

#[test]
fn while_a_disk_does_nothing_any_more_nothing_is_seen_half_and_once_it_is_mended_all_is_published() {
    let (mut failed, mut left_over) = (0, 0);
    for operations in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let releases = state.join("releases");
        let world = ready_state(state);
        let storage = Failing::at(operations, Failure::ForGood);
        let publisher = publisher(&world, state, Arc::new(storage.clone()));

        if publisher.publish_all().unwrap() {
            break;
        }
        failed += 1;
        let before = assert_never_half(&releases);
        let public = assert_whole(state, &world.ledger);
        assert!(public < 2, "operation {operations}");
        assert!(!publisher.publish_all().unwrap(), "operation {operations}: it still fails");
        assert_eq!(assert_never_half(&releases), before, "operation {operations}: a try adds nothing");
        assert_eq!(assert_whole(state, &world.ledger), public);

        storage.mend();
        assert!(publisher.publish_all().unwrap(), "operation {operations}");
        left_over += usize::from(!assert_never_half(&releases).is_empty());
        // As it is done at the next start.
        publisher.sweep();
        assert_published(state, &world.ledger);
    }
    assert!(failed > 60, "only {failed} operations were tried");
    assert!(left_over > 30, "only {left_over} times something could not be removed");
}

#[test]
fn a_latest_that_cannot_be_moved_is_moved_by_the_next_try() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let world = ready_state(state);
    let publisher = publisher(&world, state, Arc::new(Disk));
    let latest = state.join("releases").join(release::LATEST);
    fs::create_dir(&latest).unwrap();
    assert!(!publisher.publish_all().unwrap());
    assert_eq!(assert_whole(state, &world.ledger), 2, "the versions are public all the same");
    assert!(latest.is_dir() && assert_never_half(&state.join("releases")).is_empty());
    fs::remove_dir(&latest).unwrap();
    assert!(publisher.publish_all().unwrap());
    assert_published(state, &world.ledger);
}

#[test]
fn what_a_killed_publication_left_is_removed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let world = ready_state(folder.path());
    let releases = folder.path().join("releases");
    for below in ["", "continual"] {
        let left = releases.join(below).join(format!("{}v1-0", storage::TEMPORARY));
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("model.safetensors"), "half").unwrap();
    }
    fs::create_dir(releases.join("v9")).unwrap();
    publisher(&world, folder.path(), Arc::new(Disk)).sweep();
    assert_eq!(names(&releases), BTreeSet::from(["continual", "v9"].map(PathBuf::from)));
}

/// The only shard turns out to be wrong.
fn withdraw(world: &World) {
    let withdrawal = world.ledger.read(|tree| crate::withdrawal::judge(tree, "a.txt", true)).unwrap();
    assert_eq!(withdrawal.seen_by, [1]);
    world.commit(withdrawal.transition());
}

/// What a folder says of the shard: in its provenance, and on its card.
fn says(folder: &Path) -> (bool, bool) {
    let provenance = release::read_provenance(folder).unwrap();
    let card = fs::read_to_string(folder.join(release::CARD)).unwrap();
    (provenance.withdrawn == [Digest::of(b"a.txt")], card.contains("withdrawn"))
}

#[test]
fn whichever_operation_fails_a_public_version_says_that_it_saw_what_was_withdrawn_in_the_end() {
    let mut failed = 0;
    for operations in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let world = ready_state(state);
        assert!(publisher(&world, state, Arc::new(Disk)).publish_all().unwrap());
        let folders = ["releases/v1", "releases/continual/v1"].map(|folder| state.join(folder));
        let weights =
            folders.each_ref().map(|folder| Digest::of_file(&folder.join(release::WEIGHTS)).unwrap());
        assert!(folders.iter().all(|folder| says(folder) == (false, false)));

        withdraw(&world);
        let storage = Failing::at(operations, Failure::Once);
        let publisher = publisher(&world, state, Arc::new(storage.clone()));
        let is_settled = publisher.publish_all().unwrap();
        assert_eq!(is_settled, !storage.has_failed(), "operation {operations}");
        failed += i64::from(!is_settled);
        // Either file is the old one or the new one, and both can be read.
        folders.iter().for_each(|folder| _ = says(folder));
        assert!(publisher.publish_all().unwrap());
        assert!(folders.iter().all(|folder| says(folder) == (true, true)), "operation {operations}");
        assert_published(state, &world.ledger);
        assert_eq!(folders.map(|folder| Digest::of_file(&folder.join(release::WEIGHTS)).unwrap()), weights);
        let position = world.ledger.read(Tree::position);
        assert!(publisher.publish_all().unwrap());
        assert_eq!(world.ledger.read(Tree::position), position, "it is said once");
        if is_settled {
            break;
        }
    }
    assert!(failed > 20, "only {failed} operations were tried");
}

#[test]
fn what_somebody_removed_from_a_release_is_not_made_again_by_marking_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let world = ready_state(state);
    let publisher = publisher(&world, state, Arc::new(Disk));
    assert!(publisher.publish_all().unwrap());
    fs::remove_dir_all(state.join("releases/continual/v1")).unwrap();
    fs::remove_file(state.join("releases/v1").join(release::CARD)).unwrap();
    withdraw(&world);
    assert!(publisher.publish_all().unwrap());
    let provenance = release::read_provenance(&state.join("releases/v1")).unwrap();
    assert_eq!(provenance.withdrawn, [Digest::of(b"a.txt")]);
    assert!(!state.join("releases/v1").join(release::CARD).exists());
    assert!(!state.join("releases/continual/v1").exists());
    assert!(world.ledger.read(|tree| tree.unmarked().next().is_none()));
}

/// A mark that is written over damage would hide it: what was journalled of the file would be what the damage is.
#[test]
fn a_damaged_file_is_left_to_be_found_and_does_not_keep_the_others_from_being_marked() {
    for (name, damage) in [(release::CARD, "# another card\n"), (release::PROVENANCE, "{ half")] {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let world = ready_state(state);
        let publisher = publisher(&world, state, Arc::new(Disk));
        assert!(publisher.publish_all().unwrap());
        let file = state.join("releases/v1").join(name);
        let recorded = |world: &World| {
            world.ledger.read(|tree| tree.releases()[&(PathSwitching, 1)].release.files[name])
        };
        let before = recorded(&world);
        fs::write(&file, damage).unwrap();
        withdraw(&world);
        assert!(publisher.publish_all().unwrap(), "nothing is left to do");
        assert_eq!(fs::read_to_string(&file).unwrap(), damage);
        assert_eq!(recorded(&world), before, "check will find it");
        let other =
            state.join("releases/v1").join(mark::FILES.into_iter().find(|other| *other != name).unwrap());
        assert!(fs::read_to_string(other).unwrap().contains("withdrawn"));
    }
}

#[test]
fn a_mark_that_was_written_and_not_journalled_is_written_once_more_also_for_a_second_shard() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let world = ready_state(state);
    let publisher = publisher(&world, state, Arc::new(Disk));
    assert!(publisher.publish_all().unwrap());
    let unmarked = |before: &[&str], now: &[&str]| {
        let mut published = world.ledger.read(|tree| tree.releases()[&(PathSwitching, 1)].clone());
        let shards = |names: &[&str]| {
            names.iter().map(|name| (Digest::of(name.as_bytes()), (*name).to_owned())).collect()
        };
        for name in mark::FILES {
            let bytes = fs::read(state.join("releases/v1").join(name)).unwrap();
            let said =
                mark::Unmarked::saying(published.clone(), shards(&[]), shards(before)).content(name, &bytes);
            published.release.files.insert(name.to_owned(), Digest::of(&said.unwrap()));
        }
        mark::Unmarked::saying(published, shards(before), shards(now))
    };
    for name in mark::FILES {
        let published = fs::read(state.join("releases/v1").join(name)).unwrap();
        let first = unmarked(&[], &["a.txt"]).content(name, &published).unwrap();
        assert_ne!(first, published);
        assert_eq!(unmarked(&[], &["a.txt"]).content(name, &first).as_ref(), Some(&first), "{name}");
        let second = unmarked(&["a.txt"], &["a.txt", "b.txt"]);
        let both = second.content(name, &first).unwrap();
        assert_eq!(second.content(name, &both), Some(both.clone()), "{name}");
        assert_eq!(second.content(name, &published), None, "{name}: older than what was journalled");
    }
}

#[test]
fn a_version_whose_shard_is_withdrawn_while_its_folder_is_made_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path();
    let world = ready_state(state);
    let publisher = publisher(&world, state, Arc::new(Disk));
    withdraw(&world);
    publisher.publish(PathSwitching, 1).unwrap();
    assert!(names(&state.join("releases")).is_empty());
    // As a crash leaves it: made, and not known to the journal.
    for version in ["v1", "continual/v1"] {
        fs::create_dir_all(state.join("releases").join(version)).unwrap();
        fs::write(state.join("releases").join(version).join(release::CARD), "card").unwrap();
    }
    publisher.remove_withdrawn();
    assert!(publisher.publish_all().unwrap());
    assert_eq!(names(&state.join("releases")), BTreeSet::from(["continual".into()]));
    assert!(world.ledger.read(|tree| tree.releases().is_empty()));
}
