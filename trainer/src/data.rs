//! Batches, read ahead.
//!
//! Where training stands in its data is its step and nothing else: the job's files say which tokens each step sees, the
//! files are mapped and not read, and a thread has the next batches ready before they are asked for. Every number that
//! comes from outside is checked against what it points into before it is used.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;

use artifacts::job::{Job, Piece};
use artifacts::tokens::{Tokens, Unusable};
use candle_core::{Device, Tensor};
use memmap2::Mmap;

use crate::kernels::Mask;

/// Batches that are ready before they are asked for.
pub(crate) const AHEAD: usize = 2;

/// Bytes of a rate.
const RATE: usize = 8;

/// Why a job's data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A token file cannot be used.
    #[error(transparent)]
    Tokens(#[from] Unusable),
    /// The file of the rates has another size.
    #[error("{path}: has {bytes} bytes, but the job has {steps} steps, whose rates take {RATE} bytes each")]
    Rates {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Steps of the job.
        steps: u64,
    },
    /// A learning rate is no rate.
    #[error("{path}: the rate of step {step} is {rate}; a finite number of at least 0 was expected")]
    Rate {
        /// The file.
        path: PathBuf,
        /// The step.
        step: u64,
        /// The rate.
        rate: f64,
    },
    /// A piece points outside the tokens.
    #[error("{path}: record {record} takes {count} tokens from {first} of token file {file}, {reason}")]
    Piece {
        /// The file `sequences`, or the job for a held-out block.
        path: PathBuf,
        /// Number of the record, from 0.
        record: usize,
        /// Its token file.
        file: u32,
        /// Its first token.
        first: u64,
        /// Its tokens.
        count: u32,
        /// What is wrong.
        reason: String,
    },
    /// The file `sequences` ends too early or too late.
    #[error("{path}: holds {found}, but the job's steps take {expected} sequences of {length} tokens")]
    Sequences {
        /// The file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// Sequences of the job.
        expected: u64,
        /// Tokens of one.
        length: u64,
    },
    /// A token that the model does not know.
    #[error("{path}: token {index} is {token}, outside the model's vocabulary of {vocabulary} tokens")]
    Token {
        /// The token file.
        path: PathBuf,
        /// Index of the token in it.
        index: u64,
        /// The token.
        token: u32,
        /// Tokens the model knows.
        vocabulary: usize,
    },
    /// The thread that reads ahead cannot be started, or is gone.
    #[error("the thread that reads ahead cannot work: {0}")]
    Thread(String),
}

/// The token files of a job.
pub struct TokenFiles {
    files: Vec<(PathBuf, Tokens)>,
    vocabulary: usize,
}

impl TokenFiles {
    /// Maps the job's token files; relative paths start at `folder`.
    pub fn open(job: &Job, folder: &Path, vocabulary: usize) -> Result<Self, DataError> {
        let files = job
            .token_files
            .iter()
            .map(|path| {
                let path = folder.join(path);
                Tokens::open(&path).map(|tokens| (path, tokens))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { files, vocabulary })
    }

    /// Refuses a piece that points outside its file; `path` and `record` say where the piece stands.
    pub fn check(&self, piece: Piece, path: &Path, record: usize) -> Result<(), DataError> {
        let refuse = |reason: String| {
            let Piece { file, first, count } = piece;
            Err(DataError::Piece { path: path.to_owned(), record, file, first, count, reason })
        };
        let Some((path, tokens)) = self.files.get(piece.file as usize) else {
            return refuse(format!("but the job names {} token files", self.files.len()));
        };
        match piece.first.checked_add(u64::from(piece.count)) {
            Some(end) if end <= tokens.len() as u64 => Ok(()),
            _ => refuse(format!("but {} holds {}", path.display(), tokens.len())),
        }
    }

    /// Appends the tokens of a piece that was [checked](Self::check), and refuses one that the model does not know.
    pub fn read(&self, piece: Piece, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        let (path, all) = &self.files[piece.file as usize];
        let part = &all[piece.first as usize..][..piece.count as usize];
        tokens.extend_from_slice(part);
        match part.iter().position(|&token| token as usize >= self.vocabulary) {
            Some(at) => Err(DataError::Token {
                path: path.clone(),
                index: piece.first + at as u64,
                token: part[at],
                vocabulary: self.vocabulary,
            }),
            None => Ok(()),
        }
    }
}

/// The rates of a job's steps.
pub struct Rates {
    from: u64,
    rates: Vec<f64>,
}

impl Rates {
    /// Reads and checks the job's rates.
    pub fn read(job: &Job, folder: &Path) -> Result<Self, DataError> {
        let path = folder.join(&job.learning_rates);
        let bytes =
            std::fs::read(&path).map_err(|source| DataError::Unreadable { path: path.clone(), source })?;
        let steps = job.to - job.from;
        if bytes.len() as u64 != steps.saturating_mul(RATE as u64) {
            return Err(DataError::Rates { path, bytes: bytes.len() as u64, steps });
        }
        let rates: Vec<f64> =
            bytes.as_chunks::<RATE>().0.iter().map(|rate| f64::from_le_bytes(*rate)).collect();
        match rates.iter().position(|rate| !rate.is_finite() || *rate < 0.0) {
            Some(at) => Err(DataError::Rate { path, step: job.from + at as u64, rate: rates[at] }),
            None => Ok(Self { from: job.from, rates }),
        }
    }

    /// The rate of a step of the job.
    pub fn of(&self, step: u64) -> f64 {
        self.rates[(step - self.from) as usize]
    }
}

/// The batches of a job.
pub struct Data {
    tokens: Arc<TokenFiles>,
    /// `None` where there are none: an empty file cannot be mapped.
    sequences: Option<Mmap>,
    /// First record of each step.
    starts: Vec<u64>,
    from: u64,
    sequence_length: usize,
    /// What a batch holds.
    tokens_of_a_step: usize,
    end_of_text: Option<u32>,
}

impl Data {
    /// Maps the job's sequences and checks every record of them.
    pub fn open(job: &Job, folder: &Path, tokens: Arc<TokenFiles>) -> Result<Self, DataError> {
        let path = folder.join(&job.sequences);
        let unreadable = |source| DataError::Unreadable { path: path.clone(), source };
        let file = File::open(&path).map_err(unreadable)?;
        let empty = file.metadata().map_err(unreadable)?.len() == 0;
        // SAFETY: the files of a job are finished before it starts, and never changed in place: whoever cuts one short
        // while it is mapped kills the trainer, which loses the steps since its last checkpoint and nothing else.
        let sequences = if empty { None } else { Some(unsafe { Mmap::map(&file) }.map_err(unreadable)?) };
        let length = u64::from(job.sequence_length) + 1;
        let per_step = u64::from(job.sequences_per_step);
        let steps = job.to - job.from;
        let wrong = |found: String| DataError::Sequences {
            path: path.clone(),
            found,
            expected: steps.saturating_mul(per_step),
            length,
        };
        let (records, rest) = sequences.as_deref().unwrap_or(&[]).as_chunks::<{ Piece::BYTES }>();
        if !rest.is_empty() {
            return Err(wrong(format!("{} bytes after its last whole record", rest.len())));
        }
        let (mut starts, mut whole, mut open) = (Vec::new(), 0u64, 0u64);
        for (record, bytes) in records.iter().enumerate() {
            let piece = Piece::from_bytes(bytes);
            tokens.check(piece, &path, record)?;
            if open == 0 && whole.is_multiple_of(per_step) {
                starts.push(record as u64);
            }
            open += u64::from(piece.count);
            if open > length || piece.count == 0 {
                return Err(wrong(format!("a sequence that does not end with record {record}")));
            }
            if open == length {
                (open, whole) = (0, whole + 1);
            }
        }
        if open != 0 || whole != steps.saturating_mul(per_step) {
            return Err(wrong(format!("{whole} whole sequences and {open} tokens more")));
        }
        starts.push(records.len() as u64);
        let (sequence_length, end_of_text) = (job.sequence_length as usize, job.mask_documents_at);
        let tokens_of_a_step = per_step.saturating_mul(length) as usize;
        Ok(Self { tokens, sequences, starts, from: job.from, sequence_length, tokens_of_a_step, end_of_text })
    }

    fn records(&self) -> &[[u8; Piece::BYTES]] {
        self.sequences.as_deref().unwrap_or(&[]).as_chunks().0
    }

    /// The batch of a step of the job.
    pub fn batch(&self, step: u64) -> Result<Batch, DataError> {
        self.batch_in(step, Vec::new())
    }

    /// As [`batch`](Self::batch), in memory that is there.
    fn batch_in(&self, step: u64, mut tokens: Vec<u32>) -> Result<Batch, DataError> {
        let at = (step - self.from) as usize;
        let records = &self.records()[self.starts[at] as usize..self.starts[at + 1] as usize];
        tokens.clear();
        tokens.reserve_exact(self.tokens_of_a_step);
        for record in records {
            self.tokens.read(Piece::from_bytes(record), &mut tokens)?;
        }
        let mut hash = blake3::Hasher::new();
        for token in &tokens {
            hash.update(&token.to_le_bytes());
        }
        let digest = hash.finalize().to_hex()[..16].to_owned();
        let (sequence_length, end_of_text) = (self.sequence_length, self.end_of_text);
        Ok(Batch { step, tokens, digest, sequence_length, end_of_text })
    }

    /// Starts to read the batches of `[first, end)`, in order.
    pub fn ahead(self, first: u64, end: u64) -> Result<Ahead, DataError> {
        let (sender, batches) = sync_channel(AHEAD);
        let (used, memory) = channel();
        let thread = std::thread::Builder::new()
            .name("data".to_owned())
            .spawn(move || {
                for step in first..end {
                    let batch = self.batch_in(step, memory.try_recv().unwrap_or_default());
                    let last = batch.is_err();
                    // Nobody listens any more where the attempt was stopped.
                    if sender.send(batch).is_err() || last {
                        return;
                    }
                }
            })
            .map_err(|error| DataError::Thread(error.to_string()))?;
        Ok(Ahead { batches: Some(batches), used, thread: Some(thread) })
    }
}

/// Batches that a thread reads ahead.
pub struct Ahead {
    batches: Option<Receiver<Result<Batch, DataError>>>,
    used: Sender<Vec<u32>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    /// The next batch.
    pub fn take(&mut self) -> Result<Batch, DataError> {
        let gone = || DataError::Thread("it ended before its last batch".to_owned());
        self.batches.as_ref().ok_or_else(gone)?.recv().map_err(|_| gone())?
    }

    /// Gives the memory of a batch back, for one that is still to be read.
    pub fn give_back(&mut self, batch: Batch) {
        // After its last batch the thread needs none.
        let _ = self.used.send(batch.tokens);
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has shown itself as a missing batch already.
            let _ = thread.join();
        }
    }
}

/// The sequences of one step.
#[derive(Debug)]
pub struct Batch {
    /// The step.
    pub step: u64,
    /// Its sequences in order, `sequence_length + 1` tokens each.
    pub tokens: Vec<u32>,
    /// First 16 hex digits of the BLAKE3 of `tokens`, as u32, little-endian.
    pub digest: String,
    sequence_length: usize,
    end_of_text: Option<u32>,
}

/// What goes through the model at once: sequences of one length, row by row.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    /// Tokens that are seen.
    pub inputs: Vec<u32>,
    /// Tokens that are predicted.
    pub targets: Vec<u32>,
    /// Number of each position's document in its sequence, from 0, where documents do not see each other.
    pub documents: Option<Vec<u32>>,
    /// Positions of a sequence.
    pub length: usize,
}

impl Batch {
    /// A batch of these tokens, in sequences of `sequence_length + 1`.
    pub fn of(tokens: Vec<u32>, sequence_length: usize, end_of_text: Option<u32>) -> Self {
        Self { step: 0, tokens, digest: String::new(), sequence_length, end_of_text }
    }

    /// Number of its sequences.
    pub fn sequences(&self) -> usize {
        self.tokens.len() / (self.sequence_length + 1)
    }

    /// Number of their targets.
    pub fn targets(&self) -> usize {
        self.sequences() * self.sequence_length
    }

    /// The batch of `count` of its sequences from `first`, under the digest of all.
    pub fn part(&self, first: usize, count: usize) -> Self {
        let whole = self.sequence_length + 1;
        let tokens = self.tokens[first * whole..(first + count) * whole].to_vec();
        let (sequence_length, end_of_text) = (self.sequence_length, self.end_of_text);
        Self { step: self.step, tokens, digest: self.digest.clone(), sequence_length, end_of_text }
    }

    /// The examples of `count` sequences from `first`.
    pub fn examples(&self, first: usize, count: usize) -> Examples {
        let mut examples = Examples::default();
        self.examples_into(first, count, &mut examples);
        examples
    }

    /// As [`examples`](Self::examples), in memory that is there.
    pub fn examples_into(&self, first: usize, count: usize, examples: &mut Examples) {
        let whole = self.sequence_length + 1;
        let rows = self.tokens[first * whole..(first + count) * whole].chunks_exact(whole);
        examples.become_those_of(rows, self.sequence_length, self.end_of_text);
    }
}

impl Examples {
    /// The examples of windows of `length + 1` tokens each.
    pub fn new<'a>(
        windows: impl Iterator<Item = &'a [u32]>,
        length: usize,
        end_of_text: Option<u32>,
    ) -> Self {
        let mut examples = Self::default();
        examples.become_those_of(windows, length, end_of_text);
        examples
    }

    fn become_those_of<'a>(
        &mut self,
        windows: impl Iterator<Item = &'a [u32]>,
        length: usize,
        end_of_text: Option<u32>,
    ) {
        self.inputs.clear();
        self.targets.clear();
        self.length = length;
        self.documents = end_of_text.map(|_| self.documents.take().unwrap_or_default());
        self.documents.iter_mut().for_each(Vec::clear);
        let all = windows.size_hint().1.unwrap_or(0) * length;
        self.inputs.reserve_exact(all);
        self.targets.reserve_exact(all);
        self.documents.iter_mut().for_each(|documents| documents.reserve_exact(all));
        for window in windows {
            self.inputs.extend_from_slice(&window[..length]);
            self.targets.extend_from_slice(&window[1..]);
            if let (Some(documents), Some(end_of_text)) = (&mut self.documents, end_of_text) {
                let mut document = 0u32;
                for &token in &window[..length] {
                    documents.push(document);
                    document += u32::from(token == end_of_text);
                }
            }
        }
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.inputs.len() / self.length
    }

    /// Parts of `sequences` of them each, the last one fewer.
    pub fn parts(&self, sequences: usize) -> Vec<Self> {
        let size = sequences * self.length;
        let part = |first: usize| {
            let range = first..self.inputs.len().min(first + size);
            Self {
                inputs: self.inputs[range.clone()].to_vec(),
                targets: self.targets[range.clone()].to_vec(),
                documents: self.documents.as_ref().map(|documents| documents[range].to_vec()),
                length: self.length,
            }
        };
        (0..self.inputs.len()).step_by(size).map(part).collect()
    }

    /// The tokens that are seen, (sequences, length).
    pub fn inputs(&self, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::from_slice(&self.inputs, (self.sequences(), self.length), device)
    }

    /// The tokens that are predicted, (sequences, length).
    pub fn targets(&self, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::from_slice(&self.targets, (self.sequences(), self.length), device)
    }

    /// What each position sees.
    pub fn mask(&self, device: &Device) -> candle_core::Result<Mask> {
        match &self.documents {
            Some(documents) => {
                Mask::within(Tensor::from_slice(documents, (self.sequences(), self.length), device)?)
            }
            None => Ok(Mask::causal(self.length, self.length)),
        }
    }
}

#[cfg(test)]
mod tests;
