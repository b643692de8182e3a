//! Lines of bounded length.

use std::io::{BufRead, BufReader, Read};

use super::{Error, Refusal, Source};

/// Bytes that are read at once.
const BUFFER: usize = 1 << 18;

/// Lines of a file, one at a time.
pub(super) struct Lines<R> {
    source: Source<BufReader<R>>,
    longest: u64,
    /// The latest line, without its line feed.
    line: Vec<u8>,
    number: u64,
    /// Offset of the line's first byte.
    byte: u64,
    next_byte: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(source: Source<R>, longest: u64) -> Self {
        let source = Source { path: source.path, bytes: BufReader::with_capacity(BUFFER, source.bytes) };
        Self { source, longest, line: Vec::new(), number: 0, byte: 0, next_byte: 0 }
    }

    /// Goes to the next line, and says whether there is one.
    pub(super) fn advance(&mut self) -> Result<bool, Error> {
        self.line.clear();
        // One more for the line feed, and one to see that the line is too long.
        let bound = self.longest.saturating_add(2);
        let read = self.source.bytes.by_ref().take(bound).read_until(b'\n', &mut self.line);
        let read = read.map_err(|cause| self.source.failed(cause))? as u64;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.byte = self.next_byte;
        self.next_byte += read;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        }
        if self.line.len() as u64 > self.longest {
            let path = self.source.path.clone();
            return Err(Refusal::LongLine { path, line: self.number, longest: self.longest }.into());
        }
        Ok(true)
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.source.path
    }

    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn byte(&self) -> u64 {
        self.byte
    }
}
