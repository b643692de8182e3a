use std::fs;
use std::sync::Arc;

use artifacts::checkpoint;

use super::*;
use crate::api::fixture;
use crate::ctl::check::{Depth, check};
use crate::ctl::flags::Init;
use crate::ctl::init;
use crate::ledger::path::{CheckpointKey, Path as TreePath, Trajectory};
use crate::ledger::transition::Transition;
use crate::ledger::{Ledger, SystemClock};

/// A state that `init` made, with a checkpoint.
struct Made {
    folder: tempfile::TempDir,
    key: CheckpointKey,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let asked = Init { config: None, model: None, tokenizer: None, output: Default::default() };
        init::run(&folder.path().join("state"), &asked).unwrap();
        let path = TreePath {
            paradigm: paradigm::Paradigm::PathSwitching,
            generation: 1,
            trajectory: Trajectory::Main,
        };
        let made = Self { folder, key: CheckpointKey { path, step: 7 } };
        let digest = made.write_checkpoint(made.key);
        let saved =
            Transition::CheckpointSaved { checkpoint: made.key, digest, bytes: 40, job: None, took: None };
        made.ledger(|ledger| {
            ledger.commit(saved).unwrap();
        });
        made
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn backup(&self) -> PathBuf {
        self.folder.path().join("backup")
    }

    fn ledger(&self, work: impl FnOnce(&Ledger)) {
        let ledger = Ledger::open(&self.state(), Arc::new(Disk), Arc::new(SystemClock)).unwrap();
        work(&ledger);
        ledger.close();
    }

    fn write_checkpoint(&self, key: CheckpointKey) -> Digest {
        fixture::write_checkpoint(&self.state().join("checkpoints"), key, &[(checkpoint::MODEL, b"weights")])
            .0
    }

    /// Everything beside the state, by name.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn what_is_restored_is_the_state_and_sound() {
    let made = Made::new();
    let taken = take(&made.state(), &made.backup()).unwrap();
    assert_eq!(taken.position, 2);
    assert!(taken.outside[0].contains("the watched folder"), "{:?}", taken.outside);
    let restored = made.folder.path().join("elsewhere/state");
    fs::create_dir_all(&restored).unwrap();
    let told = restore(&made.backup(), &restored).unwrap();
    assert_eq!((told.position, told.bytes), (taken.position, taken.bytes));
    let findings = check(&restored, Depth::Everything).unwrap();
    assert_eq!((findings.damage.len(), findings.checkpoints), (0, 1));
    assert!(restored.join("data").is_dir() && restored.join("jobs").is_dir());
    for (name, facts) in &Backup::read(&made.backup()).unwrap().files {
        assert_eq!(Digest::of_file(&restored.join(name)).unwrap(), facts.blake3, "{name}");
    }
}

#[test]
fn what_is_deleted_while_it_is_copied_is_left_out() {
    let made = Made::new();
    let state = made.state();
    // A daemon deletes the checkpoint: the folder goes a moment before the copying looks, the word came before that.
    let before = fs::read(state.join("journal/00000000000000000001.log")).unwrap();
    made.ledger(|ledger| {
        ledger
            .commit(Transition::CheckpointDeleted { checkpoint: made.key, reason: "passed".to_owned() })
            .unwrap();
    });
    let after = fs::read(state.join("journal/00000000000000000001.log")).unwrap();
    fs::write(state.join("journal/00000000000000000001.log"), &before).unwrap();
    fs::remove_dir_all(state.join("checkpoints").join(made.key.to_string())).unwrap();
    let late = std::thread::spawn({
        let file = state.join("journal/00000000000000000001.log");
        move || {
            std::thread::sleep(PAUSE * 2);
            fs::write(file, after).unwrap();
        }
    });
    let taken = take(&state, &made.backup()).unwrap();
    late.join().unwrap();
    assert_eq!(taken.position, 3);
    assert!(Backup::read(&made.backup()).unwrap().files.keys().all(|name| !name.starts_with("checkpoints")));
}

#[test]
fn a_commit_that_is_half_written_is_not_in_the_backup() {
    let made = Made::new();
    let file = made.state().join("journal/00000000000000000001.log");
    let mut journal = fs::read(&file).unwrap();
    let whole = journal.len();
    journal.extend_from_slice(b"{\"half");
    fs::write(&file, &journal).unwrap();
    take(&made.state(), &made.backup()).unwrap();
    let copied = fs::metadata(made.backup().join("journal/00000000000000000001.log")).unwrap().len();
    assert_eq!(copied, whole as u64);
}

#[test]
fn what_cannot_be_copied_is_refused_and_nothing_stays_behind() {
    let made = Made::new();
    let beside = made.beside();
    let refused = |folder: &Path| take(&made.state(), folder).unwrap_err().to_string();
    assert!(refused(&made.state().join("backup")).contains("lies in the state itself"));
    assert!(refused(&made.folder.path().join("none/backup")).contains("there is no folder"));
    assert!(refused(&made.state()).contains("is there already"));
    assert!(take(&made.folder.path().join("nothing"), &made.backup()).is_err());
    // A flipped bit.
    let weights = made.state().join("checkpoints").join(made.key.to_string()).join(checkpoint::MODEL);
    fs::write(&weights, "weightz").unwrap();
    let failure = take(&made.state(), &made.backup()).unwrap_err();
    assert_eq!(failure.exit, Exit::Damaged);
    let cause = failure.cause.unwrap().to_string();
    assert!(
        cause.contains("path-switching.main.g1.s7/model.safetensors") && cause.contains("was expected"),
        "{cause}"
    );
    assert_eq!(made.beside(), beside);
}

#[test]
fn what_is_no_sound_backup_is_not_restored() {
    let made = Made::new();
    take(&made.state(), &made.backup()).unwrap();
    let state = made.folder.path().join("restored");
    let text = fs::read_to_string(made.backup().join(NAME)).unwrap();
    let beside = made.beside();
    let refused = |why: &str| {
        let failure = restore(&made.backup(), &state).unwrap_err();
        let told = format!(
            "{failure}: {}",
            failure.cause.clone().map_or_else(String::new, |cause| cause.to_string())
        );
        assert!(told.contains(why), "{told}");
        assert_eq!(failure.exit, Exit::Damaged);
        assert_eq!(made.beside(), beside, "nothing stays behind");
    };
    let write = |text: String| fs::write(made.backup().join(NAME), text).unwrap();
    write(text.replace("\"format\": 1", "\"format\": 2"));
    refused("is no backup that can be restored");
    write("{".to_owned());
    refused("is no backup that can be restored");
    for name in ["../outside", "/etc/passwd", "checkpoints/../../outside"] {
        write(text.replace("lrpathd.toml", name));
        refused("is no name below a state");
    }
    write(text.clone());
    let config = fs::read(made.backup().join("lrpathd.toml")).unwrap();
    fs::write(made.backup().join("lrpathd.toml"), "seed = 7").unwrap();
    refused("`lrpathd.toml` has digest");
    fs::remove_file(made.backup().join("lrpathd.toml")).unwrap();
    refused("`lrpathd.toml` is missing");
    std::os::unix::fs::symlink("/etc/passwd", made.backup().join("lrpathd.toml")).unwrap();
    refused("`lrpathd.toml` is missing");
    fs::remove_file(made.backup().join("lrpathd.toml")).unwrap();
    fs::write(made.backup().join("lrpathd.toml"), config).unwrap();
    let failure = restore(&made.backup(), &made.state()).unwrap_err();
    assert!(failure.to_string().contains("is not empty"), "{failure}");
    restore(&made.backup(), &state).unwrap();
}
