//! One daemon for one state.
//!
//! The lock is the kernel's, on an open file, so that it goes with the process whatever way it ends. The pid in the file
//! is only what the sentence of refusal says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{FlockOperation, flock};

/// Name of the file in the state folder.
const NAME: &str = "lock";

/// Longest pid that is read, in digits.
const LONGEST_PID: u64 = 20;

/// Why a state cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody has it.
    #[error("the state `{}` is in use by {}", state.display(), holder(pid))]
    Held {
        /// The state folder.
        state: PathBuf,
        /// The holder's pid, as far as it could be read.
        pid: Option<u32>,
    },
    /// The lock file cannot be used.
    #[error("cannot lock `{}`: {cause}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

/// The state is ours until this is dropped or the process ends.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

impl StateLock {
    /// Takes a state, at once or not at all, and writes this process's pid into the lock file.
    ///
    /// # Errors
    /// Another process holds it; the file cannot be made or locked.
    pub fn take(state: &Path) -> Result<Self, LockError> {
        let path = state.join(NAME);
        let fail = |cause| LockError::Io { path: path.clone(), cause };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let mut file = options.open(&path).map_err(fail)?;
        lock(&mut file, state)?;
        file.set_len(0)
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
            .map_err(fail)?;
        Ok(Self { file })
    }

    /// Takes a state without writing anything: for programs that only look. None if it was never taken by anyone.
    ///
    /// # Errors
    /// As [`StateLock::take`].
    pub fn look(state: &Path) -> Result<Option<Self>, LockError> {
        let path = state.join(NAME);
        match File::open(&path) {
            Ok(mut file) => lock(&mut file, state).map(|()| Some(Self { file })),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(LockError::Io { path, cause }),
        }
    }

    /// The lock as a child's standard input: the child holds it too, so that nobody takes the state before it has gone.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn shared(&self) -> io::Result<Stdio> {
        Ok(Stdio::from(self.file.try_clone()?))
    }
}

fn lock(file: &mut File, state: &Path) -> Result<(), LockError> {
    match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.take(LONGEST_PID).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            Err(LockError::Held { state: state.to_owned(), pid })
        }
        Err(errno) => Err(LockError::Io { path: state.join(NAME), cause: errno.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_who_holds_the_state() {
        let state = tempfile::tempdir().unwrap();
        let lock = StateLock::take(state.path()).unwrap();
        let refusal = StateLock::take(state.path()).unwrap_err();
        assert!(refusal.to_string().contains(&format!("process {}", std::process::id())), "{refusal}");
        assert!(matches!(StateLock::look(state.path()), Err(LockError::Held { .. })));
        drop(lock);
        StateLock::take(state.path()).unwrap();
    }

    #[test]
    fn a_child_that_shares_the_lock_keeps_the_state() {
        let state = tempfile::tempdir().unwrap();
        let lock = StateLock::take(state.path()).unwrap();
        let mut child =
            std::process::Command::new("sleep").arg("60").stdin(lock.shared().unwrap()).spawn().unwrap();
        drop(lock);
        let while_it_lives = StateLock::take(state.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(while_it_lives, Err(LockError::Held { .. })));
        StateLock::take(state.path()).unwrap();
    }

    #[test]
    fn looking_makes_no_file() {
        let state = tempfile::tempdir().unwrap();
        assert!(StateLock::look(state.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
    }
}
