//! Documents in, a shard's folder out, in memory that does not grow with the shard.

use std::io;
use std::path::{Path, PathBuf};

use super::{Block, Cutting, FORMAT, HELD_OUT, SHARD, STREAM, Shard};
use crate::Digest;
use crate::manifest::Manifest;
use crate::storage::{self, Output, Storage};

/// Why tokens could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The byte ends do not belong to the tokens.
    #[error("{tokens} tokens came with {ends} byte ends; one for each is needed, or none at all")]
    Ends {
        /// Tokens.
        tokens: usize,
        /// Byte ends.
        ends: usize,
    },
}

/// Writes the tokens of one shard. What was written is only there after [`Writer::finish`]; a writer that is dropped
/// before removes what it wrote.
pub struct Writer<'s> {
    folder: Unpublished<'s>,
    cutting: Cutting,
    stream: Output,
    held_out: Output,
    held_out_tokens: u64,
    shard: Shard,
    open: OpenBlock,
    /// The open document has had a token.
    in_document: bool,
    /// The open document has given a token to the stream.
    in_stream: bool,
}

/// The block that is being filled.
#[derive(Default)]
struct OpenBlock {
    /// Its tokens so far, little-endian.
    bytes: Vec<u8>,
    count: u32,
    /// Byte ends of its first and its latest token.
    ends: Option<(u64, u64)>,
}

impl OpenBlock {
    fn push(&mut self, token: u32, end: Option<u64>) {
        self.ends = match (self.count, self.ends, end) {
            (0, _, Some(end)) => Some((end, end)),
            (_, Some((first, last)), Some(end)) => Some((first, last.max(end))),
            _ => None,
        };
        self.bytes.extend_from_slice(&token.to_le_bytes());
        self.count += 1;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }
}

impl<'s> Writer<'s> {
    /// A writer of the shard with this digest and name, into `<tokens>/<digest>/`.
    pub fn create(
        storage: &'s dyn Storage,
        tokens: &Path,
        digest: Digest,
        name: &str,
        cutting: Cutting,
    ) -> Result<Self, Error> {
        let folder = Unpublished::create(storage, tokens.join(digest.to_string()))?;
        let stream = folder.output(STREAM)?;
        let held_out = folder.output(HELD_OUT)?;
        let name = name.to_owned();
        let shard =
            Shard { format: FORMAT, digest, name, bytes: 0, documents: 0, tokens: 0, held_out: Vec::new() };
        Ok(Self {
            folder,
            cutting,
            stream,
            held_out,
            held_out_tokens: 0,
            shard,
            open: OpenBlock::default(),
            in_document: false,
            in_stream: false,
        })
    }

    /// A whole document; see [`Writer::push`].
    pub fn document(&mut self, tokens: &[u32], ends: Option<&[u64]>) -> Result<(), Error> {
        self.push(tokens, ends)?;
        self.end_document()
    }

    /// The next tokens of the open document. An end-of-text token among them ends it and opens another.
    ///
    /// `ends` gives for each token the bytes of the document's text up to the token's end, from the same start for all
    /// tokens of one document; without it, a block's bytes are not known.
    pub fn push(&mut self, tokens: &[u32], ends: Option<&[u64]>) -> Result<(), Error> {
        if let Some(ends) = ends
            && ends.len() != tokens.len()
        {
            return Err(Error::Ends { tokens: tokens.len(), ends: ends.len() });
        }
        for (index, &token) in tokens.iter().enumerate() {
            if Some(token) == self.cutting.end_of_text() {
                self.end_document()?;
                continue;
            }
            self.in_document = true;
            self.open.push(token, ends.map(|ends| ends[index]));
            if self.open.count == self.cutting.block() {
                self.close_block()?;
            }
        }
        Ok(())
    }

    /// Ends the open document. One without a token leaves nothing.
    pub fn end_document(&mut self) -> Result<(), Error> {
        if !self.in_document {
            return Ok(());
        }
        if self.open.count > 0 {
            self.close_block()?;
        }
        if let Some(end_of_text) = self.cutting.end_of_text()
            && self.in_stream
        {
            self.stream.write(&end_of_text.to_le_bytes())?;
            self.shard.tokens += 1;
        }
        self.shard.documents += 1;
        self.in_document = false;
        self.in_stream = false;
        Ok(())
    }

    /// Ends the open document, and publishes the shard's folder durably. `bytes` is the size of the original file. An
    /// error that [is of a taken name](storage::Error::is_taken) if the folder is already there.
    pub fn finish(mut self, bytes: u64) -> Result<Shard, Error> {
        self.end_document()?;
        let Self { folder, stream, held_out, mut shard, .. } = self;
        shard.bytes = bytes;
        let mut manifest = Manifest::new();
        manifest.insert(STREAM, stream.finish()?);
        manifest.insert(HELD_OUT, held_out.finish()?);
        let mut output = folder.output(SHARD)?;
        let written = serde_json::to_writer(&mut output, &shard).map_err(io::Error::from);
        written.map_err(|cause| output.failure(cause))?;
        output.write(b"\n")?;
        manifest.insert(SHARD, output.finish()?);
        manifest.write(folder.storage, &folder.temporary)?;
        folder.publish()?;
        Ok(shard)
    }

    fn close_block(&mut self) -> Result<(), Error> {
        if self.cutting.holds_out(&self.open.bytes) {
            self.held_out.write(&self.open.bytes)?;
            let bytes = self.open.ends.map(|(first, last)| last - first);
            let (position, first, count) = (self.shard.tokens, self.held_out_tokens, self.open.count);
            self.shard.held_out.push(Block { position, first, count, bytes });
            self.held_out_tokens += u64::from(count);
        } else {
            self.stream.write(&self.open.bytes)?;
            self.shard.tokens += u64::from(self.open.count);
            self.in_stream = true;
        }
        self.open.clear();
        Ok(())
    }
}

/// A folder under its temporary name, removed if it is never published.
struct Unpublished<'s> {
    storage: &'s dyn Storage,
    temporary: PathBuf,
    published: PathBuf,
    is_published: bool,
}

impl<'s> Unpublished<'s> {
    fn create(storage: &'s dyn Storage, published: PathBuf) -> storage::Result<Self> {
        let temporary = storage::temporary_folder(storage, &published)?;
        Ok(Self { storage, temporary, published, is_published: false })
    }

    fn output(&self, name: &str) -> storage::Result<Output> {
        Output::create(self.storage, &self.temporary.join(name))
    }

    fn publish(mut self) -> storage::Result<()> {
        storage::publish_folder(self.storage, &self.temporary, &self.published)?;
        self.is_published = true;
        Ok(())
    }
}

impl Drop for Unpublished<'_> {
    fn drop(&mut self) {
        if !self.is_published {
            // What stays behind has a temporary name: harmless, and swept at the next start.
            let _ = storage::remove_tree(self.storage, &self.temporary);
        }
    }
}
