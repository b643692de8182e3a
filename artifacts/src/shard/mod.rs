//! What a shard is, and how documents come out of it.
//!
//! A shard is any file that somebody drops: it may be of the wrong kind, broken in the middle, or a thousand times
//! larger than memory. So it is read as a stream of documents, every length is bounded, and what is wrong with it is a
//! [`Refusal`] that says where: the file, its line, its byte. That the *system* would not let us read is another matter
//! ([`Error::Unreadable`]): it says nothing of the shard, and is to be tried again.

mod jsonl;
mod lines;
mod refusal;
mod text;
mod token_file;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use refusal::Refusal;

/// Extensions of files that are one document of text: prose first, then source code and markup. Data formats that hold
/// many documents in a structure of their own (`json`, `xml`, `csv`) are not among them: as plain text they would mostly
/// teach brackets.
pub const TEXT_EXTENSIONS: &[&str] = &[
    "txt", "text", "md", "markdown", "rst", "adoc", "org", "tex", //
    "asm", "awk", "bash", "bat", "c", "cc", "cfg", "clj", "cmake", "cpp", "cs", "css", "cu", "cuh", "cxx",
    "d", "dart", "el", "elm", "erl", "ex", "exs", "f90", "fs", "go", "gradle", "graphql", "groovy", "h",
    "hh", "hpp", "hs", "html", "htm", "hxx", "ini", "java", "jl", "js", "jsx", "kt", "kts", "less", "lisp",
    "lua", "m", "mjs", "mk", "ml", "mli", "nim", "nix", "pas", "patch", "php", "pl", "pm", "proto", "ps1",
    "py", "pyi", "r", "rb", "rs", "s", "scala", "scm", "scss", "sh", "sol", "sql", "svelte", "swift", "tcl",
    "tf", "toml", "ts", "tsx", "v", "vb", "vhd", "vim", "vue", "yaml", "yml", "zig", "zsh",
];

/// How a shard's file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One document of UTF-8 text.
    Text,
    /// One JSON object a line, with the document in one of its fields.
    JsonLines,
    /// Token numbers, one after the other, without a header.
    TokenFile,
}

impl Format {
    /// The format that a file's name stands for.
    pub fn of(name: &str) -> Result<Self, Refusal> {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("jsonl") => Ok(Self::JsonLines),
            Some("bin") => Ok(Self::TokenFile),
            Some(text) if TEXT_EXTENSIONS.contains(&text) => Ok(Self::Text),
            _ => Err(Refusal::UnknownFormat { path: PathBuf::from(name) }),
        }
    }

    /// Whether the shard comes as tokens, and needs no tokenizer.
    pub fn is_tokens(self) -> bool {
        self == Self::TokenFile
    }
}

/// How wide a token is in a `.bin` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// Two bytes, little-endian.
    #[default]
    Uint16,
    /// Four bytes, little-endian.
    Uint32,
}

impl Width {
    /// Bytes of a token.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Uint16 => 2,
            Self::Uint32 => 4,
        }
    }
}

/// What must be known to read shards, and how much of one is read at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Field of a `.jsonl` line that holds its document.
    pub field: String,
    /// How wide a token is in a `.bin` file.
    pub width: Width,
    /// Tokens in the vocabulary: a token of a `.bin` file lies below.
    pub vocabulary: u32,
    /// Longest document, in bytes of text.
    pub longest_document: u64,
    /// Longest line of a `.jsonl` file, in bytes.
    pub longest_line: u64,
}

/// Longest document and longest line, in bytes, where nothing else is set.
pub const LONGEST: u64 = 256 << 20;

impl Options {
    /// The usual settings for a vocabulary of this size.
    pub fn new(vocabulary: u32) -> Self {
        Self {
            field: "text".into(),
            width: Width::default(),
            vocabulary,
            longest_document: LONGEST,
            longest_line: LONGEST,
        }
    }
}

/// What comes out of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A whole document. It may be empty.
    Text(String),
    /// The next tokens of a token file, which go on where the last ones ended: nothing but an end-of-text token among
    /// them, and the end of the file, ends a document.
    Tokens(Vec<u32>),
}

/// Why a shard gave no further document.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The shard is at fault.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The system would not give its bytes: this says nothing of the shard.
    #[error("cannot read `{}`: {cause}", path.display())]
    Unreadable {
        /// The shard.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The documents of a shard, in order. After an error there is nothing more.
pub struct Documents {
    documents: Option<Box<dyn Iterator<Item = Result<Document, Error>> + Send>>,
}

/// Opens a shard, in the format that its name stands for.
pub fn open(path: &Path, options: &Options) -> Result<Documents, Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let format = Format::of(&name).map_err(|_| Refusal::UnknownFormat { path: path.to_owned() })?;
    let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause };
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    read(format, path, file, size, options)
}

/// The documents in some bytes, of which there are `size`; `path` is what refusals call them.
pub fn read(
    format: Format,
    path: &Path,
    bytes: impl io::Read + Send + 'static,
    size: u64,
    options: &Options,
) -> Result<Documents, Error> {
    if size == 0 {
        return Err(Refusal::Empty { path: path.to_owned() }.into());
    }
    let source = Source { path: path.to_owned(), bytes };
    let documents: Box<dyn Iterator<Item = _> + Send> = match format {
        Format::Text => Box::new(text::Text::new(source, options)),
        Format::JsonLines => Box::new(jsonl::JsonLines::new(source, options)),
        Format::TokenFile => Box::new(token_file::TokenFile::new(source, size, options)?),
    };
    Ok(Documents { documents: Some(documents) })
}

impl Iterator for Documents {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.documents.as_mut()?.next();
        if !matches!(next, Some(Ok(_))) {
            self.documents = None;
        }
        next
    }
}

/// Bytes, and what to call them.
struct Source<R> {
    path: PathBuf,
    bytes: R,
}

impl<R> Source<R> {
    fn unreadable(&self, cause: io::Error) -> Error {
        Error::Unreadable { path: self.path.clone(), cause }
    }
}

#[cfg(test)]
mod tests;
