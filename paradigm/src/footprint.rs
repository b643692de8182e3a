//! What a device of a cluster must hold to train a model in bf16.
//!
//! [`crate::memory`] counts the buffers of our own trainer on the CPU to the byte; this is the estimate that is made
//! before anybody has a cluster, for any trainer that keeps bf16 weights beside f32 master weights and AdamW's moments. It
//! follows what is published: activations a layer (arXiv 2205.05198), optimizer states shared out (ZeRO, arXiv
//! 1910.02054), tensor and pipeline parallelism. What shares out what matters most: ZeRO shares out among the replicas
//! what tensor and pipeline parallelism have left of the model, each once.
//!
//! The letters: s tokens of a sequence, b sequences of a micro batch, d the width of the residual stream, q = H hd columns
//! of all queries and k = G hd of all keys, f the width of the feed-forward part (of experts those that a token goes
//! through), V the vocabulary, P' the parameters of a device, t devices of tensor and p of pipeline parallelism, r replicas,
//! e of which share the experts: of these, then, there are r / e.

use serde::{Deserialize, Serialize};

use crate::memory::Recompute;
use crate::model::{Experts, Model};
use crate::units::{self, TooLarge};

/// Bytes of a bf16 number.
const BF16: u64 = 2;
/// Bytes of an f32 number.
const F32: u64 = 4;
/// Layers whose weights are gathered at once where they are shared out: the one that is computed and the next.
const GATHERED: u64 = 2;

/// What replicas share out instead of keeping it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(rename_all = "kebab-case")]
pub enum Zero {
    /// Nothing.
    #[default]
    None,
    /// The optimizer's states and master weights.
    Optimizer,
    /// Also the gradients.
    Gradients,
    /// Also the weights, as FSDP does.
    Weights,
}

/// How a model lies on a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct Sharding {
    /// All devices.
    pub devices: u64,
    /// t: devices that share each matrix.
    pub tensor: u64,
    /// p: devices that share the layers.
    pub pipeline: u64,
    /// e: replicas that share the experts of each layer; 1 where there are none.
    pub expert: u64,
    /// What replicas share out.
    pub zero: Zero,
    /// Activations outside of the shared matrices are shared too (sequence parallelism).
    pub sequence_parallel: bool,
}

/// What goes through a model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// b.
    pub micro_batch: u64,
    /// s.
    pub sequence_length: u64,
    /// What is computed twice. [`Recompute::None`] keeps the scores of attention, [`Recompute::Selective`] does not, as
    /// with any fused attention.
    pub recompute: Recompute,
    /// Bytes in which gradients are summed: 2 or 4.
    pub gradient_bytes: u64,
}

/// Bytes of one device, part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Footprint {
    /// P': parameters of the device, before replicas share anything out.
    pub parameters: u64,
    /// r.
    pub replicas: u64,
    /// Of these, those of experts.
    pub expert_parameters: u64,
    /// 2 P', or 2 P' / r; experts' / (r / e).
    pub weights: u64,
    /// 2 P' or 4 P', or that shared out likewise.
    pub gradients: u64,
    /// Master weights and both moments: 12 P', or that shared out likewise.
    pub optimizer: u64,
    /// Weights of two layers that were gathered from the replicas.
    pub gathered: u64,
    /// What the forward keeps for the backward.
    pub activations: u64,
    /// Logits in f32: 4 s b V / t.
    pub logits: u64,
    /// All of it.
    pub bytes: u64,
}

/// Why there is no footprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FootprintError {
    /// A count that cannot be.
    #[error("{what}: {value} is not possible, it must be {bounds}")]
    Bounds {
        /// What it is.
        what: &'static str,
        /// The refused value.
        value: u64,
        /// What was expected.
        bounds: &'static str,
    },
    /// Devices that do not come out even.
    #[error("devices: {devices} cannot be shared out by tensor x pipeline = {tensor} x {pipeline}")]
    Uneven {
        /// All devices.
        devices: u64,
        /// t.
        tensor: u64,
        /// p.
        pipeline: u64,
    },
    /// Replicas or experts that do not come out even.
    #[error("expert: {expert} must divide the experts of a layer, {experts}, and the replicas, {replicas}")]
    Experts {
        /// e.
        expert: u64,
        /// Experts of a layer.
        experts: u64,
        /// r.
        replicas: u64,
    },
    /// More stages than layers.
    #[error("pipeline: {pipeline} devices cannot share the {layers} layers of the model")]
    Layers {
        /// p.
        pipeline: u64,
        /// The model's layers.
        layers: u64,
    },
    /// A count is 2^53 or more.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// What one stage of the pipeline holds.
struct Stage {
    /// Without those of experts.
    parameters: u64,
    expert_parameters: u64,
    activations: u64,
    logits: u64,
}

impl Footprint {
    /// Bytes of the device that holds most.
    ///
    /// # Errors
    /// A count that cannot be, with its name.
    pub fn new(model: &Model, sharding: &Sharding, load: &Load) -> Result<Self, FootprintError> {
        sharding.check(model)?;
        load.check()?;
        let Sharding { tensor, expert, zero, .. } = *sharding;
        let replicas = sharding.replicas();
        let of = |stage: Stage| -> Result<Self, FootprintError> {
            let Stage { parameters, expert_parameters, activations, logits } = stage;
            let share = |is_shared: bool, each: u64| {
                let [common, experts] = [product(&[each, parameters])?, product(&[each, expert_parameters])?];
                match is_shared {
                    true => sum(common.div_ceil(replicas), experts.div_ceil(replicas / expert)),
                    false => sum(common, experts),
                }
            };
            let weights = share(zero == Zero::Weights, BF16)?;
            let gradients = share(matches!(zero, Zero::Gradients | Zero::Weights), load.gradient_bytes)?;
            let optimizer = share(zero != Zero::None, 3 * F32)?;
            let gathered = match zero {
                Zero::Weights if replicas > 1 => {
                    let (common, experts) = layer_parameters(model);
                    let layer = sum(common.div_ceil(tensor), experts.div_ceil(tensor * expert))?;
                    product(&[BF16, GATHERED, layer])?
                }
                _ => 0,
            };
            let bytes = [weights, gradients, optimizer, gathered, activations, logits];
            let bytes = bytes.into_iter().try_fold(0, sum)?;
            Ok(Self {
                parameters: sum(parameters, expert_parameters)?,
                replicas,
                expert_parameters,
                weights,
                gradients,
                optimizer,
                gathered,
                activations,
                logits,
                bytes,
            })
        };
        let first = of(Stage::first(model, sharding, load)?)?;
        let last = of(Stage::last(model, sharding, load)?)?;
        Ok(if last.bytes > first.bytes { last } else { first })
    }
}

impl Stage {
    /// Holds the embedding, and most micro batches: as many as there are stages are under way.
    fn first(model: &Model, sharding: &Sharding, load: &Load) -> Result<Self, FootprintError> {
        let pipeline = sharding.pipeline;
        let layers = model.sizes().layers.div_ceil(pipeline);
        let embedding = model.embedding_parameters();
        let is_whole = pipeline == 1;
        let ends = if is_whole && !model.sizes().tied { product(&[2, embedding])? } else { embedding };
        let (parameters, expert_parameters) = stage_parameters(model, sharding, layers, ends)?;
        Ok(Self {
            parameters,
            expert_parameters,
            activations: activations(model, sharding, load, layers, pipeline)?,
            logits: if is_whole { logits(model, sharding, load)? } else { 0 },
        })
    }

    /// Holds the output head, and one micro batch. A tied head is a copy of the embedding here.
    fn last(model: &Model, sharding: &Sharding, load: &Load) -> Result<Self, FootprintError> {
        if sharding.pipeline == 1 {
            return Self::first(model, sharding, load);
        }
        let layers = model.sizes().layers.div_ceil(sharding.pipeline);
        let (parameters, expert_parameters) =
            stage_parameters(model, sharding, layers, model.embedding_parameters())?;
        Ok(Self {
            parameters,
            expert_parameters,
            activations: activations(model, sharding, load, layers, 1)?,
            logits: logits(model, sharding, load)?,
        })
    }
}

/// Parameters of a device that holds so many layers and those at an end of the model: common ones, and experts'.
fn stage_parameters(
    model: &Model,
    sharding: &Sharding,
    layers: u64,
    ends: u64,
) -> Result<(u64, u64), TooLarge> {
    let (common, experts) = layer_parameters(model);
    let Sharding { tensor, expert, .. } = *sharding;
    Ok((
        sum(product(&[layers, common])?, ends)?.div_ceil(tensor),
        product(&[layers, experts])?.div_ceil(tensor * expert),
    ))
}

/// Parameters of a layer, of the average one where they are not all alike: common ones, and experts'.
fn layer_parameters(model: &Model) -> (u64, u64) {
    let layers = model.sizes().layers;
    let ends = model.embedding_parameters() * if model.sizes().tied { 1 } else { 2 };
    let experts = model.expert_parameters();
    ((model.parameters() - ends - experts).div_ceil(layers), experts.div_ceil(layers))
}

fn logits(model: &Model, sharding: &Sharding, load: &Load) -> Result<u64, TooLarge> {
    let all = product(&[F32, load.sequence_length, load.micro_batch, model.sizes().vocabulary])?;
    Ok(all.div_ceil(sharding.tensor))
}

/// Bytes that are kept of so many layers, for so many micro batches that are under way.
fn activations(
    model: &Model,
    sharding: &Sharding,
    load: &Load,
    layers: u64,
    under_way: u64,
) -> Result<u64, TooLarge> {
    let whole = layer_activations(model, sharding, load)?;
    match load.recompute {
        Recompute::None | Recompute::Selective => product(&[layers, under_way, whole]),
        Recompute::Full => {
            let width = model.sizes().width;
            let entry = product(&[BF16, load.sequence_length, load.micro_batch, width])?;
            let share = if sharding.sequence_parallel { sharding.tensor } else { 1 };
            // One layer is there as a whole while its backward runs.
            sum(product(&[layers, under_way, entry.div_ceil(share)])?, whole)
        }
    }
}

/// Bytes that a layer keeps of a micro batch, without dropout: the inputs and outputs of both norms, 8 s b d; queries, keys
/// and values and the output of attention, 2 s b (2 q + 2 k); of the feed-forward part gate, up and their product, 6 s b f,
/// or without a gate two of them; and the scores where they are kept, 2 H s^2 b.
fn layer_activations(model: &Model, sharding: &Sharding, load: &Load) -> Result<u64, TooLarge> {
    let sizes = model.sizes();
    let tokens = product(&[load.sequence_length, load.micro_batch])?;
    let feed_forward = match sizes.form.experts {
        None => sizes.feed_forward,
        Some(Experts { active, width, shared, .. }) => sum(product(&[active, width])?, shared)?,
    };
    let outside = product(&[8, tokens, sizes.width])?;
    let attention =
        product(&[BF16, tokens, sum(product(&[2, sizes.queries()])?, product(&[2, sizes.keys()])?)?])?;
    let kept = if sizes.form.gated { 3 } else { 2 };
    let feed_forward = product(&[BF16, kept, tokens, feed_forward])?;
    let scores = match load.recompute {
        Recompute::None => product(&[BF16, sizes.heads, load.sequence_length, tokens])?,
        Recompute::Selective | Recompute::Full => 0,
    };
    let inside = sum(sum(attention, feed_forward)?, scores)?;
    let share = if sharding.sequence_parallel { sharding.tensor } else { 1 };
    sum(outside.div_ceil(share), inside.div_ceil(sharding.tensor))
}

impl Sharding {
    fn check(&self, model: &Model) -> Result<(), FootprintError> {
        let Self { devices, tensor, pipeline, expert, .. } = *self;
        for (what, value) in
            [("devices", devices), ("tensor", tensor), ("pipeline", pipeline), ("expert", expert)]
        {
            at_least_one(what, value)?;
        }
        let layers = model.sizes().layers;
        if pipeline > layers {
            return Err(FootprintError::Layers { pipeline, layers });
        }
        match tensor.checked_mul(pipeline) {
            Some(both) if devices.is_multiple_of(both) => {}
            _ => return Err(FootprintError::Uneven { devices, tensor, pipeline }),
        }
        let (replicas, experts) =
            (self.replicas(), model.sizes().form.experts.map_or(1, |experts| experts.count));
        if replicas.is_multiple_of(expert) && experts.is_multiple_of(expert) {
            Ok(())
        } else {
            Err(FootprintError::Experts { expert, experts, replicas })
        }
    }

    fn replicas(&self) -> u64 {
        self.devices / (self.tensor * self.pipeline)
    }
}

impl Load {
    fn check(&self) -> Result<(), FootprintError> {
        at_least_one("micro_batch", self.micro_batch)?;
        at_least_one("sequence_length", self.sequence_length)?;
        match self.gradient_bytes {
            BF16 | F32 => Ok(()),
            value => Err(FootprintError::Bounds { what: "gradient_bytes", value, bounds: "2 or 4" }),
        }
    }
}

fn at_least_one(what: &'static str, value: u64) -> Result<(), FootprintError> {
    match value {
        0 => Err(FootprintError::Bounds { what, value, bounds: "at least 1" }),
        _ => Ok(units::bounded(what, value).map(drop)?),
    }
}

fn product(factors: &[u64]) -> Result<u64, TooLarge> {
    units::product("bytes of a device", factors)
}

fn sum(left: u64, right: u64) -> Result<u64, TooLarge> {
    units::sum("bytes of a device", left, right)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Form, Sizes};

    /// 4 layers of width 64 with 4 heads of 16, a feed-forward part without a gate 4 times as wide, 100 tokens.
    fn small(tied: bool) -> Model {
        Model::new(Sizes {
            vocabulary: 100,
            width: 64,
            feed_forward: 256,
            layers: 4,
            heads: 4,
            groups: 4,
            head: 16,
            tied,
            form: Form { gated: false, ..Form::LLAMA },
        })
        .unwrap()
    }

    const ALONE: Sharding = Sharding {
        devices: 1,
        tensor: 1,
        pipeline: 1,
        expert: 1,
        zero: Zero::None,
        sequence_parallel: false,
    };
    const LOAD: Load =
        Load { micro_batch: 2, sequence_length: 8, recompute: Recompute::Selective, gradient_bytes: 2 };

    fn of(sharding: Sharding, load: Load) -> Footprint {
        Footprint::new(&small(false), &sharding, &load).unwrap()
    }

    #[test]
    fn alone_a_device_holds_sixteen_bytes_a_parameter_and_the_published_activations() {
        let found = of(ALONE, LOAD);
        let parameters = small(false).parameters();
        // The norms of the end count as a part of a layer, rounded up.
        assert!(found.parameters - parameters < 4, "{found:?}");
        assert_eq!(found.weights + found.gradients + found.optimizer, 16 * found.parameters);
        let (s, b, d, heads, layers) = (8, 2, 64, 4, 4);
        // 34 s b h a layer, without the two masks of dropout of a byte each.
        assert_eq!(found.activations, layers * 32 * s * b * d);
        assert_eq!(found.logits, 4 * s * b * 100);
        let kept = of(ALONE, Load { recompute: Recompute::None, ..LOAD });
        assert_eq!(kept.activations - found.activations, layers * 2 * heads * s * s * b);
        let full = of(ALONE, Load { recompute: Recompute::Full, ..LOAD });
        assert_eq!(full.activations, layers * 2 * s * b * d + 32 * s * b * d);
        let eighteen = of(ALONE, Load { gradient_bytes: 4, ..LOAD });
        assert_eq!(eighteen.bytes - found.bytes, 2 * found.parameters);
    }

    #[test]
    fn replicas_share_out_what_the_stage_says_and_each_once() {
        let with = |zero| of(Sharding { devices: 8, zero, ..ALONE }, LOAD);
        let [none, optimizer, gradients, weights] =
            [Zero::None, Zero::Optimizer, Zero::Gradients, Zero::Weights].map(with);
        let parameters = none.parameters;
        assert_eq!((none.replicas, none.bytes), (8, of(ALONE, LOAD).bytes));
        assert_eq!(optimizer.optimizer, (12 * parameters).div_ceil(8));
        assert_eq!((optimizer.gradients, optimizer.weights), (2 * parameters, 2 * parameters));
        assert_eq!((gradients.gradients, gradients.weights), ((2 * parameters).div_ceil(8), 2 * parameters));
        assert_eq!(weights.weights, (2 * parameters).div_ceil(8));
        assert!(weights.gathered > 0 && gradients.gathered == 0);
    }

    #[test]
    fn tensor_parallelism_shares_the_matrices_and_sequence_parallelism_the_rest() {
        let sharding = Sharding { devices: 4, tensor: 4, ..ALONE };
        let (alone, shared) = (of(ALONE, LOAD), of(sharding, LOAD));
        assert_eq!(
            shared.optimizer,
            12 * alone.parameters.div_ceil(4),
            "the states of a quarter, and no quarter of that"
        );
        assert_eq!(shared.logits, alone.logits / 4);
        assert_eq!(shared.activations, 4 * (8 + 24 / 4) * 8 * 2 * 64);
        let all = of(Sharding { sequence_parallel: true, ..sharding }, LOAD);
        assert_eq!(all.activations, alone.activations / 4);
    }

    #[test]
    fn a_pipeline_keeps_as_many_micro_batches_as_it_has_stages() {
        let found = of(Sharding { devices: 2, pipeline: 2, ..ALONE }, LOAD);
        let alone = of(ALONE, LOAD);
        // The first stage has half of the layers and twice the micro batches.
        assert_eq!(found.activations, alone.activations);
        assert!(found.parameters < alone.parameters && found.parameters > alone.parameters / 2 - 4);
        assert_eq!(found.logits, 0);
        let [tied, untied] = [true, false].map(|tied| {
            Footprint::new(&small(tied), &Sharding { devices: 2, pipeline: 2, ..ALONE }, &LOAD)
                .unwrap()
                .parameters
        });
        assert_eq!(tied, untied, "both ends of the pipeline need their own");
    }

    /// Mixtral 8x7B: 32 layers of 8 experts of 3 x 4096 x 14336.
    #[test]
    fn replicas_that_share_experts_keep_the_rest_and_each_expert_is_held_once() {
        let mixtral: Model = serde_json::from_value(serde_json::json!({
            "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "num_local_experts": 8, "num_experts_per_tok": 2,
        }))
        .unwrap();
        let experts = 32 * 8 * 3 * 4096 * 14336;
        assert_eq!(mixtral.expert_parameters(), experts);
        let with = |expert, zero| {
            Footprint::new(&mixtral, &Sharding { devices: 16, expert, zero, ..ALONE }, &LOAD).unwrap()
        };
        let [alone, shared] = [1, 8].map(|expert| with(expert, Zero::None));
        assert_eq!([alone.expert_parameters, shared.expert_parameters], [experts, experts / 8]);
        assert_eq!(alone.parameters - alone.expert_parameters, shared.parameters - shared.expert_parameters);
        // Where everything is shared out, it does not matter in which order.
        let [alone, shared] = [1, 8].map(|expert| with(expert, Zero::Weights));
        assert!(alone.optimizer.abs_diff(shared.optimizer) < 16, "{alone:?}, {shared:?}");
        assert!(shared.gathered < alone.gathered, "an eighth of the experts is gathered");
        for (devices, expert) in [(16, 3), (4, 8), (16, 16)] {
            let refused =
                Footprint::new(&mixtral, &Sharding { devices, expert, ..ALONE }, &LOAD).unwrap_err();
            assert!(refused.to_string().starts_with(&format!("expert: {expert} must divide")), "{refused}");
        }
        assert!(Footprint::new(&small(false), &Sharding { devices: 2, expert: 2, ..ALONE }, &LOAD).is_err());
    }

    #[test]
    fn what_is_no_cluster_is_refused_with_its_name() {
        let refused = |sharding: Sharding, load: Load| {
            Footprint::new(&small(false), &sharding, &load).unwrap_err().to_string()
        };
        assert!(refused(Sharding { devices: 0, ..ALONE }, LOAD).starts_with("devices: 0 "));
        assert!(refused(Sharding { devices: 6, tensor: 4, ..ALONE }, LOAD).contains("4 x 1"));
        assert!(refused(Sharding { devices: 8, pipeline: 8, ..ALONE }, LOAD).starts_with("pipeline: 8 "));
        assert!(refused(ALONE, Load { micro_batch: 0, ..LOAD }).starts_with("micro_batch: 0 "));
        assert!(refused(ALONE, Load { gradient_bytes: 3, ..LOAD }).starts_with("gradient_bytes: 3 "));
        assert!(refused(ALONE, Load { sequence_length: 1 << 52, ..LOAD }).starts_with("bytes of a device: "));
    }

    proptest! {
        /// Whatever is shared out, all devices together hold the model at least once, and more devices never need more.
        #[test]
        fn sharing_saves_and_loses_nothing(
            (tensor, pipeline, replicas) in (1..5_u64, 1..5_u64, 1..5_u64),
            zero in prop::sample::select(&[Zero::None, Zero::Optimizer, Zero::Gradients, Zero::Weights]),
            (sequence_parallel, recompute) in (any::<bool>(), prop::sample::select(&Recompute::ALL)),
        ) {
            let devices = tensor * pipeline * replicas;
            let load = Load { recompute, ..LOAD };
            let sharding = Sharding { devices, tensor, pipeline, expert: 1, zero, sequence_parallel };
            let found = of(sharding, load);
            let alone = of(ALONE, load);
            prop_assert!(found.optimizer * devices >= 12 * small(false).parameters());
            prop_assert!(found.weights + found.gradients + found.optimizer
                <= alone.weights + alone.gradients + alone.optimizer);
            prop_assert!(found.activations <= alone.activations * 2, "a pipeline has no more than all layers, rounded up");
        }
    }
}
