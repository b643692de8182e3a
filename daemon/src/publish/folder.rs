//! Makes a release's folder.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use artifacts::manifest::Manifest;
use artifacts::storage;
use artifacts::{Digest, checkpoint, release, versioned};
use paradigm::Paradigm;
use serde_json::{Value, json};

use super::provenance::{self, Known};
use super::{PublishError, Publishing, card, curve};
use crate::ledger::Ledger;
use crate::ledger::path::{CheckpointKey, Path, Step, Version};
use crate::ledger::transition::{Fixed, Increment};
use crate::ledger::tree::Tree;
use crate::outlook::SPARE;
use crate::tokenizer;
use crate::vocabulary::{Vocabulary, Wanted};

/// A folder that is whole, and has no name yet.
pub struct Made {
    /// The checkpoint that it was made of.
    pub checkpoint: CheckpointKey,
    /// The folder, below the state.
    pub folder: String,
    /// Digest of every file.
    pub files: BTreeMap<String, Digest>,
    /// Where it lies.
    pub temporary: PathBuf,
    published: PathBuf,
}

impl Made {
    /// Gives it its name. One that has this name already is unknown to the journal, and replaced.
    pub fn place(&self, publishing: &Publishing) -> Result<(), storage::Error> {
        let storage = &*publishing.storage;
        if storage.kind(&self.published)?.is_some() {
            storage::remove_tree(storage, &self.published)?;
        }
        storage::publish_folder(storage, &self.temporary, &self.published)
    }
}

/// Makes the folder of a version under a temporary name.
pub fn make(
    publishing: &Publishing,
    ledger: &Ledger,
    paradigm: Paradigm,
    version: Version,
) -> Result<Made, PublishError> {
    let storage = &*publishing.storage;
    let incomplete = |what: String| PublishError::Incomplete { paradigm, version, what };
    let missing = |what: &str| incomplete(format!("{what} is not known"));
    let (fixed, increment, checkpoint, first) = ledger.read(|tree| {
        let key = |increment: &Increment| CheckpointKey {
            path: tree.version_path(paradigm, version),
            step: increment.end,
        };
        let increment = tree.increment(version).cloned();
        (
            tree.fixed().cloned(),
            increment.clone(),
            increment.as_ref().map(key),
            tree.paradigms().first().copied(),
        )
    });
    let fixed = fixed.ok_or_else(|| missing("what is fixed"))?;
    let increment = increment.ok_or_else(|| missing("its increment"))?;
    let checkpoint = checkpoint.ok_or_else(|| missing("its checkpoint"))?;

    let own = (first != Some(paradigm)).then(|| paradigm.to_string());
    let releases = publishing.state.join("releases");
    let published = releases.join(release::folder(own.as_deref(), version));
    if storage.kind(storage::parent(&published))?.is_none() {
        storage.create_folder(storage::parent(&published))?;
        storage.sync_folder(&releases)?;
    }
    let temporary = storage::temporary_folder(storage, &published)?;

    let source = publishing.state.join("checkpoints").join(checkpoint.to_string());
    let damaged = |reason: String| PublishError::Damaged { checkpoint, reason };
    // Nothing is known of what only could not be looked at: it is not to be set aside for that.
    let unreadable = |reason: String| PublishError::Unreadable { path: source.clone(), reason };
    let (manifest, _) = Manifest::read(&source).map_err(|damage| match damage.is_unknown() {
        true => unreadable(damage.to_string()),
        false => damaged(damage.to_string()),
    })?;
    let state = checkpoint::read_state(&source).map_err(|error| match error {
        versioned::Error::Unreadable { .. } => unreadable(error.to_string()),
        _ => damaged(error.to_string()),
    })?;
    let promised = manifest.files.get(checkpoint::MODEL);
    storage::room_for(&releases, promised.map_or(0, |facts| facts.size).saturating_add(SPARE))?;
    // What is damaged is told as that, below.
    let not_finite = release::first_not_finite(&source.join(checkpoint::MODEL));
    let weights =
        release::write_weights(storage, &source.join(checkpoint::MODEL), &temporary, publishing.split_above)?;
    let mut files: BTreeMap<String, Digest> =
        weights.iter().map(|(name, written)| (name.clone(), written.digest)).collect();
    // Of weights that were split no file has the digest of the whole.
    let copied = match files.get(release::WEIGHTS) {
        Some(copied) => *copied,
        None => Digest::of_file(&source.join(checkpoint::MODEL)).map_err(|error| {
            PublishError::Unreadable { path: source.join(checkpoint::MODEL), reason: error.to_string() }
        })?,
    };
    if promised.map(|facts| facts.blake3) != Some(copied) {
        return Err(damaged(format!("the digest of {} is not the manifest's", checkpoint::MODEL)));
    }

    if let Some(tensor) = not_finite? {
        return Err(PublishError::NotFinite { checkpoint, tensor });
    }

    let mut put = |name: &str, bytes: &[u8]| -> Result<(), PublishError> {
        storage::replace(storage, &temporary.join(name), bytes)?;
        files.insert(name.to_owned(), Digest::of(bytes));
        Ok(())
    };
    let tokenizer = Tokens::read(&publishing.state, &fixed, ledger)?;
    if let Some(file) = &tokenizer.file {
        put(release::TOKENIZER, file)?;
        put(release::TOKENIZER_CONFIG, &pretty(&tokenizer.config(&fixed)))?;
    }
    put(release::CONFIG, &pretty(&config(&fixed, tokenizer.end_of_text)))?;
    put(release::GENERATION_CONFIG, &pretty(&generation_config(tokenizer.end_of_text)))?;
    let known = Known {
        fixed: &fixed,
        tokenizer: tokenizer.file.as_deref().map(Digest::of),
        end_of_text: tokenizer.end_of_text,
        state: &state,
    };
    let jobs = publishing.state.join("jobs");
    let (provenance, said) = ledger.read(|tree| {
        let provenance = provenance::of(tree, paradigm, &increment, &known);
        (provenance, curve::said(&jobs, tree, &way(tree, paradigm, &increment)))
    });
    let provenance = provenance.map_err(incomplete)?;
    let curve = curve::of(&said);
    put(release::PROVENANCE, &pretty(&json!(provenance)))?;
    put(release::CARD, card::text(&provenance, &curve).as_bytes())?;
    if !curve.is_empty() {
        put(card::CURVE, card::drawing(&curve).as_bytes())?;
    }
    let folder = published.strip_prefix(&publishing.state).unwrap_or(&published).display().to_string();
    Ok(Made { checkpoint, folder, files, temporary, published })
}

/// The steps on the way to a version, by path.
fn way(tree: &Tree, paradigm: Paradigm, increment: &Increment) -> Vec<(Path, std::ops::Range<Step>)> {
    let own = tree.version_path(paradigm, increment.version);
    let begins = increment.plans.get(&paradigm).map_or(0, |plan| plan.branch_point);
    match paradigm {
        Paradigm::FromScratch => vec![(own, 0..increment.end)],
        Paradigm::PathSwitching => tree
            .main_line_of(increment.version)
            .map(|(path, limit)| (path, 0..limit.min(begins)))
            .chain([(own, begins..increment.end)])
            .collect(),
        Paradigm::Continual => tree
            .made_of(increment.version)
            .map(|i| (tree.version_path(paradigm, i.version), i.end - i.steps..i.end))
            .collect(),
    }
}

/// The run's tokenizer, and its end-of-text token.
struct Tokens {
    /// None where one was to be trained and everything came as tokens. Then no token is known to end a text either.
    file: Option<Vec<u8>>,
    end_of_text: Option<u32>,
    end_of_text_token: Option<String>,
}

impl Tokens {
    fn read(state: &FilePath, fixed: &Fixed, ledger: &Ledger) -> Result<Self, PublishError> {
        if ledger.read(|tree| tree.tokenizer().is_none()) {
            return Ok(Self { file: None, end_of_text: None, end_of_text_token: None });
        }
        let path: PathBuf = state.join(release::TOKENIZER);
        let unreadable = |reason: String| PublishError::Unreadable { path: path.clone(), reason };
        let file = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        let trained = ledger.read(|tree| tree.run().end_of_text);
        let end_of_text = match trained {
            Some(token) => Some(token),
            None => tokenizer::end_of_text(&path, fixed.end_of_text.as_ref())
                .map_err(|error| unreadable(error.to_string()))?,
        };
        let wanted = Wanted { text: None, number: end_of_text };
        let vocabulary = Vocabulary::read(&path, tokenizer::LONGEST, wanted)
            .map_err(|error| unreadable(error.to_string()))?;
        let end_of_text_token = vocabulary.text;
        Ok(Self { file: Some(file), end_of_text, end_of_text_token })
    }

    fn config(&self, fixed: &Fixed) -> Value {
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": fixed.sequence_length,
            "clean_up_tokenization_spaces": false,
        });
        if let Some(token) = &self.end_of_text_token {
            config["bos_token"] = json!(token);
            config["eos_token"] = json!(token);
        }
        config
    }
}

fn config(fixed: &Fixed, end_of_text: Option<u32>) -> Value {
    let mut config = fixed.model.clone();
    config["architectures"] = json!(["LlamaForCausalLM"]);
    config["torch_dtype"] = json!("float32");
    if config.get("max_position_embeddings").is_none() {
        config["max_position_embeddings"] = json!(fixed.sequence_length);
    }
    for token in ["bos_token_id", "eos_token_id"] {
        config[token] = json!(end_of_text);
    }
    config
}

fn generation_config(end_of_text: Option<u32>) -> Value {
    json!({ "bos_token_id": end_of_text, "eos_token_id": end_of_text, "do_sample": true })
}

/// JSON for people, with its keys in order: the same value is always the same bytes.
pub fn pretty(value: &Value) -> Vec<u8> {
    let mut text = format!("{value:#}");
    text.push('\n');
    text.into_bytes()
}
