//! What lies in the watched folder.
//!
//! Events are hints; a scan is the truth. A name alone says whether a file is a shard, a marker, or somebody's unfinished
//! work; then its kind decides: regular files are taken, links only where they stay inside the folder, and anything that
//! could block a reader or lead it elsewhere is refused and left where it is.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::ledger::transition::FileFacts;

/// Ends of names that are written under until they are complete.
const TEMPORARY: &[&str] = &[".tmp", ".part", ".crdownload"];
/// Ends of names that say of another file that it is complete.
const MARKERS: &[&str] = &[".ready", ".done"];
/// End of a name that asks for a cut.
const CUT: &str = ".cut";

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<'n> {
    /// A shard.
    Shard,
    /// A word that the file of this name is complete.
    Marker(&'n str),
    /// A request for a cut that gives the version this name.
    Cut(&'n str),
    /// Somebody's unfinished or private work.
    LeftAlone,
}

/// What a name below the watched folder stands for.
pub fn named(name: &str) -> Named<'_> {
    let is_private = |part: &str| part.starts_with('.') || TEMPORARY.iter().any(|end| part.ends_with(end));
    if name.split('/').any(is_private) {
        return Named::LeftAlone;
    }
    if let Some(of) = MARKERS.iter().find_map(|end| name.strip_suffix(end)) {
        return Named::Marker(of);
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    file.strip_suffix(CUT).map_or(Named::Shard, Named::Cut)
}

/// A file that may be a shard, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Path below the watched folder.
    pub name: String,
    /// Size, inode and modification time.
    pub facts: FileFacts,
}

/// A file that asks for a cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutMarker {
    /// Path below the watched folder.
    pub file: String,
    /// The version's name.
    pub name: String,
    /// The file's inode and modification time.
    pub facts: FileFacts,
}

/// What a scan has found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files that may be shards and are not settled, in byte order of their names.
    pub files: Vec<Found>,
    /// Modification times of markers, by the name of the file that each speaks of.
    pub markers: HashMap<String, i64>,
    /// Requests for cuts, in byte order of their names.
    pub cuts: Vec<CutMarker>,
    /// What is not taken, and why.
    pub refused: Vec<(String, String)>,
    /// What could not be looked at: files may be missing from the lists above.
    pub unseen: Vec<String>,
}

/// What one path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A regular file, or a link to one inside the folder.
    File(FileFacts),
    /// A folder.
    Folder,
    /// Nothing.
    Gone,
    /// Something that is never read.
    Refused(String),
    /// The system would not say.
    Unseen(String),
}

/// Looks at a path below the watched folder, whose own path is given without links in it.
pub fn look(root: &Path, path: &Path) -> Seen {
    match fs::symlink_metadata(path) {
        Ok(metadata) => classify(root, path, &metadata),
        Err(error) => unseen(path, &error),
    }
}

fn unseen(path: &Path, error: &io::Error) -> Seen {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Seen::Gone,
        _ => Seen::Unseen(format!("`{}` cannot be looked at: {error}", path.display())),
    }
}

fn classify(root: &Path, path: &Path, metadata: &Metadata) -> Seen {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return through_link(root, path);
    }
    if kind.is_dir() {
        return Seen::Folder;
    }
    if kind.is_file() {
        return Seen::File(facts(metadata));
    }
    let what = match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Seen::Refused(format!("it is {what}, and only regular files are taken"))
}

fn through_link(root: &Path, path: &Path) -> Seen {
    let (target, metadata) =
        match fs::canonicalize(path).and_then(|target| Ok((fs::metadata(&target)?, target))) {
            Ok((metadata, target)) => (target, metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Seen::Refused("it is a symbolic link to nothing".to_owned());
            }
            Err(error) => return Seen::Refused(format!("it is a symbolic link that leads nowhere: {error}")),
        };
    if !target.starts_with(root) {
        return Seen::Refused("it is a symbolic link that leaves the watched folder".to_owned());
    }
    if metadata.is_file() {
        return Seen::File(facts(&metadata));
    }
    Seen::Refused("it is a symbolic link to something else than a file".to_owned())
}

/// By what a file is known again.
pub fn facts(metadata: &Metadata) -> FileFacts {
    let nanoseconds = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    FileFacts { bytes: metadata.len(), inode: metadata.ino(), mtime: nanoseconds }
}

/// The name of a path below the watched folder, if it is one and is UTF-8.
pub fn name_of<'p>(root: &Path, path: &'p Path) -> Option<&'p str> {
    path.strip_prefix(root).ok()?.to_str().filter(|name| !name.is_empty())
}

/// Scans the watched folder, whose path is given without links in it. `enter` is called for every folder before its
/// names are read: a watch that is set there misses nothing. `is_settled` is asked of every file that may be a shard, and
/// those that are need no place in memory: there may be those of years.
///
/// # Errors
/// The folder itself cannot be read.
pub fn scan(
    root: &Path,
    mut enter: impl FnMut(&Path, &Metadata),
    mut is_settled: impl FnMut(&str, &FileFacts) -> bool,
) -> io::Result<Scan> {
    let metadata = fs::metadata(root)?;
    if !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder"));
    }
    let mut scan = Scan::default();
    let mut entries = WalkDir::new(root).into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                if error.depth() == 0 {
                    return Err(error.into());
                }
                if error.io_error().is_none_or(|cause| cause.kind() != io::ErrorKind::NotFound) {
                    scan.unseen.push(error.to_string());
                }
                continue;
            }
        };
        if entry.depth() == 0 {
            enter(entry.path(), &metadata);
            continue;
        }
        let Some(name) = name_of(root, entry.path()).map(str::to_owned) else {
            scan.refused.push((entry.path().display().to_string(), "its name is not UTF-8".to_owned()));
            if entry.file_type().is_dir() {
                entries.skip_current_dir();
            }
            continue;
        };
        if named(&name) == Named::LeftAlone {
            if entry.file_type().is_dir() {
                entries.skip_current_dir();
            }
            continue;
        }
        let found = match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                enter(entry.path(), &metadata);
                continue;
            }
            Ok(metadata) => classify(root, entry.path(), &metadata),
            Err(error) => match error.io_error() {
                Some(cause) => unseen(entry.path(), cause),
                None => Seen::Unseen(error.to_string()),
            },
        };
        scan.add(name, found, &mut is_settled);
    }
    scan.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    scan.cuts.sort_unstable_by(|a, b| a.file.cmp(&b.file));
    Ok(scan)
}

impl Scan {
    fn add(&mut self, name: String, seen: Seen, is_settled: &mut impl FnMut(&str, &FileFacts) -> bool) {
        let facts = match seen {
            Seen::File(facts) => facts,
            Seen::Folder | Seen::Gone => return,
            Seen::Refused(why) => return self.refused.push((name, why)),
            Seen::Unseen(why) => return self.unseen.push(why),
        };
        match named(&name) {
            Named::Shard if is_settled(&name, &facts) => {}
            Named::Shard => self.files.push(Found { name, facts }),
            Named::Marker(of) => _ = self.markers.insert(of.to_owned(), facts.mtime),
            Named::Cut(version) => {
                let version = version.to_owned();
                self.cuts.push(CutMarker { file: name, name: version, facts });
            }
            Named::LeftAlone => {}
        }
    }

    /// Whether a marker says that a file is complete. One that is older than the file speaks of an earlier one.
    pub fn is_marked(&self, file: &Found) -> bool {
        self.markers.get(&file.name).is_some_and(|mtime| *mtime >= file.facts.mtime)
    }
}

/// Whether a marker beside a file says that it is complete.
pub fn is_marked(path: &Path, facts: &FileFacts) -> bool {
    MARKERS.iter().any(|end| {
        let mut marker = path.as_os_str().to_owned();
        marker.push(end);
        let found = fs::symlink_metadata(PathBuf::from(marker));
        found.is_ok_and(|marker| marker.is_file() && self::facts(&marker).mtime >= facts.mtime)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("data");
        fs::create_dir(&root).unwrap();
        (folder, root)
    }

    fn files(scan: &Scan) -> Vec<&str> {
        scan.files.iter().map(|found| found.name.as_str()).collect()
    }

    #[test]
    fn hidden_and_temporary_names_are_left_alone() {
        for name in [".x", "a/.x", ".git/x.txt", "x.txt.tmp", "x.part", "x.crdownload", "x.part/a.txt"] {
            assert_eq!(named(name), Named::LeftAlone, "{name}");
        }
        for name in ["x", "x.txt", "a/b.jsonl", "part", "tmp", "x.tmp.txt", "ready"] {
            assert_eq!(named(name), Named::Shard, "{name}");
        }
        assert_eq!(named("a/x.txt.ready"), Named::Marker("a/x.txt"));
        assert_eq!(named("x.done"), Named::Marker("x"));
        assert_eq!(named("a/june.cut"), Named::Cut("june"));
    }

    #[test]
    fn a_scan_goes_into_folders_and_sorts_by_the_bytes_of_the_whole_name() {
        let (_folder, root) = folder();
        for name in ["b/c/d.txt", "b.txt", "b/a.txt", ".hidden/x.txt", "a.part"] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), name).unwrap();
        }
        let mut entered = Vec::new();
        let scan = scan(&root, |path, _| entered.push(path.to_owned()), |_, _| false).unwrap();
        assert_eq!(files(&scan), ["b.txt", "b/a.txt", "b/c/d.txt"]);
        entered.sort();
        assert_eq!(entered, [root.clone(), root.join("b"), root.join("b/c")]);
        assert_eq!(scan.files[0].facts.bytes, 5);
    }

    #[test]
    fn what_is_no_regular_file_inside_the_folder_is_refused() {
        let (folder, root) = folder();
        let outside = folder.path().join("outside.txt");
        fs::write(&outside, "secret").unwrap();
        fs::write(root.join("inside.txt"), "text").unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        symlink(&outside, root.join("leaves.txt")).unwrap();
        symlink("../../outside.txt", root.join("sub/leaves.txt")).unwrap();
        symlink("inside.txt", root.join("stays.txt")).unwrap();
        symlink("nothing", root.join("dangles.txt")).unwrap();
        symlink("sub", root.join("folder")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let _socket = UnixListener::bind(root.join("socket")).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(root.join("pipe.txt")).status().unwrap();
        assert!(pipe.success());
        let scan = scan(&root, |_, _| {}, |_, _| false).unwrap();
        assert_eq!(files(&scan), ["inside.txt", "stays.txt"]);
        let mut refused: Vec<&str> = scan.refused.iter().map(|(name, _)| name.as_str()).collect();
        refused.sort_unstable();
        let expected =
            ["dangles.txt", "folder", "leaves.txt", "loop", "pipe.txt", "socket", "sub/leaves.txt"];
        assert_eq!(refused, expected);
    }

    #[test]
    fn a_marker_that_is_older_than_its_file_says_nothing() {
        let (_folder, root) = folder();
        fs::write(root.join("a.txt"), "text").unwrap();
        fs::write(root.join("a.txt.ready"), "").unwrap();
        let found = scan(&root, |_, _| {}, |_, _| false).unwrap();
        assert!(found.is_marked(&found.files[0]));
        assert!(is_marked(&root.join("a.txt"), &found.files[0].facts));
        let mut newer = found.files[0].clone();
        newer.facts.mtime = i64::MAX;
        assert!(!found.is_marked(&newer));
        assert!(!is_marked(&root.join("a.txt"), &newer.facts));
    }

    #[test]
    fn what_is_settled_takes_no_place_and_only_shards_are_asked_about() {
        let (_folder, root) = folder();
        for name in ["new.txt", "old.txt", "old.txt.ready", "v1.cut"] {
            fs::write(root.join(name), "text").unwrap();
        }
        let mut asked = Vec::new();
        let is_settled = |name: &str, _: &FileFacts| {
            asked.push(name.to_owned());
            name == "old.txt"
        };
        let found = scan(&root, |_, _| {}, is_settled).unwrap();
        assert_eq!(files(&found), ["new.txt"]);
        assert_eq!((found.markers.len(), found.cuts.len()), (1, 1));
        asked.sort_unstable();
        assert_eq!(asked, ["new.txt", "old.txt"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let (_folder, root) = folder();
        assert!(scan(&root.join("nothing"), |_, _| {}, |_, _| false).is_err());
        fs::write(root.join("file"), "").unwrap();
        assert!(scan(&root.join("file"), |_, _| {}, |_, _| false).is_err());
    }
}
