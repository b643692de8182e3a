mod damage;
mod history;
mod kill;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use artifacts::storage::Disk;
use artifacts::storage::crash::CrashDisk;

use super::offline::{Standing, check, rebuild};
use super::probe::ProbeChild;
use super::samples::{Midnight, record, records, sample};
use super::view::View;
use super::*;

/// The tree that the first so many records make.
fn tree_of(count: u64) -> Tree {
    let mut tree = Tree::default();
    for record in records(1..=count) {
        tree.apply(&record).unwrap();
    }
    tree
}

/// This test program, running one of its ignored tests as a child.
fn child(test: &str) -> (PathBuf, Vec<std::ffi::OsString>) {
    let arguments = [&format!("ledger::tests::{test}"), "--exact", "--ignored", "--nocapture"];
    (std::env::current_exe().unwrap(), arguments.map(Into::into).to_vec())
}

fn probe(limit: Duration) -> Probe {
    let (program, arguments) = child("probe_child");
    Probe::Child(ProbeChild { program, arguments, lock: None, limit })
}

#[test]
#[ignore = "it is the child of other tests"]
fn probe_child() {
    if std::env::var_os("LRPATH_PROBE_PARENT").is_some() {
        let path = PathBuf::from(std::env::args_os().next_back().unwrap());
        assert_eq!(probe::child(&path), std::process::ExitCode::SUCCESS);
    }
}

fn options() -> Options {
    Options {
        segment_bytes: 4_000,
        probe: probe(Duration::from_secs(5)),
        retry: Duration::from_millis(50),
        ..Options::default()
    }
}

fn open_with(state: &Path, options: &Options) -> Result<Ledger, LedgerError> {
    Ledger::open_with(state, Arc::new(Disk), Arc::new(Midnight), options)
}

fn open(state: &Path) -> Ledger {
    open_with(state, &options()).unwrap()
}

/// Commits the next so many records, in commits of one to three.
fn grow(ledger: &Ledger, count: u64) {
    let mut next = ledger.read(Tree::position) + 1;
    let end = next + count;
    while next < end {
        let size = (1 + next % 3).min(end - next);
        let committed = ledger.commit_all((next..next + size).map(sample).collect()).unwrap();
        assert_eq!(committed, records(next..next + size));
        next += size;
    }
}

/// A state with so many records, closed in order.
fn state_with(count: u64) -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let ledger = open(state.path());
    grow(&ledger, count);
    ledger.close();
    state
}

fn set_aside_in(state: &Path) -> usize {
    let names = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("tree.sled.damaged-")).count()
}

/// Opens, closes, and looks at what sled holds afterwards.
fn assert_recovers(state: &Path, count: u64) {
    let expected = tree_of(count);
    let ledger = open(state);
    assert!(ledger.read(|tree| *tree == expected));
    assert_eq!(ledger.read(Tree::digest), expected.digest());
    assert_eq!(ledger.records(0, usize::MAX).unwrap(), records(1..=count));
    ledger.close();
    let report = check(state).unwrap();
    assert_eq!((report.view, report.tree, report.records), (Standing::Agrees, expected.digest(), count));
    let (view, tree) = View::load(&state.join(VIEW)).unwrap();
    assert!(tree == expected, "the same nodes come out of sled");
    view.let_go();
}

#[test]
fn what_was_committed_is_there_again_and_comes_out_of_sled() {
    let state = state_with(100);
    assert_recovers(state.path(), 100);
    let ledger = open(state.path());
    grow(&ledger, 50);
    ledger.close();
    assert_recovers(state.path(), 150);
    assert!(fs::read_dir(state.path().join(JOURNAL)).unwrap().count() > 2);
    assert_eq!(set_aside_in(state.path()), 0);
}

#[test]
fn who_watches_is_told_and_finds_the_records() {
    let ledger = Ledger::in_memory(Arc::new(Midnight));
    let mut watch = ledger.watch();
    assert_eq!(*watch.borrow_and_update(), 0);
    grow(&ledger, 2_000);
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), 2_000);
    for after in [0, 1, 900, 976, 977, 1_998, 2_000, 5_000] {
        assert_eq!(ledger.records(after, 3).unwrap(), records(after + 1..=2_000.min(after + 3)));
    }
    assert_eq!(ledger.read(Tree::position), 2_000);
    assert_eq!(ledger.commit_all(vec![]).unwrap(), []);
    assert!(!watch.has_changed().unwrap());
}

#[test]
fn of_a_commit_that_does_not_fit_nothing_is_journalled() {
    let disk = CrashDisk::new();
    let options = Options { view: false, ..Options::default() };
    let open =
        || Ledger::open_with(Path::new("/"), Arc::new(disk.clone()), Arc::new(Midnight), &options).unwrap();
    let ledger = open();
    grow(&ledger, 2);
    let files = disk.files();
    let again = sample(2);
    for transitions in
        [vec![again.clone()], vec![sample(3), again.clone()], vec![sample(3), sample(4), again]]
    {
        let error = ledger.commit_all(transitions).unwrap_err();
        assert!(matches!(error, LedgerError::Contradiction(_)), "{error}");
        assert!(error.to_string().contains("was accepted before"), "{error}");
    }
    assert_eq!(disk.files(), files);
    assert!(ledger.read(|tree| *tree == tree_of(2)));
    grow(&ledger, 10);
    drop(ledger);
    assert!(open().read(|tree| *tree == tree_of(12)));
}

#[test]
fn what_is_decided_sees_the_tree_that_it_is_committed_to() {
    let ledger = Ledger::in_memory(Arc::new(Midnight));
    grow(&ledger, 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let decided = |tree: &Tree| {
                        assert_eq!(tree.position(), ledger.read(Tree::position));
                        (vec![sample(tree.position() + 1)], tree.position())
                    };
                    let (records, seen) = ledger.commit_with(decided).unwrap();
                    assert_eq!(records, [record(seen + 1)]);
                }
            });
        }
    });
    assert!(ledger.read(|tree| *tree == tree_of(201)));
}

#[test]
fn a_decision_that_panics_changes_nothing() {
    let ledger = Ledger::in_memory(Arc::new(Midnight));
    grow(&ledger, 3);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ledger.commit_with(|_| -> (Vec<Transition>, ()) { panic!("undecided") })
    }));
    assert!(panicked.is_err());
    grow(&ledger, 9);
    assert!(ledger.read(|tree| *tree == tree_of(12)));
}

#[test]
fn a_closed_ledger_takes_no_more() {
    let ledger = Ledger::in_memory(Arc::new(Midnight));
    grow(&ledger, 1);
    ledger.clone().close();
    assert!(matches!(ledger.commit(sample(2)), Err(LedgerError::Closed)));
    assert_eq!(ledger.read(Tree::position), 1);
}

#[test]
fn a_full_disk_is_no_end() {
    let disk = CrashDisk::new();
    let options = Options { view: false, segment_bytes: 2_000, ..Options::default() };
    let ledger =
        Ledger::open_with(Path::new("/"), Arc::new(disk.clone()), Arc::new(Midnight), &options).unwrap();
    grow(&ledger, 5);
    disk.full_after(0);
    for _ in 0..3 {
        let error = ledger.commit(sample(6)).unwrap_err();
        assert!(error.hindrance() == Some(Hindrance::Full) && !error.is_final(), "{error}");
        assert!(ledger.read(|tree| *tree == tree_of(5)));
    }
    disk.make_room();
    grow(&ledger, 20);
    assert!(ledger.read(|tree| *tree == tree_of(25)));
}

#[test]
fn sound_records_that_do_not_follow_are_refused_with_words() {
    let disk = CrashDisk::new();
    let (mut journal, _) =
        Journal::open(Arc::new(disk.clone()), Path::new("/journal"), SEGMENT_BYTES, |_, _| {
            Ok::<(), JournalError>(())
        })
        .unwrap();
    journal.append(&records(1..=3)).unwrap();
    journal.append(&[Record { transition: sample(2), ..record(4) }]).unwrap();
    let options = Options { view: false, ..Options::default() };
    let error = Ledger::open_with(Path::new("/"), Arc::new(disk), Arc::new(Midnight), &options).unwrap_err();
    assert!(matches!(error, LedgerError::Replay(_)), "{error}");
}

#[test]
fn what_the_system_does_not_show_is_not_taken_for_no_state() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, round) = (folder.path().join("missing"), folder.path().join("round"));
    assert!(matches!(find(&missing), Err(LedgerError::NoState(path)) if path == missing));
    fs::write(folder.path().join(JOURNAL), "no folder").unwrap();
    assert!(matches!(find(folder.path()), Err(LedgerError::NoState(_))));
    assert!(matches!(find(&folder.path().join(JOURNAL)), Err(LedgerError::NoState(_))));
    // A link that leads to itself: the system gives no answer, as it gives none on a folder that may not be entered.
    std::os::unix::fs::symlink(&round, &round).unwrap();
    assert!(matches!(find(&round), Err(LedgerError::Unseen { state, .. }) if state == round));
    fs::remove_file(folder.path().join(JOURNAL)).unwrap();
    std::os::unix::fs::symlink(&round, folder.path().join(JOURNAL)).unwrap();
    assert!(matches!(find(folder.path()), Err(LedgerError::Unseen { .. })));
    fs::remove_file(folder.path().join(JOURNAL)).unwrap();
    fs::create_dir(folder.path().join(JOURNAL)).unwrap();
    assert_eq!(find(folder.path()).unwrap(), folder.path().canonicalize().unwrap());
}

#[test]
fn check_and_rebuild_work_on_a_state_that_nobody_has() {
    let state = tempfile::tempdir().unwrap();
    assert!(matches!(check(state.path()), Err(LedgerError::NoState(_))));
    assert!(matches!(rebuild(state.path()), Err(LedgerError::NoState(_))));
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0, "nothing was written");
    let state = state_with(40);
    let held = lock::StateLock::take(state.path()).unwrap();
    assert!(matches!(check(state.path()), Err(LedgerError::Lock(_))));
    assert!(matches!(rebuild(state.path()), Err(LedgerError::Lock(_))));
    drop(held);
    fs::write(state.path().join(VIEW).join("db"), b"rubbish").unwrap();
    assert!(matches!(check(state.path()).unwrap().view, Standing::Unusable { .. }));
    let report = rebuild(state.path()).unwrap();
    assert_eq!(check(state.path()).unwrap(), report);
    assert_eq!((report.records, report.view), (40, Standing::Agrees));

    let last =
        fs::read_dir(state.path().join(JOURNAL)).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    fs::OpenOptions::new().append(true).open(&last).unwrap().write_all(b"12345678 [{\"posi").unwrap();
    let sizes = |state: &Path| fs::metadata(state.join(&last)).unwrap().len();
    let before = sizes(state.path());
    let report = check(state.path()).unwrap();
    assert_eq!(report.torn.map(|torn| torn.bytes), Some(16));
    assert_eq!(sizes(state.path()), before, "looking changes nothing");
    assert_recovers(state.path(), 40);
    assert_eq!(sizes(state.path()), before - 16);
}
