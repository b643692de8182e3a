//! Prose, markdown, source code: a file is one document.

use std::io::Read;

use super::{Document, Error, Options, Refusal, Source};

/// What some editors put in front of UTF-8; it is no part of the text.
pub(super) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The one document of a text file.
pub(super) struct Text<R> {
    source: Option<Source<R>>,
    longest: u64,
}

impl<R: Read> Text<R> {
    pub(super) fn new(source: Source<R>, options: &Options) -> Self {
        Self { source: Some(source), longest: options.longest_document }
    }
}

impl<R: Read> Iterator for Text<R> {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let source = self.source.take()?;
        Some(whole(source, self.longest).map(Document::Text))
    }
}

fn whole<R: Read>(mut source: Source<R>, longest: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let bound = longest.saturating_add(BYTE_ORDER_MARK.len() as u64 + 1);
    let read = source.bytes.by_ref().take(bound).read_to_end(&mut bytes);
    read.map_err(|cause| source.failed(cause))?;
    let path = source.path;
    let mark = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    if (bytes.len() - mark) as u64 > longest {
        return Err(Refusal::LongDocument { path, line: 1, longest }.into());
    }
    if bytes.len() == mark {
        return Err(Refusal::Empty { path }.into());
    }
    match String::from_utf8(bytes) {
        Ok(mut text) => {
            text.drain(..mark);
            Ok(text)
        }
        Err(broken) => {
            let byte = broken.utf8_error().valid_up_to();
            let line = 1 + broken.as_bytes()[..byte].iter().filter(|b| **b == b'\n').count() as u64;
            Err(Refusal::BrokenUtf8 { path, line, byte: byte as u64 }.into())
        }
    }
}
