//! The bounded child: it reads shards, so that the daemon need not.
//!
//! A parser that meets a file nobody has imagined may ask for all memory, run for ever, or crash. So files are opened in
//! a child with limits of its own, which dies with the daemon. A session begins with a line that says what the run is;
//! then a line asks, and a line answers, for one shard after the other: starting a process and reading a tokenizer for
//! each of a hundred thousand small files would take hours. That a shard is refused is an answer; only a child that does
//! not answer has died, and the death is the deed of the one shard that it was reading.

mod body;
mod session;

use std::path::PathBuf;
use std::time::Duration;

use artifacts::Digest;
use serde::{Deserialize, Serialize};

use crate::ledger::transition::{EndOfText, ShardTokens};

pub use body::child;
pub use session::{Child, Failure};

/// How shards are read: the same for every shard of a run, but for the tokenizer that may come later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The folder of all tokens.
    pub tokens: PathBuf,
    /// The run's tokenizer, there or to be.
    pub tokenizer: PathBuf,
    /// Field of a `.jsonl` line that holds the text.
    pub field: String,
    /// Tokens of a `.bin` file have four bytes, not two, where no header says how many.
    pub wide: bool,
    /// The model's vocabulary.
    pub vocabulary: u32,
    /// Longest document, in bytes.
    pub longest_document: u64,
    /// Token between documents.
    pub end_of_text: Option<EndOfText>,
    /// Seed of the hold-out.
    pub seed: u64,
    /// Tokens of a block.
    pub block: u32,
    /// Share of blocks that are held out.
    pub share: f64,
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

/// What a child must know before it is asked anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Process that started it.
    pub parent: u32,
    /// Bytes of memory that it may take.
    pub memory: u64,
    /// How shards are read.
    pub reading: Reading,
    /// Digest of the tokenizer, once there is one.
    pub tokenizer: Option<Digest>,
}

/// A question to the child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// Read a shard and write its tokens.
    Tokenise(ShardFile),
    /// Read a shard, and say whether it could be tokenised if there were a tokenizer.
    Validate(ShardFile),
    /// Train a tokenizer, and write it.
    Train {
        /// The shards, in the order of acceptance; the order changes nothing.
        shards: Vec<ShardFile>,
        /// Tokens of its vocabulary.
        vocabulary: u32,
        /// Seconds of processor time that it may take.
        seconds: u64,
    },
}

/// A shard's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardFile {
    /// Digest that its bytes must have.
    pub digest: Digest,
    /// What it is called: the extension is its format, and refusals name it.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Seconds of processor time that it may take.
    pub seconds: u64,
}

/// What the child answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// It is ready for questions.
    Ready,
    /// The shard's tokens are written.
    Tokenised {
        /// Its tokens.
        tokens: ShardTokens,
        /// Bytes of what came packed.
        unpacked: Option<u64>,
    },
    /// The shard can be taken.
    Valid {
        /// Bytes of its text where it came packed.
        unpacked: Option<u64>,
    },
    /// The shard cannot be taken.
    Refused {
        /// What is wrong with it, and where.
        reason: String,
    },
    /// The file has other bytes than was said.
    Changed,
    /// The tokenizer is written.
    Trained {
        /// Its digest.
        digest: Digest,
        /// Number of its end-of-text token.
        end_of_text: Option<u32>,
    },
    /// The system does not let the shard's file be read.
    Unreadable {
        /// What.
        what: String,
    },
    /// Something else went wrong, which says nothing of the shard and its file.
    Trouble {
        /// What.
        what: String,
    },
}
