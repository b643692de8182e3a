//! The daemon's end of a session with a child.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Answer, Request, Session};

/// Time that a child has to read the tokenizer.
const START: Duration = Duration::from_secs(120);
/// Between two looks at whether the daemon stops.
const LOOK: Duration = Duration::from_millis(100);
/// Longest answer, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;
/// So much of a child's last words is kept, in bytes.
const LAST_WORDS: u64 = 300;

/// What the heap is set to, and how: that of this program is small, with one arena for all threads; here as many threads as
/// there are cores tokenise.
const HEAP: (&str, &str) = ("_RJEM_MALLOC_CONF", "narenas:16,dirty_decay_ms:10000,muzzy_decay_ms:10000");

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The child is dead, of its own or because it took too long.
    #[error("the process that read it {0}")]
    Died(String),
    /// The child could not be started, or could not use what it was given: nothing that a shard did.
    #[error("the process that reads shards cannot be started: {0}")]
    CannotStart(String),
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopped,
}

/// A child that waits for questions. It dies when this is dropped, and when the thread that started it ends.
pub struct Child {
    process: std::process::Child,
    questions: ChildStdin,
    answers: ChildStdout,
    heard: Vec<u8>,
    log: File,
}

impl Child {
    /// Starts a child and waits until it is ready.
    ///
    /// # Errors
    /// It does not start, or has no use for the session.
    pub fn start(command: &[PathBuf], session: &Session, stop: &AtomicBool) -> Result<Self, Failure> {
        let cannot = |error: io::Error| Failure::CannotStart(error.to_string());
        let mut child = Self::spawn(command).map_err(cannot)?;
        child.send(session).map_err(cannot)?;
        match child.hear(Instant::now() + START, stop) {
            Ok(Answer::Ready) => Ok(child),
            Ok(Answer::Trouble { what }) => Err(Failure::CannotStart(what)),
            Ok(other) => Err(Failure::CannotStart(format!("it said {other:?}"))),
            Err(Failure::Died(how)) => Err(Failure::CannotStart(how)),
            Err(other) => Err(other),
        }
    }

    fn spawn(command: &[PathBuf]) -> io::Result<Self> {
        let log = File::from(memfd_create("reader-log", MemfdFlags::CLOEXEC)?);
        let Some((program, arguments)) = command.split_first() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no command was given"));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone()?);
        command.env(HEAP.0, HEAP.1);
        let mut process = command.spawn()?;
        match (process.stdin.take(), process.stdout.take()) {
            (Some(questions), Some(answers)) => {
                Ok(Self { process, questions, answers, heard: Vec::new(), log })
            }
            _ => Err(io::Error::other("it has no pipes")),
        }
    }

    /// Asks, and waits for the answer, for so long at most.
    ///
    /// # Errors
    /// There is no answer; the child is dead then.
    pub fn ask(&mut self, request: &Request, limit: Duration, stop: &AtomicBool) -> Result<Answer, Failure> {
        match self.send(request) {
            Ok(()) => self.hear(Instant::now() + limit, stop),
            Err(_) => Err(Failure::Died(self.how())),
        }
    }

    fn send(&mut self, what: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.questions.write_all(&line)
    }

    fn hear(&mut self, end: Instant, stop: &AtomicBool) -> Result<Answer, Failure> {
        loop {
            while let Some(line) = self.line() {
                // A line that is no answer was printed by somebody else: a runtime, a test harness.
                if let Ok(answer) = serde_json::from_slice(&line) {
                    return Ok(answer);
                }
            }
            if stop.load(Ordering::Relaxed) {
                self.kill();
                return Err(Failure::Stopped);
            }
            let now = Instant::now();
            if now >= end {
                self.kill();
                return Err(Failure::Died("took too long and was ended".to_owned()));
            }
            match self.receive(LOOK.min(end - now)) {
                Ok(true) => {}
                Ok(false) => return Err(Failure::Died(self.how())),
                Err(error) => {
                    self.kill();
                    return Err(Failure::Died(format!("could not be heard: {error}")));
                }
            }
        }
    }

    /// Takes what the child has said, if it says something within this time; false at the end of all it says.
    fn receive(&mut self, within: Duration) -> io::Result<bool> {
        let mut ready = [PollFd::new(&self.answers, PollFlags::IN)];
        let within = Timespec::try_from(within).map_err(io::Error::other)?;
        match poll(&mut ready, Some(&within)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(true),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; 4096];
        let count = self.answers.read(&mut buffer)?;
        self.heard.extend_from_slice(&buffer[..count]);
        if self.heard.len() > LONGEST_ANSWER {
            return Err(io::Error::other("its answer is too long"));
        }
        Ok(count > 0)
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.heard.iter().position(|byte| *byte == b'\n')?;
        Some(self.heard.drain(..=end).collect())
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// How the child ended, and its last words.
    fn how(&mut self) -> String {
        let _ = self.process.kill();
        let ended = self.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        match self.last_words() {
            Some(words) => format!("ended with {ended}: {words}"),
            None => format!("ended with {ended}"),
        }
    }

    fn last_words(&mut self) -> Option<String> {
        let length = self.log.seek(SeekFrom::End(0)).ok()?;
        self.log.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS))).ok()?;
        let mut words = Vec::new();
        (&self.log).take(LAST_WORDS).read_to_end(&mut words).ok()?;
        let words = String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ");
        Some(words).filter(|words| !words.is_empty())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
