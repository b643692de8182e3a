//! The model, the weights and the tokenizer that a configuration names: what of them a run hangs on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use artifacts::Digest;
use artifacts::release::{INDEX, WEIGHTS};
use serde_json::Value;
use tokenizers::Tokenizer;

use super::keys::{Config, EndOfTextConfig};
use super::objection::Objection;
use crate::ledger::transition::EndOfText;
use crate::vocabulary::{Vocabulary, Wanted};

/// Longest `config.json` of a model, in bytes.
const LONGEST_MODEL: u64 = 1 << 20;
/// Longest index of weights, in bytes.
const LONGEST_INDEX: u64 = 64 << 20;
/// Longest `tokenizer.json`, in bytes.
const LONGEST_TOKENIZER: u64 = 256 << 20;

/// What was found in the files that a configuration names.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The model's `config.json`.
    pub model: Value,
    /// The model's `vocab_size`.
    pub vocabulary: u32,
    /// The model's `max_position_embeddings`.
    pub positions: Option<u64>,
    /// Digest of the weights' folder, if one is named.
    pub weights: Option<Digest>,
    /// Digest of the tokenizer's file, if one is named.
    pub tokenizer: Option<Digest>,
    /// The largest token of a given tokenizer.
    pub largest_token: Option<u32>,
    /// Whether a given tokenizer knows the text of the end-of-text token.
    pub knows_end_of_text: Option<bool>,
}

impl Config {
    /// Where the model's `config.json` lies, for a configuration at `file`.
    pub fn model_file(&self, file: &Path) -> PathBuf {
        beside(file, &self.model.config)
    }

    /// Where the given tokenizer lies.
    pub fn tokenizer_file(&self, file: &Path) -> Option<PathBuf> {
        self.tokenizer.file.as_ref().map(|path| beside(file, path))
    }

    /// The folder of the weights that the run starts from.
    pub fn weights_folder(&self, file: &Path) -> Option<PathBuf> {
        self.model.weights.as_ref().map(|path| beside(file, path))
    }
}

fn beside(file: &Path, path: &Path) -> PathBuf {
    artifacts::storage::parent(file).join(path)
}

/// Reads them; the weights as `read` does. Where a state holds them already, a tokenizer was made of the tokenizer's file
/// before.
pub(super) fn look(
    config: &Config,
    file: &Path,
    is_known: bool,
    read: impl FnOnce(&Path) -> io::Result<Option<Digest>>,
) -> Result<Given, Vec<Objection>> {
    let mut found = Vec::new();
    let model = model(&config.model_file(file)).map_err(|objection| found.push(objection)).ok();
    let tokenizer = config
        .tokenizer_file(file)
        .map(|path| tokenizer(config, &path, is_known).map_err(|objection| found.push(objection)));
    let weights = config.weights_folder(file).map(|folder| {
        read(&folder).map_err(|error| {
            let what = format!("cannot be used, {}: {error}", folder.display());
            let help = "name a folder with model.safetensors, or its parts and their index";
            found.push(Objection::new("model.weights", what, help));
        })
    });
    let (Some((model, vocabulary)), true) = (model, found.is_empty()) else { return Err(found) };
    let tokenizer = tokenizer.and_then(Result::ok);
    Ok(Given {
        positions: model["max_position_embeddings"].as_u64(),
        model,
        vocabulary,
        weights: weights.and_then(Result::ok).flatten(),
        tokenizer: tokenizer.as_ref().map(|(digest, _, _)| *digest),
        largest_token: tokenizer.as_ref().and_then(|(_, largest, _)| *largest),
        knows_end_of_text: tokenizer.and_then(|(_, _, knows)| knows),
    })
}

fn model(path: &Path) -> Result<(Value, u32), Objection> {
    let help = "name the config.json of an HF model, relative to this file";
    let object = |what: String| Objection::new("model.config", what, help);
    let bytes = read(path, LONGEST_MODEL)
        .map_err(|error| object(format!("cannot be read, {}: {error}", path.display())))?;
    let model: Value = serde_json::from_slice(&bytes)
        .map_err(|error| object(format!("is no JSON, {}: {error}", path.display())))?;
    let vocabulary = model["vocab_size"].as_u64().and_then(|tokens| u32::try_from(tokens).ok());
    match vocabulary {
        Some(vocabulary) if vocabulary > 0 => Ok((model, vocabulary)),
        _ => Err(object(format!("has no vocab_size, {}", path.display()))),
    }
}

type Found = (Digest, Option<u32>, Option<bool>);

fn tokenizer(config: &Config, path: &Path, is_known: bool) -> Result<Found, Objection> {
    let help = "name a tokenizer.json of HF tokenizers, relative to this file";
    let object = |what: String| Objection::new("tokenizer.file", what, help);
    let not = |error: &dyn std::fmt::Display| object(format!("is no tokenizer, {}: {error}", path.display()));
    if !is_known {
        let bytes = read(path, LONGEST_TOKENIZER)
            .map_err(|error| object(format!("cannot be read, {}: {error}", path.display())))?;
        Tokenizer::from_bytes(&bytes).map_err(|error| not(&error))?;
    }
    let text = match &config.tokenizer.end_of_text {
        EndOfTextConfig::Token(EndOfText::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let wanted = Wanted { text, number: None };
    let found = Vocabulary::read(path, LONGEST_TOKENIZER, wanted).map_err(|error| not(&error))?;
    Ok((found.digest, found.highest, text.map(|_| found.number.is_some())))
}

/// The digest of a folder of weights: of a line `<digest>  <name>` for each of its weights' files, by name. These are what
/// a trainer reads: the index and its parts, or `model.safetensors`; whatever else lies there does not count.
///
/// # Errors
/// The folder or one of these files cannot be read.
pub fn weights_digest(folder: &Path) -> io::Result<Digest> {
    let mut list = String::new();
    for name in weights_files(folder)? {
        let digest = Digest::of_file(&folder.join(&name))
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        list.push_str(&format!("{digest}  {name}\n"));
    }
    Ok(Digest::of(list.as_bytes()))
}

fn weights_files(folder: &Path) -> io::Result<BTreeSet<String>> {
    let index = match read(&folder.join(INDEX), LONGEST_INDEX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok([WEIGHTS.to_owned()].into()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{INDEX}: {error}"))),
    };
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{INDEX} {what}"));
    let index: Value =
        serde_json::from_slice(&index).map_err(|error| malformed(&format!("is no JSON: {error}")))?;
    let parts = index["weight_map"].as_object().ok_or_else(|| malformed("has no weight_map"))?;
    let is_plain = |name: &&str| Path::new(name).file_name().is_some_and(|file| file == *name);
    let plain = |part: &Value| part.as_str().filter(is_plain).map(str::to_owned);
    let parts: Option<BTreeSet<String>> = parts.values().map(plain).collect();
    let mut names = parts.ok_or_else(|| malformed("names a part that is no file of the folder"))?;
    names.insert(INDEX.to_owned());
    Ok(names)
}

fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::other(format!("it is longer than {longest} bytes")));
    }
    Ok(bytes)
}
