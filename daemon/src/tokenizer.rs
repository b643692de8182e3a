//! The run's tokenizer: loaded, trained, and asked for what the stream needs to know.
//!
//! Training is deterministic: the same texts in the same order give the same `tokenizer.json`, byte for byte, since the
//! bits of every version hang on it.

use std::path::{Path, PathBuf};

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Model as _, TokenizerBuilder};

use crate::ledger::transition::EndOfText;

/// Name of the file in a state and in a release.
pub const FILE: &str = "tokenizer.json";

/// Largest `tokenizer.json` that is read, in bytes.
const LARGEST: u64 = 256 << 20;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read, or is no tokenizer.
    #[error("{path} is no tokenizer: {reason}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The end-of-text token is not in its vocabulary.
    #[error("the end-of-text token {token} is not in the vocabulary of {path}: set `tokenizer.end_of_text`", path = path.display())]
    NoEndOfText {
        /// The token, by text or by number.
        token: String,
        /// The tokenizer's file.
        path: PathBuf,
    },
    /// It makes tokens that the model does not know.
    #[error(
        "{path} has {tokens} tokens and the model only {vocabulary}: raise `vocab_size` of the model, or take another \
         tokenizer",
        path = path.display()
    )]
    TooLarge {
        /// The tokenizer's file.
        path: PathBuf,
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Tokens of the model.
        vocabulary: u32,
    },
    /// A text cannot be tokenised.
    #[error("a text cannot be tokenised: {0}")]
    Encode(String),
    /// It could not be trained.
    #[error("a tokenizer could not be trained: {0}")]
    Train(String),
}

/// A tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
}

/// A text as tokens.
#[derive(Debug, Default)]
pub struct Encoded {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// For each token, the bytes of the text up to its end.
    pub ends: Vec<u64>,
}

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// It cannot be read, is larger than 256 MiB, or is no tokenizer.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let unusable = |reason: String| TokenizerError::Unusable { path: path.to_owned(), reason };
        let size = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?.len();
        if size > LARGEST {
            return Err(unusable(format!("it has {size} bytes, more than {LARGEST}")));
        }
        let mut inner =
            tokenizers::Tokenizer::from_file(path).map_err(|error| unusable(error.to_string()))?;
        // A shard is read whole: what a tokenizer was set to do for a model's input does not apply here.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { path: path.to_owned(), inner })
    }

    /// Refuses a tokenizer with more tokens than a model.
    ///
    /// # Errors
    /// It has more.
    pub fn fits(&self, vocabulary: u32) -> Result<(), TokenizerError> {
        let tokens = self.inner.get_vocab_size(true);
        if tokens > vocabulary as usize {
            return Err(TokenizerError::TooLarge { path: self.path.clone(), tokens, vocabulary });
        }
        Ok(())
    }

    /// Number of the end-of-text token.
    ///
    /// # Errors
    /// It is not in the vocabulary.
    pub fn end_of_text(&self, token: Option<&EndOfText>) -> Result<Option<u32>, TokenizerError> {
        let missing = |token: String| TokenizerError::NoEndOfText { token, path: self.path.clone() };
        match token {
            None => Ok(None),
            Some(EndOfText::Number(number)) => {
                let known = self.inner.id_to_token(*number).is_some();
                known.then_some(Some(*number)).ok_or_else(|| missing(number.to_string()))
            }
            Some(EndOfText::Text(text)) => {
                self.inner.token_to_id(text).map(Some).ok_or_else(|| missing(format!("`{text}`")))
            }
        }
    }

    /// Text of a token.
    pub fn token(&self, number: u32) -> Option<String> {
        self.inner.id_to_token(number)
    }

    /// The tokens of a text, without any that the tokenizer would add around it; special tokens that stand in the text
    /// are recognised.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Encoded, TokenizerError> {
        let encoding =
            self.inner.encode(text, false).map_err(|error| TokenizerError::Encode(error.to_string()))?;
        let mut reached = 0;
        let ends = encoding.get_offsets().iter().map(|(_, end)| {
            reached = reached.max(*end as u64);
            reached
        });
        Ok(Encoded { tokens: encoding.get_ids().to_vec(), ends: ends.collect() })
    }
}

/// Trains a byte-level BPE on texts, and gives its `tokenizer.json`. The end-of-text token, if there is one, is number 0.
///
/// # Errors
/// The vocabulary is smaller than the 256 bytes and the end-of-text token, or the library refuses.
pub fn train(
    texts: impl Iterator<Item = String> + Send,
    vocabulary: u32,
    end_of_text: Option<&str>,
) -> Result<Vec<u8>, TokenizerError> {
    let failed = |error: tokenizers::Error| TokenizerError::Train(error.to_string());
    let special: Vec<AddedToken> = end_of_text.map(|text| AddedToken::from(text, true)).into_iter().collect();
    let least = 256 + special.len();
    if (vocabulary as usize) < least {
        let reason =
            format!("a vocabulary of {vocabulary} tokens has no room for the {least} that are always there");
        return Err(TokenizerError::Train(reason));
    }
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(vocabulary as usize)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(special)
        .build();
    let byte_level = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<tokenizers::NormalizerWrapper>)
        .with_pre_tokenizer(Some(byte_level))
        .with_post_processor(Some(ByteLevel::new(false, false, true)))
        .with_decoder(Some(byte_level))
        .build()
        .map_err(failed)?;
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    debug_assert!(tokenizer.get_model().get_vocab_size() <= vocabulary as usize);
    tokenizer.to_string(true).map(String::into_bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "the river carries the letter, the letter carries the river. Grüße, 世界! 🦀\n";

    fn trained(folder: &Path) -> Tokenizer {
        let texts = (0..50).map(|i| format!("{TEXT}{i}"));
        let bytes = train(texts, 300, Some("<|endoftext|>")).unwrap();
        let path = folder.join(FILE);
        std::fs::write(&path, bytes).unwrap();
        Tokenizer::load(&path).unwrap()
    }

    #[test]
    fn training_twice_gives_the_same_bytes() {
        let train =
            || train((0..50).map(|i| format!("{TEXT}{i} {}", i * 7919)), 400, Some("<|endoftext|>")).unwrap();
        let first = train();
        for _ in 0..5 {
            assert!(first == train());
        }
    }

    #[test]
    fn the_end_of_text_token_is_recognised_in_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = trained(folder.path());
        let text = EndOfText::Text("<|endoftext|>".to_owned());
        assert_eq!(tokenizer.end_of_text(Some(&text)).unwrap(), Some(0));
        let encoded = tokenizer.encode("one<|endoftext|>two").unwrap();
        assert_eq!(encoded.tokens.iter().filter(|token| **token == 0).count(), 1);
        let missing = EndOfText::Text("<end>".to_owned());
        assert!(matches!(tokenizer.end_of_text(Some(&missing)), Err(TokenizerError::NoEndOfText { .. })));
    }

    #[test]
    fn the_ends_of_tokens_cover_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = trained(folder.path());
        let encoded = tokenizer.encode(TEXT).unwrap();
        assert!(encoded.ends.is_sorted());
        assert_eq!(encoded.ends.len(), encoded.tokens.len());
        assert_eq!(encoded.ends.last(), Some(&(TEXT.len() as u64)));
    }

    #[test]
    fn a_tokenizer_that_is_larger_than_the_model_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = trained(folder.path());
        assert!(tokenizer.fits(300).is_ok());
        assert!(matches!(tokenizer.fits(100), Err(TokenizerError::TooLarge { .. })));
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "{}").unwrap();
        assert!(Tokenizer::load(&path).unwrap_err().to_string().contains("tokenizer.json is no tokenizer"));
    }
}
