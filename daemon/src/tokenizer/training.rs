//! Training a byte-level BPE.
//!
//! A run that is interrupted trains its tokenizer again, and must come to the same bytes; so must another machine with
//! another number of cores. The library's own trainer keeps its words and pairs in hash tables with a random seed, and
//! breaks some ties in their order. Here every tie is broken by the tokens' numbers, words are taken in the order of
//! their bytes, and counts have 64 bits. What comes out is an ordinary `tokenizer.json`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as Library};

use super::PIECE;

/// A pair that stands in the text only once says nothing about the language.
const FEWEST: i64 = 2;
/// Longest word that is counted, in bytes: what is longer is no word, and would slow the training down.
const LONGEST_WORD: usize = 1024;
/// Tokens of single bytes.
const BYTES: u32 = 256;

/// Why no tokenizer can be trained.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The vocabulary has no room for the bytes.
    #[error(
        "a vocabulary of {vocabulary} tokens is too small: a byte-level tokenizer needs {least}, one for each byte and \
         those that are set"
    )]
    SmallVocabulary {
        /// What was asked for.
        vocabulary: u32,
        /// What is needed.
        least: u32,
    },
    /// The library refuses.
    #[error("the tokenizer cannot be made: {0}")]
    Library(String),
}

/// The words of the training text, counted.
pub struct Corpus {
    separator: Option<String>,
    splitter: ByteLevel,
    words: HashMap<String, i64>,
}

impl Corpus {
    /// A corpus without a text. A separator of documents that stands in a text is no part of its words.
    pub fn new(separator: Option<&str>) -> Self {
        let separator = separator.filter(|text| !text.is_empty()).map(str::to_owned);
        Self { separator, splitter: ByteLevel::new(false, false, true), words: HashMap::new() }
    }

    /// Counts the words of a document.
    ///
    /// # Errors
    /// What the library says.
    pub fn add(&mut self, document: &str) -> Result<(), TrainError> {
        let separator = self.separator.take();
        let counted = match &separator {
            Some(separator) => document.split(separator.as_str()).try_for_each(|text| self.count(text)),
            None => self.count(document),
        };
        self.separator = separator;
        counted
    }

    fn count(&mut self, text: &str) -> Result<(), TrainError> {
        for piece in super::pieces(text) {
            let text = text.get(piece.start as usize..piece.end as usize).unwrap_or_default();
            debug_assert!(text.len() <= PIECE);
            let mut split = PreTokenizedString::from(text);
            self.splitter.pre_tokenize(&mut split).map_err(|error| TrainError::Library(error.to_string()))?;
            for (word, ..) in split.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                match self.words.get_mut(word) {
                    Some(count) => *count += 1,
                    None if word.len() <= LONGEST_WORD => _ = self.words.insert(word.to_owned(), 1),
                    None => {}
                }
            }
        }
        Ok(())
    }
}

/// Trains a tokenizer of at most `vocabulary` tokens: the separator, if there is one, has number 0, then come the 256
/// bytes, then what was merged, in the order of merging. Gives the bytes of its `tokenizer.json`.
///
/// # Errors
/// The vocabulary is too small.
pub fn train(corpus: Corpus, vocabulary: u32) -> Result<Vec<u8>, TrainError> {
    let least = BYTES + u32::from(corpus.separator.is_some());
    if vocabulary < least {
        return Err(TrainError::SmallVocabulary { vocabulary, least });
    }
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut tokens: Vec<String> = corpus.separator.iter().cloned().collect();
    let letters: HashMap<char, u32> =
        (tokens.len() as u32..).zip(alphabet).map(|(token, letter)| (letter, token)).collect();
    let mut by_number: Vec<(u32, char)> = letters.iter().map(|(letter, token)| (*token, *letter)).collect();
    by_number.sort_unstable();
    tokens.extend(by_number.into_iter().map(|(_, letter)| letter.to_string()));

    let words: BTreeMap<String, i64> = corpus.words.into_iter().collect();
    let words = words.into_iter().map(|(word, count)| Word {
        tokens: word.chars().filter_map(|letter| letters.get(&letter).copied()).collect(),
        count,
    });
    let merges = merge(words.collect(), &mut tokens, vocabulary as usize);
    file(&tokens, &merges, corpus.separator.as_deref())
}

struct Word {
    tokens: Vec<u32>,
    count: i64,
}

type Pair = (u32, u32);

/// Where and how often each pair stands, kept up to date while words are merged.
#[derive(Default)]
struct Pairs {
    counts: HashMap<Pair, i64>,
    words: HashMap<Pair, HashSet<usize>>,
}

impl Pairs {
    fn add(&mut self, word: usize, tokens: &[u32], count: i64) {
        for pair in tokens.windows(2).map(|pair| (pair[0], pair[1])) {
            *self.counts.entry(pair).or_default() += count;
            self.words.entry(pair).or_default().insert(word);
        }
    }

    fn take_away(&mut self, tokens: &[u32], count: i64) {
        for pair in tokens.windows(2).map(|pair| (pair[0], pair[1])) {
            *self.counts.entry(pair).or_default() -= count;
        }
    }

    fn count(&self, pair: Pair) -> i64 {
        self.counts.get(&pair).copied().unwrap_or(0)
    }
}

/// Merges the most frequent pair, the one with the lowest numbers where several are, until there are enough tokens.
fn merge(mut words: Vec<Word>, tokens: &mut Vec<String>, enough: usize) -> Vec<Pair> {
    let mut pairs = Pairs::default();
    for (index, word) in words.iter().enumerate() {
        pairs.add(index, &word.tokens, word.count);
    }
    let mut queue: BinaryHeap<(i64, Reverse<Pair>)> =
        pairs.counts.iter().map(|(pair, count)| (*count, Reverse(*pair))).collect();
    let mut numbers: HashMap<String, u32> =
        (0..).zip(tokens.iter()).map(|(number, text)| (text.clone(), number)).collect();
    let mut merges = Vec::new();
    while tokens.len() < enough {
        let Some((count, Reverse(pair))) = queue.pop() else { break };
        let current = pairs.count(pair);
        if current < FEWEST {
            continue;
        }
        if current != count {
            // Counts only fall while a pair waits: what has risen was put in again.
            if current < count {
                queue.push((current, Reverse(pair)));
            }
            continue;
        }
        let text = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
        let merged = *numbers.entry(text.clone()).or_insert_with(|| {
            tokens.push(text);
            tokens.len() as u32 - 1
        });
        merges.push(pair);
        let mut risen: HashSet<Pair> = HashSet::new();
        for index in pairs.words.remove(&pair).unwrap_or_default() {
            let Some(word) = words.get_mut(index) else { continue };
            let replaced = replace(&word.tokens, pair, merged);
            pairs.take_away(&word.tokens, word.count);
            pairs.add(index, &replaced, word.count);
            risen.extend(
                replaced
                    .windows(2)
                    .map(|pair| (pair[0], pair[1]))
                    .filter(|(a, b)| *a == merged || *b == merged),
            );
            word.tokens = replaced;
        }
        pairs.counts.remove(&pair);
        queue.extend(risen.into_iter().map(|pair| (pairs.count(pair), Reverse(pair))));
    }
    merges
}

fn replace(tokens: &[u32], pair: Pair, merged: u32) -> Vec<u32> {
    let mut replaced = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let [first, others @ ..] = rest {
        match others {
            [second, others @ ..] if (*first, *second) == pair => {
                replaced.push(merged);
                rest = others;
            }
            _ => {
                replaced.push(*first);
                rest = others;
            }
        }
    }
    replaced
}

/// The `tokenizer.json`, read by the library once and written by it.
fn file(tokens: &[String], merges: &[Pair], separator: Option<&str>) -> Result<Vec<u8>, TrainError> {
    let vocabulary: serde_json::Map<String, Value> =
        (0u32..).zip(tokens).map(|(number, text)| (text.clone(), number.into())).collect();
    let text = |token: u32| tokens[token as usize].as_str();
    let merges: Vec<[&str; 2]> = merges.iter().map(|(a, b)| [text(*a), text(*b)]).collect();
    let special = separator.map(|content| {
        json!({"id": 0, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let described = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": special.into_iter().collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges},
    });
    let library = |error: tokenizers::Error| TrainError::Library(error.to_string());
    let read: Library = described.to_string().parse().map_err(library)?;
    let mut bytes = read.to_string(true).map_err(library)?.into_bytes();
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn corpus(texts: &[&str]) -> Corpus {
        let mut corpus = Corpus::new(Some("<|endoftext|>"));
        texts.iter().for_each(|text| corpus.add(text).unwrap());
        corpus
    }

    fn model(bytes: &[u8]) -> Value {
        serde_json::from_slice::<Value>(bytes).unwrap()["model"].clone()
    }

    #[test]
    fn the_most_frequent_pair_is_merged_first_and_ties_go_to_the_lower_numbers() {
        let bytes = train(corpus(&["ab ab ab cd cd cd"]), 260).unwrap();
        let merges = model(&bytes)["merges"].clone();
        // `ab`, once at the start and twice after a blank, and `cd`, three times after a blank, stand in the text
        // equally often; the first has the lower numbers.
        assert_eq!(merges[0], json!(["a", "b"]));
        assert_eq!(merges[1], json!(["c", "d"]));
        assert_eq!(merges[2], json!(["Ġ", "cd"]));
    }

    #[test]
    fn the_separator_has_number_nought_and_the_bytes_follow() {
        let bytes = train(corpus(&["x<|endoftext|>y"]), 257).unwrap();
        let vocabulary = model(&bytes)["vocab"].clone();
        assert_eq!(vocabulary["<|endoftext|>"], 0);
        assert_eq!(vocabulary.as_object().unwrap().len(), 257);
        assert_eq!(vocabulary["!"], 1);
        let without = train(Corpus::new(None), 256).unwrap();
        assert_eq!(model(&without)["vocab"]["!"], 0);
    }

    #[test]
    fn the_separator_is_in_no_word() {
        let separated = corpus(&[&"end<|endoftext|>".repeat(9)]);
        assert_eq!(separated.words.into_iter().collect::<Vec<_>>(), [("end".to_owned(), 9)]);
    }

    #[test]
    fn a_vocabulary_without_room_for_the_bytes_is_refused() {
        let small = train(corpus(&["text"]), 256).unwrap_err();
        assert!(small.to_string().contains("needs 257"), "{small}");
    }

    /// Merges as the definition says: count everything anew for every merge.
    fn merge_plainly(mut words: Vec<Word>, tokens: &mut Vec<String>, enough: usize) -> Vec<Pair> {
        let mut merges = Vec::new();
        while tokens.len() < enough {
            let mut counts: BTreeMap<Pair, i64> = BTreeMap::new();
            for word in &words {
                for pair in word.tokens.windows(2) {
                    *counts.entry((pair[0], pair[1])).or_default() += word.count;
                }
            }
            let best = counts.iter().max_by_key(|(pair, count)| (**count, Reverse(**pair)));
            let Some((pair, count)) = best.map(|(pair, count)| (*pair, *count)) else { break };
            if count < FEWEST {
                break;
            }
            let text = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
            let merged = tokens.iter().position(|token| *token == text).unwrap_or_else(|| {
                tokens.push(text);
                tokens.len() - 1
            });
            merges.push(pair);
            for word in &mut words {
                word.tokens = replace(&word.tokens, pair, merged as u32);
            }
        }
        merges
    }

    proptest! {
        #[test]
        fn merging_agrees_with_its_definition(
            words in prop::collection::vec((prop::collection::vec(0u32..4, 1..12), 1i64..5), 0..12),
            more in 0usize..20,
        ) {
            let letters = || ["a", "b", "ab", "ba"].map(str::to_owned).to_vec();
            let make = || words.iter().map(|(tokens, count)| Word { tokens: tokens.clone(), count: *count }).collect();
            let (mut fast, mut plain) = (letters(), letters());
            let merges = merge(make(), &mut fast, 4 + more);
            prop_assert_eq!(merges, merge_plainly(make(), &mut plain, 4 + more));
            prop_assert_eq!(fast, plain);
        }

        #[test]
        fn the_order_of_the_texts_changes_nothing(mut texts in prop::collection::vec("[a-d é\n]{0,40}", 0..8)) {
            let forth = train(corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>()), 300).unwrap();
            texts.reverse();
            let back = train(corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>()), 300).unwrap();
            prop_assert!(forth == back);
        }
    }
}
