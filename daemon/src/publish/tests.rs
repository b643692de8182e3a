//! A disk that fails at any one operation of a publication, and what is found afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use artifacts::Digest;
use artifacts::checkpoint::{self, State};
use artifacts::job::Precision;
use artifacts::manifest::Manifest;
use artifacts::storage::{Disk, Entry, Error, File, Kind, Result, is_temporary};
use paradigm::Paradigm::{Continual, PathSwitching};

use super::*;
use crate::api::fixture::World;
use crate::ledger::path::Step;
use crate::tokenizer::{Corpus, train};

const SEPARATOR: &str = "<|endoftext|>";

/// The disk, of which one operation that writes fails: what is in it then is what a full disk leaves.
#[derive(Default)]
struct Failing {
    /// Operations before the one that fails; below nothing, none fails any more.
    left: Arc<AtomicI64>,
}

impl Failing {
    fn at(operations: i64) -> Self {
        Self { left: Arc::new(AtomicI64::new(operations)) }
    }

    fn has_failed(&self) -> bool {
        self.left.load(Ordering::Relaxed) < 0
    }
}

/// Counts an operation.
fn count(left: &AtomicI64, doing: &'static str, path: &Path) -> Result<()> {
    match left.fetch_sub(1, Ordering::Relaxed) {
        0 => Err(Error::at(doing, path)(io::Error::new(io::ErrorKind::StorageFull, "no space left"))),
        _ => Ok(()),
    }
}

impl Storage for Failing {
    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        count(&self.left, "create", path)?;
        let file = Disk.create(path)?;
        Ok(Box::new(FailingFile { file, left: self.left.clone(), path: path.to_owned() }))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn File>> {
        Disk.append(path)
    }

    fn read(&self, path: &Path, longest: u64) -> Result<Vec<u8>> {
        Disk.read(path, longest)
    }

    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        Disk.list(folder)
    }

    fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        Disk.kind(path)
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        count(&self.left, "create the folder", folder).and_then(|()| Disk.create_folder(folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        count(&self.left, "rename", from).and_then(|()| Disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        Disk.remove_file(path)
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        Disk.remove_folder(folder)
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        count(&self.left, "sync", path).and_then(|()| Disk.sync_file(path))
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        count(&self.left, "sync the folder", folder).and_then(|()| Disk.sync_folder(folder))
    }
}

struct FailingFile {
    file: Box<dyn File>,
    left: Arc<AtomicI64>,
    path: PathBuf,
}

impl File for FailingFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let counted = count(&self.left, "write", &self.path);
        // A full disk takes the half of it.
        let half = if counted.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        self.file.append(half).and(counted)
    }

    fn sync_data(&mut self) -> Result<()> {
        count(&self.left, "sync", &self.path).and_then(|()| self.file.sync_data())
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        self.file.truncate(length)
    }

    fn length(&self) -> u64 {
        self.file.length()
    }
}

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
    let folder = state.join("checkpoints").join(key.to_string());
    fs::create_dir(&folder).unwrap();
    let header = br#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend_from_slice(header);
    weights.extend_from_slice(&[7; 16]);
    fs::write(folder.join(checkpoint::MODEL), weights).unwrap();
    let state = State {
        format: checkpoint::FORMAT,
        path: key.path.to_string(),
        step: key.step,
        precision: Precision::F32,
        kernels: "none".to_owned(),
        micro_batch: 1,
        skipped: Vec::new(),
    };
    fs::write(folder.join(checkpoint::STATE), serde_json::to_vec(&state).unwrap()).unwrap();
    Manifest::of(&folder).unwrap().write(&Disk, &folder).unwrap();
}

/// All names below a folder of releases.
fn names(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(names(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}

fn temporary(folder: &Path) -> Vec<PathBuf> {
    names(folder).into_iter().filter(|path| path.file_name().is_some_and(is_temporary)).collect()
}

/// Every release of the tree is there, as it says; `latest` points to it.
fn assert_published(state: &Path, ledger: &Ledger) {
    let releases =
        ledger.read(|tree| tree.releases().values().map(|r| r.release.clone()).collect::<Vec<_>>());
    assert_eq!(releases.len(), 2);
    for release in releases {
        let folder = state.join(&release.folder);
        let found: BTreeMap<String, Digest> = names(&folder)
            .into_iter()
            .map(|path| {
                let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
                (name, Digest::of_file(&path).unwrap())
            })
            .collect();
        assert_eq!(found, release.files);
        assert_eq!(fs::read_link(folder.with_file_name(release::LATEST)).unwrap(), Path::new("v1"));
    }
}

#[test]
fn whichever_operation_fails_nothing_stays_behind_and_the_next_try_publishes() {
    let mut failed = 0;
    for operations in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let releases = state.join("releases");
        let world = ready_state(state);
        let storage = Arc::new(Failing::at(operations));
        let publishing =
            Publishing { state: state.to_owned(), storage: storage.clone(), split_above: u64::MAX };
        let publisher = Publisher::new(world.ledger.clone(), publishing);

        let is_settled = publisher.publish_all().unwrap();
        assert!(temporary(&releases).is_empty(), "operation {operations}: {:?}", temporary(&releases));
        assert_eq!(is_settled, !storage.has_failed(), "operation {operations}");
        if is_settled {
            assert_published(state, &world.ledger);
            break;
        }
        failed += 1;
        let public = world.ledger.read(|tree| tree.releases().len());
        assert_eq!(public, 1, "operation {operations}: the other paradigm's version is public all the same");
        assert!(publisher.publish_all().unwrap());
        assert!(temporary(&releases).is_empty());
        assert_published(state, &world.ledger);
    }
    assert!(failed > 40, "only {failed} operations were tried");
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
    let publishing =
        Publishing { state: folder.path().to_owned(), storage: Arc::new(Disk), split_above: u64::MAX };
    Publisher::new(world.ledger.clone(), publishing).sweep();
    assert_eq!(names(&releases), BTreeSet::from([releases.join("continual"), releases.join("v9")]));
}
