//! The reference against plainer code still: what the gradient checks of the whole model cannot see.

use candle_core::{D, Var};
use candle_nn::ops::log_softmax;

use super::*;

/// Numbers around 0 that follow no pattern.
fn some(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f64> = (0..count).map(|i| libm::sin((i * i + 3 * i + seed) as f64 * 0.7)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims());
    for (found, expected) in values(found).iter().zip(values(expected)) {
        assert!((found - expected).abs() <= tolerance, "{found} against {expected}");
    }
}

#[test]
fn rotary_tables_are_those_of_transformers() {
    // From LlamaRotaryEmbedding of transformers 5.23 in f32: position, pair, cosine, sine.
    let golden = [
        (1, 0, 0.5403023362159729, 0.8414709568023682),
        (1, 5, 0.9999393224716187, 0.011017601937055588),
        (1, 11, 1.0, 4.927319605485536e-05),
        (137, 1, 0.5894996523857117, -0.8077686429023743),
        (137, 5, 0.06131586804986, 0.9981184005737305),
        (499, 0, -0.8711621761322021, 0.4909953474998474),
        (499, 1, 0.08846667408943176, 0.99607914686203),
        (499, 11, 0.999697744846344, 0.024584848433732986),
    ];
    let rotary = Rotary::new(500, 24, 50_000.0, DType::F32, &Device::Cpu).unwrap();
    let (cos, sin) = (rotary.cos.to_vec2::<f32>().unwrap(), rotary.sin.to_vec2::<f32>().unwrap());
    for (position, pair, c, s) in golden {
        for (found, expected) in [(cos[position][pair], c), (sin[position][pair], s)] {
            assert!((f64::from(found) - expected).abs() < 1.2e-7, "{position}, {pair}: {found}, {expected}");
        }
    }
}

#[test]
fn a_loss_in_parts_is_the_loss_of_the_whole() {
    // So many tokens that the logits of nine rows do not exist at once.
    let (rows, width, vocabulary) = (9, 3, 1 << 18);
    let x = Var::from_tensor(&some(&[rows, width], 1)).unwrap();
    let weight = Var::from_tensor(&some(&[vocabulary, width], 2)).unwrap();
    let targets: Vec<u32> = (0..rows as u32).map(|row| row * 29_000 % vocabulary as u32).collect();
    let targets = Tensor::from_vec(targets, rows, &Device::Cpu).unwrap();
    let in_parts = Reference.linear_cross_entropy(&x, &weight, &targets).unwrap();
    let logits = x.matmul(&weight.t().unwrap()).unwrap();
    let picked = log_softmax(&logits, D::Minus1).unwrap().gather(&targets.unsqueeze(1).unwrap(), 1).unwrap();
    let whole = picked.mean_all().unwrap().neg().unwrap();
    close(&in_parts, &whole, 1e-12);
    let (in_parts, whole) = (in_parts.backward().unwrap(), whole.backward().unwrap());
    for variable in [&x, &weight] {
        close(in_parts.get(variable).unwrap(), whole.get(variable).unwrap(), 1e-14);
    }
}

#[test]
fn an_improbable_target_has_a_finite_loss() {
    let x = Tensor::new(&[[100f32]], &Device::Cpu).unwrap();
    let weight = Tensor::new(&[[10f32], [-10.0]], &Device::Cpu).unwrap();
    let target = Tensor::new(&[1u32], &Device::Cpu).unwrap();
    let loss = Reference.linear_cross_entropy(&x, &weight, &target).unwrap();
    assert_eq!(loss.to_scalar::<f32>().unwrap(), 2000.0);
}

#[test]
fn attention_is_its_definition() {
    let (b, t, s, h, g, hd) = (2, 3, 5, 4, 2, 6);
    let (q, k, v) = (some(&[b, t, h, hd], 1), some(&[b, s, g, hd], 2), some(&[b, s, g, hd], 3));
    let y = values(&Reference.attention(&q, &k, &v, &Mask::causal(t, s)).unwrap());
    let (q, k, v) = (values(&q), values(&k), values(&v));
    for (sequence, query, head) in
        (0..b).flat_map(|b| (0..t).flat_map(move |t| (0..h).map(move |h| (b, t, h))))
    {
        let group = head / (h / g);
        let q = &q[((sequence * t + query) * h + head) * hd..][..hd];
        let row = |all: &[f64], key: usize| all[((sequence * s + key) * g + group) * hd..][..hd].to_vec();
        let seen = s - t + query + 1;
        let weights: Vec<f64> = (0..seen)
            .map(|key| row(&k, key).iter().zip(q).map(|(k, q)| k * q).sum::<f64>() / (hd as f64).sqrt())
            .map(libm::exp)
            .collect();
        for i in 0..hd {
            let sum: f64 = (0..seen).map(|key| weights[key] * row(&v, key)[i]).sum();
            let found = y[((sequence * t + query) * h + head) * hd + i];
            assert!((found - sum / weights.iter().sum::<f64>()).abs() < 1e-14);
        }
    }
}

#[test]
fn an_operation_without_tracked_arguments_makes_no_graph() {
    let (x, weight) = (some(&[4, 3], 1), some(&[5, 3], 2));
    let y = Reference.linear(&x, &weight).unwrap();
    assert!(!y.track_op());
    assert!(Reference.linear(&x, &Var::from_tensor(&weight).unwrap()).unwrap().track_op());
}
