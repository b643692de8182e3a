//! Trying a view in a process of its own.
//!
//! On damaged files sled may panic, loop for ever or ask for all memory. None of these may take the daemon down, so a
//! child opens the view and reads all of it first, within a time, and dies with its parent. It says what it has read, so
//! that the daemon need not read it again. It holds the lock of the state too: nobody takes the state while it may still
//! touch the files.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

use super::lock::StateLock;
use super::view::{Meta, View, ViewError};

/// How long a probe may take unless it is told otherwise: a hundred thousand entries take half a second.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Memory that a probe may ask for, in bytes.
const MEMORY: u64 = 4 << 30;

/// Between two looks at whether the child has ended.
const LOOK: Duration = Duration::from_millis(2);

/// What the child's verdict begins with.
const VERDICT: &str = "lrpath-probe ";

/// Longest output of a child that is read, in bytes.
const LONGEST_OUTPUT: u64 = 64 << 10;

/// Says to the child whose child it is.
const PARENT: &str = "LRPATH_PROBE_PARENT";

/// How a view is tried before it is opened.
#[derive(Debug, Clone)]
pub enum Probe {
    /// Not at all: a panic is caught when it is opened, a hang is not. For tools that a person watches, and tests.
    None,
    /// In a child.
    Child(ProbeChild),
}

/// A command that runs [`child`] on the path that is its last argument.
#[derive(Debug, Clone)]
pub struct ProbeChild {
    /// The program.
    pub program: PathBuf,
    /// What stands before the path.
    pub arguments: Vec<OsString>,
    /// The lock of the state.
    pub lock: Option<Arc<StateLock>>,
    /// How long it may take.
    pub limit: Duration,
}

impl Probe {
    /// In a child that is this program with other arguments: its hidden command calls [`child`].
    ///
    /// # Errors
    /// The program's path is not known.
    pub fn by_this_program(arguments: &[&str], lock: Arc<StateLock>) -> io::Result<Self> {
        Ok(Self::Child(ProbeChild {
            program: std::env::current_exe()?,
            arguments: arguments.iter().map(OsString::from).collect(),
            lock: Some(lock),
            limit: LIMIT,
        }))
    }

    /// Tries a view, and says what was read in it, if it was read.
    ///
    /// # Errors
    /// Why it cannot be used. A child that cannot be started says nothing about the view: it is then unavailable.
    pub fn run(&self, view: &Path) -> Result<Option<Meta>, ViewError> {
        match self {
            Self::None => Ok(None),
            Self::Child(_) if !view.exists() => Err(ViewError::Missing),
            Self::Child(child) => child.run(view).map(Some),
        }
    }
}

impl ProbeChild {
    fn run(&self, view: &Path) -> Result<Meta, ViewError> {
        let mut child = self.start(view).map_err(|error| {
            ViewError::Unavailable(format!(
                "`{}` cannot be started to try it: {error}",
                self.program.display()
            ))
        })?;
        let status = self.wait(&mut child)?;
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(LONGEST_OUTPUT).read_to_end(&mut output)?;
        }
        let verdict = String::from_utf8_lossy(&output)
            .lines()
            .find_map(|line| serde_json::from_str(line.strip_prefix(VERDICT)?).ok());
        verdict.unwrap_or_else(|| {
            Err(ViewError::Damaged(format!("a process that read it ended without a word ({status})")))
        })
    }

    fn start(&self, view: &Path) -> io::Result<Child> {
        let stdin = self.lock.as_ref().map_or(Ok(Stdio::null()), |lock| lock.shared())?;
        Command::new(&self.program)
            .args(&self.arguments)
            .arg(view)
            .env(PARENT, std::process::id().to_string())
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, ViewError> {
        let end = Instant::now() + self.limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                child.kill()?;
                child.wait()?;
                return Err(ViewError::Damaged(format!("it could not be read within {:?}", self.limit)));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What the child does: reads the view and says what it found. The daemon calls it for its hidden command.
pub fn child(view: &Path) -> ExitCode {
    if let Err(error) = bound() {
        eprintln!("cannot bound the probe: {error}");
        return ExitCode::FAILURE;
    }
    let verdict = View::open(view).map(|view| view.meta().clone());
    match serde_json::to_string(&verdict) {
        Ok(verdict) => {
            println!("{VERDICT}{verdict}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot say what was found: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends with the parent, and with little memory.
fn bound() -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = std::env::var(PARENT).ok();
    if parent.is_some_and(|expected| getppid().is_none_or(|pid| pid.as_raw_nonzero().to_string() != expected))
    {
        return Err(io::Error::other("the parent has ended already"));
    }
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    setrlimit(Resource::As, limit)?;
    Ok(())
}
