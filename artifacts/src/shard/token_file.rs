//! Tokens that somebody else made: numbers of two or four bytes, one after the other, perhaps behind a header.
//!
//! llm.c writes a header of 256 i32 before its tokens: a magic number, a version and how many there are. Magic number and
//! version say how wide a token is, whatever was set. They are no tokens that a text could begin with: in the width of two
//! bytes the first lies above GPT-2's vocabulary, in that of four it is a number of eight digits.

use std::io::{self, Read};

use super::{Document, Error, Options, Refusal, Source, Width};

/// Bytes that are read at once: a multiple of every width.
const CHUNK: usize = 1 << 18;

/// Bytes of llm.c's header.
const HEADER: usize = 1024;
/// Its magic number and version, and the width of its tokens: of GPT-2's vocabulary and of LLaMA 3's.
const MAGIC: [(u32, u32, Width); 2] = [(20_240_520, 1, Width::Uint16), (20_240_801, 7, Width::Uint32)];

/// The tokens of a `.bin` file, a chunk at a time.
pub(super) struct TokenFile<R> {
    source: Source<R>,
    /// Bytes of the file, where that is known.
    size: Option<u64>,
    width: Width,
    vocabulary: u32,
    /// Tokens that its header promises.
    promised: Option<u64>,
    /// Tokens given so far.
    index: u64,
    /// Bytes before the first token; `None` before it was looked for.
    first: Option<u64>,
    chunk: Vec<u8>,
}

impl<R: Read> TokenFile<R> {
    /// The tokens of a file of so many bytes, where that is known.
    pub(super) fn new(source: Source<R>, size: Option<u64>, options: &Options) -> Self {
        let Options { width, vocabulary, .. } = *options;
        Self { source, size, width, vocabulary, promised: None, index: 0, first: None, chunk: Vec::new() }
    }

    fn tokens(&mut self) -> Result<Option<Document>, Error> {
        self.chunk.clear();
        let first = match self.first {
            Some(first) => first,
            None => self.begin()?,
        };
        let more = (CHUNK - self.chunk.len()) as u64;
        let read = self.source.bytes.by_ref().take(more).read_to_end(&mut self.chunk);
        read.map_err(|cause| self.source.failed(cause))?;
        let width = self.width.bytes();
        let end = first + self.index * width + self.chunk.len() as u64;
        if self.chunk.is_empty() {
            return self.end(end).map(|()| None);
        }
        if !(self.chunk.len() as u64).is_multiple_of(width) {
            return Err(match self.size {
                // It was whole when the file was opened.
                Some(_) => self.source.failed(changed()),
                None => Refusal::OddSize { path: self.source.path.clone(), bytes: end - first, width }.into(),
            });
        }
        let tokens: Vec<u32> = match self.width {
            Width::Uint16 => {
                self.chunk.as_chunks().0.iter().map(|bytes| u32::from(u16::from_le_bytes(*bytes))).collect()
            }
            Width::Uint32 => {
                self.chunk.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
            }
        };
        if let Some(at) = tokens.iter().position(|token| *token >= self.vocabulary) {
            let index = self.index + at as u64;
            return Err(Refusal::OutsideVocabulary {
                path: self.source.path.clone(),
                index,
                byte: first + index * width,
                token: tokens[at],
                vocabulary: self.vocabulary,
            }
            .into());
        }
        self.index += tokens.len() as u64;
        Ok(Some(Document::Tokens(tokens)))
    }

    /// Reads the header, if there is one; what was read and is none stays in the chunk. Says where tokens begin.
    fn begin(&mut self) -> Result<u64, Error> {
        let read = self.source.bytes.by_ref().take(HEADER as u64).read_to_end(&mut self.chunk);
        read.map_err(|cause| self.source.failed(cause))?;
        let number = |at: usize| {
            let bytes = self.chunk.get(4 * at..)?.first_chunk()?;
            Some(u32::from_le_bytes(*bytes))
        };
        let known = MAGIC.into_iter().find(|(magic, version, _)| {
            self.chunk.len() == HEADER && number(0) == Some(*magic) && number(1) == Some(*version)
        });
        let mut first = 0;
        if let Some((_, _, width)) = known {
            (self.width, self.promised, first) = (width, number(2).map(u64::from), HEADER as u64);
            self.chunk.clear();
        }
        self.first = Some(first);
        if let Some(size) = self.size {
            let (bytes, width) = (size.saturating_sub(first), self.width.bytes());
            if !bytes.is_multiple_of(width) {
                return Err(Refusal::OddSize { path: self.source.path.clone(), bytes, width }.into());
            }
            self.keeps_its_promise(bytes / width)?;
        }
        Ok(first)
    }

    /// After the last token, at byte `end`.
    fn end(&self, end: u64) -> Result<(), Error> {
        match self.size {
            Some(size) if size != end => return Err(self.source.failed(changed())),
            _ if self.index == 0 => return Err(Refusal::Empty { path: self.source.path.clone() }.into()),
            _ => {}
        }
        Ok(self.keeps_its_promise(self.index)?)
    }

    fn keeps_its_promise(&self, found: u64) -> Result<(), Refusal> {
        match self.promised {
            Some(promised) if promised != found => {
                Err(Refusal::BrokenPromise { path: self.source.path.clone(), promised, found })
            }
            _ => Ok(()),
        }
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it changed while it was read")
}

impl<R: Read> Iterator for TokenFile<R> {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.tokens().transpose()
    }
}
