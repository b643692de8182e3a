//! What is settled when a state is made, and whether a configuration still says the same.
//!
//! A changed value here would make the next version's bits hang on something that the journal does not tell, so the
//! daemon refuses the file and says what to put back.

use std::fmt;
use std::path::{Path, PathBuf};

use artifacts::job::Optimizer;
use serde::Serialize;
use serde_json::Value;

use super::files::Given;
use super::keys::{Config, EndOfTextConfig};
use crate::ledger::transition::{Fixed, TokenizerSource};

/// The format of a state that this program makes, and the newest that it takes.
pub const FORMAT: u32 = 1;

/// A key that says something else than what was fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The key in the configuration.
    pub key: String,
    /// What the state was made with.
    pub fixed: String,
    /// What the configuration says now.
    pub asked: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, fixed, asked } = self;
        write!(
            f,
            "`{key}` is fixed for the life of a state: this one was made with {fixed}, and the configuration says \
             {asked}"
        )
    }
}

/// A configuration that says something else than what its state was made with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Changed {
    /// The configuration.
    pub file: PathBuf,
    /// What was changed.
    pub differences: Vec<Difference>,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines =
            self.differences.iter().map(|difference| format!("{}: {difference}", self.file.display()));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A state of a format that only a newer version of the program knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state `{}` has format {found}, and this program knows formats up to {FORMAT}", state.display())]
pub struct Newer {
    /// The state.
    pub state: PathBuf,
    /// Its format.
    pub found: u32,
}

/// Whether this program knows the format of a state.
///
/// # Errors
/// A newer version of the program made it.
pub fn format_is_known(state: &Path, fixed: &Fixed) -> Result<(), Newer> {
    match fixed.format > FORMAT {
        true => Err(Newer { state: state.to_owned(), found: fixed.format }),
        false => Ok(()),
    }
}

/// Whether a configuration, which lies at `file`, asks for what was fixed.
///
/// # Errors
/// It asks for something else.
pub fn is_unchanged(fixed: &Fixed, asked: &Fixed, file: &Path) -> Result<(), Changed> {
    let differences = differences(fixed, asked);
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Changed { file: file.to_owned(), differences }),
    }
}

impl Config {
    /// What a state that is made with this configuration will be held to.
    pub fn fixed(&self, given: &Given) -> Fixed {
        let end_of_text = match &self.tokenizer.end_of_text {
            EndOfTextConfig::Token(token) => Some(token.clone()),
            EndOfTextConfig::Switch(_) => None,
        };
        let tokenizer = match given.tokenizer {
            Some(digest) => TokenizerSource::Given { digest },
            None => TokenizerSource::Trained {
                vocabulary: self.tokenizer.vocabulary.unwrap_or(given.vocabulary),
                train_bytes: self.tokenizer.train_bytes,
            },
        };
        Fixed {
            format: FORMAT,
            paradigms: self.paradigm.list().to_vec(),
            model: given.model.clone(),
            weights: given.weights,
            tokenizer,
            end_of_text,
            mask_documents: self.data.mask_documents,
            seed: self.seed,
            sequence_length: self.data.sequence_length,
            sequences_per_step: self.data.sequences_per_step,
            held_out_share: self.data.held_out_share,
            held_out_block: self.data.held_out_block,
            peak: self.schedule.peak,
            min: self.schedule.min,
            warmup_steps: self.schedule.warmup_steps,
            optimizer: Optimizer {
                beta1: self.optimizer.beta1,
                beta2: self.optimizer.beta2,
                eps: self.optimizer.eps,
                weight_decay: self.optimizer.weight_decay,
                clip: self.optimizer.clip,
            },
            precision: self.model.precision,
        }
    }
}

/// What a configuration asks to be other than it was fixed.
pub fn differences(fixed: &Fixed, asked: &Fixed) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |key: &str, fixed: String, asked: String| {
        if fixed != asked {
            found.push(Difference { key: key.to_owned(), fixed, asked });
        }
    };
    let list = |fixed: &Fixed| {
        let names: Vec<&str> = fixed.paradigms.iter().map(|paradigm| paradigm.name()).collect();
        names.join(", ")
    };
    compare("paradigm", list(fixed), list(asked));
    compare("seed", fixed.seed.to_string(), asked.seed.to_string());
    for (name, was, is) in changed_fields(&fixed.model, &asked.model) {
        compare("model.config", format!("{name} = {was}"), format!("{name} = {is}"));
    }
    let digest = |digest: &Option<artifacts::Digest>| {
        digest.map_or_else(|| "none".to_owned(), |digest| format!("those of digest {}", digest.short()))
    };
    compare("model.weights", digest(&fixed.weights), digest(&asked.weights));
    compare("model.precision", word(&fixed.precision), word(&asked.precision));
    compare("tokenizer", tokenizer(&fixed.tokenizer), tokenizer(&asked.tokenizer));
    let end_of_text = |fixed: &Fixed| fixed.end_of_text.as_ref().map_or_else(|| "false".to_owned(), word);
    compare("tokenizer.end_of_text", end_of_text(fixed), end_of_text(asked));
    let number = |value: f64| format!("{value:?}");
    for (key, was, is) in [
        ("data.sequence_length", fixed.sequence_length, asked.sequence_length),
        ("data.sequences_per_step", fixed.sequences_per_step, asked.sequences_per_step),
        ("data.held_out_block", fixed.held_out_block, asked.held_out_block),
    ] {
        compare(key, was.to_string(), is.to_string());
    }
    compare("data.held_out_share", number(fixed.held_out_share), number(asked.held_out_share));
    compare("data.mask_documents", fixed.mask_documents.to_string(), asked.mask_documents.to_string());
    compare("schedule.warmup_steps", fixed.warmup_steps.to_string(), asked.warmup_steps.to_string());
    let (was, is) = (&fixed.optimizer, &asked.optimizer);
    for (key, was, is) in [
        ("schedule.peak", fixed.peak, asked.peak),
        ("schedule.min", fixed.min, asked.min),
        ("optimizer.beta1", was.beta1, is.beta1),
        ("optimizer.beta2", was.beta2, is.beta2),
        ("optimizer.eps", was.eps, is.eps),
        ("optimizer.weight_decay", was.weight_decay, is.weight_decay),
        ("optimizer.clip", was.clip, is.clip),
    ] {
        compare(key, number(was), number(is));
    }
    found
}

fn word(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn tokenizer(source: &TokenizerSource) -> String {
    match source {
        TokenizerSource::Given { digest } => format!("a given one of digest {}", digest.short()),
        TokenizerSource::Trained { vocabulary, train_bytes } => {
            format!("one of {vocabulary} tokens that is trained on {train_bytes} bytes of text")
        }
    }
}

/// Fields of a model's `config.json` that are not equal.
fn changed_fields(was: &Value, is: &Value) -> Vec<(String, String, String)> {
    let (Some(before), Some(after)) = (was.as_object(), is.as_object()) else {
        return if was == is { Vec::new() } else { vec![("it".to_owned(), was.to_string(), is.to_string())] };
    };
    let shown = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    let new = after.keys().filter(|name| !before.contains_key(*name));
    before
        .keys()
        .chain(new)
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| (name.clone(), shown(before.get(name)), shown(after.get(name))))
        .collect()
}
