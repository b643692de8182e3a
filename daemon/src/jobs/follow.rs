//! What an attempt says, line by line, and whether it keeps the contract.
//!
//! A follower reads the events file from its start, whenever it is asked to, and depends on nothing else: after a
//! restart of the daemon the same lines lead to the same findings, and what the journal has already is not committed
//! again. A trainer can be any command, so nothing that it says is believed before it fits: a line that is no event, a
//! step out of order, a checkpoint of another path ends the attempt.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::event::{self, Event, LONGEST_LINE, Line};

use super::executor::EVENTS;
use super::warnings::Watch;
use crate::ledger::path::{CheckpointKey, Step};
use crate::ledger::transition::{Evaluation, JobNumber, JobStart, Millis, Took};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Findings that may wait to be committed; a trainer that brings more between two looks does not mean them.
const MOST_FINDINGS: usize = 10_000;
/// Characters of a bad line that are shown.
const SHOWN: usize = 120;
/// Bytes of a trainer's own words that are kept.
const LONGEST_MESSAGE: usize = 4 << 10;
/// Bytes of its word for a failure.
const LONGEST_KIND: usize = 64;

/// How far an attempt is, out of its own events.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The job.
    pub job: JobNumber,
    /// The attempt.
    pub attempt: u32,
    /// Updates done: one past the last step that it reported, or where it started.
    pub step: Step,
    /// Steps that this attempt has done.
    pub steps_done: Step,
    /// Loss of the last step, in nats a token.
    pub loss: Option<f64>,
    /// Rate of the last step.
    pub learning_rate: Option<f64>,
    /// Tokens a second in the last step.
    pub tokens_per_second: Option<f64>,
    /// When its first event was said, by its own clock.
    pub first_event_at: Option<Millis>,
    /// When its last event was said, by its own clock.
    pub last_event_at: Option<Millis>,
    /// What is told of it and is no failure.
    pub warning: Option<String>,
}

/// What an attempt reports and the journal is to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A checkpoint that is said to be on disk.
    Checkpoint {
        /// Its name.
        key: CheckpointKey,
        /// Digest of its manifest, as it was said.
        digest: Digest,
        /// Size of its files.
        bytes: u64,
        /// What writing it took, where that is said.
        took: Option<Took>,
    },
    /// A step without an update, though its numbers are finite.
    Skipped {
        /// The step.
        step: Step,
        /// Its gradient norm.
        norm: f64,
    },
    /// A held-out loss.
    Evaluation {
        /// Updates done.
        step: Step,
        /// What was measured.
        evaluation: Evaluation,
    },
}

/// The event after which a trainer has nothing more to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LastWord {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and saved.
    Stopped,
    /// It cannot go on.
    Failed {
        /// A word for the kind.
        kind: String,
        /// What happened.
        message: String,
        /// The step that it says cannot be made.
        step: Option<Step>,
    },
}

/// Follows one attempt.
#[derive(Debug)]
pub struct Follower {
    start: JobStart,
    sequences_per_step: u64,
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line whose end is not there yet.
    partial: Vec<u8>,
    /// That line is too long already; its bytes are dropped.
    is_overlong: bool,
    lines: u64,
    is_started: bool,
    findings: Vec<Finding>,
    last_word: Option<LastWord>,
    breach: Option<String>,
    progress: Progress,
    watch: Watch,
}

impl Follower {
    /// A follower that has read nothing.
    pub fn new(folder: &Path, start: JobStart, sequences_per_step: u32) -> Self {
        let progress = Progress {
            job: start.job,
            attempt: start.attempt,
            step: start.first_step(),
            steps_done: 0,
            loss: None,
            learning_rate: None,
            tokens_per_second: None,
            first_event_at: None,
            last_event_at: None,
            warning: None,
        };
        Self {
            start,
            sequences_per_step: u64::from(sequences_per_step),
            path: folder.join(EVENTS),
            file: None,
            partial: Vec::new(),
            is_overlong: false,
            lines: 0,
            is_started: false,
            findings: Vec::new(),
            last_word: None,
            breach: None,
            progress,
            watch: Watch::default(),
        }
    }

    /// Reads what has come, at most about so many bytes, and says how many they were. A line counts when its line feed
    /// is there.
    pub fn read(&mut self, at_most: u64) -> io::Result<u64> {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        let Some(mut file) = self.file.take() else { return Ok(0) };
        let read = self.read_from(&mut file, at_most);
        self.file = Some(file);
        read
    }

    /// Reads all that has come up to now, and says how many bytes they were. It ends, however fast more comes.
    pub fn read_up_to_now(&mut self) -> io::Result<u64> {
        let known = match &mut self.file {
            Some(file) => file.stream_position()?,
            None => 0,
        };
        match std::fs::metadata(&self.path) {
            Ok(metadata) => self.read(metadata.len().saturating_sub(known)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn read_from(&mut self, file: &mut File, at_most: u64) -> io::Result<u64> {
        let mut chunk = vec![0; CHUNK];
        let mut total = 0;
        while total < at_most {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            total += read as u64;
            self.take(&chunk[..read]);
        }
        Ok(total)
    }

    /// How far it is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// What it trains.
    pub fn start(&self) -> &JobStart {
        &self.start
    }

    /// What it reported and is not yet settled.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What it reported so far is settled.
    pub fn settle_findings(&mut self) {
        self.findings.clear();
    }

    /// Its last word, if it was said.
    pub fn last_word(&self) -> Option<&LastWord> {
        self.last_word.as_ref()
    }

    /// How it broke the contract, if it did.
    pub fn breach(&self) -> Option<&str> {
        self.breach.as_deref()
    }

    /// It broke the contract. The first breach counts.
    pub fn break_contract(&mut self, what: String) {
        self.breach.get_or_insert(what);
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            if self.is_overlong || self.partial.len() + line.len() > LONGEST_LINE {
                self.lines += 1;
                self.break_contract(format!("line {} is longer than {LONGEST_LINE} bytes", self.lines));
            } else if self.partial.is_empty() {
                self.take_line(line);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                self.take_line(&whole);
            }
            self.is_overlong = false;
            self.partial.clear();
            bytes = &rest[1..];
        }
        if self.is_overlong || self.partial.len() + bytes.len() > LONGEST_LINE {
            self.is_overlong = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        self.lines += 1;
        let heard = match serde_json::from_slice::<Line>(line) {
            Ok(line) => self.hear(line),
            Err(error) => Err(format!("is no event ({error}): {}", excerpt(line))),
        };
        if let Err(what) = heard {
            self.break_contract(format!("line {} {what}", self.lines));
        }
    }

    fn hear(&mut self, line: Line) -> Result<(), String> {
        // Whatever else it did, the steps that it reports were done.
        if let Event::Step { step, loss, learning_rate, grad_norm, tokens_per_second, .. } = &line.event
            && *step == self.progress.step
            && *step < self.start.to
        {
            self.progress.step += 1;
            self.progress.steps_done += 1;
            self.progress.loss = Some(*loss).filter(|loss| loss.is_finite()).or(self.progress.loss);
            self.progress.learning_rate = Some(*learning_rate);
            self.progress.tokens_per_second = Some(*tokens_per_second);
            if let Some(warning) = self.watch.take(*step, *loss, *grad_norm) {
                let JobStart { job, path, .. } = &self.start;
                tracing::warn!(job, %path, warning, "a running job is not as it should be");
            }
            self.progress.warning = self.watch.told();
        } else if let Event::Step { step, .. } = &line.event {
            return Err(format!("reports step {step}; {} was expected", self.expected_step()));
        }
        let at = millis(line.time);
        self.progress.first_event_at.get_or_insert(at);
        self.progress.last_event_at = Some(at);
        if self.breach.is_some() {
            return Ok(());
        }
        if self.last_word.is_some() {
            return Err("comes after the last word".to_owned());
        }
        if !self.is_started && !matches!(line.event, Event::Started { .. } | Event::Failed { .. }) {
            return Err("comes before the event `started`".to_owned());
        }
        self.take_event(line.event)
    }

    fn take_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Started { format, job, attempt, step, .. } => {
                self.take_started(format, job, attempt, step)
            }
            Event::Step { step, loss, grad_norm, skipped: false, .. }
                if !(loss.is_finite() && grad_norm.is_finite()) =>
            {
                Err(format!("reports an update in step {step}, whose loss or gradient is none"))
            }
            Event::Step { step, sequences, skipped, grad_norm, loss, .. } => {
                let expected = [step, step + 1].map(|step| step.saturating_mul(self.sequences_per_step));
                if sequences == expected {
                    return match skipped && loss.is_finite() && grad_norm.is_finite() {
                        true => self.find(Finding::Skipped { step, norm: grad_norm }),
                        false => Ok(()),
                    };
                }
                Err(format!("reports sequences {sequences:?} for step {step}, which takes {expected:?}"))
            }
            Event::Evaluation { step, increment, loss, perplexity, bits_per_byte, tokens, .. } => {
                self.within_reach("an evaluation", step)?;
                let evaluation = Evaluation { increment, loss, perplexity, bits_per_byte, tokens };
                self.find(Finding::Evaluation { step, evaluation })
            }
            Event::Checkpoint { path, step, digest, bytes, seconds, stalled_seconds } => {
                self.within_reach("a checkpoint", step)?;
                let key = CheckpointKey { path: self.start.path, step };
                if path != key.to_string() {
                    return Err(format!("calls a checkpoint `{}`; `{key}` was expected", shown(&path)));
                }
                self.find(Finding::Checkpoint { key, digest, bytes, took: took(seconds, stalled_seconds) })
            }
            Event::Finished { step } => {
                if step != self.start.to || self.progress.step != step {
                    let Progress { step: done, .. } = self.progress;
                    return Err(format!(
                        "says that the job is finished after {step} steps; {done} are done, and it goes to {}",
                        self.start.to
                    ));
                }
                self.last_word = Some(LastWord::Finished);
                Ok(())
            }
            Event::Stopped { step } => {
                self.within_reach("a stop", step)?;
                self.last_word = Some(LastWord::Stopped);
                Ok(())
            }
            Event::Failed { kind, message, step } => {
                let (kind, message) = (cut(&kind, LONGEST_KIND), cut(&message, LONGEST_MESSAGE));
                self.last_word = Some(LastWord::Failed { kind, message, step });
                Ok(())
            }
        }
    }

    fn take_started(&mut self, format: u32, job: u64, attempt: u32, step: Step) -> Result<(), String> {
        if format > event::FORMAT {
            return Err(format!("has format {format}; this daemon knows formats up to {}", event::FORMAT));
        }
        let expected = (self.start.job, self.start.attempt, self.start.first_step());
        if self.is_started || (job, attempt, step) != expected {
            let (job_expected, attempt_expected, step_expected) = expected;
            return Err(format!(
                "starts attempt {attempt} of job {job} at step {step}; expected was one start, of attempt \
                 {attempt_expected} of job {job_expected} at step {step_expected}"
            ));
        }
        self.is_started = true;
        Ok(())
    }

    fn within_reach(&self, what: &str, step: Step) -> Result<(), String> {
        let (first, done) = (self.start.first_step(), self.progress.step);
        if (first..=done).contains(&step) {
            return Ok(());
        }
        Err(format!("reports {what} after {step} steps; the attempt started at {first} and has done {done}"))
    }

    fn find(&mut self, finding: Finding) -> Result<(), String> {
        if self.findings.len() >= MOST_FINDINGS {
            return Err(format!(
                "is one of more than {MOST_FINDINGS} checkpoints and evaluations in a moment"
            ));
        }
        self.findings.push(finding);
        Ok(())
    }

    fn expected_step(&self) -> String {
        let Progress { step, .. } = self.progress;
        if step < self.start.to { format!("step {step}") } else { "no further step".to_owned() }
    }
}

/// Seconds of a trainer's clock, whatever it says, as milliseconds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast from float saturates")]
fn millis(seconds: f64) -> Millis {
    (seconds * 1000.0) as Millis
}

/// The beginning of a bad line, fit to be shown.
fn excerpt(line: &[u8]) -> String {
    format!("`{}`", shown(&String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN)])))
}

/// Times that are some: a trainer can be any command.
fn took(seconds: Option<f64>, stalled: Option<f64>) -> Option<Took> {
    let is_time = |seconds: &f64| seconds.is_finite() && *seconds >= 0.0;
    let seconds = seconds.filter(is_time)?;
    Some(Took { seconds, stalled: stalled.filter(is_time).unwrap_or(0.0) })
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

/// At most so many bytes of a text.
fn cut(text: &str, longest: usize) -> String {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
