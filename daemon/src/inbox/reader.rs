//! The bounded child that reads shards: what parses and tokenises what somebody dropped.
//!
//! Parsers and tokenizers take any bytes that come, and some bytes may kill them or make them eat all memory. So they
//! run in a child of limited memory and time: the daemon stays small, and survives what they do not. One child reads
//! many shards, a line of JSON each way for each; a death is charged to the shard that was being read.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use artifacts::shard::{self, Document, Options, Width};
use artifacts::storage::{self, Disk};
use artifacts::tokens::{self, Cutting, Writer};
use artifacts::{Digest, manifest};
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use crate::ledger::transition::{EndOfText, ShardTokens};
use crate::tokenizer::{self, Tokenizer};

/// Longest answer of a child, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// What a child is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Request {
    /// Read a shard from its first byte to its last, and keep its tokens.
    Tokenise {
        /// The file.
        path: PathBuf,
        /// What people call it: it stands in refusals and decides the format.
        name: PathBuf,
        /// Digest of its bytes.
        digest: Digest,
        /// How shards are read.
        reading: Reading,
    },
    /// Read a shard from its first byte to its last, and keep nothing.
    Validate {
        /// The file.
        path: PathBuf,
        /// What people call it.
        name: PathBuf,
        /// How shards are read.
        reading: Reading,
    },
    /// Train a tokenizer.
    Train {
        /// Text shards in their order: the file, and the name that decides the format.
        shards: Vec<(PathBuf, PathBuf)>,
        /// How shards are read.
        reading: Reading,
        /// Tokens of its vocabulary.
        tokens: u32,
    },
}

/// How shards are read: the same for every shard of a run, but for the tokenizer that comes later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The folder of all tokens.
    pub tokens: PathBuf,
    /// The run's tokenizer, there or to be.
    pub tokenizer: PathBuf,
    /// Field of a `.jsonl` line.
    pub field: String,
    /// Width of the tokens of a `.bin` file.
    pub wide: bool,
    /// Tokens of the model.
    pub vocabulary: u32,
    /// Longest document, in bytes.
    pub longest_document: u64,
    /// The token between documents.
    pub end_of_text: Option<EndOfText>,
    /// Seed of the run.
    pub seed: u64,
    /// Tokens of a block.
    pub block: u32,
    /// Share of blocks that are held out.
    pub share: f64,
}

/// What a child answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The shard is sound, and its tokens are safe on disk.
    Tokenised {
        /// What tokenising gave.
        tokens: ShardTokens,
    },
    /// The shard is sound.
    Valid,
    /// The tokenizer is safe on disk.
    Trained {
        /// Digest of its file.
        digest: Digest,
        /// Number of the end-of-text token.
        end_of_text: Option<u32>,
    },
    /// The shard cannot be taken.
    Refused {
        /// What is wrong, and where.
        reason: String,
    },
    /// It could not be done, for a reason that is not the shard's: worth another try.
    Failed {
        /// The reason.
        reason: String,
    },
}

/// A child that is no more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the child that reads shards {how}")]
pub struct Death {
    /// How it ended.
    pub how: String,
}

/// How children are started, and what they may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The command.
    pub command: Vec<PathBuf>,
    /// Memory, in bytes.
    pub memory: u64,
    /// Time for a gigabyte, and the least.
    pub time: Duration,
}

/// The child, as the inbox has it.
pub struct Reader {
    limits: Limits,
    child: Option<Running>,
}

struct Running {
    process: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Reader {
    /// A reader without a child: the first request starts one.
    pub fn new(limits: Limits) -> Self {
        Self { limits, child: None }
    }

    /// Asks the child for something and waits for its answer; a child is started if there is none. `bytes` is what it
    /// has to read: the time that it may take hangs on it.
    ///
    /// # Errors
    /// The child died, or was ended because it took too long. The next request gets a new one.
    pub fn ask(&mut self, request: &Request, bytes: u64) -> Result<Answer, Death> {
        let answer = self.try_ask(request, bytes);
        if answer.is_err()
            && let Some(mut child) = self.child.take()
        {
            // It may be gone already: then there is nothing to kill, and only its status to take.
            let _ = child.process.kill();
            let status =
                child.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            return answer.map_err(|death| Death { how: format!("{} ({status})", death.how) });
        }
        answer
    }

    fn try_ask(&mut self, request: &Request, bytes: u64) -> Result<Answer, Death> {
        let death = |how: &str| Death { how: how.to_owned() };
        let limits = &self.limits;
        let child = match &mut self.child {
            Some(child) => child,
            none => none.insert(start(limits)?),
        };
        let mut line = serde_json::to_string(request).map_err(|error| Death { how: error.to_string() })?;
        line.push('\n');
        child.requests.write_all(line.as_bytes()).map_err(|_| death("took no request"))?;
        let gigabytes = u32::try_from(bytes >> 30).unwrap_or(u32::MAX).saturating_add(1);
        match child.answers.recv_timeout(limits.time.saturating_mul(gigabytes)) {
            Ok(line) => serde_json::from_str(&line).map_err(|_| death("gave an answer that is none")),
            Err(RecvTimeoutError::Timeout) => Err(death("took longer than it may, and was ended")),
            Err(RecvTimeoutError::Disconnected) => Err(death("died")),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.process.kill();
            let _ = child.process.wait();
        }
    }
}

fn start(limits: &Limits) -> Result<Running, Death> {
    let death = |how: String| Death { how };
    let (program, arguments) =
        limits.command.split_first().ok_or_else(|| death("has no command".to_owned()))?;
    let mut process = Command::new(program)
        .args(arguments)
        .env("LRPATH_READER_MEMORY", limits.memory.to_string())
        .env("TOKENIZERS_PARALLELISM", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| death(format!("could not be started: {error}")))?;
    let (Some(requests), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(death("has no pipes".to_owned()));
    };
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut answers = BufReader::new(answers);
        let mut line = String::new();
        while std::io::Read::take(&mut answers, LONGEST_ANSWER as u64)
            .read_line(&mut line)
            .is_ok_and(|read| read > 0)
        {
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    Ok(Running { process, requests, answers: receiver })
}

/// The child's whole life: answers requests until there are none.
pub fn child() -> ExitCode {
    // A child without its parent has nobody to answer. It may be gone already: then there is no request to come.
    let bounded = set_parent_process_death_signal(Some(Signal::KILL)).and_then(|()| bound());
    if let Err(error) = bounded {
        eprintln!("the limits of the reading child cannot be set: {error}");
        return ExitCode::FAILURE;
    }
    let mut known = Known::default();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return ExitCode::FAILURE };
        let answer = match serde_json::from_str(&line) {
            Ok(request) => known.answer(&request),
            Err(error) => Answer::Failed { reason: format!("the request is none: {error}") },
        };
        let Ok(mut text) = serde_json::to_string(&answer) else { return ExitCode::FAILURE };
        text.push('\n');
        let mut out = std::io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn bound() -> rustix::io::Result<()> {
    let memory = std::env::var("LRPATH_READER_MEMORY").ok().and_then(|memory| memory.parse().ok());
    setrlimit(Resource::Data, Rlimit { current: memory, maximum: memory })?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}

/// What the child keeps from one request to the next.
#[derive(Default)]
struct Known {
    tokenizer: Option<(Digest, Tokenizer)>,
}

impl Known {
    fn answer(&mut self, request: &Request) -> Answer {
        let done = match request {
            Request::Tokenise { path, name, digest, reading } => self.tokenise(path, name, *digest, reading),
            Request::Validate { path, name, reading } => validate(path, name, reading),
            Request::Train { shards, reading, tokens } => train(shards, reading, *tokens),
        };
        done.unwrap_or_else(|answer| answer)
    }

    fn tokenise(
        &mut self,
        path: &Path,
        name: &Path,
        digest: Digest,
        reading: &Reading,
    ) -> Result<Answer, Answer> {
        let folder = reading.tokens.join(digest.to_string());
        // Of a child whose answer nobody heard, or of bytes that changed: nobody knows, so it is made anew.
        if folder.exists() {
            manifest::delete(&Disk, &folder).map_err(failed)?;
        }
        let documents = documents(path, name, reading)?;
        let is_tokens = shard::Format::of(&name.to_string_lossy()).is_ok_and(shard::Format::is_tokens);
        let tokenizer =
            if is_tokens && !reading.tokenizer.is_file() { None } else { Some(self.tokenizer(reading)?) };
        let end_of_text = match (tokenizer, &reading.end_of_text) {
            (Some(tokenizer), token) => tokenizer.end_of_text(token.as_ref()).map_err(failed)?,
            (None, Some(EndOfText::Number(number))) => Some(*number),
            (None, Some(EndOfText::Text(_)) | None) => None,
        };
        let cutting =
            Cutting::new(reading.seed, end_of_text, reading.block, reading.share).map_err(failed)?;
        let written = name.to_string_lossy();
        let mut writer = Writer::create(&Disk, &reading.tokens, digest, &written, cutting).map_err(failed)?;
        for document in documents {
            match document.map_err(answer_to)? {
                Document::Tokens(chunk) => writer.push(&chunk, None).map_err(failed)?,
                Document::Text(text) => {
                    let tokenizer = tokenizer.ok_or_else(|| failed("there is no tokenizer"))?;
                    let encoded = tokenizer.encode(&text).map_err(failed)?;
                    writer.document(&encoded.tokens, Some(&encoded.ends)).map_err(failed)?;
                }
            }
        }
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        let shard = writer.finish(bytes).map_err(failed)?;
        Ok(Answer::Tokenised { tokens: counts(&shard) })
    }

    fn tokenizer(&mut self, reading: &Reading) -> Result<&Tokenizer, Answer> {
        let digest = Digest::of_file(&reading.tokenizer).map_err(failed)?;
        if self.tokenizer.as_ref().is_none_or(|(known, _)| *known != digest) {
            let tokenizer = Tokenizer::load(&reading.tokenizer).map_err(failed)?;
            tokenizer.fits(reading.vocabulary).map_err(failed)?;
            self.tokenizer = Some((digest, tokenizer));
        }
        self.tokenizer.as_ref().map(|(_, tokenizer)| tokenizer).ok_or_else(|| failed("there is no tokenizer"))
    }
}

fn counts(shard: &tokens::Shard) -> ShardTokens {
    ShardTokens {
        stream: shard.tokens,
        held_out: shard.held_out.iter().map(|block| u64::from(block.count)).sum(),
        held_out_blocks: shard.held_out.len() as u64,
        documents: shard.documents,
    }
}

fn validate(path: &Path, name: &Path, reading: &Reading) -> Result<Answer, Answer> {
    for document in documents(path, name, reading)? {
        document.map_err(answer_to)?;
    }
    Ok(Answer::Valid)
}

fn train(shards: &[(PathBuf, PathBuf)], reading: &Reading, tokens: u32) -> Result<Answer, Answer> {
    let mut opened = Vec::new();
    for (path, name) in shards {
        opened.push(documents(path, name, reading)?);
    }
    let mut broken = None;
    // The shards were read to their ends when they were accepted: what cannot be read now was damaged since.
    let texts = opened.into_iter().flatten().map_while(|document| match document {
        Ok(Document::Text(text)) => Some(text),
        Ok(Document::Tokens(_)) => Some(String::new()),
        Err(error) => {
            broken = Some(error.to_string());
            None
        }
    });
    let end_of_text = match &reading.end_of_text {
        Some(EndOfText::Text(text)) => Some(text.as_str()),
        Some(EndOfText::Number(_)) | None => None,
    };
    let trained = tokenizer::train(texts, tokens, end_of_text).map_err(failed)?;
    if let Some(reason) = broken {
        return Err(Answer::Failed { reason });
    }
    storage::replace(&Disk, &reading.tokenizer, &trained).map_err(failed)?;
    let number = Tokenizer::load(&reading.tokenizer)
        .and_then(|tokenizer| tokenizer.end_of_text(reading.end_of_text.as_ref()))
        .map_err(failed)?;
    Ok(Answer::Trained { digest: Digest::of(&trained), end_of_text: number })
}

fn documents(path: &Path, name: &Path, reading: &Reading) -> Result<shard::Documents, Answer> {
    let options = Options {
        field: reading.field.clone(),
        width: if reading.wide { Width::Uint32 } else { Width::Uint16 },
        vocabulary: reading.vocabulary,
        longest_document: reading.longest_document,
        longest_line: reading.longest_document,
    };
    let refused = |reason: shard::Refusal| Answer::Refused { reason: reason.to_string() };
    let format = shard::Format::of(&name.to_string_lossy()).map_err(refused)?;
    let file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    shard::read(format, name, file, size, &options).map_err(answer_to)
}

fn answer_to(error: shard::Error) -> Answer {
    match error {
        shard::Error::Refused(refusal) => Answer::Refused { reason: refusal.to_string() },
        error @ shard::Error::Unreadable { .. } => failed(error),
    }
}

fn failed(reason: impl std::fmt::Display) -> Answer {
    Answer::Failed { reason: reason.to_string() }
}
