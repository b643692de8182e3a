use half::bf16;

use super::super::testing::{
    close, joined, numbers, same_bits, same_bits_of_products, single, slopes, tolerance, wide,
};
use super::*;

/// Rows, width and size of the vocabulary.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    width: usize,
    vocabulary: usize,
}

/// Tails everywhere; more than one block of rows; more than one piece of the vocabulary.
const SIZES: [Sizes; 4] = [
    Sizes { rows: 1, width: 1, vocabulary: 1 },
    Sizes { rows: 5, width: 7, vocabulary: 11 },
    Sizes { rows: 300, width: 3, vocabulary: 33 },
    Sizes { rows: 6, width: 5, vocabulary: 2 * PIECE + 19 },
];

struct Operands<E> {
    x: Vec<E>,
    weight: Vec<f32>,
    targets: Vec<u32>,
}

/// Logits of some size, whose largest come in every piece.
fn operands<E: Element>(sizes: Sizes) -> Operands<E> {
    let Sizes { rows, width, vocabulary } = sizes;
    let large = |x: f32| E::nearest(4.0 * x).value();
    Operands {
        x: numbers::<E>(rows * width, 1),
        weight: numbers::<f32>(vocabulary * width, 2).into_iter().map(large).collect(),
        targets: (0..rows).map(|row| ((row * 1237 + vocabulary - 1) % vocabulary) as u32).collect(),
    }
}

/// Sum of the nats, as it is defined.
fn definition(sizes: Sizes, x: &[f64], weight: &[f64], targets: &[u32]) -> f64 {
    let nats = |(x, target): (&[f64], &u32)| {
        let logits = logits(sizes, x, weight);
        logits.iter().map(|logit| libm::exp(*logit)).sum::<f64>().ln() - logits[*target as usize]
    };
    x.chunks(sizes.width).zip(targets).map(nats).sum()
}

fn logits(sizes: Sizes, x: &[f64], weight: &[f64]) -> Vec<f64> {
    weight.chunks(sizes.width).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

/// The gradients in closed form: probabilities, less one at the target.
fn closed_form(sizes: Sizes, x: &[f64], weight: &[f64], targets: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    let width = sizes.width;
    for ((x, dx), target) in x.chunks(width).zip(dx.chunks_mut(width)).zip(targets) {
        let logits = logits(sizes, x, weight);
        let sum: f64 = logits.iter().map(|logit| libm::exp(*logit)).sum();
        for (token, logit) in logits.iter().enumerate() {
            let slope = libm::exp(*logit) / sum - f64::from(u8::from(token == *target as usize));
            for j in 0..width {
                dx[j] += slope * weight[token * width + j];
                dweight[token * width + j] += slope * x[j];
            }
        }
    }
    (dx, dweight)
}

struct Found {
    nats: f64,
    dx: Vec<f32>,
    dweight: Vec<f32>,
}

/// Loss and gradients, the rows in micro batches that end at `cuts`.
fn found<E: Element>(isa: Isa, sizes: Sizes, scale: f32, cuts: &[usize]) -> Found {
    let Operands { x, weight, targets } = operands::<E>(sizes);
    let Sizes { width, vocabulary, .. } = sizes;
    let mut head = Head::<E>::default();
    head.pack(isa, Matrix::new(&weight, vocabulary, width), true);
    let mut scratch = Scratch::default();
    let mut found = Found { nats: 0.0, dx: vec![f32::NAN; x.len()], dweight: vec![0.25; weight.len()] };
    let mut first = 0;
    for end in cuts {
        let (x, targets) = (&x[first * width..end * width], &targets[first..*end]);
        let Found { nats, dx, dweight } = &mut found;
        let dx = &mut dx[first * width..end * width];
        loss_and_gradient(isa, x, &head, targets, scale, nats, dx, dweight, &mut scratch);
        first = *end;
    }
    let mut alone = 0.0;
    head.pack(isa, Matrix::new(&weight, vocabulary, width), false);
    loss(isa, &x, &head, &targets, &mut alone, &mut scratch);
    assert_eq!(alone.to_bits(), found.nats.to_bits(), "the loss without a gradient");
    found
}

fn agrees_with_the_closed_form<E: Element>() {
    const SCALE: f32 = 0.125;
    for sizes in SIZES {
        let Operands { x, weight, targets } = operands::<E>(sizes);
        let (x, weight) = (wide(&x), wide(&weight));
        let nats = definition(sizes, &x, &weight, &targets);
        let (dx, dweight) = closed_form(sizes, &x, &weight, &targets);
        let dx: Vec<f64> = dx.iter().map(|g| g * f64::from(SCALE)).collect();
        let dweight: Vec<f64> = dweight.iter().map(|g| g * f64::from(SCALE) + 0.25).collect();
        for isa in Isa::available() {
            let found = found::<E>(isa, sizes, SCALE, &[sizes.rows]);
            // The products of bf16 numbers are exact in f32: the loss is as good as with f32.
            assert!((found.nats - nats).abs() <= 1e-6 * nats.abs(), "{} against {nats}", found.nats);
            close(&found.dx, &dx, tolerance::<E>(3.0));
            close(&found.dweight, &dweight, tolerance::<E>(3.0));
        }
    }
}

#[test]
fn loss_and_gradients_agree_with_the_closed_form() {
    agrees_with_the_closed_form::<f32>();
    agrees_with_the_closed_form::<bf16>();
}

#[test]
fn the_closed_form_agrees_with_central_differences() {
    let sizes = SIZES[1];
    let Operands { x, weight, targets } = operands::<f32>(sizes);
    let (x, weight) = (wide(&x), wide(&weight));
    let (dx, dweight) = closed_form(sizes, &x, &weight, &targets);
    let of_x = slopes(&x, |x| definition(sizes, x, &weight, &targets));
    let of_weight = slopes(&weight, |weight| definition(sizes, &x, weight, &targets));
    for (found, expected) in dx.iter().chain(&dweight).zip(of_x.iter().chain(&of_weight)) {
        assert!((found - expected).abs() < 1e-8, "{found} against {expected}");
    }
}

#[test]
fn threads_and_micro_batches_change_no_bit() {
    fn bits<E: Element>(isa: Isa, cuts: &[usize]) -> Vec<f32> {
        let found = found::<E>(isa, Sizes { rows: 600, width: 5, vocabulary: 40 }, 0.01, cuts);
        let nats = found.nats.to_bits();
        let nats = [f32::from_bits((nats >> 32) as u32), f32::from_bits(nats as u32)];
        joined(&[&nats, &found.dx, &found.dweight])
    }
    same_bits_of_products::<f32>(|isa| bits::<f32>(isa, &[600]));
    same_bits_of_products::<bf16>(|isa| bits::<bf16>(isa, &[600]));
    for isa in Isa::available() {
        assert_eq!(bits::<f32>(isa, &[256, 512, 600]), bits::<f32>(isa, &[600]));
        assert_eq!(bits::<bf16>(isa, &[256, 600]), bits::<bf16>(isa, &[600]));
    }
    // More than one piece of the vocabulary.
    same_bits(|isa| joined(&[&single(&found::<f32>(isa, SIZES[3], 1.0, &[6]).dweight)]));
}

/// One row, one column: the logits are the weights.
fn nats_of(isa: Isa, logits: &[f32], target: u32) -> (f64, f32) {
    let mut head = Head::<f32>::default();
    head.pack(isa, Matrix::new(logits, logits.len(), 1), true);
    let (mut nats, mut dx, mut dweight) = (0.0, [0f32], vec![0.0; logits.len()]);
    let scratch = &mut Scratch::default();
    loss_and_gradient(isa, &[1.0], &head, &[target], 1.0, &mut nats, &mut dx, &mut dweight, scratch);
    (nats, dweight[target as usize])
}

#[test]
fn an_improbable_target_has_a_finite_loss() {
    for isa in Isa::available() {
        assert_eq!(nats_of(isa, &[1000.0, -1000.0], 1), (2000.0, -1.0));
        // The largest logit comes in a later piece than the target.
        let mut logits = vec![-1000.0; PIECE + 1];
        logits[PIECE] = 1000.0;
        assert_eq!(nats_of(isa, &logits, 0), (2000.0, -1.0));
        assert_eq!(nats_of(isa, &logits, PIECE as u32), (0.0, 0.0));
    }
}

#[test]
fn what_is_not_a_number_shows_in_the_loss() {
    for isa in Isa::available() {
        for place in [0, 1, 20] {
            let mut logits = vec![0.5; 21];
            logits[place] = f32::NAN;
            assert!(nats_of(isa, &logits, 3).0.is_nan());
            logits[place] = f32::INFINITY;
            assert!(nats_of(isa, &logits, 3).0.is_nan());
        }
    }
}

#[test]
fn logits_of_a_bounded_block_exist_at_once() {
    for vocabulary in [1, 31, 32_000, 151_936, AT_ONCE, 3 * AT_ONCE] {
        let head = Head::<f32> { width: 1, vocabulary, ..Head::default() };
        let rows = head.rows_at_once();
        assert!(ROWS.is_multiple_of(rows), "blocks of {rows} rows end where micro batches do");
        assert!(rows == 1 || rows * vocabulary <= AT_ONCE);
    }
    let sizes = Sizes { rows: 600, width: 2, vocabulary: 50 };
    let Operands { x, weight, targets } = operands::<f32>(sizes);
    let mut head = Head::<f32>::default();
    head.pack(Isa::best(), Matrix::new(&weight, sizes.vocabulary, sizes.width), false);
    let (mut nats, mut scratch) = (0.0, Scratch::default());
    loss(Isa::best(), &x, &head, &targets, &mut nats, &mut scratch);
    assert!(scratch.bytes() < 2 * ROWS * sizes.vocabulary * size_of::<f32>(), "of 600 rows, 256 at once");
}
