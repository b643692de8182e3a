//! A disk for tests that fails when it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use artifacts::storage::{Disk, Entry, Error, File, Kind, Result, Storage};

/// How long a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// For one operation.
    Once,
    /// From one operation on, with every one that follows: reading, listing and removing too.
    ForGood,
}

/// The disk, of which one operation fails, or all from one on: what is in it then is what a full disk leaves.
/// No power is cut here, so nothing is really synced.
#[derive(Clone)]
pub struct Failing {
    /// Operations before the one that fails.
    left: Arc<AtomicI64>,
    failure: Failure,
}

impl Failing {
    /// Fails after so many operations.
    pub fn at(operations: i64, failure: Failure) -> Self {
        Self { left: Arc::new(AtomicI64::new(operations)), failure }
    }

    /// Whether it has come to it.
    pub fn has_failed(&self) -> bool {
        self.left.load(Ordering::Relaxed) < 0
    }

    /// Nothing fails any more.
    pub fn mend(&self) {
        self.left.store(i64::MAX, Ordering::Relaxed);
    }

    /// Counts an operation.
    fn count(&self, doing: &'static str, path: &Path) -> Result<()> {
        match (self.left.fetch_sub(1, Ordering::Relaxed), self.failure) {
            (0, _) | (..0, Failure::ForGood) => {
                Err(Error::at(doing, path)(io::Error::new(io::ErrorKind::StorageFull, "no space left")))
            }
            _ => Ok(()),
        }
    }
}

impl Storage for Failing {
    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        self.count("create", path)?;
        let file = Disk.create(path)?;
        Ok(Box::new(FailingFile { file, disk: self.clone(), path: path.to_owned() }))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn File>> {
        self.count("open", path).and_then(|()| Disk.append(path))
    }

    fn read(&self, path: &Path, longest: u64) -> Result<Vec<u8>> {
        self.count("read", path).and_then(|()| Disk.read(path, longest))
    }

    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        self.count("list", folder).and_then(|()| Disk.list(folder))
    }

    fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        self.count("look at", path).and_then(|()| Disk.kind(path))
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        self.count("create the folder", folder).and_then(|()| Disk.create_folder(folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.count("rename", from).and_then(|()| Disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.count("remove", path).and_then(|()| Disk.remove_file(path))
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        self.count("remove the folder", folder).and_then(|()| Disk.remove_folder(folder))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        self.count("sync", path)
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        self.count("sync the folder", folder)
    }
}

struct FailingFile {
    file: Box<dyn File>,
    disk: Failing,
    path: PathBuf,
}

impl File for FailingFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let counted = self.disk.count("write", &self.path);
        // A full disk takes the half of it.
        let half = if counted.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        self.file.append(half).and(counted)
    }

    fn sync_data(&mut self) -> Result<()> {
        self.disk.count("sync", &self.path)
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        self.disk.count("cut", &self.path).and_then(|()| self.file.truncate(length))
    }

    fn length(&self) -> u64 {
        self.file.length()
    }
}
