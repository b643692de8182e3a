//! The decoder: one block, shared by all layers and all families.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::Config;
use crate::kernels::{Kernels, Mask, Rotary};

/// A model that is ready to compute: its weights, the kernels, and the rotary tables.
pub struct Decoder<'a> {
    config: &'a Config,
    kernels: &'a dyn Kernels,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Tensor,
    rotary: Rotary,
}

struct Layer {
    input_norm: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    post_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// Keys and values of the positions that were already computed.
#[derive(Debug, Default)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
}

impl Cache {
    /// Positions it holds.
    pub fn positions(&self) -> usize {
        self.layers.first().and_then(|(k, _)| k.dim(1).ok()).unwrap_or(0)
    }
}

impl<'a> Decoder<'a> {
    /// A decoder over `weights`, which are those of [`Config::tensors`], for sequences of up to `positions`.
    pub fn new(
        config: &'a Config,
        kernels: &'a dyn Kernels,
        weights: &BTreeMap<String, Tensor>,
        positions: usize,
    ) -> Result<Self> {
        let get = |name: &str| match weights.get(name) {
            Some(tensor) => Ok(tensor.clone()),
            None => bail!("the weights have no tensor `{name}`"),
        };
        let layers = (0..config.layers)
            .map(|layer| {
                let get = |part: &str| get(&format!("model.layers.{layer}.{part}.weight"));
                Ok(Layer {
                    input_norm: get("input_layernorm")?,
                    query: get("self_attn.q_proj")?,
                    key: get("self_attn.k_proj")?,
                    value: get("self_attn.v_proj")?,
                    output: get("self_attn.o_proj")?,
                    post_norm: get("post_attention_layernorm")?,
                    gate: get("mlp.gate_proj")?,
                    up: get("mlp.up_proj")?,
                    down: get("mlp.down_proj")?,
                })
            })
            .collect::<Result<_>>()?;
        let embedding = get("model.embed_tokens.weight")?;
        let head = if config.tied { embedding.clone() } else { get("lm_head.weight")? };
        let rotary =
            Rotary::new(positions, config.head, config.rope_theta, embedding.dtype(), embedding.device())?;
        Ok(Self { config, kernels, embedding, layers, norm: get("model.norm.weight")?, head, rotary })
    }

    /// Mean nats a target of `targets` (B, T) after `inputs` (B, T).
    pub fn loss(&self, inputs: &Tensor, targets: &Tensor, mask: &Mask) -> Result<Tensor> {
        let hidden = self.hidden(inputs, mask, None)?;
        let rows = hidden.reshape(((), self.config.width))?;
        self.kernels.linear_cross_entropy(&rows, &self.head, &targets.flatten_all()?)
    }

    /// Logits after every position of `inputs` (B, T): (B, T, V).
    pub fn logits(&self, inputs: &Tensor) -> Result<Tensor> {
        let positions = inputs.dim(1)?;
        let hidden = self.hidden(inputs, &Mask::causal(positions, positions), None)?;
        self.kernels.linear(&hidden, &self.head)
    }

    /// Logits (V) after the last of `tokens`, which follow those in `cache`.
    pub fn logits_after(&self, tokens: &[u32], cache: &mut Cache) -> Result<Tensor> {
        let inputs = Tensor::new(tokens, self.device())?.unsqueeze(0)?;
        let mask = Mask::causal(tokens.len(), cache.positions() + tokens.len());
        let hidden = self.hidden(&inputs, &mask, Some(cache))?;
        let last = hidden.narrow(1, tokens.len() - 1, 1)?.contiguous()?;
        self.kernels.linear(&last, &self.head)?.flatten_all()
    }

    /// Where the weights lie.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Their dtype.
    pub fn dtype(&self) -> DType {
        self.embedding.dtype()
    }

    /// The residual stream after the last norm: (B, T, D).
    fn hidden(&self, inputs: &Tensor, mask: &Mask, mut cache: Option<&mut Cache>) -> Result<Tensor> {
        let eps = self.config.norm_eps;
        let first = cache.as_ref().map_or(0, |cache| cache.positions());
        let rotary = self.rotary.range(first, inputs.dim(1)?)?;
        let mut stream = self.kernels.embedding(&self.embedding, inputs)?;
        // What the last block has still to add to the stream: its sum is taken together with the next norm.
        let mut pending: Option<Tensor> = None;
        for (number, layer) in self.layers.iter().enumerate() {
            let normed;
            (stream, normed) = self.join(&stream, pending.as_ref(), &layer.input_norm)?;
            let attended = self.attend(
                layer,
                &normed,
                &rotary,
                mask,
                cache.as_deref_mut().map(|cache| (number, cache)),
            )?;
            let (sum, normed) = self.kernels.add_rms_norm(&stream, &attended, &layer.post_norm, eps)?;
            stream = sum;
            let gate = self.kernels.linear(&normed, &layer.gate)?;
            let up = self.kernels.linear(&normed, &layer.up)?;
            pending = Some(self.kernels.linear(&self.kernels.swiglu(&gate, &up)?, &layer.down)?);
        }
        Ok(self.join(&stream, pending.as_ref(), &self.norm)?.1)
    }

    /// The stream with what is pending, and its norm.
    fn join(&self, stream: &Tensor, pending: Option<&Tensor>, norm: &Tensor) -> Result<(Tensor, Tensor)> {
        let eps = self.config.norm_eps;
        match pending {
            Some(pending) => self.kernels.add_rms_norm(stream, pending, norm, eps),
            None => Ok((stream.clone(), self.kernels.rms_norm(stream, norm, eps)?)),
        }
    }

    fn attend(
        &self,
        layer: &Layer,
        x: &Tensor,
        rotary: &Rotary,
        mask: &Mask,
        cache: Option<(usize, &mut Cache)>,
    ) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let Config { heads, groups, head, .. } = *self.config;
        let project =
            |weight: &Tensor, heads: usize| self.kernels.linear(x, weight)?.reshape((b, t, heads, head));
        let q = self.kernels.rope(&project(&layer.query, heads)?, rotary)?;
        let mut k = self.kernels.rope(&project(&layer.key, groups)?, rotary)?;
        let mut v = project(&layer.value, groups)?;
        if let Some((number, cache)) = cache {
            match cache.layers.get_mut(number) {
                Some(past) => {
                    k = Tensor::cat(&[&past.0, &k], 1)?;
                    v = Tensor::cat(&[&past.1, &v], 1)?;
                    *past = (k.clone(), v.clone());
                }
                None => cache.layers.push((k.clone(), v.clone())),
            }
        }
        let y = self.kernels.attention(&q, &k, &v, mask)?.reshape((b, t, heads * head))?;
        self.kernels.linear(&y, &layer.output)
    }
}
