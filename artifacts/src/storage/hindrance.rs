//! What keeps a file from being written by no fault of the file.
//!
//! A full disk, a disk that was mounted read-only, a right that was taken away: whoever writes did nothing wrong, and
//! goes on by itself when somebody has mended the machine. So these are told apart from what no waiting mends.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::{Error, Result};

/// What keeps a file from being written, and passes when the machine is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// The disk or the quota is full.
    Full,
    /// No more files may be open.
    Files,
    /// The system has no memory left.
    Memory,
    /// The disk is mounted so that it can only be read.
    ReadOnly,
    /// The user may not write there.
    Permission,
}

impl Hindrance {
    /// The hindrance behind an error of the system, if it is one.
    pub fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => return Some(Self::Full),
            Some(Errno::MFILE | Errno::NFILE) => return Some(Self::Files),
            Some(Errno::NOMEM) => return Some(Self::Memory),
            Some(Errno::ROFS) => return Some(Self::ReadOnly),
            Some(Errno::ACCESS | Errno::PERM) => return Some(Self::Permission),
            _ => {}
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            io::ErrorKind::PermissionDenied => Some(Self::Permission),
            _ => None,
        }
    }

    /// Whether the machine has run out of something, whatever file it was asked for.
    pub fn is_shortage(self) -> bool {
        matches!(self, Self::Full | Self::Files | Self::Memory)
    }

    /// What to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Full => "make room on that disk",
            Self::Files => "raise the number of files that it may open (`ulimit -n`, LimitNOFILE=)",
            Self::Memory => "free memory on the machine",
            Self::ReadOnly => "mount that disk so that it can be written",
            Self::Permission => "let its user write there again",
        }
    }
}

impl fmt::Display for Hindrance {
    /// The word for programs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "disk-full",
            Self::Files => "no-descriptors",
            Self::Memory => "no-memory",
            Self::ReadOnly => "read-only",
            Self::Permission => "no-permission",
        })
    }
}

/// Bytes that are free where a folder lies, for those who may not use the last of it; none where the system does not say.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let system = rustix::fs::statvfs(folder).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Asks for room before much is written: what is left over when the disk is full is of use to nobody.
///
/// # Errors
/// [`Hindrance::Full`], with both sizes. No error where the system does not say what is free.
pub fn room_for(folder: &Path, bytes: u64) -> Result<()> {
    match free_bytes(folder) {
        Some(free) if free < bytes => {
            let what = format!("{} are needed, and {} are free", megabytes(bytes), megabytes(free));
            Err(Error::at("find room in", folder)(io::Error::new(io::ErrorKind::StorageFull, what)))
        }
        _ => Ok(()),
    }
}

/// Whether something may be written in a folder: neither the disk nor the folder's mode forbids it.
///
/// # Errors
/// [`Hindrance::ReadOnly`], [`Hindrance::Permission`], or that the folder is not there.
pub fn may_write(folder: &Path) -> Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, folder, wanted, AtFlags::EACCESS)
        .map_err(|error| Error::at("write in", folder)(error.into()))
}

#[expect(clippy::cast_precision_loss, reason = "a size to be read by people")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_lacks_is_told_apart_from_what_no_waiting_mends() {
        let table = [
            (Errno::NOSPC, Some(Hindrance::Full)),
            (Errno::DQUOT, Some(Hindrance::Full)),
            (Errno::MFILE, Some(Hindrance::Files)),
            (Errno::NFILE, Some(Hindrance::Files)),
            (Errno::NOMEM, Some(Hindrance::Memory)),
            (Errno::ROFS, Some(Hindrance::ReadOnly)),
            (Errno::ACCESS, Some(Hindrance::Permission)),
            (Errno::PERM, Some(Hindrance::Permission)),
            (Errno::IO, None),
            (Errno::NOENT, None),
            (Errno::NAMETOOLONG, None),
        ];
        for (errno, hindrance) in table {
            assert_eq!(Hindrance::of(&errno.into()), hindrance, "{errno}");
        }
        assert_eq!(Hindrance::of(&io::ErrorKind::StorageFull.into()), Some(Hindrance::Full));
        assert_eq!(Hindrance::of(&io::Error::other("it is broken")), None);
    }

    #[test]
    fn room_is_asked_for_with_both_sizes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(room_for(folder.path(), 1).is_ok());
        let refused = room_for(folder.path(), u64::MAX / 2).unwrap_err();
        assert_eq!(refused.hindrance(), Some(Hindrance::Full));
        assert!(refused.to_string().contains("MB are needed, and"), "{refused}");
        assert!(may_write(folder.path()).is_ok());
        assert_eq!(may_write(&folder.path().join("none")).unwrap_err().hindrance(), None);
    }
}
