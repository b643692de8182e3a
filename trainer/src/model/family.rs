//! Which model a `config.json` describes.
//!
//! The file is the one of HF transformers, and a release hands it on unchanged, so it may hold many more keys than
//! those read here. What would change the arithmetic and is not known is refused: a model that is trained as another
//! one than transformers loads would be wrong without a word.

use std::path::{Path, PathBuf};

use paradigm::model::{Form, Sizes};
use serde::Deserialize;
use serde_json::Value;

/// What `config.json` says of a decoder, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward part.
    pub feed_forward: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; divides `heads`.
    pub groups: usize,
    /// Width of one head; even.
    pub head: usize,
    /// Added to the mean square in each norm.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// The output head is the embedding.
    pub tied: bool,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// Positions the model is meant for.
    pub positions: usize,
    /// Token that ends a text, where one is named.
    pub end_of_text: Option<u32>,
}

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a `config.json`.
    #[error("{path}: is not a model's config.json: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// A key has a value that this trainer does not know.
    #[error("{path}: `{key}` is {value}, but {expected}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would do.
        expected: String,
    },
}

/// The keys that are read, as they stand in the file.
#[derive(Deserialize)]
struct Raw {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "default_norm_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default = "default_initializer_range")]
    initializer_range: f64,
    #[serde(default = "default_positions")]
    max_position_embeddings: usize,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_activation")]
    hidden_act: String,
    eos_token_id: Option<Value>,
}

fn default_norm_eps() -> f64 {
    1e-6
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_positions() -> usize {
    2048
}

fn default_activation() -> String {
    "silu".to_owned()
}

/// Largest count of anything in a `config.json`; products of two stay far below 2^63.
const LARGEST: usize = 1 << 24;

impl Config {
    /// Reads and checks a `config.json`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a `config.json`; `path` only names it in errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let raw: Raw = serde_json::from_str(text)
            .map_err(|source| ConfigError::Malformed { path: path.to_owned(), source })?;
        let refuse = |key, value: &dyn std::fmt::Display, expected: &str| {
            Err(ConfigError::Unsupported {
                path: path.to_owned(),
                key,
                value: value.to_string(),
                expected: expected.to_owned(),
            })
        };
        if raw.model_type != "llama" {
            return refuse("model_type", &raw.model_type, "only `llama` is known");
        }
        if raw.hidden_act != "silu" {
            return refuse("hidden_act", &raw.hidden_act, "a LLaMA has `silu`");
        }
        if raw.attention_bias {
            return refuse("attention_bias", &true, "biases are not supported: set it to false");
        }
        if raw.mlp_bias {
            return refuse("mlp_bias", &true, "biases are not supported: set it to false");
        }
        if let Some(scaling) = raw.rope_scaling.as_ref().filter(|value| !value.is_null()) {
            return refuse("rope_scaling", scaling, "scaled rotary embeddings are not supported");
        }
        let groups = raw.num_key_value_heads.unwrap_or(raw.num_attention_heads);
        for (key, value) in [
            ("vocab_size", raw.vocab_size),
            ("hidden_size", raw.hidden_size),
            ("intermediate_size", raw.intermediate_size),
            ("num_hidden_layers", raw.num_hidden_layers),
            ("num_attention_heads", raw.num_attention_heads),
            ("num_key_value_heads", groups),
            ("max_position_embeddings", raw.max_position_embeddings),
        ] {
            if value == 0 || value > LARGEST {
                return refuse(key, &value, "a number from 1 to 16777216 was expected");
            }
        }
        if !raw.num_attention_heads.is_multiple_of(groups) {
            return refuse("num_key_value_heads", &groups, "it must divide num_attention_heads");
        }
        let head = match raw.head_dim {
            Some(head) => head,
            None if raw.hidden_size.is_multiple_of(raw.num_attention_heads) => {
                raw.hidden_size / raw.num_attention_heads
            }
            None => {
                return refuse(
                    "num_attention_heads",
                    &raw.num_attention_heads,
                    "it must divide hidden_size where head_dim is not given",
                );
            }
        };
        if head == 0 || !head.is_multiple_of(2) || head > LARGEST {
            return refuse("head_dim", &head, "rotary embeddings need an even width of a head");
        }
        let rope_theta = rope_theta(path, &raw)?;
        for (key, value) in [
            ("rms_norm_eps", raw.rms_norm_eps),
            ("rope_theta", rope_theta),
            ("initializer_range", raw.initializer_range),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return refuse(key, &value, "a positive number was expected");
            }
        }
        Ok(Self {
            vocabulary: raw.vocab_size,
            width: raw.hidden_size,
            feed_forward: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            groups,
            head,
            norm_eps: raw.rms_norm_eps,
            rope_theta,
            tied: raw.tie_word_embeddings,
            initializer_range: raw.initializer_range,
            positions: raw.max_position_embeddings,
            end_of_text: raw.eos_token_id.as_ref().and_then(first_token),
        })
    }

    /// The sizes that parameters, FLOPs and memory are counted from.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            vocabulary: self.vocabulary as u64,
            width: self.width as u64,
            feed_forward: self.feed_forward as u64,
            layers: self.layers as u64,
            heads: self.heads as u64,
            groups: self.groups as u64,
            head: self.head as u64,
            tied: self.tied,
            form: Form::LLAMA,
        }
    }

    /// Every tensor of the model, with its shape, in byte order of names.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (queries, keys) = (self.heads * self.head, self.groups * self.head);
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, self.width]),
            ("model.norm.weight".to_owned(), vec![self.width]),
        ];
        if !self.tied {
            all.push(("lm_head.weight".to_owned(), vec![self.vocabulary, self.width]));
        }
        for layer in 0..self.layers {
            for (part, shape) in [
                ("input_layernorm", vec![self.width]),
                ("self_attn.q_proj", vec![queries, self.width]),
                ("self_attn.k_proj", vec![keys, self.width]),
                ("self_attn.v_proj", vec![keys, self.width]),
                ("self_attn.o_proj", vec![self.width, queries]),
                ("post_attention_layernorm", vec![self.width]),
                ("mlp.gate_proj", vec![self.feed_forward, self.width]),
                ("mlp.up_proj", vec![self.feed_forward, self.width]),
                ("mlp.down_proj", vec![self.width, self.feed_forward]),
            ] {
                all.push((format!("model.layers.{layer}.{part}.weight"), shape));
            }
        }
        all.sort();
        all
    }
}

/// The base of the rotary frequencies: `rope_theta`, or inside the newer `rope_parameters`, whose kind must be the
/// plain one.
fn rope_theta(path: &Path, raw: &Raw) -> Result<f64, ConfigError> {
    let Some(parameters) = raw.rope_parameters.as_ref().filter(|value| !value.is_null()) else {
        return Ok(raw.rope_theta.unwrap_or(10_000.0));
    };
    let plain = match parameters.get("rope_type") {
        None | Some(Value::Null) => true,
        Some(kind) => kind == "default",
    };
    let partial = parameters.get("partial_rotary_factor").and_then(Value::as_f64).unwrap_or(1.0);
    if !plain || partial != 1.0 {
        return Err(ConfigError::Unsupported {
            path: path.to_owned(),
            key: "rope_parameters",
            value: parameters.to_string(),
            expected: "only the `rope_type` `default` over whole heads is known".to_owned(),
        });
    }
    let inside = parameters.get("rope_theta").and_then(Value::as_f64);
    Ok(inside.or(raw.rope_theta).unwrap_or(10_000.0))
}

/// `eos_token_id` is a number or a list of them.
fn first_token(value: &Value) -> Option<u32> {
    let value = value.as_array().map_or(Some(value), |list| list.first())?;
    value.as_u64().and_then(|token| u32::try_from(token).ok())
}

#[cfg(test)]
mod tests;
