//! How large a model is, and what a token of its training costs, from the numbers of its `config.json`.
//!
//! Budgets, forecasts of memory and the utilisation of a machine all stand on these few integers, so they are counted
//! here and nowhere else, exactly: a parameter count is that of HF transformers for the same file, and what is not
//! known well enough to be counted is refused instead of being guessed. A decoder is a stack of layers of attention and a
//! feed-forward part; what the families do differently is data, a [`Form`], so that each formula stands once. [`config`]
//! knows which family has which.

pub mod config;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{self, TooLarge};

pub use config::{ConfigJson, ModelError};

/// Models that people know, as JSON: a list of `{"id", "name", "config"}`, the paper's first.
///
/// The configurations are the published ones, cut down to the keys that sizes depend on. Of the paper's models only the
/// number of parameters is published, so their sizes are chosen to have about as many.
pub const PRESETS: &str = include_str!("presets.json");

/// The sizes of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Sizes {
    /// Tokens in the vocabulary, V.
    pub vocabulary: u64,
    /// Width of the residual stream, d.
    pub width: u64,
    /// Width of the feed-forward part of a dense layer, f.
    pub feed_forward: u64,
    /// Number of layers.
    pub layers: u64,
    /// Query heads, H.
    pub heads: u64,
    /// Key/value heads, G; divides `heads`.
    pub groups: u64,
    /// Width of one head, hd.
    pub head: u64,
    /// The output head is the embedding.
    pub tied: bool,
    /// What the family has that LLaMA has not, or the other way round.
    pub form: Form,
}

/// How a family's decoder is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Form {
    /// The projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// The projection of attention's output has a bias.
    pub output_bias: bool,
    /// The matrices of the feed-forward part have biases.
    pub feed_forward_bias: bool,
    /// The feed-forward part has a gate, and so three matrices; else two.
    pub gated: bool,
    /// How queries and keys are normed.
    pub qk_norm: QkNorm,
    /// Norms have a bias beside their weight.
    pub norm_bias: bool,
    /// The embedding is normed.
    pub embedding_norm: bool,
    /// The experts of layers that have some.
    pub experts: Option<Experts>,
}

/// What is normed of queries and keys before they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(rename_all = "kebab-case")]
pub enum QkNorm {
    /// Nothing.
    None,
    /// Each head for itself, with one weight of hd elements for the queries and one for the keys.
    Heads,
    /// All heads together: H hd and G hd elements.
    Width,
}

/// A feed-forward part of experts, of which each token goes through a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Experts {
    /// Experts of a layer.
    pub count: u64,
    /// Experts that a token goes through.
    pub active: u64,
    /// Width of one expert.
    pub width: u64,
    /// Width of the expert that every token goes through, with its gate of d elements; 0 if there is none.
    pub shared: u64,
    /// Layers that have no experts but a dense feed-forward part.
    pub dense_layers: u64,
}

impl Form {
    /// LLaMA and Mistral: gated, no biases, no experts.
    pub const LLAMA: Self = Self {
        qkv_bias: false,
        output_bias: false,
        feed_forward_bias: false,
        gated: true,
        qk_norm: QkNorm::None,
        norm_bias: false,
        embedding_norm: false,
        experts: None,
    };

    /// Matrices of a feed-forward part, each of its width times d.
    pub fn feed_forward_matrices(&self) -> u64 {
        if self.gated { 3 } else { 2 }
    }
}

/// A model whose sizes make sense and whose parameters were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "ConfigJson")]
pub struct Model {
    sizes: Sizes,
    embedding: u64,
    parameters: u64,
    active_parameters: u64,
    matmul_parameters: u64,
}

/// What is counted as the arithmetic of attention. Figures of both are in use, so each names the one that it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// As if each position saw the whole sequence: 12 layers H hd T FLOPs a token (PaLM, arXiv 2204.02311, appendix B).
    #[default]
    Full,
    /// Only what a causal mask lets be seen, which is half of it.
    Causal,
}

impl Convention {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Full, Self::Causal];
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Causal => "causal",
        })
    }
}

impl Sizes {
    /// Columns of all query heads, H hd.
    pub fn queries(&self) -> u64 {
        self.heads.saturating_mul(self.head)
    }

    /// Columns of all keys, which are those of all values too, G hd.
    pub fn keys(&self) -> u64 {
        self.groups.saturating_mul(self.head)
    }

    fn check(&self) -> Result<(), ModelError> {
        let sizes = [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.width),
            ("intermediate_size", self.feed_forward),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.groups),
            ("head_dim", self.head),
        ];
        let experts = self.form.experts.map(|experts| {
            [
                ("num_experts", experts.count),
                ("num_experts_per_tok", experts.active),
                ("moe_intermediate_size", experts.width),
            ]
        });
        for (key, size) in sizes.into_iter().chain(experts.into_iter().flatten()) {
            if size == 0 {
                return Err(ModelError::Zero { key });
            }
            units::bounded(key, size)?;
        }
        match self.form.experts {
            Some(Experts { count, active, .. }) if active > count => {
                return Err(ModelError::Experts { active, count });
            }
            Some(Experts { shared, .. }) => _ = units::bounded("shared_expert_intermediate_size", shared)?,
            None => {}
        }
        let (groups, heads) = (self.groups, self.heads);
        if heads.is_multiple_of(groups) { Ok(()) } else { Err(ModelError::Groups { groups, heads }) }
    }

    /// Parameters of one layer's attention: its matrices, and its biases and norms.
    fn attention(&self) -> Result<(u64, u64), TooLarge> {
        let (queries, keys, form) = (self.queries(), self.keys(), &self.form);
        let matrices = sum(&[of(&[2, self.width, queries])?, of(&[2, self.width, keys])?])?;
        let qkv_bias = if form.qkv_bias { sum(&[queries, keys, keys])? } else { 0 };
        let output_bias = if form.output_bias { self.width } else { 0 };
        let norms = match form.qk_norm {
            QkNorm::None => 0,
            QkNorm::Heads => of(&[2, self.head])?,
            QkNorm::Width => sum(&[queries, keys])?,
        };
        Ok((matrices, sum(&[qkv_bias, output_bias, norms])?))
    }

    /// Parameters of one dense feed-forward part: its matrices, and its biases.
    fn dense(&self) -> Result<(u64, u64), TooLarge> {
        let form = &self.form;
        let matrices = of(&[form.feed_forward_matrices(), self.width, self.feed_forward])?;
        let inner = of(&[form.feed_forward_matrices() - 1, self.feed_forward])?;
        Ok((matrices, if form.feed_forward_bias { sum(&[inner, self.width])? } else { 0 }))
    }

    /// Parameters of one layer's experts: all of them, and those that a token is multiplied with, the router and the gate
    /// of the shared expert among both.
    fn experts(&self, experts: &Experts) -> Result<(u64, u64), TooLarge> {
        let matrices = self.form.feed_forward_matrices();
        let of_experts = |count| of(&[count, matrices, self.width, experts.width]);
        let gate = if experts.shared > 0 { self.width } else { 0 };
        let router = of(&[self.width, experts.count])?;
        let beside = sum(&[router, of(&[matrices, self.width, experts.shared])?, gate])?;
        Ok((sum(&[of_experts(experts.count)?, beside])?, sum(&[of_experts(experts.active)?, beside])?))
    }

    /// Parameters of all norms, but those of queries and keys.
    fn norms(&self) -> Result<u64, TooLarge> {
        let count = sum(&[of(&[2, self.layers])?, 1, u64::from(self.form.embedding_norm)])?;
        of(&[count, self.width, if self.form.norm_bias { 2 } else { 1 }])
    }
}

impl Model {
    /// The model of these sizes.
    ///
    /// # Errors
    /// A size is zero, does not go with another, or gives 2^53 parameters or more.
    pub fn new(sizes: Sizes) -> Result<Self, ModelError> {
        sizes.check()?;
        let Sizes { vocabulary, width, layers, tied, .. } = sizes;
        let (attention, beside_attention) = sizes.attention()?;
        let (dense, beside_dense) = sizes.dense()?;
        let (sparse_layers, experts) = match &sizes.form.experts {
            Some(experts) => (layers.saturating_sub(experts.dense_layers), sizes.experts(experts)?),
            None => (0, (0, 0)),
        };
        let dense_layers = layers - sparse_layers;
        let vectors =
            sum(&[of(&[layers, beside_attention])?, of(&[dense_layers, beside_dense])?, sizes.norms()?])?;
        let common = sum(&[of(&[layers, attention])?, of(&[dense_layers, dense])?])?;
        let matrices = sum(&[common, of(&[sparse_layers, experts.0])?])?;
        let active = sum(&[common, of(&[sparse_layers, experts.1])?])?;
        let embedding = of(&[vocabulary, width])?;
        let ends = if tied { embedding } else { of(&[2, embedding])? };
        Ok(Self {
            sizes,
            embedding,
            parameters: sum(&[matrices, vectors, ends])?,
            active_parameters: sum(&[active, vectors, ends])?,
            // The head is a matrix product also where it shares its parameters with the embedding.
            matmul_parameters: sum(&[active, embedding])?,
        })
    }

    /// The sizes that it was made of.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// All parameters, as HF transformers counts them: a tied embedding once, and all experts.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// The parameters without the experts that a token does not go through.
    pub fn active_parameters(&self) -> u64 {
        self.active_parameters
    }

    /// The parameters of all experts, of which a token goes through a few; neither routers nor shared experts.
    pub fn expert_parameters(&self) -> u64 {
        self.sizes.form.experts.as_ref().map_or(0, |experts| {
            let layers = self.sizes.layers.saturating_sub(experts.dense_layers);
            // They are among all parameters, which can be counted.
            self.sizes.form.feed_forward_matrices()
                * layers
                * experts.count
                * self.sizes.width
                * experts.width
        })
    }

    /// Parameters of the embedding, V d. An output head that is not tied has as many again, and they are not among
    /// these.
    pub fn embedding_parameters(&self) -> u64 {
        self.embedding
    }

    /// Parameters that a token is multiplied with: the matrices of all layers, of experts only the active ones, and the
    /// output head, tied or not; neither norms and biases nor the look-up in the embedding.
    pub fn matmul_parameters(&self) -> u64 {
        self.matmul_parameters
    }

    /// FLOPs that training takes for a token of a sequence of `sequence_length`, forward and backward: six for each
    /// parameter in matrix products, and those of attention as `convention` says. What recomputation adds is not among
    /// them.
    ///
    /// # Errors
    /// They are 2^53 or more.
    pub fn flops_per_token(&self, sequence_length: u64, convention: Convention) -> Result<u64, TooLarge> {
        let what = "training FLOPs a token";
        let each = match convention {
            Convention::Full => 12,
            Convention::Causal => 6,
        };
        let Sizes { layers, heads, head, .. } = self.sizes;
        let matrices = units::product(what, &[6, self.matmul_parameters])?;
        units::sum(what, matrices, units::product(what, &[each, layers, heads, head, sequence_length])?)
    }
}

fn of(factors: &[u64]) -> Result<u64, TooLarge> {
    units::product("parameters of the model", factors)
}

fn sum(terms: &[u64]) -> Result<u64, TooLarge> {
    terms.iter().try_fold(0, |sum, term| units::sum("parameters of the model", sum, *term))
}

#[cfg(test)]
mod tests;
