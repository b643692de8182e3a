//! A process for each attempt, on this machine; it outlives the daemon and is found again.
//!
//! The daemon opens `events.jsonl`, takes an exclusive lock on it, and gives it to the trainer as its standard output.
//! The lock belongs to the open file, so it is held for exactly as long as a process of the trainer has it, whatever
//! command that is, and the daemon's death does not touch it. Hence the three answers of `find_again`:
//!
//! - the lock is held, or the process of `process.json` lives: it runs;
//! - no events file, or an empty one without lock and without `process.json`: the daemon died before the process was
//!   there, or before anybody wrote down that it was, and it said nothing: it may be started, and no second process of
//!   this attempt can live beside it;
//! - everything else: it ran, and is gone.
//!
//! A GPU is named to the trainer by its own name, so that it is the same one whoever numbers them, and is locked for as long
//! as the trainer lives (`devices::Lock`).
//!
//! The process leads a group of its own, so that a key pressed in the daemon's terminal does not reach it. SIGTERM and
//! SIGUSR1 go to that process alone: a command that wraps a trainer hands them on, or is replaced by it (`exec`).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use artifacts::storage::{self, Storage};
use artifacts::versioned;
use command_fds::CommandFdExt;
use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::devices::{Devices, Lock, Missing};

use super::executor::{EVENTS, Executor, Exit, Found, JOB, LOG, Launch, StartError};
use super::process::{self, Identity};

/// What the process is known by.
const PROCESS: &str = "process.json";
/// Longest `process.json` that is read.
const LONGEST_PROCESS: u64 = 4 << 10;

/// What a trainer gets of the daemon's environment, where it is set. Beside these it has [`THREADS`] and
/// `CANDLE_NUM_THREADS=1`, and nothing else: a run does not depend on who started the daemon.
pub const ENVIRONMENT: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
    "RUST_LOG",
    "RUST_BACKTRACE",
];

/// The variable that says which GPUs a process may see.
const GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// The variables that tell libraries how many threads to compute with.
pub const THREADS: [&str; 3] = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"];

/// Starts trainers as processes of this machine.
pub struct Local {
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    storage: Arc<dyn Storage>,
    devices: Arc<Devices>,
    /// Processes that this daemon started, by the attempt's folder.
    children: Arc<Mutex<BTreeMap<PathBuf, Offspring>>>,
}

enum Offspring {
    Running(Child),
    Reaped(Exit),
}

impl Local {
    /// An executor that runs `command --job <file>`, with what [`ENVIRONMENT`] lets through of `environment`.
    pub fn new(
        command: Vec<OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        storage: Arc<dyn Storage>,
        devices: Arc<Devices>,
    ) -> Self {
        let is_passed_on = |name: &OsStr| ENVIRONMENT.iter().any(|passed| name == *passed);
        let environment = environment.into_iter().filter(|(name, _)| is_passed_on(name)).collect();
        Self { command, environment, storage, devices, children: Arc::default() }
    }

    /// The same trainers, and another command for those to come.
    pub fn with_command(&self, command: Vec<OsString>) -> Self {
        Self {
            command,
            environment: self.environment.clone(),
            storage: self.storage.clone(),
            devices: self.devices.clone(),
            children: self.children.clone(),
        }
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Offspring>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The GPUs of an attempt by their own names, each with its lock where it is to have it alone.
    fn gpus(&self, launch: &Launch<'_>) -> Result<(Vec<String>, Vec<OwnedFd>), StartError> {
        let (mut names, mut locks) = (Vec::new(), Vec::new());
        for device in launch.devices {
            let Some(gpu) = self.devices.find(device)? else { continue };
            if !launch.shared {
                let taken = Lock::take(&gpu.uuid).map_err(|cause| StartError::File {
                    doing: "lock the device",
                    path: device.into(),
                    cause,
                })?;
                let held = || Missing::Held { device: device.clone(), uuid: gpu.uuid.clone() };
                locks.push(taken.ok_or_else(held)?.into());
            }
            names.push(gpu.uuid);
        }
        Ok((names, locks))
    }

    fn command(&self, launch: &Launch<'_>, events: File, log: File) -> Result<Command, StartError> {
        let (gpus, locks) = self.gpus(launch)?;
        let Some((program, arguments)) = self.command.split_first() else {
            let cause = io::Error::new(io::ErrorKind::InvalidInput, "the command is empty");
            return Err(StartError::Command { command: String::new(), cause });
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--job")
            .arg(launch.folder.join(JOB))
            .current_dir(launch.folder)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(THREADS.map(|name| (name, launch.threads.to_string())))
            .env("CANDLE_NUM_THREADS", "1")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(events)
            .stderr(log);
        if !gpus.is_empty() {
            command.env(GPUS, gpus.join(","));
            // The trainer has the locks, and not the daemon: it keeps them when the daemon is gone.
            command.preserved_fds(locks);
        }
        Ok(command)
    }

    fn write_identity(&self, folder: &Path, child: &Child, attempt: u32) -> Result<(), String> {
        let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
        let identity = Identity::of(pid, attempt).map_err(|error| error.to_string())?;
        let bytes = serde_json::to_vec(&identity).map_err(|error| error.to_string())?;
        storage::replace(&*self.storage, &folder.join(PROCESS), &bytes).map_err(|error| error.to_string())
    }

    /// The processes that stand for an attempt: the one that was started, or, where nobody knows that any more, those
    /// that write its events.
    fn processes(&self, folder: &Path) -> io::Result<Vec<Identity>> {
        if let Some(identity) = identity(folder).filter(Identity::is_alive) {
            return Ok(vec![identity]);
        }
        let writers = writers(folder)?;
        let leaders: Vec<Identity> =
            writers.iter().filter(|writer| process::leads_its_group(writer.pid)).cloned().collect();
        Ok(if leaders.is_empty() { writers } else { leaders })
    }

    fn signal(&self, folder: &Path, signal: Signal) -> io::Result<()> {
        for process in self.processes(folder)? {
            process.signal(signal)?;
        }
        Ok(())
    }
}

impl Executor for Local {
    fn start(&self, launch: &Launch<'_>) -> Result<(), StartError> {
        let Launch { folder, attempt, .. } = *launch;
        let taken = || StartError::Taken { folder: folder.to_owned() };
        let at = |doing, path: &Path| {
            let path = path.to_owned();
            move |cause| StartError::File { doing, path, cause }
        };
        let path = folder.join(EVENTS);
        let events = File::options().create(true).append(true).open(&path).map_err(at("open", &path))?;
        if !lock(&events, FlockOperation::NonBlockingLockExclusive).map_err(at("lock", &path))? {
            return Err(taken());
        }
        let length = events.metadata().map_err(at("look at", &path))?.len();
        if length > 0 || folder.join(PROCESS).exists() {
            return Err(taken());
        }
        let path = folder.join(LOG);
        let log = File::options().create(true).append(true).open(&path).map_err(at("open", &path))?;
        let mut command = self.command(launch, events, log)?;
        let child = command.spawn().map_err(|cause| {
            let command = command.get_program().to_string_lossy().into_owned();
            StartError::Command { command, cause }
        })?;
        // Without the file the process is found by its standard output.
        if let Err(why) = self.write_identity(folder, &child, attempt) {
            tracing::warn!(folder = %folder.display(), why, "the trainer's identity was not written down");
        }
        self.children().insert(folder.to_owned(), Offspring::Running(child));
        // The daemon's own copy of the lock ends with `command`, after the identity is there.
        drop(command);
        Ok(())
    }

    fn find_again(&self, folder: &Path) -> io::Result<Found> {
        let exit = match self.children().get_mut(folder) {
            Some(Offspring::Reaped(exit)) => Some(*exit),
            Some(offspring @ Offspring::Running(_)) => match reap(offspring)? {
                Some(exit) => Some(exit),
                None => return Ok(Found::Running),
            },
            None => None,
        };
        let events = match File::open(folder.join(EVENTS)) {
            Ok(events) => events,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::NotStarted),
            Err(error) => return Err(error),
        };
        if !lock(&events, FlockOperation::NonBlockingLockShared)? {
            return Ok(Found::Running);
        }
        if exit.is_some() {
            return Ok(Found::Gone { exit });
        }
        match identity(folder) {
            Some(identity) if identity.is_alive() => Ok(Found::Running),
            None if events.metadata()?.len() == 0 && !folder.join(PROCESS).exists() => Ok(Found::NotStarted),
            _ => Ok(Found::Gone { exit: None }),
        }
    }

    fn stop(&self, folder: &Path) -> io::Result<()> {
        self.signal(folder, Signal::TERM)
    }

    fn save(&self, folder: &Path) -> io::Result<()> {
        self.signal(folder, Signal::USR1)
    }

    fn kill(&self, folder: &Path) -> io::Result<()> {
        if let Some(identity) = identity(folder) {
            identity.signal_group(Signal::KILL)?;
        }
        for writer in writers(folder)? {
            writer.signal(Signal::KILL)?;
        }
        Ok(())
    }

    fn forget(&self, folder: &Path) {
        self.children().remove(folder);
    }
}

/// Takes or tries a lock; false if another holds it.
fn lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The exit of a child that has ended.
fn reap(offspring: &mut Offspring) -> io::Result<Option<Exit>> {
    let Offspring::Running(child) = offspring else { return Ok(None) };
    let exit = child.try_wait()?.map(exit_of);
    if let Some(exit) = exit {
        *offspring = Offspring::Reaped(exit);
    }
    Ok(exit)
}

fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or_default()),
    }
}

/// The identity that was written down, if it can be read.
fn identity(folder: &Path) -> Option<Identity> {
    versioned::read(&folder.join(PROCESS), process::FORMAT, LONGEST_PROCESS).ok()
}

/// The processes that write an attempt's events.
fn writers(folder: &Path) -> io::Result<Vec<Identity>> {
    let writers = match process::writers(&folder.join(EVENTS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        writers => writers?,
    };
    Ok(writers.into_iter().filter_map(|pid| Identity::of(pid, 0).ok()).collect())
}
