//! Our own copies: of text that waits for a tokenizer, and of tokens.
//!
//! Both are named by the digest of the shard, so what lies there can be told from what should lie there. A copy of a
//! text is kept only until it is tokenised.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use artifacts::Digest;
use artifacts::storage::{self, Disk, Kind, Storage};

use super::{is_shortage, scan};
use crate::ledger::transition::FileFacts;
use crate::outlook::SPARE;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Why a file was not read to its end, without a fault of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It is another file than before, or gone.
    Changed,
    /// The system does not let the file itself be read, or moved.
    Unreadable(String),
    /// The daemon lacks something of its own: room, permissions in its folders, files that it may open. Any other file
    /// fares the same.
    Trouble(String),
    /// There is no child to read it.
    NoReader(String),
    /// The daemon stops.
    Stopped,
}

/// Where the copy of a text lies: its extension is that of the shard's name.
pub fn path_of(sources: &Path, digest: &Digest, name: &str) -> PathBuf {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or("txt");
    sources.join(format!("{digest}.{extension}"))
}

/// Opens a file that was found; a pipe that took its place is not waited for.
fn open(path: &Path) -> Result<File, Obstacle> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(|error| trouble(path, &error))
}

fn trouble(path: &Path, error: &io::Error) -> Obstacle {
    match error.kind() {
        io::ErrorKind::NotFound => Obstacle::Changed,
        io::ErrorKind::PermissionDenied => Obstacle::Unreadable(format!(
            "`{}` cannot be read: {error}. Let the daemon's user read it, or take it out of the folder",
            path.display()
        )),
        _ if is_shortage(error) => Obstacle::Trouble(format!("`{}` cannot be read: {error}", path.display())),
        _ => Obstacle::Unreadable(format!("`{}` cannot be read: {error}", path.display())),
    }
}

/// Reads a file to its end, in pieces.
fn read(
    path: &Path,
    stop: &AtomicBool,
    mut take: impl FnMut(&[u8]) -> Result<(), Obstacle>,
) -> Result<(), Obstacle> {
    let mut file = open(path)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Obstacle::Stopped);
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&chunk[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(trouble(path, &error)),
        }
    }
}

/// The digest of a file that must still be the one that was found, as it is while it is read; computed on all cores.
pub fn digest_of(path: &Path, facts: &FileFacts, stop: &AtomicBool) -> Result<Digest, Obstacle> {
    let opened = open(path)?;
    let metadata = opened.metadata().map_err(|error| trouble(path, &error))?;
    if !metadata.is_file() || scan::facts(&metadata) != *facts {
        return Err(Obstacle::Changed);
    }
    // What somebody appends meanwhile is not read: whoever asked looks again afterwards.
    Digest::on_all_cores(facts.bytes, |from, buffer| {
        if stop.load(Ordering::Relaxed) {
            return Err(Obstacle::Stopped);
        }
        opened.read_exact_at(buffer, from).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Obstacle::Changed,
            _ => trouble(path, &error),
        })
    })
}

/// Makes a durable copy of a text, if its bytes are what they were said to be.
pub fn keep(sources: &Path, name: &str, path: &Path, digest: Digest) -> Result<(), Obstacle> {
    let kept = path_of(sources, &digest, name);
    let trouble = |error: storage::Error| Obstacle::Trouble(error.to_string());
    if Disk.kind(&kept).map_err(trouble)?.is_some() {
        // The copy of an attempt that was not accepted; under its final name it is whole.
        return Ok(());
    }
    let temporary = sources.join(format!("{}{digest}", storage::TEMPORARY));
    match Disk.remove_file(&temporary) {
        Err(error) if !error.is_missing() => return Err(trouble(error)),
        _ => {}
    }
    let bytes = path.metadata().map_or(0, |metadata| metadata.len());
    storage::room_for(sources, bytes.saturating_add(SPARE)).map_err(trouble)?;
    let copied = copy(path, &temporary, digest).and_then(|()| {
        Disk.rename(&temporary, &kept).and_then(|()| Disk.sync_folder(sources)).map_err(trouble)
    });
    if copied.is_err() {
        // What stays behind has a temporary name, and is swept at the next start.
        let _ = Disk.remove_file(&temporary);
    }
    copied
}

fn copy(path: &Path, temporary: &Path, digest: Digest) -> Result<(), Obstacle> {
    let trouble = |error: storage::Error| Obstacle::Trouble(error.to_string());
    let mut output = storage::Output::create(&Disk, temporary).map_err(trouble)?;
    read(path, &AtomicBool::new(false), |chunk| output.write(chunk).map_err(trouble))?;
    match output.finish().map_err(trouble)?.digest == digest {
        true => Ok(()),
        false => Err(Obstacle::Changed),
    }
}

/// Removes what lies in a folder of copies or of tokens, under the digest of a shard for which `keeps` says no, and what
/// has a temporary name. Only said in the log where it fails: it costs room, nothing else.
pub fn sweep(folder: &Path, keeps: impl Fn(Digest) -> bool) {
    let entries = match Disk.list(folder) {
        Ok(entries) => entries,
        Err(error) => return tracing::warn!(%error, "left-overs cannot be looked for"),
    };
    for entry in entries {
        let name = entry.name.to_string_lossy();
        let digest = name.split('.').next().unwrap_or_default().parse();
        if !digest.is_ok_and(|digest| !keeps(digest)) {
            continue;
        }
        let path = folder.join(&entry.name);
        let removed = match entry.kind {
            Kind::Folder => artifacts::manifest::delete(&Disk, &path),
            Kind::File | Kind::Other => Disk.remove_file(&path),
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "a left-over stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_kept_only_of_the_bytes_that_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let sources = folder.path().join("sources");
        fs::create_dir(&sources).unwrap();
        let path = folder.path().join("a.md");
        fs::write(&path, "text").unwrap();
        keep(&sources, "a.md", &path, Digest::of(b"text")).unwrap();
        assert_eq!(fs::read(path_of(&sources, &Digest::of(b"text"), "a.md")).unwrap(), b"text");
        assert_eq!(keep(&sources, "a.md", &path, Digest::of(b"other")), Err(Obstacle::Changed));
        assert_eq!(fs::read_dir(&sources).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_another_one_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "text").unwrap();
        let stop = AtomicBool::new(false);
        let facts = scan::facts(&fs::metadata(&path).unwrap());
        assert_eq!(digest_of(&path, &facts, &stop), Ok(Digest::of(b"text")));
        let smaller = FileFacts { bytes: 3, ..facts };
        assert_eq!(digest_of(&path, &smaller, &stop), Err(Obstacle::Changed));
        fs::remove_file(&path).unwrap();
        assert_eq!(digest_of(&path, &facts, &stop), Err(Obstacle::Changed));
    }

    #[test]
    fn only_what_no_shard_needs_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, lost) = (Digest::of(b"kept"), Digest::of(b"lost"));
        for name in [format!("{kept}.txt"), format!("{lost}.txt"), "notes".to_owned()] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join(lost.to_string())).unwrap();
        sweep(folder.path(), |digest| digest == kept);
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        let expected = ["notes".to_owned(), format!("{kept}.txt")];
        assert!(
            names.iter().all(|name| expected.contains(&name.to_string_lossy().into_owned()))
                && names.len() == 2
        );
    }

    #[test]
    fn what_is_missing_beside_the_file_is_no_fault_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "text").unwrap();
        let kept = keep(&folder.path().join("sources"), "a.txt", &path, Digest::of(b"text"));
        assert!(matches!(&kept, Err(Obstacle::Trouble(why)) if why.contains("sources")), "{kept:?}");
        let obstacle = |errno: rustix::io::Errno| trouble(&path, &errno.into());
        use rustix::io::Errno;
        for shortage in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::DQUOT] {
            assert!(matches!(obstacle(shortage), Obstacle::Trouble(_)), "{shortage}");
        }
        for own in [Errno::ACCESS, Errno::PERM, Errno::IO, Errno::LOOP] {
            assert!(matches!(obstacle(own), Obstacle::Unreadable(_)), "{own}");
        }
        assert_eq!(obstacle(Errno::NOENT), Obstacle::Changed);
    }
}
