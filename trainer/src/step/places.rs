//! Where each parameter stands in the list of all of them.

use std::collections::BTreeSet;

use candle_core::{Result, bail};

use crate::model::Config;

/// Places of a model's parameters in byte order of their names, as [`Weights::iter`](crate::model::Weights::iter) gives
/// them.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub embedding: usize,
    pub layers: Vec<Layer>,
    pub norm: usize,
    /// The embedding's where they are tied.
    pub head: usize,
}

/// Places of a layer's parameters.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub input_norm: usize,
    pub query: usize,
    pub key: usize,
    pub value: usize,
    pub output: usize,
    pub post_norm: usize,
    pub gate: usize,
    pub up: usize,
    pub down: usize,
}

impl Places {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let names: BTreeSet<String> = config.tensors().into_iter().map(|(name, _)| name).collect();
        let of = |name: &str| match names.iter().position(|known| known == name) {
            Some(place) => Ok(place),
            None => bail!("the model has no tensor `{name}`"),
        };
        let layer = |number: usize| {
            let of = |part: &str| of(&format!("model.layers.{number}.{part}.weight"));
            Ok(Layer {
                input_norm: of("input_layernorm")?,
                query: of("self_attn.q_proj")?,
                key: of("self_attn.k_proj")?,
                value: of("self_attn.v_proj")?,
                output: of("self_attn.o_proj")?,
                post_norm: of("post_attention_layernorm")?,
                gate: of("mlp.gate_proj")?,
                up: of("mlp.up_proj")?,
                down: of("mlp.down_proj")?,
            })
        };
        let embedding = of("model.embed_tokens.weight")?;
        Ok(Self {
            embedding,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            norm: of("model.norm.weight")?,
            head: if config.tied { embedding } else { of("lm_head.weight")? },
        })
    }
}
