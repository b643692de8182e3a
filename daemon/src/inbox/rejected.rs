//! Where refused shards go.
//!
//! A refused file is moved out of the watched folder, so that a mended one can be dropped under its name, and the reason
//! lies beside it. Nothing is ever overwritten. The reason is written first and names the digest: should the daemon die
//! between the move and the journal, the next one finds out what became of the file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::storage::{self, Disk, Storage};

use super::is_shortage;
use super::scan::{self, Found, Seen};

/// End of the name of the file that says why.
const REASON: &str = ".reason";
/// Most files of one name.
const MOST: u32 = 1_000_000;
/// Longest file with a reason that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Why a refused file stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum Stays {
    /// It is another file by now.
    #[error("it has changed")]
    Changed,
    /// The system does not let it be taken away from where it is.
    #[error("it could not be moved to `rejected/`: {0}")]
    Stuck(storage::Error),
    /// There is no room for it in `rejected/`, or that folder cannot be written.
    #[error("it could not be moved to `rejected/`: {0}")]
    Trouble(#[from] storage::Error),
}

/// Moves a file to `rejected/`, with the reason beside it.
///
/// # Errors
/// It changed, or cannot be moved; it is where it was then.
pub fn reject(
    root: &Path,
    rejected: &Path,
    subject: &Found,
    digest: Digest,
    reason: &str,
) -> Result<PathBuf, Stays> {
    let from = root.join(&subject.name);
    let (to, note) = reserve(rejected, &subject.name, digest, subject.facts.bytes, reason)?;
    let moved = match scan::look(root, &from) {
        // That `rejected/` can be written was just seen.
        Seen::File(facts) if facts == subject.facts => {
            carry(&from, &to).map_err(|error| match is_shortage(&error.cause) {
                true => Stays::Trouble(error),
                false => Stays::Stuck(error),
            })
        }
        _ => Err(Stays::Changed),
    };
    if let Err(error) = moved {
        // Without the file the note speaks of nothing.
        Disk.remove_file(&note)?;
        return Err(error);
    }
    Disk.sync_folder(rejected)?;
    Disk.sync_folder(storage::parent(&from))?;
    Ok(to)
}

/// Writes the reason under the first name that is free, which is then the file's too.
fn reserve(
    rejected: &Path,
    name: &str,
    digest: Digest,
    bytes: u64,
    reason: &str,
) -> Result<(PathBuf, PathBuf), storage::Error> {
    let flat = name.replace('/', "_");
    let (stem, extension) = match flat.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => (stem, format!(".{extension}")),
        _ => (flat.as_str(), String::new()),
    };
    let text = format!("{reason}\n\nfile: {name}\nbytes: {bytes}\nblake3: {digest}\n");
    for attempt in 1..=MOST {
        let free = match attempt {
            1 => flat.clone(),
            _ => format!("{stem}.{attempt}{extension}"),
        };
        let to = rejected.join(&free);
        let note = rejected.join(format!("{free}{REASON}"));
        if Disk.kind(&to)?.is_some() {
            continue;
        }
        match Disk.create(&note) {
            Ok(mut file) => {
                file.append(text.as_bytes())?;
                file.sync_data()?;
                return Ok((to, note));
            }
            Err(error) if error.is_taken() => {}
            Err(error) => return Err(error),
        }
    }
    let full = io::Error::new(io::ErrorKind::AlreadyExists, "there are too many files of this name");
    Err(storage::Error::at("reject", &rejected.join(flat))(full))
}

/// Renames, or copies where the folders lie on different file systems.
fn carry(from: &Path, to: &Path) -> Result<(), storage::Error> {
    match Disk.rename(from, to) {
        Err(error) if error.cause.kind() == io::ErrorKind::CrossesDevices => {
            fs::copy(from, to).map_err(storage::Error::at("copy to", to))?;
            Disk.sync_file(to)?;
            Disk.remove_file(from)
        }
        other => other,
    }
}

/// What a note in `rejected/` says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The name that it was refused under.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Why it was refused.
    pub reason: String,
}

/// The notes in `rejected/`, by the digest of the file that each is about.
pub fn notes(rejected: &Path) -> Result<BTreeMap<Digest, Note>, storage::Error> {
    let mut notes = BTreeMap::new();
    for entry in Disk.list(rejected)? {
        let name = entry.name.to_string_lossy();
        let Some(file) = name.strip_suffix(REASON) else { continue };
        if Disk.kind(&rejected.join(file))?.is_none() {
            continue;
        }
        let text = String::from_utf8_lossy(&Disk.read(&rejected.join(&entry.name), LONGEST)?).into_owned();
        let line = |key: &str| text.lines().rev().find_map(|line| line.strip_prefix(key));
        let digest = line("blake3: ").and_then(|digest| digest.parse().ok());
        let bytes = line("bytes: ").and_then(|bytes| bytes.parse().ok());
        let name = line("file: ").map(str::to_owned);
        let reason = text.split_once("\n\nfile: ").map(|(reason, _)| reason.to_owned());
        if let (Some(digest), Some(name), Some(bytes), Some(reason)) = (digest, name, bytes, reason) {
            notes.insert(digest, Note { name, bytes, reason });
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::inbox::tests::without_privileges;

    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (data, rejected) = (root.join("data"), root.join("rejected"));
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::create_dir(&rejected).unwrap();
        (folder, data, rejected)
    }

    fn drop_file(data: &Path, name: &str, text: &str) -> Found {
        fs::write(data.join(name), text).unwrap();
        Found { name: name.to_owned(), facts: scan::facts(&fs::metadata(data.join(name)).unwrap()) }
    }

    #[test]
    fn nothing_is_overwritten_and_each_has_its_reason() {
        let (_folder, data, rejected) = folders();
        for (round, expected) in ["sub_a.txt", "sub_a.2.txt", "sub_a.3.txt"].into_iter().enumerate() {
            let text = format!("round {round}");
            let subject = drop_file(&data, "sub/a.txt", &text);
            let to = reject(&data, &rejected, &subject, Digest::of(text.as_bytes()), &text).unwrap();
            assert_eq!(to, rejected.join(expected));
            assert_eq!(fs::read_to_string(&to).unwrap(), text);
            let note = fs::read_to_string(rejected.join(format!("{expected}.reason"))).unwrap();
            assert!(note.starts_with(&format!("{text}\n")), "{note}");
            assert!(!data.join("sub/a.txt").exists());
        }
        let notes = notes(&rejected).unwrap();
        assert_eq!(notes.len(), 3);
        let expected = Note { name: "sub/a.txt".to_owned(), bytes: 7, reason: "round 1".to_owned() };
        assert_eq!(notes[&Digest::of(b"round 1")], expected);
    }

    #[test]
    fn a_file_that_changed_is_not_moved() {
        let (_folder, data, rejected) = folders();
        let subject = drop_file(&data, "a.txt", "text");
        fs::write(data.join("a.txt"), "longer text").unwrap();
        let stays = reject(&data, &rejected, &subject, Digest::of(b"text"), "why").unwrap_err();
        assert!(matches!(stays, Stays::Changed));
        assert!(data.join("a.txt").exists());
        assert_eq!(fs::read_dir(&rejected).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_stuck_only_where_its_own_folder_is_in_the_way() {
        let (_folder, data, rejected) = folders();
        let subject = drop_file(&data, "sub/a.txt", "text");
        let away = || reject(&data, &rejected, &subject, Digest::of(b"text"), "why").unwrap_err();
        let close =
            |folder: &Path, mode| fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
        std::thread::scope(|scope| {
            let tried = scope.spawn(|| {
                without_privileges();
                close(&data.join("sub"), 0o500);
                let stuck = away();
                close(&data.join("sub"), 0o700);
                close(&rejected, 0o500);
                let trouble = away();
                close(&rejected, 0o700);
                (stuck, trouble)
            });
            let (stuck, trouble) = tried.join().unwrap();
            assert!(matches!(stuck, Stays::Stuck(_)), "{stuck}");
            assert!(matches!(trouble, Stays::Trouble(_)), "{trouble}");
        });
        assert_eq!(fs::read_dir(&rejected).unwrap().count(), 0);
        reject(&data, &rejected, &subject, Digest::of(b"text"), "why").unwrap();
    }
}
