//! Copying, and reading back what was copied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::manifest::{self, FileFacts, Manifest};
use artifacts::storage::{self, Disk, Hindrance, Storage};

use super::contents::{Contents, Piece};
use crate::config::format_is_known;
use crate::ctl::draw::units::bytes;
use crate::ctl::layout::JOURNAL;
use crate::ctl::offline::replay;
use crate::edge::failure::Failure;
use crate::ledger::tree::Tree;

/// Why something is not copied.
pub enum Trouble {
    /// It is not what the journal says: a newer journal may.
    Moved(String),
    /// There is nothing to be done.
    Failed(Box<Failure>),
}

impl From<storage::Error> for Trouble {
    fn from(error: storage::Error) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}

/// Copies from one folder into another, and knows what is there already.
pub struct Copying {
    from: PathBuf,
    into: PathBuf,
    files: BTreeMap<String, FileFacts>,
    /// What the present journal needs.
    wanted: BTreeSet<String>,
}

impl Copying {
    pub fn new(from: &Path, into: &Path) -> Self {
        Self { from: from.to_owned(), into: into.to_owned(), files: BTreeMap::new(), wanted: BTreeSet::new() }
    }

    /// Copies the journal, up to its last whole commit, and says what tree it makes.
    pub fn journal(&mut self) -> Result<Tree, Failure> {
        let folder = self.into.join(JOURNAL);
        if folder.is_dir() {
            storage::remove_tree(&Disk, &folder)?;
        }
        self.files.retain(|name, _| !name.starts_with(JOURNAL));
        self.wanted.clear();
        // In the order of their names: of what is written meanwhile, each file has a beginning.
        for entry in Disk.list(&self.from.join(JOURNAL))? {
            let name = format!("{JOURNAL}/{}", entry.name.to_string_lossy());
            if !storage::is_temporary(&entry.name) {
                self.copy_bytes(&name).map_err(|error| failed(&self.into.join(&name), error))?;
            }
        }
        let (tree, torn) = replay(&self.into)?;
        if let Some(torn) = torn {
            let file = fs::OpenOptions::new().write(true).open(&torn.file);
            file.and_then(|file| file.set_len(torn.byte)).map_err(|error| failed(&torn.file, error))?;
        }
        if let Some(fixed) = tree.fixed() {
            format_is_known(&self.from, fixed)?;
        }
        for entry in Disk.list(&folder)? {
            let name = format!("{JOURNAL}/{}", entry.name.to_string_lossy());
            let facts =
                facts(&self.into.join(&name)).map_err(|error| failed(&self.into.join(&name), error))?;
            self.wanted.insert(name.clone());
            self.files.insert(name, facts);
        }
        Ok(tree)
    }

    /// Refuses to begin what cannot end.
    pub fn is_room_for(&self, contents: &Contents) -> Result<(), Failure> {
        let there: u64 = self.files.values().map(|facts| facts.size).sum();
        let all: u64 = contents.pieces.iter().map(|piece| piece.bytes(&self.from)).sum();
        let needed = all.saturating_sub(there);
        let Some(free) = storage::free_bytes(&self.into).filter(|free| needed > *free) else { return Ok(()) };
        let failure =
            Failure::new(format!("the backup takes {}, and {} are free there", bytes(needed), bytes(free)));
        Err(failure.hint("make room, or name a folder on another disk"))
    }

    /// Copies all pieces that are not there yet.
    pub fn all(&mut self, pieces: &[Piece]) -> Result<(), Trouble> {
        for piece in pieces {
            match piece {
                Piece::File(name, digest) => self.file(name, *digest)?,
                Piece::Folder(name, digest) => self.folder(name, *digest)?,
                Piece::Extra(name) => match self.file(name, None) {
                    Err(Trouble::Moved(_)) => {}
                    copied => copied?,
                },
            }
        }
        Ok(())
    }

    fn folder(&mut self, name: &str, expected: Option<Digest>) -> Result<(), Trouble> {
        let (manifest, digest) = Manifest::read(&self.from.join(name))
            .map_err(|damage| Trouble::Moved(format!("`{name}`: {damage}")))?;
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Trouble::Moved(format!(
                "the manifest of `{name}` has digest {digest}; the journal says {expected}"
            )));
        }
        for (file, facts) in &manifest.files {
            self.file(&format!("{name}/{file}"), Some(facts.blake3))?;
        }
        self.file(&format!("{name}/{}", manifest::NAME), Some(digest))
    }

    fn file(&mut self, name: &str, expected: Option<Digest>) -> Result<(), Trouble> {
        self.wanted.insert(name.to_owned());
        let known = self.files.get(name).map(|facts| facts.blake3);
        if known.is_some() && known == expected {
            return Ok(());
        }
        let (source, copied) = (self.from.join(name), self.into.join(name));
        match self.copy_bytes(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Trouble::Moved(format!("`{}` is not there", source.display())));
            }
            copied => copied.map_err(|error| Trouble::Failed(Box::new(failed(&source, error))))?,
        }
        let facts = facts(&copied).map_err(|error| Trouble::Failed(Box::new(failed(&copied, error))))?;
        if let Some(expected) = expected.filter(|expected| *expected != facts.blake3) {
            return Err(Trouble::Moved(format!(
                "`{}` has digest {}; {expected} was expected",
                source.display(),
                facts.blake3
            )));
        }
        self.files.insert(name.to_owned(), facts);
        Ok(())
    }

    fn copy_bytes(&self, name: &str) -> io::Result<()> {
        let copied = self.into.join(name);
        fs::create_dir_all(storage::parent(&copied))?;
        fs::copy(self.from.join(name), copied).map(|_| ())
    }

    /// Removes what an earlier journal needed, and says what there is.
    pub fn finish(self) -> Result<BTreeMap<String, FileFacts>, Failure> {
        let Self { into, mut files, wanted, .. } = self;
        for name in files.keys().filter(|name| !wanted.contains(*name)) {
            Disk.remove_file(&into.join(name))?;
        }
        files.retain(|name, _| wanted.contains(name));
        Ok(files)
    }
}

/// Size and digest of a file.
pub fn facts(path: &Path) -> io::Result<FileFacts> {
    Ok(FileFacts { size: fs::metadata(path)?.len(), blake3: Digest::of_file(path)? })
}

/// A file that could not be copied.
pub fn failed(path: &Path, error: io::Error) -> Failure {
    let is_full = Hindrance::of(&error) == Some(Hindrance::Full);
    let failure = Failure::new(format!("`{}` cannot be copied", path.display())).because(error);
    match is_full {
        true => failure.hint("make room, or take another disk: nothing of the backup stays behind"),
        false => failure,
    }
}
