//! The model, the weights and the tokenizer that a configuration names: what of them a run hangs on.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use artifacts::Digest;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::keys::{Config, EndOfTextConfig};
use super::objection::Objection;
use crate::ledger::transition::EndOfText;

/// Longest `config.json` of a model, in bytes.
const LONGEST_MODEL: u64 = 1 << 20;
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

/// Reads them.
pub(super) fn look(config: &Config, file: &Path) -> Result<Given, Vec<Objection>> {
    let mut found = Vec::new();
    let model = model(&config.model_file(file)).map_err(|objection| found.push(objection)).ok();
    let tokenizer = config
        .tokenizer_file(file)
        .map(|path| tokenizer(config, &path).map_err(|objection| found.push(objection)));
    let weights = config.weights_folder(file).map(|folder| {
        weights_digest(&folder).map_err(|error| {
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
        weights: weights.and_then(Result::ok),
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

fn tokenizer(config: &Config, path: &Path) -> Result<Found, Objection> {
    let help = "name a tokenizer.json of HF tokenizers, relative to this file";
    let object = |what: String| Objection::new("tokenizer.file", what, help);
    let bytes = read(path, LONGEST_TOKENIZER)
        .map_err(|error| object(format!("cannot be read, {}: {error}", path.display())))?;
    let tokenizer = Tokenizer::from_bytes(&bytes)
        .map_err(|error| object(format!("is no tokenizer, {}: {error}", path.display())))?;
    let knows = match &config.tokenizer.end_of_text {
        EndOfTextConfig::Token(EndOfText::Text(text)) => Some(tokenizer.token_to_id(text).is_some()),
        _ => None,
    };
    Ok((Digest::of(&bytes), tokenizer.get_vocab(true).into_values().max(), knows))
}

/// The digest of a folder of weights: of a line `<digest>  <name>` for each of its weights' files, by name.
///
/// # Errors
/// The folder or a file in it cannot be read; it holds no weights.
pub fn weights_digest(folder: &Path) -> io::Result<Digest> {
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") || name == artifacts::release::INDEX {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no .safetensors file in it"));
    }
    names.sort();
    let mut list = String::new();
    for name in names {
        list.push_str(&format!("{}  {name}\n", Digest::of_file(&folder.join(&name))?));
    }
    Ok(Digest::of(list.as_bytes()))
}

fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(longest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::other(format!("it is longer than {longest} bytes")));
    }
    Ok(bytes)
}
