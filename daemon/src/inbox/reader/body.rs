//! What the child does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use artifacts::digest::Hasher;
use artifacts::shard::{self, Document, Documents, Format, Width};
use artifacts::storage::{self, Disk};
use artifacts::tokens::{self, BadCutting, Cutting, Writer};
use artifacts::{Digest, manifest};
use rayon::prelude::*;
use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

use super::super::is_shortage;
use super::{Answer, Reading, Request, Session, ShardFile};
use crate::ledger::transition::{EndOfText, ShardTokens};
use crate::outlook::SPARE;
use crate::tokenizer::{Corpus, PIECE, Tokenizer, TokenizerError, TrainError, train};

/// Longest line of a session, in bytes: a list of all shards is the longest.
const LONGEST_LINE: u64 = 1 << 30;
/// Text that is tokenised at once, in bytes, where documents are small.
const BATCH: usize = 4 << 20;
/// Bytes of a token in a token file.
const TOKEN: u64 = 4;
/// Clock ticks of a second in `/proc/self/stat`.
const TICKS: u64 = 100;

/// Why a shard gave no tokens.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Shard(#[from] shard::Error),
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Training(#[from] TrainError),
    #[error(transparent)]
    Storage(#[from] storage::Error),
    #[error(transparent)]
    Cutting(#[from] BadCutting),
    #[error("cannot read `{path}`: {cause}")]
    File { path: String, cause: io::Error },
    #[error("there is no tokenizer yet")]
    NoTokenizer,
    #[error("the file has other bytes than a moment ago")]
    Changed,
}

impl Fault {
    fn answer(self, name: &str) -> Answer {
        match self {
            Self::Shard(shard::Error::Refused(refusal)) => Answer::Refused { reason: refusal.to_string() },
            Self::Tokenizer(error @ TokenizerError::Encoding(_)) => {
                Answer::Refused { reason: format!("{name}: {error}") }
            }
            Self::Changed => Answer::Changed,
            Self::Shard(shard::Error::Unreadable { ref cause, .. }) | Self::File { ref cause, .. }
                if !is_shortage(cause) =>
            {
                Answer::Unreadable { what: self.to_string() }
            }
            other => Answer::Trouble { what: other.to_string() },
        }
    }
}

/// Answers on standard output what is asked on standard input, until there is nothing more to be asked. The daemon calls
/// it for its hidden command, before it starts anything else.
pub fn child() -> ExitCode {
    match serve(BufReader::new(io::stdin().lock()), io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the reader cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut questions: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    let Some(session) = next_line::<Session>(&mut questions)? else { return Ok(()) };
    bound(&session)?;
    let reader = match Reader::new(session) {
        Ok(reader) => reader,
        Err(fault) => return say(&mut answers, &Answer::Trouble { what: fault.to_string() }),
    };
    say(&mut answers, &Answer::Ready)?;
    while let Some(request) = next_line::<Request>(&mut questions)? {
        say(&mut answers, &reader.answer(&request))?;
    }
    Ok(())
}

fn next_line<T: serde::de::DeserializeOwned>(lines: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    lines.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

fn say(answers: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.insert(0, b'\n');
    line.push(b'\n');
    answers.write_all(&line)?;
    answers.flush()
}

/// Ends with the parent, with bounded memory, and without leaving a picture of it on disk.
fn bound(session: &Session) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get().cast_unsigned() != session.parent) {
        return Err(io::Error::other("the daemon that started it has ended"));
    }
    let all = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Core, all(0))?;
    // What is written to and private: heap, stacks. Reserved addresses that are never used do not count.
    setrlimit(Resource::Data, all(session.memory))?;
    Ok(())
}

/// Gives the process so many seconds more of processor time; where they cannot be counted, the daemon's clock alone
/// bounds it.
fn allow(seconds: u64) {
    let used = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
        let fields: Vec<u64> = stat
            .rsplit(") ")
            .next()?
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        Some(fields.iter().sum::<u64>() / TICKS)
    });
    if let Some(used) = used {
        let threads = rayon::current_num_threads() as u64;
        let limit = used.saturating_add(seconds.saturating_mul(threads)).saturating_add(2);
        let _ = setrlimit(Resource::Cpu, Rlimit { current: Some(limit), maximum: None });
    }
}

struct Reader {
    reading: Reading,
    tokenizer: Option<Tokenizer>,
    cutting: Cutting,
    options: shard::Options,
}

impl Reader {
    fn new(session: Session) -> Result<Self, Fault> {
        let Session { reading, tokenizer, .. } = session;
        let tokenizer = match tokenizer {
            Some(digest) => {
                let tokenizer = Tokenizer::load(&reading.tokenizer)?;
                tokenizer.check(digest, reading.vocabulary)?;
                Some(tokenizer)
            }
            None => None,
        };
        let end_of_text = match &tokenizer {
            Some(tokenizer) => tokenizer.end_of_text(reading.end_of_text.as_ref())?,
            None => reading.end_of_text.as_ref().map(end_of_text_to_be),
        };
        let cutting = Cutting::new(reading.seed, end_of_text, reading.block, reading.share)?;
        let options = shard::Options {
            field: reading.field.clone(),
            width: if reading.wide { Width::Uint32 } else { Width::Uint16 },
            vocabulary: reading.vocabulary,
            longest_document: reading.longest_document,
            // Beside its document a line holds other fields, and characters may be written as escapes.
            longest_line: reading.longest_document.saturating_mul(2).saturating_add(1 << 20),
        };
        Ok(Self { reading, tokenizer, cutting, options })
    }

    fn answer(&self, request: &Request) -> Answer {
        match request {
            Request::Tokenise(file) => {
                allow(file.seconds);
                self.tokenise(file).unwrap_or_else(|fault| fault.answer(&file.name))
            }
            Request::Validate(file) => {
                allow(file.seconds);
                self.validate(file)
                    .map_or_else(|fault| fault.answer(&file.name), |unpacked| Answer::Valid { unpacked })
            }
            Request::Train { shards, vocabulary, seconds } => {
                allow(*seconds);
                self.train(shards, *vocabulary).unwrap_or_else(|fault| fault.answer("the training text"))
            }
        }
    }

    fn tokenise(&self, file: &ShardFile) -> Result<Answer, Fault> {
        let mut opened = Opened::new(file, &self.options)?;
        // Of an attempt whose shard was never accepted.
        manifest::delete(&Disk, &self.reading.tokens.join(file.digest.to_string()))?;
        let mut writer = Writer::create(&Disk, &self.reading.tokens, file.digest, &file.name, self.cutting)?;
        let mut batch = Batch::default();
        let mut room = Room::new(&self.reading.tokens, opened.size);
        for document in &mut opened.documents {
            let document = document?;
            room.ask(&document)?;
            match document {
                Document::Text(text) => {
                    let tokenizer = self.tokenizer.as_ref().ok_or(Fault::NoTokenizer)?;
                    batch.take(text, tokenizer, &mut writer)?;
                }
                Document::Tokens(tokens) => writer.push(&tokens, None)?,
            }
        }
        if let Some(tokenizer) = &self.tokenizer {
            batch.write(tokenizer, &mut writer)?;
        }
        let bytes = opened.check(file.digest)?;
        let shard = writer.finish(bytes)?;
        let tokens = ShardTokens {
            stream: shard.tokens,
            held_out: shard.held_out.iter().map(|block| u64::from(block.count)).sum(),
            held_out_blocks: shard.held_out.len() as u64,
            documents: shard.documents,
        };
        Ok(Answer::Tokenised { tokens, unpacked: opened.documents.unpacked() })
    }

    /// Reads a shard to its end: bytes of its text where it came packed.
    fn validate(&self, file: &ShardFile) -> Result<Option<u64>, Fault> {
        let mut opened = Opened::new(file, &self.options)?;
        for document in &mut opened.documents {
            document?;
        }
        opened.check(file.digest)?;
        Ok(opened.documents.unpacked())
    }

    fn train(&self, shards: &[ShardFile], vocabulary: u32) -> Result<Answer, Fault> {
        let (separator, end_of_text) = match &self.reading.end_of_text {
            Some(token @ EndOfText::Text(text)) => (Some(text.as_str()), Some(end_of_text_to_be(token))),
            Some(token @ EndOfText::Number(_)) => (None, Some(end_of_text_to_be(token))),
            None => (None, None),
        };
        let mut corpus = Corpus::new(separator);
        for file in shards {
            let mut opened = Opened::new(file, &self.options)?;
            for document in &mut opened.documents {
                match document? {
                    Document::Text(text) => corpus.add(&text)?,
                    Document::Tokens(_) => {}
                }
            }
            opened.check(file.digest)?;
        }
        let bytes = train(corpus, vocabulary)?;
        storage::replace(&Disk, &self.reading.tokenizer, &bytes)?;
        Ok(Answer::Trained { digest: Digest::of(&bytes), end_of_text })
    }
}

/// The number that an end-of-text token will have in the tokenizer that is to be trained.
fn end_of_text_to_be(token: &EndOfText) -> u32 {
    match token {
        EndOfText::Text(_) => 0,
        EndOfText::Number(number) => *number,
    }
}

/// Asks for room before tokens are written, again and again: nobody knows how much comes out of an archive, and the last
/// of the disk belongs to the journal.
struct Room<'a> {
    tokens: &'a Path,
    /// Bytes that are asked for at once.
    portion: u64,
    /// Bytes that may be written before it is asked again.
    granted: u64,
}

impl<'a> Room<'a> {
    /// Tokens of a file of so many bytes will be written into a folder.
    fn new(tokens: &'a Path, size: u64) -> Self {
        let portion = size.clamp(1, BATCH as u64).saturating_mul(TOKEN);
        Self { tokens, portion, granted: 0 }
    }

    fn ask(&mut self, document: &Document) -> storage::Result<()> {
        // A token of text stands for a byte at least.
        let most = TOKEN
            * match document {
                Document::Text(text) => text.len() as u64,
                Document::Tokens(tokens) => tokens.len() as u64,
            };
        if most > self.granted {
            let asked = self.portion.max(most);
            storage::room_for(self.tokens, asked.saturating_add(SPARE))?;
            self.granted = asked;
        }
        self.granted -= most;
        Ok(())
    }
}

/// Documents that wait until there is enough to keep all threads busy.
#[derive(Default)]
struct Batch {
    texts: Vec<String>,
    bytes: usize,
}

impl Batch {
    fn take(&mut self, text: String, tokenizer: &Tokenizer, writer: &mut Writer) -> Result<(), Fault> {
        if text.len() > PIECE {
            self.write(tokenizer, writer)?;
            tokenizer.encode_long(&text, |encoded| {
                writer.push(&encoded.tokens, Some(&encoded.ends)).map_err(Fault::from)
            })?;
            return Ok(writer.end_document()?);
        }
        self.bytes += text.len();
        self.texts.push(text);
        if self.bytes >= BATCH { self.write(tokenizer, writer) } else { Ok(()) }
    }

    fn write(&mut self, tokenizer: &Tokenizer, writer: &mut Writer) -> Result<(), Fault> {
        let encoded: Vec<_> = self.texts.par_iter().map(|text| tokenizer.encode(text)).collect();
        for document in encoded {
            let document = document?;
            writer.document(&document.tokens, Some(&document.ends))?;
        }
        self.texts.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// A shard whose bytes are hashed while they are read, so that what was read is what the digest says.
struct Opened {
    documents: Documents,
    read: Arc<Mutex<Progress>>,
    size: u64,
}

#[derive(Default)]
struct Progress {
    hasher: Hasher,
    bytes: u64,
}

struct Hashed {
    file: File,
    read: Arc<Mutex<Progress>>,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.hasher.update(&buffer[..count]);
        read.bytes += count as u64;
        Ok(count)
    }
}

impl Opened {
    fn new(file: &ShardFile, options: &shard::Options) -> Result<Self, Fault> {
        let format = Format::of(&file.name).map_err(shard::Error::from)?;
        let cannot = |cause| Fault::File { path: file.path.display().to_string(), cause };
        // A pipe that took the file's place is not to be waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&file.path).map_err(cannot)?;
        let metadata = opened.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(Fault::Changed);
        }
        let read = Arc::new(Mutex::new(Progress::default()));
        let size = metadata.len();
        let hashed = Hashed { file: opened, read: read.clone() };
        let documents = shard::read(format, Path::new(&file.name), hashed, size, options)?;
        Ok(Self { documents, read, size })
    }

    /// Whether all bytes were read and are those of the digest; their number.
    fn check(&self, expected: Digest) -> Result<u64, Fault> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match read.bytes == self.size && read.hasher.digest() == expected {
            true => Ok(read.bytes),
            false => Err(Fault::Changed),
        }
    }
}
