//! Durable writing.
//!
//! A program that is killed leaves what the kernel has; a power cut leaves what was synced, and the two differ: bytes,
//! names and renames each need a sync of their own. All that must survive is written through the trait [`Storage`], so
//! that tests can put a disk behind it that forgets, at any moment, whatever it was allowed to forget
//! (`crash::CrashDisk`), and read what is left.
//!
//! Nothing half-written stands under its final name: [`replace`] and [`publish_folder`] write under a temporary name in
//! the same folder first. Temporary names start with [`TEMPORARY`], and every scan passes over them.

#[cfg(any(test, feature = "crash"))]
pub mod crash;
mod disk;
mod hindrance;
mod output;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

pub use disk::Disk;
pub use hindrance::{Hindrance, free_bytes, may_write, room_for};
pub use output::{Output, Written};

/// How temporary names start.
pub const TEMPORARY: &str = ".tmp-";

/// Most temporary names tried beside one final name; more left-overs than this point at a fault.
const TEMPORARY_NAMES: u32 = 10_000;

/// What could not be done, to which path, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`: {cause}", path.display())]
pub struct Error {
    /// What was tried, as it follows "cannot".
    pub doing: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

impl Error {
    /// The error of doing something to a path; for `map_err`.
    pub fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self { doing, path, cause }
    }

    /// What keeps it from being done, where that passes when the machine is mended.
    pub fn hindrance(&self) -> Option<Hindrance> {
        Hindrance::of(&self.cause)
    }

    /// Whether there is no room: the disk or the quota is full.
    pub fn is_full(&self) -> bool {
        self.hindrance() == Some(Hindrance::Full)
    }

    /// Whether the path is not there.
    pub fn is_missing(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }

    /// Whether something is already there.
    pub fn is_taken(&self) -> bool {
        matches!(self.cause.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
    }
}

/// What a storage call gives.
pub type Result<T> = std::result::Result<T, Error>;

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, a socket, a device.
    Other,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without its folder.
    pub name: OsString,
    /// What it stands for; links are not followed.
    pub kind: Kind,
}

/// Where durable things are written.
///
/// Nothing is promised to survive a power cut before its sync: a file's bytes before [`File::sync_data`] or
/// [`Storage::sync_file`], a name's appearing, changing or going before [`Storage::sync_folder`].
pub trait Storage: Send + Sync {
    /// Makes a new, empty file; an error if anything has its name.
    fn create(&self, path: &Path) -> Result<Box<dyn File>>;
    /// Opens a file that is there, to write at its end.
    fn append(&self, path: &Path) -> Result<Box<dyn File>>;
    /// All bytes of a file; an error if there are more than `longest`.
    fn read(&self, path: &Path, longest: u64) -> Result<Vec<u8>>;
    /// The names in a folder, in byte order.
    fn list(&self, folder: &Path) -> Result<Vec<Entry>>;
    /// What is at a path, links not followed; `None` if nothing.
    fn kind(&self, path: &Path) -> Result<Option<Kind>>;
    /// Makes a folder; an error if anything has its name.
    fn create_folder(&self, folder: &Path) -> Result<()>;
    /// Renames a file, over another if there is one, or a folder, over none but an empty one.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file or a link.
    fn remove_file(&self, path: &Path) -> Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, folder: &Path) -> Result<()>;
    /// Makes a file's bytes and length durable.
    fn sync_file(&self, path: &Path) -> Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> Result<()>;
}

/// A file that grows at its end.
///
/// After an error in writing or syncing, what lies on disk is unknown, and every further call is refused: open the file
/// again, read it, and cut it back to what is sound.
pub trait File: Send {
    /// Writes bytes at the end, all of them.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
    /// Makes the bytes and the length durable.
    fn sync_data(&mut self) -> Result<()>;
    /// Cuts the file to its first `length` bytes; not durable before the next sync.
    fn truncate(&mut self, length: u64) -> Result<()>;
    /// Bytes in the file.
    fn length(&self) -> u64;
}

/// The folder that holds a path.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Whether a name is a temporary one, to be passed over.
pub fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}

/// Writes a whole file so that a crash leaves the old bytes or the new ones, and never a part.
///
/// On an error the old file stands as it was, except after a failed sync of the folder: then either may be found.
pub fn replace(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> Result<()> {
    let (temporary, mut file) = create_temporary(path, |name| storage.create(name))?;
    let written =
        file.append(bytes).and_then(|()| file.sync_data()).and_then(|()| storage.rename(&temporary, path));
    if let Err(error) = written {
        // What stays behind has a temporary name: harmless, and swept at the next start.
        let _ = storage.remove_file(&temporary);
        return Err(error);
    }
    storage.sync_folder(parent(path))
}

/// Makes an empty folder with a temporary name, beside the folder that it will be published as.
pub fn temporary_folder(storage: &dyn Storage, published: &Path) -> Result<PathBuf> {
    create_temporary(published, |name| storage.create_folder(name)).map(|(path, ())| path)
}

/// Publishes a finished folder under its final name: every file in it is synced, then the folder, then it is renamed,
/// and then the rename is synced. An error if the final name is taken; the temporary folder then stays.
pub fn publish_folder(storage: &dyn Storage, temporary: &Path, published: &Path) -> Result<()> {
    if storage.kind(published)?.is_some() {
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "the name is already taken");
        return Err(Error::at("publish a folder as", published)(taken));
    }
    sync_tree(storage, temporary)?;
    storage.rename(temporary, published)?;
    storage.sync_folder(parent(published))?;
    if parent(temporary) != parent(published) {
        storage.sync_folder(parent(temporary))?;
    }
    Ok(())
}

/// Removes a folder and all in it; links in it are removed, not followed. Not durable before its parent is synced.
pub fn remove_tree(storage: &dyn Storage, folder: &Path) -> Result<()> {
    for entry in storage.list(folder)? {
        let path = folder.join(&entry.name);
        match entry.kind {
            Kind::Folder => remove_tree(storage, &path)?,
            Kind::File | Kind::Other => storage.remove_file(&path)?,
        }
    }
    storage.remove_folder(folder)
}

/// Removes what has a temporary name in a folder, and says how many there were. Only where nobody else writes there:
/// what another process is just writing has such a name too.
pub fn sweep(storage: &dyn Storage, folder: &Path) -> Result<u64> {
    let mut swept = 0;
    for entry in storage.list(folder)?.into_iter().filter(|entry| is_temporary(&entry.name)) {
        let path = folder.join(&entry.name);
        match entry.kind {
            Kind::Folder => remove_tree(storage, &path)?,
            Kind::File | Kind::Other => storage.remove_file(&path)?,
        }
        swept += 1;
    }
    Ok(swept)
}

/// Syncs every file in a folder, and then the folder.
fn sync_tree(storage: &dyn Storage, folder: &Path) -> Result<()> {
    for entry in storage.list(folder)? {
        let path = folder.join(&entry.name);
        match entry.kind {
            Kind::Folder => sync_tree(storage, &path)?,
            Kind::File => storage.sync_file(&path)?,
            Kind::Other => {}
        }
    }
    storage.sync_folder(folder)
}

/// Creates something under the first free temporary name beside a path.
pub fn create_temporary<T>(path: &Path, create: impl Fn(&Path) -> Result<T>) -> Result<(PathBuf, T)> {
    let Some(name) = path.file_name() else {
        return Err(Error::at("write", path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path has no name",
        )));
    };
    for attempt in 0..TEMPORARY_NAMES {
        let mut temporary = OsString::from(TEMPORARY);
        temporary.push(name);
        temporary.push(format!("-{attempt}"));
        let temporary = parent(path).join(temporary);
        match create(&temporary) {
            Ok(created) => return Ok((temporary, created)),
            Err(error) if error.is_taken() => {}
            Err(error) => return Err(error),
        }
    }
    let taken = io::Error::new(io::ErrorKind::AlreadyExists, "every temporary name beside it is taken");
    Err(Error::at("write", path)(taken))
}

#[cfg(test)]
mod tests;
