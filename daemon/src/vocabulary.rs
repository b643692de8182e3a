//! What a `tokenizer.json` says of its tokens, without a tokenizer being made of it.
//!
//! A tokenizer of 128,000 tokens takes several times the memory of an idle daemon, and which number a token has, or what is
//! the highest, needs none: the file is read past, and only what was asked for is kept.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;
use std::path::Path;

use artifacts::Digest;
use artifacts::digest::Hasher;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The number of this text is.
    pub text: Option<&'a str>,
    /// The text of this number is.
    pub number: Option<u32>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    /// Digest of the file.
    pub digest: Digest,
    /// The highest number of a token.
    pub highest: Option<u32>,
    /// The number of the text that was asked for.
    pub number: Option<u32>,
    /// The text of the number that was asked for.
    pub text: Option<String>,
}

impl Vocabulary {
    /// Reads a file of at most `longest` bytes.
    ///
    /// # Errors
    /// It cannot be read, is longer, or is no JSON with a `model.vocab`.
    pub fn read(path: &Path, longest: u64, wanted: Wanted<'_>) -> io::Result<Self> {
        // Added tokens may stand behind the model whose numbers they have, so these are read first.
        let (AddedOnly { added_tokens: added }, _) = pass(path, longest, PhantomData)?;
        let numbers = added.iter().map(|token| (token.content.clone(), None)).collect();
        let mut model = Model { wanted, added: numbers, ..Model::default() };
        let ((), digest) = pass(path, longest, Root(&mut model))?;
        if !model.has_vocab {
            return Err(io::Error::other("it has no model.vocab"));
        }
        // As the library numbers them: those that the model knows have its numbers, the others come behind it.
        let mut next = model.tokens;
        for Added { content: text } in &added {
            let number = model.added.get(text).copied().flatten().unwrap_or(next);
            next = next.max(number.saturating_add(1));
            model.highest = model.highest.max(Some(number));
            model.found.take(text, number, wanted);
        }
        Ok(Self { digest, highest: model.highest, number: model.found.number, text: model.found.text })
    }
}

/// Reads a file past a visitor, to its end. Gives its digest too.
fn pass<'de, V: DeserializeSeed<'de>>(path: &Path, longest: u64, seed: V) -> io::Result<(V::Value, Digest)> {
    let file = File::open(path)?;
    if file.metadata()?.len() > longest {
        return Err(io::Error::other(format!("it is longer than {longest} bytes")));
    }
    let mut hashed = Hashed { inner: file.take(longest), hasher: Hasher::new() };
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::new(&mut hashed));
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    drop(deserializer);
    io::copy(&mut hashed, &mut io::sink())?;
    Ok((value, hashed.hasher.digest()))
}

struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[derive(Deserialize)]
struct Added {
    content: String,
}

/// The added tokens, and nothing else of the file.
#[derive(Deserialize)]
struct AddedOnly {
    #[serde(default)]
    added_tokens: Vec<Added>,
}

/// What is known of the model.
#[derive(Default)]
struct Model<'w> {
    wanted: Wanted<'w>,
    /// Added tokens, and the numbers that the model has for them.
    added: HashMap<String, Option<u32>>,
    has_vocab: bool,
    tokens: u32,
    highest: Option<u32>,
    found: Named,
}

#[derive(Default)]
struct Named {
    number: Option<u32>,
    text: Option<String>,
}

impl Named {
    fn take(&mut self, text: &str, number: u32, wanted: Wanted<'_>) {
        if wanted.text == Some(text) {
            self.number = Some(number);
        }
        if wanted.number == Some(number) {
            self.text = Some(text.to_owned());
        }
    }
}

impl Model<'_> {
    fn take(&mut self, text: &str, number: u32) {
        self.tokens = self.tokens.saturating_add(1);
        self.highest = self.highest.max(Some(number));
        self.found.take(text, number, self.wanted);
        if let Some(known) = self.added.get_mut(text) {
            *known = Some(number);
        }
    }
}

/// The whole file.
struct Root<'a, 'w>(&'a mut Model<'w>);

impl<'de> DeserializeSeed<'de> for Root<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tokenizer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "model" => map.next_value_seed(OfModel(&mut *self.0))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// Its model.
struct OfModel<'a, 'w>(&'a mut Model<'w>);

impl<'de> DeserializeSeed<'de> for OfModel<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OfModel<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tokenizer's model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "vocab" {
                self.0.has_vocab = true;
                map.next_value_seed(OfVocab(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Its vocabulary: numbers by text, or texts with their scores in the order of their numbers.
struct OfVocab<'a, 'w>(&'a mut Model<'w>);

impl<'de> DeserializeSeed<'de> for OfVocab<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OfVocab<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((text, number)) = map.next_entry::<String, u32>()? {
            self.0.take(&text, number);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some((text, _)) = seq.next_element::<(String, f64)>()? {
            self.0.take(&text, number);
            number += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenizers::Tokenizer as Library;

    use super::*;

    fn tokenizer(model: &serde_json::Value) -> serde_json::Value {
        let added = |id: u32, content: &str| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true
            })
        };
        json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, // The library goes by no number that is said here.
            "added_tokens": [added(0, "<unk>"), added(9, "<|endoftext|>"), added(7, "more")],
            "model": model
        })
    }

    #[test]
    fn it_knows_what_the_library_knows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let vocab = json!({"<unk>": 0, "a": 1, "b": 2, "ab": 3, "é\"\\": 4});
        for model in [
            json!({"type": "BPE", "vocab": vocab, "merges": [["a", "b"]], "unk_token": "<unk>"}),
            json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}),
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5], ["ab", -2.0]]}),
        ] {
            let bytes = serde_json::to_vec_pretty(&tokenizer(&model)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let library = Library::from_bytes(&bytes).unwrap();
            for text in ["<unk>", "a", "ab", "é\"\\", "<|endoftext|>", "more", "nowhere"] {
                let found =
                    Vocabulary::read(&path, 1 << 20, Wanted { text: Some(text), number: None }).unwrap();
                assert_eq!(found.number, library.token_to_id(text), "{text} of {model}");
                assert_eq!(found.highest, library.get_vocab(true).into_values().max());
                assert_eq!(found.digest, Digest::of(&bytes));
            }
            for number in 0..12 {
                let found =
                    Vocabulary::read(&path, 1 << 20, Wanted { text: None, number: Some(number) }).unwrap();
                assert_eq!(found.text, library.id_to_token(number), "{number} of {model}");
            }
        }
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        for text in [
            "",
            "{}",
            "[1, 2]",
            "{\"model\": 3}",
            "{\"model\": {\"vocab\": {\"a\": -1}}}",
            "{\"model\": {\"vocab\": {}}} x",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(Vocabulary::read(&path, 1 << 20, Wanted::default()).is_err(), "{text}");
        }
        std::fs::write(&path, "{\"model\": {\"vocab\": {}}}").unwrap();
        assert!(Vocabulary::read(&path, 10, Wanted::default()).is_err(), "it is too long");
        assert_eq!(Vocabulary::read(&path, 100, Wanted::default()).unwrap().highest, None);
    }
}
