//! Shards that come packed: gzip or Zstandard around any format.
//!
//! The size of an archive says little of what is in it: a megabyte may hold a hundred gigabytes of nothing. So an archive
//! is unpacked while it is read, in memory of a fixed size, and refused once it has given more than text or tokens would.
//! What is wrong with an archive comes as an error of reading; here it is distinguished from what the system would not
//! read.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

/// Bytes of an archive that are read at once.
const BUFFER: usize = 1 << 18;

/// How many times its own size an archive may hold: text is packed to a tenth of its size, the dullest of logs to a
/// hundredth, and gzip packs nothing to less than a thousandth, ...
const TIMES: u64 = 200;
/// ... and so much more, for small ones.
const MORE: u64 = 16 << 20;

/// A Zstandard frame may ask for a window of so many bytes, as a power of two: what its own tools allow.
const WINDOW: u32 = 27;

/// What zstd says when there is no memory for a window: no fault of the archive.
const NO_MEMORY: &str = "Allocation error";

/// How a shard is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// `.gz`, of one or more members (RFC 1952).
    Gzip,
    /// `.zst`, of one or more frames (RFC 8878).
    Zstandard,
}

impl Archive {
    /// What an extension in lower case stands for.
    pub(super) fn of(extension: &str) -> Option<Self> {
        match extension {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstandard),
            _ => None,
        }
    }

    /// Bytes that an archive of `size` bytes may hold.
    pub(super) fn most(size: u64) -> u64 {
        size.saturating_mul(TIMES).saturating_add(MORE)
    }
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It cannot be unpacked.
    #[error("{why}")]
    Broken {
        /// Bytes of the archive that were read.
        byte: u64,
        /// What its decoder says.
        why: String,
    },
    /// It holds too much.
    #[error("more than {most} bytes")]
    Swollen {
        /// What it may hold.
        most: u64,
    },
}

impl Fault {
    /// The fault that an error of reading stands for, if it is one.
    pub(super) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// The bytes in an archive.
pub(super) struct Unpacked {
    decoder: Box<dyn Read + Send>,
    counts: Arc<Counts>,
    most: u64,
}

/// How far an archive was read.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Its own bytes that were read.
    packed: AtomicU64,
    /// Bytes that came out of it.
    unpacked: AtomicU64,
    /// The system would not give its bytes.
    unreadable: AtomicBool,
}

impl Counts {
    /// Bytes that came out of the archive so far.
    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked.load(Ordering::Relaxed)
    }
}

impl Unpacked {
    /// Opens an archive of `size` bytes.
    pub(super) fn new(archive: Archive, bytes: impl Read + Send + 'static, size: u64) -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let watched = BufReader::with_capacity(BUFFER, Watched { bytes, counts: counts.clone() });
        let decoder: Box<dyn Read + Send> = match archive {
            Archive::Gzip => Box::new(MultiGzDecoder::new(watched)),
            Archive::Zstandard => {
                let mut decoder = zstd::Decoder::with_buffer(watched)?;
                decoder.window_log_max(WINDOW)?;
                Box::new(decoder)
            }
        };
        Ok(Self { decoder, counts, most: Archive::most(size) })
    }

    /// How far it was read, now and later.
    pub(super) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.decoder.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted || self.counts.unreadable.load(Ordering::Relaxed) {
                return error;
            }
            let why = error.to_string();
            if why.contains(NO_MEMORY) {
                return io::Error::new(io::ErrorKind::OutOfMemory, why);
            }
            let byte = self.counts.packed.load(Ordering::Relaxed);
            io::Error::other(Fault::Broken { byte, why })
        })?;
        let before = self.counts.unpacked.fetch_add(count as u64, Ordering::Relaxed);
        if before + count as u64 > self.most {
            return Err(io::Error::other(Fault::Swollen { most: self.most }));
        }
        Ok(count)
    }
}

/// The archive's own bytes, on their way to its decoder.
struct Watched<R> {
    bytes: R,
    counts: Arc<Counts>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer);
        match &read {
            Ok(count) => _ = self.counts.packed.fetch_add(*count as u64, Ordering::Relaxed),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.counts.unreadable.store(true, Ordering::Relaxed),
        }
        read
    }
}

#[cfg(test)]
mod tests;
