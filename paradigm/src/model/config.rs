//! The families, and where their `config.json` says what they are made of.
//!
//! What a file leaves out is what HF transformers takes then, where that is the same in every version of it; where it is
//! not, or is a size of one certain model, the key must be given.

use std::collections::BinaryHeap;

use std::fmt;

use serde::Deserialize;

use super::{Experts, Form, Model, QkNorm, Sizes};
use crate::units::TooLarge;

/// The keys of a `config.json` of HF transformers that sizes depend on. Others are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct ConfigJson {
    /// The family.
    pub model_type: String,
    /// V.
    pub vocab_size: u64,
    /// d.
    pub hidden_size: Option<u64>,
    /// BLOOM: d.
    pub n_embed: Option<u64>,
    /// f.
    pub intermediate_size: Option<u64>,
    /// Number of layers.
    pub num_hidden_layers: Option<u64>,
    /// BLOOM: number of layers.
    pub n_layer: Option<u64>,
    /// H.
    pub num_attention_heads: Option<u64>,
    /// BLOOM: H.
    pub n_head: Option<u64>,
    /// G; H where it is not given.
    pub num_key_value_heads: Option<u64>,
    /// hd; d / H where it is not given.
    pub head_dim: Option<u64>,
    /// The output head is the embedding.
    pub tie_word_embeddings: Option<bool>,
    /// The projections of the attention have biases.
    pub attention_bias: Option<bool>,
    /// The projections of the feed-forward part have biases.
    pub mlp_bias: Option<bool>,
    /// Qwen2-MoE: queries, keys and values have biases.
    pub qkv_bias: Option<bool>,
    /// InternLM2: the projections of the attention have biases.
    pub bias: Option<bool>,
    /// Mixtral: experts of a layer.
    pub num_local_experts: Option<u64>,
    /// Qwen: experts of a layer.
    pub num_experts: Option<u64>,
    /// Experts that a token goes through.
    pub num_experts_per_tok: Option<u64>,
    /// Qwen: width of an expert.
    pub moe_intermediate_size: Option<u64>,
    /// Qwen2-MoE: width of the expert that every token goes through.
    pub shared_expert_intermediate_size: Option<u64>,
    /// Qwen: every how manieth layer has experts.
    pub decoder_sparse_step: Option<u64>,
    /// Qwen: layers that have none all the same.
    #[serde(default)]
    pub mlp_only_layers: Vec<u64>,
}

/// What a key of a [`ConfigJson`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A word.
    Word,
    /// A whole number, 0 or more and below 2^53.
    Count,
    /// Yes or no.
    Flag,
    /// A list of counts.
    Counts,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Word => "a word",
            Self::Count => "a whole number",
            Self::Flag => "true or false",
            Self::Counts => "a list of whole numbers",
        })
    }
}

/// All keys of a [`ConfigJson`]: whoever reads one with a reader that names no key holds the values against this first.
pub const KEYS: [(&str, Kind); 23] = [
    ("model_type", Kind::Word),
    ("vocab_size", Kind::Count),
    ("hidden_size", Kind::Count),
    ("n_embed", Kind::Count),
    ("intermediate_size", Kind::Count),
    ("num_hidden_layers", Kind::Count),
    ("n_layer", Kind::Count),
    ("num_attention_heads", Kind::Count),
    ("n_head", Kind::Count),
    ("num_key_value_heads", Kind::Count),
    ("head_dim", Kind::Count),
    ("tie_word_embeddings", Kind::Flag),
    ("attention_bias", Kind::Flag),
    ("mlp_bias", Kind::Flag),
    ("qkv_bias", Kind::Flag),
    ("bias", Kind::Flag),
    ("num_local_experts", Kind::Count),
    ("num_experts", Kind::Count),
    ("num_experts_per_tok", Kind::Count),
    ("moe_intermediate_size", Kind::Count),
    ("shared_expert_intermediate_size", Kind::Count),
    ("decoder_sparse_step", Kind::Count),
    ("mlp_only_layers", Kind::Counts),
];

/// Why a model cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// It is of another family.
    #[error("model_type: the family `{family}` is not known; {} are", FAMILIES.map(|(name, _)| name).join(", "))]
    Family {
        /// The family.
        family: String,
    },
    /// A key that the family cannot do without.
    #[error("{key}: it is missing, and a model of the family `{family}` needs it")]
    Missing {
        /// The key.
        key: &'static str,
        /// The family.
        family: String,
    },
    /// A value is of another kind.
    #[error("{key}: {kind} was expected")]
    Kind {
        /// The key.
        key: &'static str,
        /// What it should hold.
        kind: Kind,
    },
    /// A size is zero.
    #[error("{key}: it is 0, at least 1 was expected")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// The query heads cannot be shared out among the key/value heads.
    #[error("num_key_value_heads: {groups} does not divide num_attention_heads, which is {heads}")]
    Groups {
        /// Key/value heads.
        groups: u64,
        /// Query heads.
        heads: u64,
    },
    /// A token cannot go through so many experts.
    #[error("num_experts_per_tok: {active} is more than the number of experts, which is {count}")]
    Experts {
        /// Experts of a token.
        active: u64,
        /// All.
        count: u64,
    },
    /// The width of a head does not follow from the other sizes.
    #[error(
        "num_attention_heads: {heads} does not divide hidden_size, which is {width}; then head_dim must be given"
    )]
    Head {
        /// Query heads.
        heads: u64,
        /// Width of the residual stream.
        width: u64,
    },
    /// A size or count is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// A family: what its configuration says of its form.
type Family = fn(&ConfigJson) -> Result<Form, ModelError>;

/// All that are known, by `model_type`.
const FAMILIES: [(&str, Family); 10] = [
    ("llama", llama),
    ("mistral", mistral),
    ("mixtral", mixtral),
    ("qwen2", qwen2),
    ("qwen2_moe", qwen2_moe),
    ("qwen3", qwen3),
    ("qwen3_moe", qwen3_moe),
    ("internlm2", internlm2),
    ("olmo2", olmo2),
    ("bloom", bloom),
];

fn llama(config: &ConfigJson) -> Result<Form, ModelError> {
    let bias = config.attention_bias.unwrap_or(false);
    let feed_forward_bias = config.mlp_bias.unwrap_or(false);
    Ok(Form { qkv_bias: bias, output_bias: bias, feed_forward_bias, ..Form::LLAMA })
}

fn mistral(config: &ConfigJson) -> Result<Form, ModelError> {
    config.needs("num_key_value_heads", config.num_key_value_heads)?;
    Ok(Form::LLAMA)
}

fn mixtral(config: &ConfigJson) -> Result<Form, ModelError> {
    config.needs("num_key_value_heads", config.num_key_value_heads)?;
    let experts = Experts {
        count: config.needs("num_local_experts", config.num_local_experts)?,
        active: config.needs("num_experts_per_tok", config.num_experts_per_tok)?,
        width: config.needs("intermediate_size", config.intermediate_size)?,
        shared: 0,
        dense_layers: 0,
    };
    Ok(Form { experts: Some(experts), ..Form::LLAMA })
}

fn qwen2(config: &ConfigJson) -> Result<Form, ModelError> {
    config.needs("num_key_value_heads", config.num_key_value_heads)?;
    Ok(Form { qkv_bias: true, ..Form::LLAMA })
}

fn qwen2_moe(config: &ConfigJson) -> Result<Form, ModelError> {
    config.needs("num_key_value_heads", config.num_key_value_heads)?;
    let shared = config.needs("shared_expert_intermediate_size", config.shared_expert_intermediate_size)?;
    let experts = Experts { shared, ..config.qwen_experts()? };
    Ok(Form { qkv_bias: config.qkv_bias.unwrap_or(true), experts: Some(experts), ..Form::LLAMA })
}

fn qwen3(config: &ConfigJson) -> Result<Form, ModelError> {
    config.needs("num_key_value_heads", config.num_key_value_heads)?;
    config.needs("head_dim", config.head_dim)?;
    Ok(Form { qk_norm: QkNorm::Heads, ..llama(config)? })
}

fn qwen3_moe(config: &ConfigJson) -> Result<Form, ModelError> {
    Ok(Form { experts: Some(config.qwen_experts()?), ..qwen3(config)? })
}

fn internlm2(config: &ConfigJson) -> Result<Form, ModelError> {
    let bias = config.needs("bias", config.bias)?;
    Ok(Form { qkv_bias: bias, output_bias: bias, ..Form::LLAMA })
}

fn olmo2(config: &ConfigJson) -> Result<Form, ModelError> {
    let bias = config.attention_bias.unwrap_or(false);
    Ok(Form { qkv_bias: bias, output_bias: bias, qk_norm: QkNorm::Width, ..Form::LLAMA })
}

fn bloom(_: &ConfigJson) -> Result<Form, ModelError> {
    Ok(Form {
        qkv_bias: true,
        output_bias: true,
        feed_forward_bias: true,
        gated: false,
        norm_bias: true,
        embedding_norm: true,
        ..Form::LLAMA
    })
}

impl ConfigJson {
    fn needs<T>(&self, key: &'static str, value: Option<T>) -> Result<T, ModelError> {
        value.ok_or_else(|| ModelError::Missing { key, family: self.model_type.clone() })
    }

    fn qwen_experts(&self) -> Result<Experts, ModelError> {
        let step = self.decoder_sparse_step.unwrap_or(1);
        if step == 0 {
            return Err(ModelError::Zero { key: "decoder_sparse_step" });
        }
        let layers = self.layers()?;
        // In a browser, a heap sorts with a tenth of the code.
        let mut only_dense = BinaryHeap::from(self.mlp_only_layers.clone()).into_sorted_vec();
        only_dense.dedup();
        // Layers count from 0, and the step from 1.
        let excepted =
            only_dense.iter().filter(|layer| **layer < layers && (**layer + 1).is_multiple_of(step));
        let sparse = layers / step - excepted.count() as u64;
        Ok(Experts {
            count: self.needs("num_experts", self.num_experts)?,
            active: self.needs("num_experts_per_tok", self.num_experts_per_tok)?,
            width: self.needs("moe_intermediate_size", self.moe_intermediate_size)?,
            shared: 0,
            dense_layers: layers - sparse,
        })
    }

    fn is_tied(&self) -> bool {
        self.tie_word_embeddings.unwrap_or(self.model_type == "bloom")
    }

    fn feed_forward(&self) -> Result<u64, ModelError> {
        match self.model_type.as_str() {
            "bloom" => Ok(self.width()?.saturating_mul(4)),
            _ => self.needs("intermediate_size", self.intermediate_size),
        }
    }

    fn width(&self) -> Result<u64, ModelError> {
        self.needs("hidden_size", self.hidden_size.or(self.n_embed))
    }

    fn layers(&self) -> Result<u64, ModelError> {
        self.needs("num_hidden_layers", self.num_hidden_layers.or(self.n_layer))
    }

    fn heads(&self) -> Result<u64, ModelError> {
        self.needs("num_attention_heads", self.num_attention_heads.or(self.n_head))
    }

    fn head(&self) -> Result<u64, ModelError> {
        let (heads, width) = (self.heads()?, self.width()?);
        match self.head_dim {
            Some(head) => Ok(head),
            None if heads == 0 => Err(ModelError::Zero { key: "num_attention_heads" }),
            None if width.is_multiple_of(heads) => Ok(width / heads),
            None => Err(ModelError::Head { heads, width }),
        }
    }
}

impl TryFrom<ConfigJson> for Model {
    type Error = ModelError;

    fn try_from(config: ConfigJson) -> Result<Self, ModelError> {
        let Some((_, form)) = FAMILIES.iter().find(|(name, _)| *name == config.model_type) else {
            return Err(ModelError::Family { family: config.model_type });
        };
        Self::new(Sizes {
            vocabulary: config.vocab_size,
            width: config.width()?,
            feed_forward: config.feed_forward()?,
            layers: config.layers()?,
            heads: config.heads()?,
            groups: config.num_key_value_heads.map_or_else(|| config.heads(), Ok)?,
            head: config.head()?,
            tied: config.is_tied(),
            form: form(&config)?,
        })
    }
}
