//! A new file that is written once, from its start to its end.

use std::io;
use std::path::{Path, PathBuf};

use super::{Error, File, Result, Storage};
use crate::digest::{Digest, Hasher};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// A new file, written in large pieces and hashed on the way, so that a manifest costs no second reading.
///
/// It is not complete before [`Output::finish`].
pub struct Output {
    file: Box<dyn File>,
    path: PathBuf,
    buffer: Vec<u8>,
    hasher: Hasher,
    size: u64,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
}

impl Output {
    /// Makes a new file; an error if anything has its name.
    pub fn create(storage: &dyn Storage, path: &Path) -> Result<Self> {
        let file = storage.create(path)?;
        Ok(Self { file, path: path.to_owned(), buffer: Vec::new(), hasher: Hasher::new(), size: 0 })
    }

    /// Writes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        if self.buffer.len() >= BUFFER { self.pass_on() } else { Ok(()) }
    }

    /// Writes what is left and syncs the file. The folder's sync, which makes its name durable, is the caller's.
    pub fn finish(mut self) -> Result<Written> {
        self.pass_on()?;
        self.file.sync_data()?;
        Ok(Written { size: self.size, digest: self.hasher.digest() })
    }

    /// The storage error behind an `io::Error` that this file gave a serializer.
    pub fn failure(&self, cause: io::Error) -> Error {
        Error::at("write", &self.path)(cause)
    }

    fn pass_on(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.file.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// For serializers; [`Output::failure`] names the file again.
impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Output::write(self, bytes).map_err(|error| error.cause)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
