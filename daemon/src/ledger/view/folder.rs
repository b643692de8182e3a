//! The view's folder: who has it, what must go from it, and where it is put when it cannot be used.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Views set aside that are kept.
const KEPT_ASIDE: usize = 2;

/// Whether a process has a view open: sled locks its file `db`.
pub fn is_held(path: &Path) -> io::Result<bool> {
    match File::open(path.join("db")) {
        Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(errno) => Err(errno.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub fn remove_half_written_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Moves a view that cannot be used out of the way, for whoever wants to know why, and keeps the last few of them.
///
/// # Errors
/// The system's.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let folder = artifacts::storage::parent(path);
    let prefix = beside(path, ".damaged-");
    let number = |candidate: &Path| -> Option<u64> {
        candidate.to_str()?.strip_prefix(prefix.to_str()?)?.parse().ok()
    };
    let mut aside: Vec<u64> = Vec::new();
    for entry in fs::read_dir(folder)? {
        aside.extend(number(&folder.join(entry?.file_name())));
    }
    aside.sort_unstable();
    let name = |number: u64| beside(path, &format!(".damaged-{number}"));
    let to = name(aside.last().map_or(1, |last| last + 1));
    fs::rename(path, &to)?;
    File::open(folder)?.sync_all()?;
    for old in aside.iter().rev().skip(KEPT_ASIDE - 1) {
        remove(&name(*old))?;
    }
    Ok(to)
}

/// The path whose name has something added at its end.
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Removes what is there, whatever it is.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(facts) if facts.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Syncs all files and folders of a new database.
pub fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}
