//! What a `config.json` may say, and what is refused.

use serde_json::json;

use super::*;
use crate::fixture;

fn parsed(change: impl FnOnce(&mut Value)) -> Result<Config, String> {
    let mut config: Value = serde_json::from_str(&fixture::config(false)).unwrap();
    change(&mut config);
    Config::parse(Path::new("config.json"), &config.to_string()).map_err(|error| error.to_string())
}

#[test]
fn what_is_left_out_has_the_values_of_transformers() {
    let config = parsed(|config| {
        let all = config.as_object_mut().unwrap();
        for key in [
            "num_key_value_heads",
            "head_dim",
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_theta",
            "tie_word_embeddings",
            "initializer_range",
            "eos_token_id",
        ] {
            all.remove(key);
        }
    })
    .unwrap();
    assert_eq!((config.groups, config.head, config.positions), (4, 16, 2048));
    assert_eq!((config.norm_eps, config.rope_theta, config.initializer_range), (1e-6, 1e4, 0.02));
    assert_eq!((config.tied, config.end_of_text), (false, None));
}

#[test]
fn the_newer_form_of_the_rotary_parameters_is_read() {
    let theta =
        |parameters: Value| parsed(|config| config["rope_parameters"] = parameters).map(|c| c.rope_theta);
    assert_eq!(theta(json!({"rope_type": "default", "rope_theta": 5e5})), Ok(5e5));
    assert_eq!(theta(json!({"rope_type": "default"})), Ok(1e4));
    assert_eq!(theta(Value::Null), Ok(1e4));
    assert!(theta(json!({"rope_type": "yarn", "factor": 4.0})).unwrap_err().contains("`rope_parameters`"));
    assert!(theta(json!({"partial_rotary_factor": 0.5})).unwrap_err().contains("over whole heads"));
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    let set = |key: &'static str, value: Value| parsed(move |config| config[key] = value).unwrap_err();
    for (key, value) in [
        ("model_type", json!("gpt2")),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("hidden_act", json!("gelu")),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(15)),
        ("head_dim", json!(0)),
        ("vocab_size", json!(0)),
        ("num_hidden_layers", json!(1u64 << 40)),
        ("rms_norm_eps", json!(0.0)),
        ("initializer_range", json!(-1.0)),
        ("rope_theta", json!(0)),
    ] {
        let refusal = set(key, value.clone());
        assert!(refusal.starts_with(&format!("config.json: `{key}` is ")), "{key} {value}: {refusal}");
    }
    assert!(set("hidden_size", json!("wide")).contains("is not a model's config.json"));
}

#[test]
fn an_end_of_text_is_a_number_or_the_first_of_a_list() {
    let token = |value: Value| parsed(|config| config["eos_token_id"] = value).unwrap().end_of_text;
    assert_eq!(token(json!(3)), Some(3));
    assert_eq!(token(json!([5, 6])), Some(5));
    assert_eq!(token(json!([])), None);
    assert_eq!(token(Value::Null), None);
}

#[test]
fn tensors_have_the_names_of_transformers_in_byte_order() {
    let names = |config: &Config| config.tensors().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let mut config = parsed(|_| ()).unwrap();
    let all = names(&config);
    assert!(all.is_sorted() && all.len() == 21 && all[0] == "lm_head.weight");
    config.tied = true;
    assert_eq!(names(&config), all[1..]);
}
