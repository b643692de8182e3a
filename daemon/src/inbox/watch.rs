//! Hints from notify, truth from scans.
//!
//! Events are lost, doubled and reordered (a full queue, a renamed folder, a file that is made in the moment in which its
//! folder is), so no event is ever trusted with more than the question whether to look. What lies in the folder is what
//! a scan finds there; the one thing that only an event knows is that a file was renamed into place.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use walkdir::WalkDir;

use super::Message;
use crate::ledger::transition::FileFacts;

/// Deepest folder below the watched one that is looked into.
const DEEPEST: usize = 32;

/// What an event hints at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Something changed somewhere.
    Look,
    /// A file was renamed or moved to this path.
    MovedIn(PathBuf),
}

/// A cut marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Path below the watched folder.
    pub file: String,
    /// The name of the version.
    pub version: String,
    /// Its inode.
    pub inode: u64,
    /// Its modification time, in nanoseconds since the epoch.
    pub mtime: i64,
}

/// What lies in the folder.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files that may be shards, by their path below the folder, in byte order.
    pub files: BTreeMap<String, FileFacts>,
    /// Files that have a marker beside them that says they are ready.
    pub ready: BTreeSet<String>,
    /// Cut markers, in byte order of their names.
    pub markers: Vec<Marker>,
    /// What is not looked at, and why: links that lead out, pipes, sockets, devices, names that are no text.
    pub refused: BTreeMap<String, String>,
}

/// Looks through the watched folder.
///
/// # Errors
/// The folder itself cannot be read.
pub fn scan(root: &Path) -> std::io::Result<Scan> {
    std::fs::read_dir(root)?;
    let mut scan = Scan::default();
    let walk = WalkDir::new(root).min_depth(1).max_depth(DEEPEST).follow_links(false);
    let visible =
        walk.into_iter().filter_entry(|entry| entry.depth() == 0 || !is_left_alone(entry.file_name()));
    for entry in visible {
        match entry {
            Ok(entry) => scan.take(root, &entry),
            Err(error) => scan.refuse(root, error.path().unwrap_or(root), &error.to_string()),
        }
    }
    let files = &scan.files;
    scan.ready.retain(|name| files.contains_key(name));
    Ok(scan)
}

impl Scan {
    fn take(&mut self, root: &Path, entry: &walkdir::DirEntry) {
        let path = entry.path();
        let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else {
            return self.refuse(root, path, "its name is not UTF-8: rename it");
        };
        let kind = entry.file_type();
        if kind.is_dir() {
            return;
        }
        if kind.is_symlink() && !leads_inside(root, path) {
            return self.refuse(
                root,
                path,
                "it is a symbolic link that leads out of the folder: put the file here",
            );
        }
        // What vanished since it was listed is no longer there; the next scan knows.
        let Ok(metadata) = std::fs::metadata(path) else { return };
        if metadata.is_dir() {
            return;
        }
        if !metadata.is_file() {
            return self.refuse(root, path, "it is a pipe, a socket or a device, and no file");
        }
        let mtime = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        let facts = FileFacts { bytes: metadata.len(), inode: metadata.ino(), mtime };
        if let Some(version) = version_of_marker(path) {
            self.markers.push(Marker { file: name.to_owned(), version, inode: facts.inode, mtime });
            self.markers.sort_by(|a, b| a.file.cmp(&b.file));
        } else if let Some(ready) = [".ready", ".done"].iter().find_map(|suffix| name.strip_suffix(suffix)) {
            self.ready.insert(ready.to_owned());
        } else {
            self.files.insert(name.to_owned(), facts);
        }
    }

    fn refuse(&mut self, root: &Path, path: &Path, why: &str) {
        let name = path.strip_prefix(root).unwrap_or(path);
        self.refused.insert(name.to_string_lossy().into_owned(), why.to_owned());
    }
}

/// The facts of a file now; none where it is gone.
pub fn facts(path: &Path) -> Option<FileFacts> {
    let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let mtime = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    Some(FileFacts { bytes: metadata.len(), inode: metadata.ino(), mtime })
}

fn version_of_marker(path: &Path) -> Option<String> {
    (path.extension()? == "cut").then(|| path.file_stem()?.to_str().map(str::to_owned))?
}

/// Hidden and temporary names belong to somebody who is not done.
fn is_left_alone(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || [".tmp", ".part", ".crdownload"].iter().any(|suffix| name.ends_with(suffix))
}

fn leads_inside(root: &Path, link: &Path) -> bool {
    let (Ok(root), Ok(target)) = (root.canonicalize(), link.canonicalize()) else { return false };
    target.starts_with(root)
}

/// The hints of the kernel, as long as there are any.
pub struct Watcher {
    watcher: Option<RecommendedWatcher>,
    root: PathBuf,
    inode: Option<u64>,
}

impl Watcher {
    /// Watches a folder; where the kernel does not, the timer of the scans has to do.
    pub fn new(root: &Path, messages: &Sender<Message>) -> Self {
        let mut watcher = Self { watcher: None, root: root.to_owned(), inode: None };
        watcher.watch(messages);
        watcher
    }

    /// Watches again where the folder is not the one that was watched.
    pub fn renew(&mut self, messages: &Sender<Message>) {
        if self.inode.is_some() && self.inode != inode_of(&self.root) {
            tracing::warn!(folder = %self.root.display(), "the watched folder is another one than before: watching it anew");
            self.watch(messages);
        }
    }

    fn watch(&mut self, messages: &Sender<Message>) {
        self.inode = inode_of(&self.root);
        let sender = messages.clone();
        let tell = move |event: notify::Result<notify::Event>| {
            for hint in hints(event) {
                // Whoever does not listen any more needs no hints.
                let _ = sender.send(Message::Hint(hint));
            }
        };
        let watched = notify::recommended_watcher(tell)
            .and_then(|mut watcher| watcher.watch(&self.root, RecursiveMode::Recursive).map(|()| watcher));
        match watched {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                tracing::warn!(%error, folder = %self.root.display(), "the folder cannot be watched: it is scanned by the clock");
                self.watcher = None;
            }
        }
    }

    /// Whether the kernel gives hints.
    pub fn is_live(&self) -> bool {
        self.watcher.is_some()
    }
}

fn inode_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

fn hints(event: notify::Result<notify::Event>) -> Vec<Hint> {
    match event {
        Ok(event) => match event.kind {
            EventKind::Access(notify::event::AccessKind::Open(_) | notify::event::AccessKind::Read) => {
                Vec::new()
            }
            EventKind::Access(notify::event::AccessKind::Close(notify::event::AccessMode::Read)) => {
                Vec::new()
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
                event.paths.last().cloned().map(Hint::MovedIn).into_iter().collect()
            }
            // A queue that ran over comes as an event without paths: it, too, says no more than to look.
            _ => vec![Hint::Look],
        },
        Err(error) => {
            tracing::warn!(%error, "the watched folder's events failed: looking");
            vec![Hint::Look]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, name: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }

    #[test]
    fn a_scan_finds_files_in_byte_order_and_leaves_unfinished_names_alone() {
        let root = tempfile::tempdir().unwrap();
        for name in
            ["b.txt", "a.txt", "deep/er/c.txt", ".hidden", "x.tmp", "y.part", "z.crdownload", ".d/e.txt"]
        {
            put(root.path(), name);
        }
        let scan = scan(root.path()).unwrap();
        let names: Vec<&str> = scan.files.keys().map(String::as_str).collect();
        assert_eq!(names, ["a.txt", "b.txt", "deep/er/c.txt"]);
        assert!(scan.refused.is_empty());
    }

    #[test]
    fn markers_are_no_shards() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a.txt", "a.txt.ready", "gone.txt.done", "january.cut"] {
            put(root.path(), name);
        }
        let scan = scan(root.path()).unwrap();
        assert_eq!(scan.files.len(), 1);
        assert!(scan.ready.iter().eq(["a.txt"]));
        assert_eq!(scan.markers[0].version, "january");
    }

    #[test]
    fn links_that_lead_out_and_pipes_are_refused_with_words() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        put(outside.path(), "secret.txt");
        put(root.path(), "own.txt");
        std::os::unix::fs::symlink(outside.path().join("secret.txt"), root.path().join("out.txt")).unwrap();
        std::os::unix::fs::symlink(root.path().join("own.txt"), root.path().join("in.txt")).unwrap();
        let pipe = root.path().join("pipe.txt");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let scan = scan(root.path()).unwrap();
        assert!(scan.files.keys().eq(["in.txt", "own.txt"]));
        assert!(scan.refused["out.txt"].contains("leads out"));
        assert!(scan.refused["pipe.txt"].contains("pipe"));
    }

    #[test]
    fn a_file_that_is_renamed_into_place_is_announced() {
        let root = tempfile::tempdir().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let watcher = Watcher::new(root.path(), &sender);
        assert!(watcher.is_live());
        put(root.path(), ".a.tmp");
        std::fs::rename(root.path().join(".a.tmp"), root.path().join("a.txt")).unwrap();
        let deadline = std::time::Duration::from_secs(10);
        let announced = std::iter::from_fn(|| receiver.recv_timeout(deadline).ok())
            .any(|message| matches!(message, Message::Hint(Hint::MovedIn(path)) if path.ends_with("a.txt")));
        assert!(announced);
    }

    #[test]
    fn a_folder_that_was_made_anew_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("data");
        std::fs::create_dir(&root).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut watcher = Watcher::new(&root, &sender);
        std::fs::rename(&root, parent.path().join("old")).unwrap();
        std::fs::create_dir(&root).unwrap();
        watcher.renew(&sender);
        while receiver.try_recv().is_ok() {}
        put(&root, "new.txt");
        assert!(receiver.recv_timeout(std::time::Duration::from_secs(10)).is_ok());
    }
}
