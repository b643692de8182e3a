//! Folders of weights: those that can be read, and those that are refused.

use std::fs;

use super::*;
use crate::fixture;

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::parse(Path::new("config.json"), &fixture::config(false)).unwrap();
    change(&mut config);
    config
}

/// Writes some of the tensors of new weights, as they are in `dtype`.
fn write(path: &Path, dtype: DType, wanted: impl Fn(&str) -> bool) {
    let weights = Weights::new(&config(|_| ()), 1, dtype, &Device::Cpu).unwrap();
    let tensors = weights.detached().into_iter().filter(|(name, _)| wanted(name));
    candle_core::safetensors::save(&tensors.collect::<std::collections::HashMap<_, _>>(), path).unwrap();
}

fn read(folder: &Path, change: impl FnOnce(&mut Config)) -> Result<Weights, String> {
    Weights::read_folder(&config(change), folder, &Device::Cpu).map_err(|error| error.to_string())
}

fn values(weights: &Weights, name: &str) -> Vec<f32> {
    weights.detached()[name].flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn shards_and_half_precision_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    write(&folder.path().join(first), DType::F32, |name| name.contains("layers.0"));
    write(&folder.path().join(second), DType::BF16, |name| !name.contains("layers.0"));
    let map: BTreeMap<_, _> = config(|_| ())
        .tensors()
        .into_iter()
        .map(|(name, _)| (name.clone(), if name.contains("layers.0") { first } else { second }))
        .collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
    fs::write(folder.path().join("model.safetensors.index.json"), &index).unwrap();
    let read_back = read(folder.path(), |_| ()).unwrap();
    let expected = Weights::new(&config(|_| ()), 1, DType::F32, &Device::Cpu).unwrap();
    let (exact, rounded) = ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight");
    assert_eq!(values(&read_back, exact), values(&expected, exact));
    for (found, expected) in values(&read_back, rounded).iter().zip(values(&expected, rounded)) {
        assert!((found - expected).abs() <= expected.abs() / 256.0);
    }
    fs::write(folder.path().join("model.safetensors.index.json"), index.replace(first, "../up")).unwrap();
    assert!(read(folder.path(), |_| ()).unwrap_err().contains("`../up` is not a file of this folder"));
}

#[test]
fn weights_that_do_not_fit_the_model_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    assert!(read(folder.path(), |_| ()).unwrap_err().contains("cannot be read"));
    let file = folder.path().join("model.safetensors");
    write(&file, DType::F32, |_| true);
    assert!(read(folder.path(), |config| config.tied = true).is_ok());
    for (change, reason) in [
        (
            (|config| config.layers = 3) as fn(&mut Config),
            "has no tensor `model.layers.2.input_layernorm.weight`",
        ),
        (|config| config.layers = 1, "a tensor `model.layers.1.input_layernorm.weight` that"),
        (|config| config.vocabulary = 32, "`lm_head.weight` has the shape [31, 64], but"),
    ] {
        let refusal = read(folder.path(), change).unwrap_err();
        assert!(refusal.contains(reason), "{refusal}");
    }
    let bytes = fs::read(&file).unwrap();
    for damaged in [&bytes[..100], &bytes[..bytes.len() - 1], b""] {
        fs::write(&file, damaged).unwrap();
        assert!(read(folder.path(), |_| ()).is_err());
    }
    let whole = Tensor::new(&[1u32], &Device::Cpu).unwrap();
    candle_core::safetensors::save(&[("lm_head.weight", whole)].into(), &file).unwrap();
    assert!(read(folder.path(), |_| ()).unwrap_err().contains("has the dtype U32"));
}
