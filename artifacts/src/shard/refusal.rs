//! Why a shard was refused.

use std::path::PathBuf;

/// Why a shard was refused. People read this: each says where, and what was expected. Lines and columns count from 1,
/// bytes and tokens from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name says nothing that is known.
    #[error(
        "{}: this file format is not known; `.txt`, `.md`, source code, `.jsonl` and `.bin` are taken, each also as `.gz` or \
         `.zst`",
        path.display()
    )]
    UnknownFormat {
        /// The shard.
        path: PathBuf,
    },
    /// There is no document in it.
    #[error("{}: the file is empty; a shard holds at least one document", path.display())]
    Empty {
        /// The shard.
        path: PathBuf,
    },
    /// Not UTF-8.
    #[error("{}:{line}: broken UTF-8 at byte {byte} of the file; text is taken as UTF-8 only", path.display())]
    BrokenUtf8 {
        /// The shard.
        path: PathBuf,
        /// The line.
        line: u64,
        /// Offset of the first byte that is no UTF-8.
        byte: u64,
    },
    /// A document is too long.
    #[error(
        "{}:{line}: a document is longer than {longest} bytes; split it, or raise the limit for the longest document",
        path.display()
    )]
    LongDocument {
        /// The shard.
        path: PathBuf,
        /// The line on which the document starts.
        line: u64,
        /// The limit.
        longest: u64,
    },
    /// A line is too long.
    #[error(
        "{}:{line}: the line is longer than {longest} bytes; split it, or raise the limit for the longest line",
        path.display()
    )]
    LongLine {
        /// The shard.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The limit.
        longest: u64,
    },
    /// A line is no JSON object.
    #[error("{}:{line}:{column}: no JSON object can be read (byte {byte} of the file): {why}", path.display())]
    Json {
        /// The shard.
        path: PathBuf,
        /// The line.
        line: u64,
        /// The column, in bytes; 0 where the fault has no one place.
        column: u64,
        /// Offset of the line's first byte.
        byte: u64,
        /// What is wrong.
        why: String,
    },
    /// An object has no such field.
    #[error("{}:{line}: the field `{field}` is missing (line at byte {byte} of the file)", path.display())]
    MissingField {
        /// The shard.
        path: PathBuf,
        /// The line.
        line: u64,
        /// Offset of the line's first byte.
        byte: u64,
        /// The field that holds the document.
        field: String,
    },
    /// The field holds something else than text.
    #[error(
        "{}:{line}: the field `{field}` holds {found}; a string was expected (line at byte {byte} of the file)",
        path.display()
    )]
    NotText {
        /// The shard.
        path: PathBuf,
        /// The line.
        line: u64,
        /// Offset of the line's first byte.
        byte: u64,
        /// The field that holds the document.
        field: String,
        /// What it holds.
        found: &'static str,
    },
    /// A token that the model does not know.
    #[error(
        "{}: token {index} (byte {byte} of the file) is {token}, which is outside the vocabulary of {vocabulary} tokens",
        path.display()
    )]
    OutsideVocabulary {
        /// The shard.
        path: PathBuf,
        /// Index of the token.
        index: u64,
        /// Offset of its first byte.
        byte: u64,
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocabulary: u32,
    },
    /// Not a whole number of tokens.
    #[error("{}: {bytes} bytes are no whole number of tokens of {width} bytes", path.display())]
    OddSize {
        /// The shard.
        path: PathBuf,
        /// Bytes.
        bytes: u64,
        /// Bytes of a token.
        width: u64,
    },
    /// The header of a token file says another number of tokens.
    #[error(
        "{}: its header promises {promised} tokens, but {found} follow: the file is cut short, or is two in one",
        path.display()
    )]
    BrokenPromise {
        /// The shard.
        path: PathBuf,
        /// Tokens by its header.
        promised: u64,
        /// Tokens after it.
        found: u64,
    },
    /// An archive that cannot be unpacked.
    #[error(
        "{}: the archive cannot be unpacked within its first {byte} bytes: {why}; pack it again (zstd without --long), or drop \
         what it holds",
        path.display()
    )]
    BrokenArchive {
        /// The shard.
        path: PathBuf,
        /// Bytes of the archive that were read.
        byte: u64,
        /// What its decoder says.
        why: String,
    },
    /// An archive that holds too much.
    #[error(
        "{}: the archive holds more than {most} bytes, far more than text of any kind packs so small; drop what it holds if \
         that is meant",
        path.display()
    )]
    SwollenArchive {
        /// The shard.
        path: PathBuf,
        /// What it may hold.
        most: u64,
    },
}
