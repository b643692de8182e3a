//! The model against its own definition: gradients against central differences, positions against each other.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::data::Examples;
use crate::fixture;
use crate::kernels::cpu::isa::Isa;
use crate::kernels::{Cpu, Kernels, Reference};

/// Elements of each tensor that are checked.
const CHECKED: usize = 64;

fn config(tied: bool) -> Config {
    Config::parse(Path::new("config.json"), &fixture::config(tied)).unwrap()
}

fn examples(end_of_text: Option<u32>) -> Examples {
    let length = fixture::LENGTH as usize;
    let tokens = fixture::tokens(3 * (length as u32 + 1), 5);
    Examples::new(tokens.chunks(length + 1), length, end_of_text)
}

fn loss(config: &Config, weights: &BTreeMap<String, Tensor>, examples: &Examples) -> Tensor {
    let decoder = Decoder::new(config, &Reference, weights, fixture::LENGTH as usize).unwrap();
    let (inputs, targets) = (examples.inputs(&Device::Cpu).unwrap(), examples.targets(&Device::Cpu).unwrap());
    decoder.loss(&inputs, &targets, &examples.mask(&Device::Cpu).unwrap()).unwrap()
}

/// The slope of the loss along one element, from four points around it: its error falls with the fourth power of the
/// distance.
fn slope(
    config: &Config,
    weights: &mut BTreeMap<String, Tensor>,
    name: &str,
    element: usize,
    examples: &Examples,
) -> f64 {
    const DISTANCE: f64 = 1e-3;
    let whole = weights[name].clone();
    let values: Vec<f64> = whole.flatten_all().unwrap().to_vec1().unwrap();
    let mut at = |offset: f64| {
        let mut moved = values.clone();
        moved[element] += offset * DISTANCE;
        weights.insert(name.to_owned(), Tensor::from_vec(moved, whole.shape(), &Device::Cpu).unwrap());
        loss(config, weights, examples).to_scalar::<f64>().unwrap()
    };
    let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * DISTANCE);
    weights.insert(name.to_owned(), whole);
    slope
}

fn every_gradient_agrees_with_central_differences(tied: bool, end_of_text: Option<u32>) {
    let config = config(tied);
    let weights = Weights::new(&config, 3, DType::F64, &Device::Cpu).unwrap();
    // Norms that are not all ones, so that a forgotten factor shows.
    for (name, variable) in weights.iter().filter(|(_, variable)| variable.rank() == 1) {
        let noise = normal_of(name, variable.elem_count());
        variable.set(&(variable.as_tensor() + noise).unwrap()).unwrap();
    }
    let examples = examples(end_of_text);
    let gradients = loss(&config, &weights.tracked(), &examples).backward().unwrap();
    let mut detached = weights.detached();
    for (name, variable) in weights.iter() {
        let gradient: Vec<f64> = gradients.get(variable).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(gradient.len() >= CHECKED, "{name} has {} elements", gradient.len());
        let largest = gradient.iter().fold(0f64, |largest, g| largest.max(g.abs()));
        for number in 0..CHECKED {
            let element = number * (gradient.len() - 1) / (CHECKED - 1);
            let numeric = slope(&config, &mut detached, name, element, &examples);
            let error = (gradient[element] - numeric).abs();
            // What is a thousandth of the tensor's largest gradient is compared with that thousandth: the difference
            // quotient itself is only good to about 1e-13 absolute.
            let scale = numeric.abs().max(1e-3 * largest);
            assert!(error <= 1e-6 * scale, "{name}[{element}]: {} against {numeric}", gradient[element]);
        }
    }
}

fn normal_of(name: &str, count: usize) -> Tensor {
    let values = super::weights::normal(9, name, count, 0.2);
    Tensor::from_vec(values, count, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

#[test]
fn every_gradient_agrees_with_central_differences_of_an_untied_model() {
    every_gradient_agrees_with_central_differences(false, None);
}

#[test]
fn every_gradient_agrees_with_central_differences_of_a_tied_model() {
    every_gradient_agrees_with_central_differences(true, None);
}

#[test]
fn every_gradient_agrees_with_central_differences_where_documents_are_masked() {
    every_gradient_agrees_with_central_differences(false, Some(1));
}

/// Loss and gradients with the CPU's own kernels, on every instruction set, against the reference's.
fn kernels_agree_with_the_reference(tied: bool, end_of_text: Option<u32>) {
    let (config, examples) = (config(tied), examples(end_of_text));
    let weights = Weights::new(&config, 3, DType::F32, &Device::Cpu).unwrap();
    for (name, variable) in weights.iter().filter(|(_, variable)| variable.rank() == 1) {
        let noise = normal_of(name, variable.elem_count()).to_dtype(DType::F32).unwrap();
        variable.set(&(variable.as_tensor() + noise).unwrap()).unwrap();
    }
    let of = |kernels: &dyn Kernels| {
        let decoder = Decoder::new(&config, kernels, &weights.tracked(), fixture::LENGTH as usize).unwrap();
        let (inputs, targets) =
            (examples.inputs(&Device::Cpu).unwrap(), examples.targets(&Device::Cpu).unwrap());
        let loss = decoder.loss(&inputs, &targets, &examples.mask(&Device::Cpu).unwrap()).unwrap();
        (f64::from(loss.to_scalar::<f32>().unwrap()), loss.backward().unwrap())
    };
    let (expected, slopes) = of(&Reference);
    for isa in Isa::available() {
        let (found, found_slopes) = of(&Cpu::new(isa));
        assert!((found - expected).abs() <= 1e-6 * expected, "{}: {found}, {expected}", isa.name());
        for (name, variable) in weights.iter() {
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let found = values(found_slopes.get(variable).unwrap());
            let expected = values(slopes.get(variable).unwrap());
            let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let error = norm(&mut found.iter().zip(&expected).map(|(found, expected)| found - expected));
            let norm = norm(&mut expected.iter().copied());
            assert!(error <= 1e-5 * norm, "{}: {name} is off by {error} of {norm}", isa.name());
        }
    }
}

#[test]
fn kernels_agree_with_the_reference_on_an_untied_model() {
    kernels_agree_with_the_reference(false, None);
}

#[test]
fn kernels_agree_with_the_reference_on_a_tied_model() {
    kernels_agree_with_the_reference(true, None);
}

#[test]
fn kernels_agree_with_the_reference_where_documents_are_masked() {
    kernels_agree_with_the_reference(false, Some(1));
    kernels_agree_with_the_reference(true, Some(1));
}

#[test]
fn f32_computes_what_f64_does() {
    let (config, examples) = (config(false), examples(None));
    let of = |dtype| {
        let weights = Weights::new(&config, 3, dtype, &Device::Cpu).unwrap();
        let loss = loss(&config, &weights.detached(), &examples);
        loss.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
    };
    let (single, double) = (of(DType::F32), of(DType::F64));
    assert!((single - double).abs() < 2e-6 * double, "{single} against {double}");
}

#[test]
fn cached_positions_give_the_logits_of_the_whole() {
    cached_positions_agree(&Reference);
    cached_positions_agree(&Cpu::default());
}

fn cached_positions_agree(kernels: &dyn Kernels) {
    let config = config(false);
    let weights = Weights::new(&config, 3, DType::F32, &Device::Cpu).unwrap();
    let decoder = Decoder::new(&config, kernels, &weights.detached(), config.positions).unwrap();
    let tokens = fixture::tokens(20, 4);
    let inputs = Tensor::new(&tokens[..], &Device::Cpu).unwrap().unsqueeze(0).unwrap();
    let whole = decoder.logits(&inputs).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
    let mut cache = Cache::default();
    for part in [0..7, 7..8, 8..15, 15..20] {
        let last = part.end - 1;
        let logits = decoder.logits_after(&tokens[part], &mut cache).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(cache.positions(), last + 1);
        for (cached, whole) in logits.iter().zip(&whole[last]) {
            assert!((cached - whole).abs() < 1e-5, "position {last}: {cached} against {whole}");
        }
    }
}

#[test]
fn a_masked_document_does_not_hang_on_the_one_before() {
    let config = config(false);
    let weights = Weights::new(&config, 3, DType::F64, &Device::Cpu).unwrap();
    let length = fixture::LENGTH as usize;
    let mut window = vec![7, 9, 11, 5, 0, 3, 6, 8, 2, 4, 9, 1, 5];
    let mut nats = |first: u32, end_of_text| {
        window[0] = first;
        let of = |upto: usize| {
            let examples = Examples::new([&window[..upto + 1]].into_iter(), upto, end_of_text);
            loss(&config, &weights.detached(), &examples).to_scalar::<f64>().unwrap() * upto as f64
        };
        // The nats of the targets after the end-of-text token alone.
        of(length) - of(5)
    };
    assert!((nats(7, Some(0)) - nats(8, Some(0))).abs() < 1e-12);
    assert!((nats(7, None) - nats(8, None)).abs() > 1e-6);
}

#[test]
fn new_weights_hang_on_the_seed_and_the_name_alone() {
    let weights = |seed| Weights::new(&config(false), seed, DType::F32, &Device::Cpu).unwrap().detached();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (one, same, other) = (weights(7), weights(7), weights(8));
    let name = "model.layers.1.self_attn.k_proj.weight";
    assert_eq!(values(&one[name]), values(&same[name]));
    assert_ne!(values(&one[name]), values(&other[name]));
    assert_ne!(values(&one[name]), values(&one["model.layers.0.self_attn.k_proj.weight"]));
    assert_eq!(values(&one["model.norm.weight"]), vec![1.0; 64]);
    let all = values(&one["model.embed_tokens.weight"]);
    let mean = all.iter().sum::<f32>() / all.len() as f32;
    let variance = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / all.len() as f32;
    assert!(mean.abs() < 0.01 && (variance.sqrt() - 0.1).abs() < 0.005, "{mean} {variance}");
}

#[test]
fn the_stream_of_new_weights_never_changes() {
    let values = super::weights::normal(7, "model.embed_tokens.weight", 3, 0.02);
    assert_eq!(values, super::weights::normal(7, "model.embed_tokens.weight", 4, 0.02)[..3]);
    assert_eq!(values, GOLDEN_WEIGHTS);
}

/// As a Python program made from the definition alone gives them.
const GOLDEN_WEIGHTS: [f32; 3] = [-0.008581552, -0.029495921, 0.020826621];
