//! Real files.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Entry, Error, File, Kind, Result, Storage};

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create(&self, path: &Path) -> Result<Box<dyn File>> {
        let file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(Error::at("create", path))?;
        Ok(Box::new(DiskFile { file, path: path.to_owned(), length: 0, broken: false }))
    }

    fn append(&self, path: &Path) -> Result<Box<dyn File>> {
        let at = || Error::at("open to append to", path);
        let mut file = OpenOptions::new().write(true).open(path).map_err(at())?;
        let length = file.seek(SeekFrom::End(0)).map_err(at())?;
        Ok(Box::new(DiskFile { file, path: path.to_owned(), length, broken: false }))
    }

    fn read(&self, path: &Path, longest: u64) -> Result<Vec<u8>> {
        let at = || Error::at("read", path);
        let file = fs::File::open(path).map_err(at())?;
        let mut bytes = Vec::new();
        file.take(longest.saturating_add(1)).read_to_end(&mut bytes).map_err(at())?;
        if bytes.len() as u64 > longest {
            return Err(at()(too_long(longest)));
        }
        Ok(bytes)
    }

    fn list(&self, folder: &Path) -> Result<Vec<Entry>> {
        let at = || Error::at("list", folder);
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(at())? {
            let entry = entry.map_err(at())?;
            let kind = kind_of(entry.file_type().map_err(at())?);
            entries.push(Entry { name: entry.file_name(), kind });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn kind(&self, path: &Path) -> Result<Option<Kind>> {
        match fs::symlink_metadata(path) {
            Ok(facts) => Ok(Some(kind_of(facts.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::at("look at", path)(error)),
        }
    }

    fn create_folder(&self, folder: &Path) -> Result<()> {
        fs::create_dir(folder).map_err(Error::at("create the folder", folder))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(Error::at("rename something to", to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(Error::at("remove", path))
    }

    fn remove_folder(&self, folder: &Path) -> Result<()> {
        fs::remove_dir(folder).map_err(Error::at("remove the folder", folder))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        fs::File::open(path).and_then(|file| file.sync_all()).map_err(Error::at("sync", path))
    }

    fn sync_folder(&self, folder: &Path) -> Result<()> {
        fs::File::open(folder).and_then(|file| file.sync_all()).map_err(Error::at("sync the folder", folder))
    }
}

/// The refusal of a file that is longer than its reader allows.
pub(super) fn too_long(longest: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {longest} bytes"))
}

fn kind_of(file_type: fs::FileType) -> Kind {
    if file_type.is_file() {
        Kind::File
    } else if file_type.is_dir() {
        Kind::Folder
    } else {
        Kind::Other
    }
}

struct DiskFile {
    file: fs::File,
    path: PathBuf,
    length: u64,
    /// A write or a sync failed: what is on disk is unknown.
    broken: bool,
}

impl DiskFile {
    fn attempt<T>(
        &mut self,
        doing: &'static str,
        attempt: impl FnOnce(&mut fs::File) -> io::Result<T>,
    ) -> Result<T> {
        let outcome = if self.broken {
            Err(io::Error::other("an earlier write or sync of it failed; open it again and check it"))
        } else {
            attempt(&mut self.file)
        };
        outcome.map_err(|cause| {
            self.broken = true;
            Error::at(doing, &self.path)(cause)
        })
    }
}

impl File for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.attempt("write", |file| file.write_all(bytes))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sync_data(&mut self) -> Result<()> {
        self.attempt("sync", |file| file.sync_data())
    }

    fn truncate(&mut self, length: u64) -> Result<()> {
        self.attempt("cut", |file| {
            file.set_len(length)?;
            file.seek(SeekFrom::Start(length))
        })?;
        self.length = length;
        Ok(())
    }

    fn length(&self) -> u64 {
        self.length
    }
}
