//! Tokens that somebody else made: numbers of two or four bytes, one after the other.

use std::io::{self, Read};

use super::{Document, Error, Options, Refusal, Source, Width};

/// Bytes that are read at once: a multiple of every width.
const CHUNK: usize = 1 << 18;

/// The tokens of a `.bin` file, a chunk at a time.
pub(super) struct TokenFile<R> {
    source: Source<R>,
    width: Width,
    vocabulary: u32,
    /// Tokens given so far.
    index: u64,
    chunk: Vec<u8>,
}

impl<R: Read> TokenFile<R> {
    pub(super) fn new(source: Source<R>, size: u64, options: &Options) -> Result<Self, Refusal> {
        let width = options.width;
        if !size.is_multiple_of(width.bytes()) {
            return Err(Refusal::OddSize { path: source.path, bytes: size, width: width.bytes() });
        }
        Ok(Self { source, width, vocabulary: options.vocabulary, index: 0, chunk: Vec::new() })
    }

    fn tokens(&mut self) -> Result<Option<Document>, Error> {
        self.chunk.clear();
        let read = self.source.bytes.by_ref().take(CHUNK as u64).read_to_end(&mut self.chunk);
        read.map_err(|cause| self.source.unreadable(cause))?;
        if self.chunk.is_empty() {
            return Ok(None);
        }
        let width = self.width.bytes();
        if !(self.chunk.len() as u64).is_multiple_of(width) {
            // The size was whole when the file was opened.
            let cause = io::Error::new(io::ErrorKind::UnexpectedEof, "it changed while it was read");
            return Err(self.source.unreadable(cause));
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
                byte: index * width,
                token: tokens[at],
                vocabulary: self.vocabulary,
            }
            .into());
        }
        self.index += tokens.len() as u64;
        Ok(Some(Document::Tokens(tokens)))
    }
}

impl<R: Read> Iterator for TokenFile<R> {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.tokens().transpose()
    }
}
