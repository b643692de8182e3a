//! A lock on a GPU that everybody on this machine sees, whose ever daemon it is.
//!
//! It is a socket under a name of the kernel's own ("abstract"), which no folder holds: nothing is left behind, no right is
//! needed, and it is given up when the last process ends that has it, which is the trainer and not the daemon.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How often a lock is tried: somebody else may just be looking whether it is free.
const TRIES: u32 = 5;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// A lock that is held.
#[derive(Debug)]
pub struct Lock(UnixDatagram);

impl Lock {
    /// Takes the lock of a GPU; none where somebody has it.
    pub fn take(uuid: &str) -> io::Result<Option<Self>> {
        for _ in 1..TRIES {
            if let Some(lock) = Self::try_once(uuid)? {
                return Ok(Some(lock));
            }
            std::thread::sleep(PAUSE);
        }
        Self::try_once(uuid)
    }

    fn try_once(uuid: &str) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("lrpath/{uuid}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Some(Self(socket))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether nobody has the lock of a GPU.
    pub fn is_free(uuid: &str) -> bool {
        // Where it cannot be asked for, whoever takes it says why.
        !matches!(Self::try_once(uuid), Ok(None))
    }
}

impl From<Lock> for OwnedFd {
    fn from(lock: Lock) -> Self {
        lock.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_locked_once_and_free_again_when_the_last_copy_is_gone() {
        let uuid = format!("GPU-test-{}", std::process::id());
        assert!(Lock::is_free(&uuid));
        let lock: OwnedFd = Lock::take(&uuid).unwrap().unwrap().into();
        let copy = lock.try_clone().unwrap();
        assert!(!Lock::is_free(&uuid) && Lock::take(&uuid).unwrap().is_none());
        assert!(Lock::is_free(&format!("{uuid}-other")));
        drop(lock);
        assert!(!Lock::is_free(&uuid), "a process that has it lives");
        drop(copy);
        assert!(Lock::is_free(&uuid));
    }
}
