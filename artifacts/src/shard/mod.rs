//! What a shard is, and how documents come out of it.
//!
//! A shard is any file that somebody drops: it may be of the wrong kind, broken in the middle, or a thousand times
//! larger than memory. So it is read as a stream of documents, every length is bounded, and what is wrong with it is a
//! [`Refusal`] that says where: the file, its line, its byte. That the *system* would not let us read is another matter
//! ([`Error::Unreadable`]): it says nothing of the shard, and is to be tried again.

mod archive;
mod jsonl;
mod lines;
mod refusal;
mod text;
mod token_file;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use archive::Archive;
pub use refusal::Refusal;

use archive::{Counts, Fault, Unpacked};

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
pub struct Format {
    /// What is in it.
    pub content: Content,
    /// How that is packed, if it is.
    pub archive: Option<Archive>,
}

/// What is in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// One document of UTF-8 text.
    Text,
    /// One JSON object a line, with the document in one of its fields.
    JsonLines,
    /// Token numbers, one after the other, perhaps behind llm.c's header.
    TokenFile,
}

impl Format {
    /// The format that a file's name stands for.
    pub fn of(name: &str) -> Result<Self, Refusal> {
        let extension = |name: &Path| Some(name.extension()?.to_str()?.to_ascii_lowercase());
        let whole = Path::new(name);
        let archive = extension(whole).and_then(|extension| Archive::of(&extension));
        let within = match archive {
            Some(_) => whole.file_stem().map_or(whole, Path::new),
            None => whole,
        };
        let content = match extension(within).as_deref() {
            Some("jsonl") => Content::JsonLines,
            Some("bin") => Content::TokenFile,
            Some(text) if TEXT_EXTENSIONS.contains(&text) => Content::Text,
            _ => return Err(Refusal::UnknownFormat { path: PathBuf::from(name) }),
        };
        Ok(Self { content, archive })
    }

    /// Whether the shard comes as tokens, and needs no tokenizer.
    pub fn is_tokens(self) -> bool {
        self.content == Content::TokenFile
    }
}

impl From<Content> for Format {
    /// As it is, not packed.
    fn from(content: Content) -> Self {
        Self { content, archive: None }
    }
}

/// How wide a token is in a `.bin` file without a header.
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
    /// How wide a token is in a `.bin` file without a header.
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
    archive: Option<Arc<Counts>>,
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
    let Some(archive) = format.archive else {
        let source = Source { path: path.to_owned(), bytes };
        return Ok(Documents {
            documents: Some(documents(format.content, source, Some(size), options)),
            archive: None,
        });
    };
    let unpacked = Unpacked::new(archive, bytes, size)
        .map_err(|cause| Error::Unreadable { path: path.to_owned(), cause })?;
    let counts = unpacked.counts();
    let source = Source { path: path.to_owned(), bytes: unpacked };
    Ok(Documents { documents: Some(documents(format.content, source, None, options)), archive: Some(counts) })
}

fn documents(
    content: Content,
    source: Source<impl io::Read + Send + 'static>,
    size: Option<u64>,
    options: &Options,
) -> Box<dyn Iterator<Item = Result<Document, Error>> + Send> {
    match content {
        Content::Text => Box::new(text::Text::new(source, options)),
        Content::JsonLines => Box::new(jsonl::JsonLines::new(source, options)),
        Content::TokenFile => Box::new(token_file::TokenFile::new(source, size, options)),
    }
}

impl Documents {
    /// Bytes that came out of the archive so far, if the shard is one.
    pub fn unpacked(&self) -> Option<u64> {
        self.archive.as_ref().map(|counts| counts.unpacked())
    }
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
    /// Why its bytes end here: a fault of the archive that they are in, or the system's.
    fn failed(&self, cause: io::Error) -> Error {
        let path = self.path.clone();
        match Fault::of(&cause) {
            Some(Fault::Broken { byte, why }) => {
                Refusal::BrokenArchive { path, byte: *byte, why: why.clone() }.into()
            }
            Some(Fault::Swollen { most }) => Refusal::SwollenArchive { path, most: *most }.into(),
            None => Error::Unreadable { path, cause },
        }
    }
}

#[cfg(test)]
mod tests;
