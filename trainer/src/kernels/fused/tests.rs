//! Every operation against the reference: values, and gradients of a sum with arbitrary weights.

use candle_core::Var;

use super::*;

fn some(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..count).map(|i| libm::sin((i * i + 3 * i + seed) as f64 * 0.7) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (values(found), values(expected));
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        let error = f64::from((found - expected).abs());
        assert!(error <= tolerance * f64::from(largest), "{found} against {expected}");
    }
}

/// The outputs of `operation` on tensors of these shapes and their gradients are those of the reference, on every
/// instruction set.
#[track_caller]
fn agrees(shapes: &[&[usize]], operation: impl Fn(&dyn Kernels, &[Tensor]) -> Vec<Tensor>) {
    let variables: Vec<Var> =
        shapes.iter().enumerate().map(|(i, shape)| Var::from_tensor(&some(shape, i + 1)).unwrap()).collect();
    let tracked: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let of = |kernels: &dyn Kernels| {
        let outputs = operation(kernels, &tracked);
        let weighted =
            |(seed, y): (usize, &Tensor)| (y * some(y.dims(), 50 + seed)).unwrap().sum_all().unwrap();
        let sums: Vec<Tensor> = outputs.iter().enumerate().map(weighted).collect();
        let loss = Tensor::stack(&sums, 0).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let gradients: Vec<Tensor> =
            variables.iter().map(|variable| gradients.get(variable).unwrap().clone()).collect();
        (outputs, gradients)
    };
    let (expected, slopes) = of(&Reference);
    for isa in Isa::available() {
        let (found, found_slopes) = of(&Cpu::new(isa));
        for (found, expected) in found.iter().zip(&expected).chain(found_slopes.iter().zip(&slopes)) {
            close(found, expected, 2e-6);
        }
        let detached: Vec<Tensor> = tracked.iter().map(Tensor::detach).collect();
        for y in operation(&Cpu::new(isa), &detached) {
            assert!(!y.track_op(), "an operation without tracked arguments makes no graph");
        }
    }
}

#[test]
fn embedding_agrees() {
    let tokens = Tensor::new(&[[1u32, 6, 0, 1], [1, 1, 3, 6]], &Device::Cpu).unwrap();
    agrees(&[&[7, 5]], |kernels, x| vec![kernels.embedding(&x[0], &tokens).unwrap()]);
}

#[test]
fn linear_agrees() {
    agrees(&[&[2, 3, 19], &[5, 19]], |kernels, x| vec![kernels.linear(&x[0], &x[1]).unwrap()]);
    agrees(&[&[1, 1, 19], &[5, 19]], |kernels, x| vec![kernels.linear(&x[0], &x[1]).unwrap()]);
}

#[test]
fn norms_agree() {
    agrees(&[&[2, 3, 19], &[19]], |kernels, x| vec![kernels.rms_norm(&x[0], &x[1], 1e-5).unwrap()]);
    agrees(&[&[2, 3, 19], &[2, 3, 19], &[19]], |kernels, x| {
        let (sum, normed) = kernels.add_rms_norm(&x[0], &x[1], &x[2], 1e-5).unwrap();
        vec![sum, normed]
    });
}

#[test]
fn rope_agrees_from_any_position_on() {
    let rotary = Rotary::new(9, 6, 100.0, DType::F32, &Device::Cpu).unwrap().range(2, 5).unwrap();
    agrees(&[&[2, 5, 3, 6]], |kernels, x| vec![kernels.rope(&x[0], &rotary).unwrap()]);
}

#[test]
fn attention_agrees() {
    let shapes: [&[usize]; 3] = [&[2, 5, 4, 6], &[2, 5, 2, 6], &[2, 5, 2, 6]];
    let documents = Tensor::new(&[[0u32, 0, 1, 1, 1], [0, 1, 1, 2, 2]], &Device::Cpu).unwrap();
    for mask in [Mask::causal(5, 5), Mask::within(documents).unwrap()] {
        agrees(&shapes, |kernels, x| vec![kernels.attention(&x[0], &x[1], &x[2], &mask).unwrap()]);
    }
}

/// In generation the last positions ask alone; there is no gradient then.
#[test]
fn attention_of_the_last_positions_agrees() {
    let [q, k, v] =
        [([2, 3, 4, 6], 1), ([2, 5, 2, 6], 2), ([2, 5, 2, 6], 3)].map(|(shape, seed)| some(&shape, seed));
    let of = |kernels: &dyn Kernels| kernels.attention(&q, &k, &v, &Mask::causal(3, 5)).unwrap();
    for isa in Isa::available() {
        close(&of(&Cpu::new(isa)), &of(&Reference), 2e-6);
    }
}

#[test]
fn swiglu_agrees() {
    agrees(&[&[2, 3, 19], &[2, 3, 19]], |kernels, x| vec![kernels.swiglu(&x[0], &x[1]).unwrap()]);
}

#[test]
fn linear_cross_entropy_agrees() {
    let targets = Tensor::new(&[0u32, 6, 3, 3, 2], &Device::Cpu).unwrap();
    agrees(&[&[5, 19], &[7, 19]], |kernels, x| {
        vec![kernels.linear_cross_entropy(&x[0], &x[1], &targets).unwrap()]
    });
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let (x, weight) = (some(&[2, 3], 1), some(&[7, 3], 2));
    let tokens = Tensor::new(&[[1u32, 7]], &Device::Cpu).unwrap();
    let refused = [
        Cpu::default().embedding(&weight, &tokens).unwrap_err(),
        Cpu::default().linear_cross_entropy(&x, &weight, &tokens.flatten_all().unwrap()).unwrap_err(),
    ];
    for refusal in refused {
        assert!(refusal.to_string().contains("token 7 is outside the vocabulary of 7 tokens"), "{refusal}");
    }
}

#[test]
fn updates_agree() {
    let update = AdamW {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        correction1: 0.19,
        correction2: 0.0975,
        gradient_scale: 0.5,
    };
    const COUNT: usize = 70;
    // The judge computes in f64: two results in f32 differ by the error of both.
    let after = |kernels: &dyn Kernels, dtype: DType| {
        let some = |shape: &[usize], seed| some(shape, seed).to_dtype(dtype).unwrap();
        let of = |number| {
            let values = Var::from_tensor(&some(&[37, 19], number)).unwrap();
            let moments = Moments::zeros(&values).unwrap();
            (values, moments)
        };
        let all: Vec<(Var, Moments)> = (0..COUNT).map(of).collect();
        for step in 1..4 {
            // Gradients that are not contiguous, as those of transposes.
            let gradients: Vec<Tensor> =
                (0..COUNT).map(|number| some(&[19, 37], COUNT * step + number).t().unwrap()).collect();
            let parameters: Vec<Parameter<'_>> = all
                .iter()
                .zip(&gradients)
                .enumerate()
                .map(|(number, ((values, moments), gradient))| Parameter {
                    values,
                    gradient,
                    moments,
                    decays: number % 3 > 0,
                })
                .collect();
            kernels.adamw(&update, &parameters).unwrap();
        }
        let sum = Var::from_tensor(&some(&[37, 19], 7)).unwrap();
        kernels.accumulate(&sum, &some(&[19, 37], 8).t().unwrap()).unwrap();
        let parts = [some(&[19, 37], 9).t().unwrap(), some(&[5], 10), some(&[40_000], 11)];
        let squares = kernels.sum_of_squares(&parts).unwrap();
        let mut found = vec![sum.as_tensor().clone()];
        for (values, Moments { exp_avg, exp_avg_sq }) in all {
            found.extend([values.as_tensor().clone(), exp_avg, exp_avg_sq]);
        }
        (found, squares)
    };
    let (expected, squares) = after(&Reference, DType::F64);
    for isa in Isa::available() {
        let (found, found_squares) = after(&Cpu::new(isa), DType::F32);
        for (found, expected) in found.iter().zip(&expected) {
            close(found, &expected.to_dtype(DType::F32).unwrap(), 3e-7);
        }
        assert!((found_squares - squares).abs() < 1e-13 * squares);
    }
}

#[test]
fn f64_is_computed_by_the_reference() {
    let double = |shape: &[usize], seed| some(shape, seed).to_dtype(DType::F64).unwrap();
    let (x, weight) = (double(&[4, 3], 1), double(&[5, 3], 2));
    let of = |kernels: &dyn Kernels| kernels.linear(&x, &weight).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(of(&Cpu::default()), of(&Reference));
}
