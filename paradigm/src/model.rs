//! How large a model is, and what a token of its training costs, from the numbers of its `config.json`.
//!
//! Budgets, forecasts of memory and the utilisation of a machine all stand on these few integers, so they are counted
//! here and nowhere else, exactly: a parameter count is that of HF transformers for the same file, and what is not
//! known well enough to be counted is refused instead of being guessed. So far these are dense LLaMA models.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::units::{self, TooLarge};

/// The sizes of a dense LLaMA model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Tokens in the vocabulary, V.
    pub vocabulary: u64,
    /// Width of the residual stream, d.
    pub width: u64,
    /// Width of the feed-forward part, f.
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
}

/// A model whose sizes make sense and whose parameters were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "ConfigJson")]
pub struct Model {
    sizes: Sizes,
    layer_matrices: u64,
    embedding: u64,
    parameters: u64,
    matmul_parameters: u64,
}

/// The keys of a `config.json` of HF transformers that sizes depend on. Others are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConfigJson {
    /// The family.
    pub model_type: String,
    /// V.
    pub vocab_size: u64,
    /// d.
    pub hidden_size: u64,
    /// f.
    pub intermediate_size: u64,
    /// Number of layers.
    pub num_hidden_layers: u64,
    /// H.
    pub num_attention_heads: u64,
    /// G; H where it is not given.
    pub num_key_value_heads: Option<u64>,
    /// hd; d / H where it is not given.
    pub head_dim: Option<u64>,
    /// The output head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// The projections of the attention have biases.
    #[serde(default)]
    pub attention_bias: bool,
    /// The projections of the feed-forward part have biases.
    #[serde(default)]
    pub mlp_bias: bool,
}

/// Why a model cannot be counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// It is of another family.
    #[error("model_type: the family `{family}` is not known, only `llama` is")]
    Family {
        /// The family.
        family: String,
    },
    /// It has biases.
    #[error("{key}: a LLaMA with biases is not known, it must be false")]
    Bias {
        /// The key that asks for them.
        key: &'static str,
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

/// What is counted as the arithmetic of attention. Figures of both are in use, so each names the one that it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// As if each position saw the whole sequence: 12 layers H hd T FLOPs a token (PaLM, arXiv 2204.02311, appendix B).
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
    fn queries(&self) -> u64 {
        self.heads.saturating_mul(self.head)
    }

    /// Columns of all keys, which are those of all values too, G hd.
    fn keys(&self) -> u64 {
        self.groups.saturating_mul(self.head)
    }

    fn check(&self) -> Result<(), ModelError> {
        for (key, size) in [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.width),
            ("intermediate_size", self.feed_forward),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.groups),
            ("head_dim", self.head),
        ] {
            if size == 0 {
                return Err(ModelError::Zero { key });
            }
            units::bounded(key, size)?;
        }
        let (groups, heads) = (self.groups, self.heads);
        if heads.is_multiple_of(groups) { Ok(()) } else { Err(ModelError::Groups { groups, heads }) }
    }
}

impl Model {
    /// The model of these sizes.
    pub fn new(sizes: Sizes) -> Result<Self, ModelError> {
        sizes.check()?;
        let Sizes { vocabulary, width, feed_forward, layers, tied, .. } = sizes;
        let of = |factors: &[u64]| units::product("parameters of the model", factors);
        let sum = |left, right| units::sum("parameters of the model", left, right);
        let attention = sum(of(&[2, width, sizes.queries()])?, of(&[2, width, sizes.keys()])?)?;
        let layer_matrices = sum(attention, of(&[3, width, feed_forward])?)?;
        let matrices = of(&[layers, layer_matrices])?;
        let embedding = of(&[vocabulary, width])?;
        let norms = sum(of(&[layers, 2, width])?, width)?;
        // The head is a matrix product also where it shares its parameters with the embedding.
        let matmul_parameters = sum(matrices, embedding)?;
        let parameters = sum(sum(matmul_parameters, norms)?, if tied { 0 } else { embedding })?;
        Ok(Self { sizes, layer_matrices, embedding, parameters, matmul_parameters })
    }

    /// The sizes that it was made of.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// All parameters, as HF transformers counts them: a tied embedding once.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Parameters of the embedding, V d. An output head that is not tied has as many again, and they are not among
    /// these.
    pub fn embedding_parameters(&self) -> u64 {
        self.embedding
    }

    /// Parameters that a token is multiplied with: the matrices of all layers and the output head, tied or not; neither
    /// norms nor the look-up in the embedding.
    pub fn matmul_parameters(&self) -> u64 {
        self.matmul_parameters
    }

    /// Those of [`matmul_parameters`](Self::matmul_parameters) that are in one layer.
    pub fn layer_matmul_parameters(&self) -> u64 {
        self.layer_matrices
    }

    /// FLOPs that training takes for a token of a sequence of `sequence_length`, forward and backward: six for each
    /// parameter in matrix products, and those of attention as `convention` says. What recomputation adds is not among
    /// them.
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

impl TryFrom<ConfigJson> for Model {
    type Error = ModelError;

    fn try_from(config: ConfigJson) -> Result<Self, ModelError> {
        if config.model_type != "llama" {
            return Err(ModelError::Family { family: config.model_type });
        }
        for (key, is_asked) in [("attention_bias", config.attention_bias), ("mlp_bias", config.mlp_bias)] {
            if is_asked {
                return Err(ModelError::Bias { key });
            }
        }
        let (heads, width) = (config.num_attention_heads, config.hidden_size);
        let head = match config.head_dim {
            Some(head) => head,
            None if heads == 0 => return Err(ModelError::Zero { key: "num_attention_heads" }),
            None if width.is_multiple_of(heads) => width / heads,
            None => return Err(ModelError::Head { heads, width }),
        };
        Self::new(Sizes {
            vocabulary: config.vocab_size,
            width,
            feed_forward: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads,
            groups: config.num_key_value_heads.unwrap_or(heads),
            head,
            tied: config.tie_word_embeddings,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const SMALL: Sizes = Sizes {
        vocabulary: 31,
        width: 64,
        feed_forward: 72,
        layers: 2,
        heads: 4,
        groups: 2,
        head: 16,
        tied: false,
    };

    fn config() -> Value {
        json!({
            "model_type": "llama", "vocab_size": 31, "hidden_size": 64, "intermediate_size": 72,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
            "max_position_embeddings": 64, "hidden_act": "silu",
        })
    }

    fn with(key: &str, value: Value) -> Result<Model, String> {
        let mut config = config();
        config[key] = value;
        serde_json::from_value(config).map_err(|error| error.to_string())
    }

    /// The shapes of every tensor, as they stand in a file of weights.
    fn shapes(sizes: &Sizes) -> Vec<Vec<u64>> {
        let Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, tied } = *sizes;
        let mut shapes = vec![vec![vocabulary, width], vec![width]];
        if !tied {
            shapes.push(vec![vocabulary, width]);
        }
        for _ in 0..layers {
            for columns in
                [heads * head, groups * head, groups * head, heads * head, feed_forward, feed_forward]
            {
                shapes.push(vec![columns, width]);
            }
            shapes.extend([vec![width, feed_forward], vec![width], vec![width]]);
        }
        shapes
    }

    prop_compose! {
        fn sizes()(
            (vocabulary, width, feed_forward) in (1..5_000_u64, 1..500_u64, 1..2_000_u64),
            (layers, groups, sharing, head) in (1..9_u64, 1..9_u64, 1..9_u64, 1..200_u64),
            tied: bool,
        ) -> Sizes {
            Sizes { vocabulary, width, feed_forward, layers, heads: groups * sharing, groups, head, tied }
        }
    }

    proptest! {
        #[test]
        fn parameters_are_the_elements_of_all_tensors(sizes in sizes()) {
            let model = Model::new(sizes).unwrap();
            let elements = |shapes: &[Vec<u64>]| shapes.iter().map(|shape| shape.iter().product::<u64>()).sum::<u64>();
            let shapes = shapes(&sizes);
            prop_assert_eq!(model.parameters(), elements(&shapes));
            let matrices: Vec<_> = shapes.into_iter().filter(|shape| shape.len() == 2).collect();
            let looked_up = if sizes.tied { 0 } else { model.embedding_parameters() };
            prop_assert_eq!(model.matmul_parameters(), elements(&matrices) - looked_up);
        }

        #[test]
        fn tying_saves_an_embedding_and_no_arithmetic(sizes in sizes(), length in 1..10_000_u64) {
            let [tied, untied] = [true, false].map(|tied| Model::new(Sizes { tied, ..sizes }).unwrap());
            prop_assert_eq!(untied.parameters() - tied.parameters(), tied.embedding_parameters());
            for convention in Convention::ALL {
                prop_assert_eq!(
                    tied.flops_per_token(length, convention), untied.flops_per_token(length, convention)
                );
            }
        }

        #[test]
        fn the_causal_convention_halves_attention_and_nothing_else(sizes in sizes(), length in 0..10_000_u64) {
            let model = Model::new(sizes).unwrap();
            let [full, causal] =
                Convention::ALL.map(|convention| model.flops_per_token(length, convention).unwrap());
            let matrices = model.flops_per_token(0, Convention::Full).unwrap();
            prop_assert_eq!(matrices, 6 * model.matmul_parameters());
            prop_assert_eq!(full - matrices, 2 * (causal - matrices));
            prop_assert_eq!(full - matrices, 12 * sizes.layers * sizes.heads * sizes.head * length);
        }

        #[test]
        fn no_sizes_wrap_or_panic(
            sizes in prop::array::uniform7(prop_oneof![any::<u64>(), 0..5_u64, (1_u64 << 24)..(1 << 54)]),
            (tied, length) in any::<(bool, u64)>(),
        ) {
            let [vocabulary, width, feed_forward, layers, heads, groups, head] = sizes;
            let sizes = Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, tied };
            if let Ok(model) = Model::new(sizes) {
                prop_assert!(model.parameters() < units::COUNT_LIMIT);
                prop_assert!(model.parameters() >= model.embedding_parameters());
                let exact = u128::from(layers) * u128::from(model.layer_matmul_parameters())
                    + u128::from(vocabulary) * u128::from(width);
                prop_assert_eq!(u128::from(model.matmul_parameters()), exact);
                if let Ok(flops) = model.flops_per_token(length, Convention::Full) {
                    prop_assert!(flops < units::COUNT_LIMIT);
                }
            }
        }
    }

    #[test]
    fn a_config_gives_its_sizes_and_what_it_leaves_out_follows() {
        let model: Model = serde_json::from_value(config()).unwrap();
        assert_eq!(*model.sizes(), SMALL);
        assert_eq!(*with("head_dim", Value::Null).unwrap().sizes(), SMALL);
        assert_eq!(with("num_key_value_heads", Value::Null).unwrap().sizes().groups, 4);
        assert!(with("tie_word_embeddings", true.into()).unwrap().sizes().tied);
        assert_eq!(with("head_dim", 32.into()).unwrap().sizes().head, 32);
    }

    #[test]
    fn what_cannot_be_counted_is_refused_with_the_key() {
        for (key, value, reason) in [
            ("model_type", json!("qwen2"), "the family `qwen2` is not known"),
            ("attention_bias", json!(true), "attention_bias: "),
            ("mlp_bias", json!(true), "mlp_bias: "),
            ("num_key_value_heads", json!(3), "num_key_value_heads: 3 does not divide"),
            ("num_key_value_heads", json!(0), "num_key_value_heads: it is 0"),
            ("num_attention_heads", json!(0), "num_attention_heads: it is 0"),
            ("head_dim", json!(0), "head_dim: it is 0"),
            ("vocab_size", json!(0), "vocab_size: it is 0"),
            ("vocab_size", json!(units::COUNT_LIMIT), "vocab_size: 9007199254740992 is too large"),
            ("hidden_size", json!(1_u64 << 52), "parameters of the model: "),
            ("hidden_size", json!(-64), "invalid value"),
        ] {
            let refusal = with(key, value).unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
        let mut odd = config();
        odd["head_dim"] = Value::Null;
        odd["hidden_size"] = 66.into();
        let refusal = serde_json::from_value::<Model>(odd).unwrap_err().to_string();
        assert!(refusal.contains("4 does not divide hidden_size, which is 66"), "{refusal}");
    }

    #[test]
    fn flops_that_are_not_exact_any_more_are_refused_with_words() {
        let refusal = Model::new(SMALL).unwrap().flops_per_token(1 << 50, Convention::Causal).unwrap_err();
        assert!(refusal.to_string().starts_with("training FLOPs a token: "), "{refusal}");
    }

    #[test]
    fn conventions_have_the_same_words_in_text_and_in_serde() {
        for convention in Convention::ALL {
            assert_eq!(serde_json::to_value(convention).unwrap(), json!(convention.to_string()));
        }
    }
}
