//! From text to tokens.
//!
//! A run has one `tokenizer.json`, given or trained, and every bit of every version hangs on what it makes of a text. So
//! the way from a document to its tokens is fixed here, and does not depend on the number of threads, on memory, or on
//! how the file was read. A document longer than [`PIECE`] bytes is cut into pieces, so that a file of gigabytes needs
//! no more memory than one of megabytes. It is cut where a run of blanks begins, which is where nearly every tokenizer
//! begins a token; each piece is read with the text before it in view, and gives the tokens that begin in it.

mod training;

use std::io;
use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::storage::{self, Disk, Storage};
use rayon::prelude::*;
use tokenizers::{PostProcessorWrapper, Tokenizer as Library};

use crate::ledger::transition::EndOfText;
use crate::vocabulary::{Vocabulary, Wanted};

pub use training::{Corpus, TrainError, train};

/// Name of the file in a state and in a release.
pub const FILE: &str = "tokenizer.json";

/// Longest `tokenizer.json`, in bytes.
pub const LONGEST: u64 = 256 << 20;
/// Longest text that is given to the tokenizer at once, in bytes.
pub const PIECE: usize = 256 << 10;
/// How much text before a piece the tokenizer sees, in bytes.
const CONTEXT: usize = 256;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] storage::Error),
    /// The file is no tokenizer.
    #[error("`{}` is not a tokenizer: {why}; the `tokenizer.json` of HF tokenizers was expected", path.display())]
    NotATokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is not the one that the run began with.
    #[error("`{}` has the digest {found}, and the run's tokenizer has {expected}: restore the file", path.display())]
    Another {
        /// The file.
        path: PathBuf,
        /// The run's.
        expected: Digest,
        /// The file's.
        found: Digest,
    },
    /// It has tokens that the model does not know.
    #[error("`{}` has a token of number {token}, and the model's `vocab_size` is {vocabulary}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its highest number.
        token: u32,
        /// The model's vocabulary.
        vocabulary: u32,
    },
    /// There is no such token.
    #[error("`{token}` is no token of `{}`; set `tokenizer.end_of_text` to one of its tokens, or to false", path.display())]
    NoSuchToken {
        /// The file.
        path: PathBuf,
        /// The text.
        token: String,
    },
    /// A text could not be taken apart.
    #[error("the tokenizer gives up: {0}")]
    Encoding(String),
}

/// The number of the token that separates documents, if there is to be one, without a tokenizer being made of its file.
///
/// # Errors
/// The file is no tokenizer's, or there is no such token.
pub fn end_of_text(path: &Path, token: Option<&EndOfText>) -> Result<Option<u32>, TokenizerError> {
    let Some(token) = token else { return Ok(None) };
    let text = match token {
        EndOfText::Text(text) => Some(text.as_str()),
        EndOfText::Number(_) => None,
    };
    let not =
        |error: io::Error| TokenizerError::NotATokenizer { path: path.to_owned(), why: error.to_string() };
    let found = Vocabulary::read(path, LONGEST, Wanted { text, number: None }).map_err(not)?;
    let number = match token {
        EndOfText::Number(number) => Some(*number).filter(|number| Some(*number) <= found.highest),
        EndOfText::Text(_) => found.number,
    };
    number.map(Some).ok_or_else(|| no_such(path, token))
}

fn no_such(path: &Path, token: &EndOfText) -> TokenizerError {
    let token = match token {
        EndOfText::Number(number) => number.to_string(),
        EndOfText::Text(text) => text.clone(),
    };
    TokenizerError::NoSuchToken { path: path.to_owned(), token }
}

/// A tokenizer that is ready for work.
pub struct Tokenizer {
    library: Library,
    path: PathBuf,
    digest: Digest,
    highest: Option<u32>,
}

/// The tokens of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Their numbers.
    pub tokens: Vec<u32>,
    /// Bytes of the text up to the end of each.
    pub ends: Vec<u64>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. What it says of padding, of truncation and of tokens to be put around a text is passed
    /// over: a stream has none of them.
    ///
    /// # Errors
    /// It cannot be read, or is no tokenizer.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let bytes = Disk.read(path, LONGEST)?;
        let not = |why: String| TokenizerError::NotATokenizer { path: path.to_owned(), why };
        let mut library = Library::from_bytes(&bytes).map_err(|error| not(error.to_string()))?;
        library.with_padding(None).with_post_processor(None::<PostProcessorWrapper>);
        library.with_truncation(None).map_err(|error| not(error.to_string()))?;
        let highest = library.get_vocab(true).into_values().max();
        Ok(Self { library, path: path.to_owned(), digest: Digest::of(&bytes), highest })
    }

    /// Digest of its file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its number of tokens: one more than the highest number.
    pub fn vocabulary(&self) -> u32 {
        self.highest.map_or(0, |highest| highest.saturating_add(1))
    }

    /// Whether it is the run's, and the model knows all its tokens.
    ///
    /// # Errors
    /// The file has another digest, or a token lies outside the model's vocabulary.
    pub fn check(&self, expected: Digest, vocabulary: u32) -> Result<(), TokenizerError> {
        if self.digest != expected {
            return Err(TokenizerError::Another { path: self.path.clone(), expected, found: self.digest });
        }
        self.check_vocabulary(vocabulary)
    }

    /// Whether a model with this vocabulary knows all its tokens.
    ///
    /// # Errors
    /// A token lies outside.
    pub fn check_vocabulary(&self, vocabulary: u32) -> Result<(), TokenizerError> {
        match self.highest {
            Some(token) if token >= vocabulary => {
                Err(TokenizerError::TooLarge { path: self.path.clone(), token, vocabulary })
            }
            _ => Ok(()),
        }
    }

    /// Text of a token.
    pub fn token(&self, number: u32) -> Option<String> {
        self.library.id_to_token(number)
    }

    /// The number of the token that separates documents, if there is to be one.
    ///
    /// # Errors
    /// There is no such token.
    pub fn end_of_text(&self, token: Option<&EndOfText>) -> Result<Option<u32>, TokenizerError> {
        token.map(|token| self.number(token)).transpose()
    }

    fn number(&self, token: &EndOfText) -> Result<u32, TokenizerError> {
        let number = match token {
            EndOfText::Number(number) => Some(*number).filter(|number| *number < self.vocabulary()),
            EndOfText::Text(text) => self.library.token_to_id(text),
        };
        number.ok_or_else(|| no_such(&self.path, token))
    }

    /// The text that tokens stand for.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        self.library.decode(tokens, false).map_err(|error| TokenizerError::Encoding(error.to_string()))
    }

    /// The tokens of a document, in memory that grows with it; see [`Tokenizer::encode_long`].
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn encode(&self, text: &str) -> Result<Encoded, TokenizerError> {
        let mut all = Encoded::default();
        for piece in pieces(text) {
            let encoded = self.piece(text, &piece)?;
            all.tokens.extend(encoded.tokens);
            all.ends.extend(encoded.ends);
        }
        Ok(all)
    }

    /// The tokens of a document, some pieces at a time and each time in parallel; `take` gets them in order. The ends
    /// are counted from the document's start.
    ///
    /// # Errors
    /// What the tokenizer says, or `take`.
    pub fn encode_long<E: From<TokenizerError>>(
        &self,
        text: &str,
        mut take: impl FnMut(Encoded) -> Result<(), E>,
    ) -> Result<(), E> {
        let pieces = pieces(text);
        for some in pieces.chunks(rayon::current_num_threads().max(1)) {
            let encoded: Vec<Result<Encoded, TokenizerError>> =
                some.par_iter().map(|piece| self.piece(text, piece)).collect();
            for piece in encoded {
                take(piece?)?;
            }
        }
        Ok(())
    }

    /// The tokens that begin in a piece of a text.
    fn piece(&self, text: &str, piece: &Piece) -> Result<Encoded, TokenizerError> {
        let seen = self.encode_from(text, piece.context, piece.end)?;
        let first = seen.starts.partition_point(|start| *start < piece.start);
        let begins_with_a_token = seen.starts.get(first).is_none_or(|start| *start == piece.start)
            && first
                .checked_sub(1)
                .and_then(|last| seen.encoded.ends.get(last))
                .is_none_or(|end| *end == piece.start);
        if piece.context < piece.start && !begins_with_a_token {
            // A token that lies across the cut: the piece is taken for itself, so that nothing is lost or comes twice.
            return Ok(self.encode_from(text, piece.start, piece.end)?.encoded);
        }
        let Encoded { mut tokens, mut ends } = seen.encoded;
        Ok(Encoded { tokens: tokens.split_off(first), ends: ends.split_off(first) })
    }

    fn encode_from(&self, text: &str, from: u64, to: u64) -> Result<Seen, TokenizerError> {
        let part = text.get(from as usize..to as usize).unwrap_or_default();
        let encoding =
            self.library.encode(part, false).map_err(|error| TokenizerError::Encoding(error.to_string()))?;
        let starts = encoding.get_offsets().iter().map(|(start, _)| from + *start as u64).collect();
        let ends = encoding.get_offsets().iter().map(|(_, end)| from + *end as u64).collect();
        Ok(Seen { starts, encoded: Encoded { tokens: encoding.get_ids().to_vec(), ends } })
    }
}

/// Tokens with their places in the text.
struct Seen {
    starts: Vec<u64>,
    encoded: Encoded,
}

/// A piece of a text, `start..end`, to be read from `context` on. All three are bytes from the text's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    context: u64,
    start: u64,
    end: u64,
}

/// Cuts a text into pieces of at most [`PIECE`] bytes.
fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(text.len() / PIECE + 1);
    let mut start = 0;
    while start < text.len() {
        let end = end_of_piece(text, start);
        let context = match pieces.is_empty() {
            true => start,
            false => begin_of_blanks(text, start.saturating_sub(CONTEXT), start),
        };
        pieces.push(Piece { context: context as u64, start: start as u64, end: end as u64 });
        start = end;
    }
    pieces
}

/// Where the piece that begins at `start` ends: where the last run of blanks in it begins, or, in a piece without a
/// blank, at the last whole character.
fn end_of_piece(text: &str, start: usize) -> usize {
    if text.len() - start <= PIECE {
        return text.len();
    }
    let longest = text.floor_char_boundary(start + PIECE);
    let bytes = text.as_bytes();
    (start + 1..longest)
        .rev()
        .find(|at| bytes[*at].is_ascii_whitespace() && !bytes[*at - 1].is_ascii_whitespace())
        .unwrap_or(longest)
}

/// The first place from `from` on where a run of blanks begins, or `to`.
fn begin_of_blanks(text: &str, from: usize, to: usize) -> usize {
    let bytes = text.as_bytes();
    (from.max(1)..to)
        .find(|at| bytes[*at].is_ascii_whitespace() && !bytes[*at - 1].is_ascii_whitespace())
        .unwrap_or(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tokenizer trained on a little text.
    fn trained() -> (tempfile::TempDir, Tokenizer) {
        let folder = tempfile::tempdir().unwrap();
        let mut corpus = Corpus::new(Some("<|endoftext|>"));
        corpus
            .add("the cat sat on the mat, and the other cat sat on that hat\n".repeat(20).as_str())
            .unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, train(corpus, 300).unwrap()).unwrap();
        let tokenizer = Tokenizer::load(&path).unwrap();
        (folder, tokenizer)
    }

    #[test]
    fn every_text_comes_back() {
        let (_folder, tokenizer) = trained();
        for text in ["the cat", "  two  blanks \n\n\t", "žluťoučký kůň 🐎 ありがとう", "\u{0}\u{7f}", ""]
        {
            let encoded = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&encoded.tokens).unwrap(), text);
            assert_eq!(encoded.tokens.len(), encoded.ends.len());
            assert_eq!(encoded.ends.last().copied().unwrap_or(0), text.len() as u64);
        }
    }

    #[test]
    fn the_separator_is_found_without_the_tokenizer_too() {
        let (folder, tokenizer) = trained();
        let path = folder.path().join("tokenizer.json");
        let highest = tokenizer.vocabulary() - 1;
        for token in [
            EndOfText::Text("<|endoftext|>".into()),
            EndOfText::Text("the".into()),
            EndOfText::Text("</s>".into()),
            EndOfText::Number(0),
            EndOfText::Number(highest),
            EndOfText::Number(highest + 1),
        ] {
            let [read, made] = [end_of_text(&path, Some(&token)), tokenizer.end_of_text(Some(&token))]
                .map(|found| found.map_err(|error| error.to_string()));
            assert_eq!(read, made, "{token:?}");
        }
        assert_eq!(end_of_text(&path, None).unwrap(), None);
    }

    #[test]
    fn a_separator_in_the_text_is_one_token() {
        let (_folder, tokenizer) = trained();
        let end = tokenizer.end_of_text(Some(&EndOfText::Text("<|endoftext|>".into()))).unwrap();
        assert_eq!((end, tokenizer.end_of_text(None).unwrap()), (Some(0), None));
        let tokens = tokenizer.encode("cat<|endoftext|>cat").unwrap().tokens;
        assert_eq!(tokens.iter().filter(|token| Some(**token) == end).count(), 1);
        let gone = tokenizer.end_of_text(Some(&EndOfText::Text("</s>".into()))).unwrap_err();
        assert!(gone.to_string().contains("`</s>` is no token"), "{gone}");
    }

    #[test]
    fn a_long_text_has_the_tokens_that_it_has_in_one_piece() {
        let (_folder, tokenizer) = trained();
        let text: String =
            (0..60_000).map(|i| format!("the {}cat's hat{}", i % 7, ["  ", "\n", "\n\n "][i % 3])).collect();
        assert!(text.len() > 3 * PIECE);
        let whole = tokenizer.library.encode(text.as_str(), false).unwrap();
        let encoded = tokenizer.encode(&text).unwrap();
        assert!(encoded.tokens == whole.get_ids());
        assert!(
            encoded.ends.iter().zip(whole.get_offsets()).all(|(end, (_, expected))| *end == *expected as u64)
        );
    }

    #[test]
    fn a_text_without_blanks_is_cut_between_characters() {
        let (_folder, tokenizer) = trained();
        let text = "馬".repeat(PIECE);
        let mut tokens = Vec::new();
        tokenizer
            .encode_long(&text, |encoded| {
                tokens.extend(encoded.tokens);
                Ok::<_, TokenizerError>(())
            })
            .unwrap();
        assert_eq!(tokens, tokenizer.encode(&text).unwrap().tokens);
        assert!(tokenizer.decode(&tokens).unwrap() == text);
    }

    #[test]
    fn a_vocabulary_beyond_the_model_is_refused() {
        let (_folder, tokenizer) = trained();
        assert!(tokenizer.check(tokenizer.digest(), tokenizer.vocabulary()).is_ok());
        let small = tokenizer.check_vocabulary(tokenizer.vocabulary() - 1).unwrap_err();
        assert!(matches!(small, TokenizerError::TooLarge { .. }));
        let other = tokenizer.check(Digest::of(b"another"), 1000).unwrap_err();
        assert!(matches!(other, TokenizerError::Another { .. }));
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        for text in ["", "{}", "[1,2]", "{\"model\":{\"type\":\"BPE\"}}"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Tokenizer::load(&path), Err(TokenizerError::NotATokenizer { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_a_text(words in prop::collection::vec(("[a-zé馬 \n]{0,9}", 0usize..60_000), 0..12)) {
            let text: String = words.iter().map(|(word, times)| word.repeat(times / word.len().max(1))).collect();
            let pieces = pieces(&text);
            let mut at = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.start, at);
                prop_assert!(piece.context <= piece.start && piece.start < piece.end);
                prop_assert!(piece.end - piece.start <= PIECE as u64);
                prop_assert!(text.is_char_boundary(piece.start as usize) && text.is_char_boundary(piece.context as usize));
                at = piece.end;
            }
            prop_assert_eq!(at, text.len() as u64);
        }
    }
}
