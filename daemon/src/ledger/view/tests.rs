use artifacts::Digest;
use rustix::fs::{FlockOperation, flock};

use super::entries::{BATCH, decode};
use super::*;
use crate::ledger::follower::merge;
use crate::ledger::node::Node;
use crate::ledger::samples::record;

/// The tree after so many records, and their last point (the chain is any that differs).
fn grown(tree: &mut Tree, to: u64) -> (Point, Changes) {
    let mut changes = Changes::new();
    for position in tree.position() + 1..=to {
        merge(&mut changes, tree.apply(&record(position)).unwrap());
    }
    (Point { position: to, chain: Digest::of(&to.to_le_bytes()) }, changes)
}

/// A folder with a view of the first so many records.
fn built(records: u64) -> (tempfile::TempDir, PathBuf, Tree) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tree.sled");
    let mut tree = Tree::default();
    let (point, _) = grown(&mut tree, records);
    View::build(&path, point, &tree).unwrap().let_go();
    (folder, path, tree)
}

fn why_not(path: &Path) -> String {
    match View::load(path) {
        Ok((view, _)) => panic!("it was taken at {:?}", view.point()),
        Err(error) => error.to_string(),
    }
}

/// Changes a view behind its back.
fn meddle(path: &Path, meddle: impl FnOnce(&sled::Db)) {
    let db = patiently(|| Ok(open(path)?)).unwrap();
    meddle(&db);
    db.flush().unwrap();
}

#[test]
fn a_view_that_follows_holds_the_same_tree_as_one_that_is_built() {
    let (_folder, path, mut tree) = built(1);
    for to in [2, 3, 4, 10, 40, 41, 100] {
        let (mut view, loaded) = View::load(&path).unwrap();
        assert_eq!(loaded, tree);
        let (point, changes) = grown(&mut tree, to);
        view.apply(point, &changes).unwrap();
        assert_eq!(view.point(), point);
        view.sync().unwrap();
        view.let_go();
        let (view, loaded) = View::load(&path).unwrap();
        assert_eq!((view.point(), loaded.digest()), (point, tree.digest()));
        assert_eq!(loaded, tree);
        let kept_up = view.meta.clone();
        view.let_go();
        let other = path.with_extension("other");
        let built = View::build(&other, point, &tree).unwrap();
        assert_eq!(built.meta, kept_up, "what is kept up is what counting anew gives");
    }
}

#[test]
fn a_view_of_more_nodes_than_go_at_once_is_whole() {
    let (_folder, path, tree) = built(2_600);
    assert!(tree.nodes().count() > 2 * BATCH);
    assert_eq!(View::load(&path).unwrap().1, tree);
}

#[test]
fn a_view_that_was_read_elsewhere_is_taken_as_it_was_read_and_no_other() {
    let (_folder, path, mut tree) = built(30);
    let view = View::open(&path).unwrap();
    let found = view.meta().clone();
    view.let_go();
    let mut view = View::open_as_read(&path, &found).unwrap();
    assert!(view.holds(&tree).unwrap());
    let (point, changes) = grown(&mut tree, 40);
    view.apply(point, &changes).unwrap();
    view.let_go();
    let why = View::open_as_read(&path, &found).map(View::let_go).unwrap_err();
    assert_eq!(why, ViewError::Damaged("it is another one than was just read".to_owned()));
    let view = View::open(&path).unwrap();
    assert!(view.holds(&tree).unwrap());
}

#[test]
fn an_entry_that_is_changed_gone_or_too_many_is_noticed() {
    let first = |db: &sled::Db| db.scan_prefix("shard/").next().unwrap().unwrap();
    let (_folder, path, _) = built(30);
    meddle(&path, |db| {
        let (key, value) = first(db);
        let mut value = value.to_vec();
        value[9] ^= 1;
        db.insert(key, value).unwrap();
    });
    assert!(why_not(&path).contains("its checksum does not match"));

    let (_folder, path, _) = built(30);
    meddle(&path, |db| _ = db.remove(first(db).0).unwrap());
    assert!(why_not(&path).contains("it holds"));

    let (_folder, path, _) = built(30);
    meddle(&path, |db| _ = db.insert("shard/0000000099", first(db).1).unwrap());
    assert!(why_not(&path).contains("its checksum does not match"));

    let (_folder, path, _) = built(30);
    meddle(&path, |db| {
        let (key, value) = first(db);
        let Node::Shard { order, mut shard } = decode::<Node>(&key, &value).unwrap() else { panic!() };
        shard.at += 1;
        let value = encode(&key, &Node::Shard { order, shard }).unwrap();
        db.insert(key, value).unwrap();
    });
    assert!(why_not(&path).contains("do not add up"));

    let (_folder, path, _) = built(30);
    meddle(&path, |db| _ = db.remove(META).unwrap());
    assert!(why_not(&path).contains("no beginning"));
}

#[test]
fn the_view_of_another_program_is_made_again() {
    let (_folder, path, _) = built(30);
    meddle(&path, |db| {
        let mut meta: Meta = decode(META, &db.get(META).unwrap().unwrap()).unwrap();
        meta.program = "0.0.1".to_owned();
        db.insert(META, encode(META, &meta).unwrap()).unwrap();
    });
    assert_eq!(View::load(&path).err(), Some(ViewError::Outdated("format 1, lrpath 0.0.1".to_owned())));
}

#[test]
fn a_view_that_another_process_holds_is_busy_and_not_damaged() {
    let (_folder, path, tree) = built(30);
    let file = File::open(path.join("db")).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    assert_eq!(View::load(&path).err(), Some(ViewError::Busy));
    assert_eq!(View::build(&path, Point::START, &tree).err(), Some(ViewError::Busy));
    drop(file);
    assert_eq!(View::load(&path).unwrap().1, tree);
}

#[test]
fn what_a_kill_leaves_of_a_snapshot_does_not_keep_it_from_opening() {
    let (_folder, path, tree) = built(30);
    let leftover = path.join("snap.00000000000000F0.generating");
    fs::write(&leftover, b"half").unwrap();
    assert_eq!(View::load(&path).unwrap().1, tree);
    assert!(!leftover.exists());
}

#[test]
fn what_is_no_view_is_told_apart_from_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tree.sled");
    assert_eq!(View::load(&path).err(), Some(ViewError::Missing));
    assert!(!path.exists(), "looking makes nothing");
    fs::write(&path, b"").unwrap();
    assert!(matches!(View::load(&path), Err(ViewError::Damaged(_))));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(View::load(&path), Err(ViewError::Damaged(_))));
}

#[test]
fn the_last_two_that_were_set_aside_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tree.sled");
    for number in 1..=5 {
        fs::create_dir(&path).unwrap();
        fs::write(path.join("db"), number.to_string()).unwrap();
        assert_eq!(set_aside(&path).unwrap(), folder.path().join(format!("tree.sled.damaged-{number}")));
    }
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["tree.sled.damaged-4", "tree.sled.damaged-5"]);
}
