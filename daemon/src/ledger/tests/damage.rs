//! Whatever happens to the view, the tree is the journal's, and the view comes back.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_view_that_is_gone_is_made_again() {
    let state = state_with(60);
    fs::remove_dir_all(state.path().join(VIEW)).unwrap();
    assert_eq!(check(state.path()).unwrap().view, Standing::Unusable { why: ViewError::Missing });
    assert_recovers(state.path(), 60);
    assert_eq!(set_aside_in(state.path()), 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}

#[test]
fn an_older_copy_of_the_view_is_brought_up() {
    let state = state_with(60);
    let older = state.path().join("older");
    copy(&state.path().join(VIEW), &older);
    let ledger = open(state.path());
    grow(&ledger, 41);
    ledger.close();
    fs::remove_dir_all(state.path().join(VIEW)).unwrap();
    fs::rename(older, state.path().join(VIEW)).unwrap();
    assert_eq!(check(state.path()).unwrap().view, Standing::Behind { position: 60 });
    assert_recovers(state.path(), 101);
    assert_eq!(set_aside_in(state.path()), 0);
}

#[test]
fn the_view_of_another_journal_and_one_that_is_ahead_are_set_aside() {
    for (mine, others) in [(60, 60), (60, 70), (70, 60), (60, 20)] {
        let state = state_with(mine);
        let other = tempfile::tempdir().unwrap();
        let ledger = open(other.path());
        grow(&ledger, 10);
        // From here on it is another history, of the same length and kind.
        while ledger.read(Tree::position) < others {
            ledger.commit(Transition::Paused).unwrap();
        }
        ledger.close();
        fs::remove_dir_all(state.path().join(VIEW)).unwrap();
        fs::rename(other.path().join(VIEW), state.path().join(VIEW)).unwrap();
        let report = check(state.path()).unwrap();
        assert!(matches!(report.view, Standing::Unusable { why: ViewError::Foreign(_) }), "{report:?}");
        assert_recovers(state.path(), mine);
        assert_eq!(set_aside_in(state.path()), 1);
    }
}

/// The view's files, with their contents.
fn view_files(state: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = walkdir::WalkDir::new(state.join(VIEW)).sort_by_file_name().into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files.map(|entry| (entry.path().to_owned(), fs::read(entry.path()).unwrap())).collect()
}

/// Damages each file of a view in many ways, and sees that nothing comes of it.
fn assert_survives(damage: impl Fn(&[u8], usize) -> Vec<u8>, ways: usize) {
    let state = state_with(120);
    let files = view_files(state.path());
    assert!(files.len() >= 2, "{files:?}");
    let mut unusable = 0;
    for (path, bytes) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        // The end of the file is free space.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        for way in 0..ways {
            let at = used * way / ways;
            let _ = fs::remove_dir_all(state.path().join(VIEW));
            fs::create_dir(state.path().join(VIEW)).unwrap();
            for (path, bytes) in &files {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            fs::write(path, damage(bytes, at)).unwrap();
            let report = check(state.path()).unwrap();
            unusable += u32::from(report.view != Standing::Agrees);
            assert_recovers(state.path(), 120);
            assert!(set_aside_in(state.path()) <= 2);
        }
    }
    assert!(unusable > 0, "no damage was ever seen");
}

#[test]
fn a_flipped_bit_in_any_file_of_the_view_comes_to_nothing() {
    let flip = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    };
    assert_survives(flip, 24);
}

#[test]
fn a_file_of_the_view_that_is_cut_short_comes_to_nothing() {
    assert_survives(|bytes, at| bytes[..at].to_vec(), 10);
}

#[test]
fn a_file_of_the_view_with_zeros_in_it_comes_to_nothing() {
    let zero = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        let end = (at + 512).min(bytes.len());
        bytes[at..end].fill(0);
        bytes
    };
    assert_survives(zero, 10);
}

#[test]
fn a_view_that_hangs_is_given_up_and_one_that_kills_too() {
    let state = state_with(30);
    for script in ["sleep 60", "kill -SEGV $$", "exit 0", "echo lrpath-probe nonsense", "echo sound"] {
        let stub = ProbeChild {
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            lock: None,
            limit: Duration::from_millis(200),
        };
        let started = Instant::now();
        let options = Options { probe: Probe::Child(stub), ..options() };
        let ledger = open_with(state.path(), &options).unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(ledger.read(|tree| *tree == tree_of(30)));
        ledger.close();
        assert!(set_aside_in(state.path()) > 0, "{script}");
    }
}

#[test]
fn a_probe_that_cannot_be_started_condemns_nothing() {
    let state = state_with(30);
    let absent = ProbeChild {
        program: "/no/such/program".into(),
        arguments: vec![],
        lock: None,
        limit: Duration::from_secs(5),
    };
    let ledger = open_with(state.path(), &Options { probe: Probe::Child(absent), ..options() }).unwrap();
    assert!(ledger.read(|tree| *tree == tree_of(30)));
    grow(&ledger, 3);
    ledger.close();
    assert_eq!(set_aside_in(state.path()), 0);
    assert_recovers(state.path(), 33);
}

#[test]
fn a_view_that_another_process_holds_stops_no_commit_and_is_built_when_it_is_free() {
    let state = state_with(30);
    let db = fs::File::open(state.path().join(VIEW).join("db")).unwrap();
    rustix::fs::flock(&db, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let ledger = open(state.path());
    grow(&ledger, 30);
    assert!(ledger.read(|tree| *tree == tree_of(60)));
    drop(db);
    let end = Instant::now() + Duration::from_secs(10);
    while check(state.path()).unwrap().view != Standing::Agrees {
        assert!(Instant::now() < end, "it was not built again");
        std::thread::sleep(Duration::from_millis(20));
    }
    grow(&ledger, 5);
    ledger.close();
    assert_eq!(set_aside_in(state.path()), 0);
    assert_recovers(state.path(), 65);
}

/// Commits many records where no file may grow as far as sled needs.
#[test]
#[ignore = "it is the child of another test"]
fn cramped_child() {
    let Some(state) = std::env::var_os("LRPATH_CRAMPED_CHILD") else { return };
    let ledger = open_with(Path::new(&state), &Options { probe: Probe::None, ..options() }).unwrap();
    for _ in 0..60 {
        grow(&ledger, 50);
        std::thread::sleep(Duration::from_millis(5));
    }
    ledger.close();
}

#[test]
fn a_view_that_finds_no_room_stops_no_commit() {
    let state = tempfile::tempdir().unwrap();
    let (program, arguments) = child("damage::cramped_child");
    let output = std::process::Command::new("sh")
        // In blocks of 512 bytes: enough for each file of the journal, and for the beginning of sled's.
        .args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""])
        .arg(program)
        .args(arguments)
        .env("LRPATH_CRAMPED_CHILD", state.path())
        .env("RUST_LOG", "warn")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = check(state.path()).unwrap();
    assert_eq!(report.records, 3_000);
    assert_ne!(report.view, Standing::Agrees, "it found room after all");
    assert_recovers(state.path(), 3_000);
}
