//! Ends what a stopped service has left behind.
//!
//! Trainers outlive their daemon on purpose, so the service manager does not end them with it. When the service was
//! stopped because somebody wanted it to be, the daemon has asked them to save and has waited; what is still there then is
//! not to go on with nobody to follow it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpid, kill_process};

/// What a process that is asked to end has to do so.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

/// Ends the other processes of this one's control group, if the service manager says that the stop was wanted.
pub fn run() {
    if std::env::var_os("SERVICE_RESULT").is_none_or(|result| result != "success") {
        return;
    }
    let Some(members) = members_file() else { return };
    let begun = Instant::now();
    for (signal, patience) in [(Signal::TERM, PATIENCE), (Signal::KILL, PATIENCE * 2)] {
        for pid in others(&members) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
        while begun.elapsed() < patience {
            if others(&members).is_empty() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The file that lists this process's control group; none where groups are not as systemd makes them.
fn members_file() -> Option<PathBuf> {
    let group = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = group.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A process outside of any service shares its group with everybody.
    path.ends_with(".service").then(|| Path::new("/sys/fs/cgroup").join(path).join("cgroup.procs"))
}

fn others(members: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(members).unwrap_or_default();
    let pids = listed.lines().filter_map(|line| line.trim().parse().ok()).filter_map(Pid::from_raw);
    pids.filter(|pid| *pid != getpid()).collect()
}
