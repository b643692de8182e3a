//! A process that is known again after a restart of the daemon, and never mistaken for another.
//!
//! A pid alone says nothing: it is given away again. With the moment of the process's start and the boot that this
//! moment counts from, it is one process for ever. Signals go through a pidfd that was opened before the two were
//! compared, so that no stranger gets one that was meant for a trainer which has just died.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// The format of `process.json`.
pub const FORMAT: u32 = 1;

/// What a process is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Format of the file; a newer one is refused.
    pub format: u32,
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the boot.
    pub start_time: u64,
    /// The boot.
    pub boot_id: String,
    /// The attempt that it runs.
    pub attempt: u32,
}

impl Identity {
    /// The identity of a process that lives, or is not yet reaped.
    pub fn of(pid: i32, attempt: u32) -> io::Result<Self> {
        let Stat { start_time, .. } = Stat::of(pid)?;
        Ok(Self { format: FORMAT, pid, start_time, boot_id: boot_id()?, attempt })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        let is_this_boot = boot_id().is_ok_and(|boot| boot == self.boot_id);
        is_this_boot
            && Stat::of(self.pid)
                .is_ok_and(|stat| stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Sends a signal to this very process; false if it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        gone_is_false(|| {
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            if !self.is_alive() {
                return Ok(false);
            }
            rustix::process::pidfd_send_signal(&pidfd, signal).map(|()| true)
        })
    }

    /// Sends a signal to this process and all of its group; false if it is gone.
    pub fn signal_group(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.is_alive()) else { return Ok(false) };
        gone_is_false(|| rustix::process::kill_process_group(pid, signal).map(|()| true))
    }
}

fn gone_is_false(send: impl FnOnce() -> rustix::io::Result<bool>) -> io::Result<bool> {
    match send() {
        Err(rustix::io::Errno::SRCH) => Ok(false),
        sent => Ok(sent?),
    }
}

/// The processes whose standard output is this file. Those of other users are not seen.
pub fn writers(file: &Path) -> io::Result<Vec<i32>> {
    let wanted = fs::metadata(file)?;
    let is_writer = |pid: &i32| {
        fs::metadata(format!("/proc/{pid}/fd/1"))
            .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
    };
    let processes = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(processes.filter(is_writer).collect())
}

/// Whether a process leads its group.
pub fn leads_its_group(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| rustix::process::getpgid(Some(pid)).is_ok_and(|group| group == pid))
}

/// What `/proc/<pid>/stat` says.
struct Stat {
    state: char,
    start_time: u64,
}

impl Stat {
    fn of(pid: i32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/<pid>/stat is not understood"))
    }

    /// The name of the process stands in brackets and may hold anything, brackets and spaces included.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        // Field 22 of the line, field 20 after the name.
        let start_time = fields.nth(18)?.parse().ok()?;
        Some(Self { state, start_time })
    }
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) S (b)) R 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 10 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.start_time), ('R', 4711));
    }

    #[test]
    fn a_pid_of_another_start_or_another_boot_is_another_process() {
        let me = Identity::of(i32::try_from(std::process::id()).unwrap(), 1).unwrap();
        assert!(me.is_alive());
        let later = Identity { start_time: me.start_time + 1, ..me.clone() };
        let rebooted = Identity { boot_id: "another".to_owned(), ..me };
        for stranger in [later, rebooted] {
            assert!(!stranger.is_alive());
            // The test would not survive this one.
            assert!(!stranger.signal(Signal::KILL).unwrap());
        }
    }

    #[test]
    fn a_dead_process_is_gone_before_and_after_it_is_reaped() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let identity = Identity::of(i32::try_from(child.id()).unwrap(), 1).unwrap();
        assert!(identity.signal(Signal::KILL).unwrap());
        while identity.is_alive() {
            std::thread::yield_now();
        }
        assert!(!identity.signal(Signal::TERM).unwrap());
        child.wait().unwrap();
        assert!(!identity.is_alive());
        assert!(!identity.signal(Signal::TERM).unwrap());
    }
}
