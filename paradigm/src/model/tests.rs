//! Sizes that a table of tensors is made of, and every refusal.

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
    form: Form::LLAMA,
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

/// The shapes of every tensor, as they stand in a file of weights, and of those of experts that a token does not need.
fn shapes(sizes: &Sizes) -> (Vec<Vec<u64>>, Vec<Vec<u64>>) {
    let Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, tied, form } = *sizes;
    let norm = || vec![vec![width]; if form.norm_bias { 2 } else { 1 }];
    let mut shapes = vec![vec![vocabulary, width]];
    shapes.extend(norm());
    if form.embedding_norm {
        shapes.extend(norm());
    }
    if !tied {
        shapes.push(vec![vocabulary, width]);
    }
    let mut idle = Vec::new();
    for layer in 0..layers {
        shapes.extend([norm(), norm()].concat());
        for columns in [heads * head, groups * head, groups * head] {
            shapes.push(vec![columns, width]);
            shapes.extend(form.qkv_bias.then(|| vec![columns]));
        }
        shapes.push(vec![width, heads * head]);
        shapes.extend(form.output_bias.then(|| vec![width]));
        shapes.extend(match form.qk_norm {
            QkNorm::None => vec![],
            QkNorm::Heads => vec![vec![head]; 2],
            QkNorm::Width => vec![vec![heads * head], vec![groups * head]],
        });
        let up = |inner: u64| vec![vec![inner, width]; if form.gated { 2 } else { 1 }];
        match form.experts.filter(|experts| layer >= experts.dense_layers) {
            None => {
                let bias = |inner: u64| vec![vec![inner]; if form.gated { 2 } else { 1 }];
                shapes.extend(up(feed_forward));
                shapes.push(vec![width, feed_forward]);
                if form.feed_forward_bias {
                    shapes.extend(bias(feed_forward));
                    shapes.push(vec![width]);
                }
            }
            Some(experts) => {
                shapes.push(vec![experts.count, width]);
                for expert in 0..experts.count {
                    let of = [up(experts.width), vec![vec![width, experts.width]]].concat();
                    idle.extend(of.iter().filter(|_| expert >= experts.active).cloned());
                    shapes.extend(of);
                }
                if experts.shared > 0 {
                    shapes.extend(up(experts.shared));
                    shapes.extend([vec![width, experts.shared], vec![1, width]]);
                }
            }
        }
    }
    (shapes, idle)
}

prop_compose! {
    fn experts(layers: u64)(
        (idle, active, width, shared) in (0..6_u64, 1..4_u64, 1..200_u64, prop_oneof![Just(0), 1..100_u64]),
        dense_layers in 0..=layers,
    ) -> Experts {
        Experts { count: idle + active, active, width, shared, dense_layers }
    }
}

prop_compose! {
    fn form(layers: u64)(
        biases: [bool; 3], (gated, norm_bias, embedding_norm) in any::<(bool, bool, bool)>(),
        qk_norm in prop::sample::select(&[QkNorm::None, QkNorm::Heads, QkNorm::Width]),
        experts in prop::option::of(experts(layers)),
    ) -> Form {
        let [qkv_bias, output_bias, feed_forward_bias] = biases;
        Form { qkv_bias, output_bias, feed_forward_bias, gated, qk_norm, norm_bias, embedding_norm, experts }
    }
}

prop_compose! {
    fn sizes()(layers in 1..9_u64)(
        (vocabulary, width, feed_forward) in (1..5_000_u64, 1..500_u64, 1..2_000_u64),
        (groups, sharing, head) in (1..9_u64, 1..9_u64, 1..200_u64),
        (layers, tied) in (Just(layers), any::<bool>()),
        form in form(layers),
    ) -> Sizes {
        Sizes { vocabulary, width, feed_forward, layers, heads: groups * sharing, groups, head, tied, form }
    }
}

proptest! {
    #[test]
    fn parameters_are_the_elements_of_all_tensors(sizes in sizes()) {
        let model = Model::new(sizes).unwrap();
        let elements = |shapes: &[Vec<u64>]| shapes.iter().map(|shape| shape.iter().product::<u64>()).sum::<u64>();
        let (shapes, idle) = shapes(&sizes);
        prop_assert_eq!(model.parameters(), elements(&shapes));
        prop_assert_eq!(model.active_parameters(), elements(&shapes) - elements(&idle));
        let matrices: Vec<_> = shapes.into_iter().filter(|shape| shape.len() == 2).collect();
        let looked_up = if sizes.tied { 0 } else { model.embedding_parameters() };
        prop_assert_eq!(model.matmul_parameters(), elements(&matrices) - elements(&idle) - looked_up);
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
        form in prop_oneof![Just(Form::LLAMA), form(u64::MAX)],
    ) {
        let [vocabulary, width, feed_forward, layers, heads, groups, head] = sizes;
        let sizes = Sizes { vocabulary, width, feed_forward, layers, heads, groups, head, tied, form };
        if let Ok(model) = Model::new(sizes) {
            prop_assert!(model.parameters() < units::COUNT_LIMIT);
            prop_assert!(model.parameters() >= model.embedding_parameters());
            prop_assert!(model.active_parameters() <= model.parameters());
            prop_assert!(model.matmul_parameters() <= model.parameters() + model.embedding_parameters());
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
        ("model_type", json!("gpt2"), "the family `gpt2` is not known; llama, mistral, "),
        (
            "hidden_size",
            Value::Null,
            "hidden_size: it is missing, and a model of the family `llama` needs it",
        ),
        ("intermediate_size", Value::Null, "intermediate_size: it is missing"),
        ("model_type", json!("internlm2"), "bias: it is missing"),
        ("model_type", json!("mixtral"), "num_local_experts: it is missing"),
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

fn counted(config: Value) -> Model {
    serde_json::from_value(config).unwrap()
}

/// Counts that the model cards and the files of weights themselves state.
#[test]
fn published_counts_are_reproduced() {
    let internlm2 = |hidden: u64, feed_forward: u64, layers: u64, heads: u64| {
        counted(json!({
            "model_type": "internlm2", "vocab_size": 92544, "hidden_size": hidden, "intermediate_size": feed_forward,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8, "bias": false,
            "tie_word_embeddings": false,
        }))
        .parameters()
    };
    assert_eq!(internlm2(2048, 8192, 24, 16), 1_889_110_016);
    assert_eq!(internlm2(4096, 14336, 32, 32), 7_737_708_544);
    assert_eq!(internlm2(6144, 16384, 48, 48), 19_861_149_696);
    let bloom = json!({ "model_type": "bloom", "vocab_size": 250880, "n_embed": 14336, "n_layer": 70, "n_head": 112 });
    assert_eq!(counted(bloom).parameters(), 176_247_271_424);
}

#[test]
fn experts_are_where_the_config_says() {
    let experts = |step: u64, only_dense: &[u64]| {
        let mut config = config();
        for (key, value) in [
            ("model_type", json!("qwen3_moe")),
            ("num_experts", json!(8)),
            ("num_experts_per_tok", json!(2)),
            ("moe_intermediate_size", json!(24)),
            ("num_hidden_layers", json!(6)),
            ("decoder_sparse_step", json!(step)),
            ("mlp_only_layers", json!(only_dense)),
        ] {
            config[key] = value;
        }
        serde_json::from_value::<Model>(config).map(|model| model.sizes().form.experts.unwrap().dense_layers)
    };
    assert_eq!(experts(1, &[]).unwrap(), 0);
    assert_eq!(experts(2, &[]).unwrap(), 3);
    assert_eq!(experts(2, &[1, 2, 1, 9]).unwrap(), 4, "layer 2 has none anyway, and there is no layer 9");
    assert_eq!(experts(1, &[0, 5]).unwrap(), 2);
    assert!(experts(0, &[]).unwrap_err().to_string().starts_with("decoder_sparse_step: it is 0"));
}

#[test]
fn every_preset_is_counted_and_is_as_large_as_its_name_says() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Preset {
        id: String,
        name: String,
        config: Value,
    }
    let presets: Vec<Preset> = serde_json::from_str(PRESETS).unwrap();
    let ids: std::collections::BTreeSet<&str> = presets.iter().map(|preset| preset.id.as_str()).collect();
    assert_eq!((ids.len(), presets.len()), (37, 37));
    for Preset { id, name, config } in presets {
        let model = counted(config);
        let size = |word: &str| {
            let (unit, number) = [(1e9, word.strip_suffix('B')), (1e6, word.strip_suffix('M'))]
                .into_iter()
                .find_map(|(unit, number)| Some((unit, number?)))?;
            number.parse::<f64>().ok().map(|number| number * unit)
        };
        let said = name.split([' ', ',', ':']).find_map(size);
        let Some(said) = said else { continue };
        let ratio = model.parameters() as f64 / said;
        // Qwen's names leave the embedding out, and are rounded to the half.
        assert!((0.9..1.3).contains(&ratio), "{id}: {} parameters", model.parameters());
    }
}

#[test]
fn the_list_of_keys_is_that_of_the_configuration() {
    let fields = serde_json::from_str::<ConfigJson>("[]").unwrap_err().to_string();
    assert!(fields.contains(&format!("with {} elements", config::KEYS.len())), "{fields}");
    for (key, kind) in config::KEYS {
        for wrong in [json!("a word"), json!(1), json!(true), json!([1])] {
            let is_right = match kind {
                config::Kind::Word => wrong.is_string(),
                config::Kind::Count => wrong.is_u64(),
                config::Kind::Flag => wrong.is_boolean(),
                config::Kind::Counts => wrong.is_array(),
            };
            let mut config = config();
            config[key] = wrong;
            assert_eq!(serde_json::from_value::<ConfigJson>(config).is_ok(), is_right, "{key}");
        }
    }
}
