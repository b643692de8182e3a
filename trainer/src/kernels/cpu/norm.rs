//! RMSNorm of the residual stream.
//!
//! What the backward needs is the row divided by its root mean square, `unit`, and the factor that did it, `scale`. The
//! normed row, `out`, is `unit * weight`: it can be made again from `unit` to the bit, so that it need not be kept.
//! `unit` is f32 in both precisions, so that what products read was rounded once.

use rayon::prelude::*;

use super::element::Element;
use super::isa::{Isa, Version, dispatch};
use super::sums::{dot, strip};

/// Rows that a thread takes at once.
const ROWS: usize = 16;

/// Rows whose share of the weight's gradient is summed before it is added to it.
const ROWS_OF_GRADIENT: usize = 64;

/// The norm of every row of `stream` (n, d): `scale` (n) is `1 / sqrt(mean(x^2) + eps)`, `unit` (n, d) is `x * scale`,
/// and `out` (n, d) is `unit * weight`.
pub fn forward<E: Element>(
    isa: Isa,
    stream: &[f32],
    weight: &[f32],
    eps: f32,
    unit: &mut [f32],
    scale: &mut [f32],
    out: &mut [E],
) {
    let width = weight.len();
    assert_eq!([unit.len(), scale.len() * width, out.len()], [stream.len(); 3], "shapes of a norm");
    stream
        .par_chunks(ROWS * width)
        .zip(unit.par_chunks_mut(ROWS * width))
        .zip(scale.par_chunks_mut(ROWS))
        .zip(out.par_chunks_mut(ROWS * width))
        .for_each(|(((stream, unit), scale), out)| {
            norm_rows(isa, stream, width, eps, unit, scale);
            weigh_rows(isa, unit, weight, out);
        });
}

/// Adds `x` (n, d) to `stream`, and norms the sum as [`forward`] does.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its operands")]
pub fn add_forward<E: Element, X: Element>(
    isa: Isa,
    stream: &mut [f32],
    x: &[X],
    weight: &[f32],
    eps: f32,
    unit: &mut [f32],
    scale: &mut [f32],
    out: &mut [E],
) {
    let width = weight.len();
    let others = [x.len(), unit.len(), scale.len() * width, out.len()];
    assert_eq!(others, [stream.len(); 4], "shapes of a norm of a sum");
    stream
        .par_chunks_mut(ROWS * width)
        .zip(x.par_chunks(ROWS * width))
        .zip(unit.par_chunks_mut(ROWS * width))
        .zip(scale.par_chunks_mut(ROWS))
        .zip(out.par_chunks_mut(ROWS * width))
        .for_each(|((((stream, x), unit), scale), out)| {
            add_rows(isa, stream, x);
            norm_rows(isa, stream, width, eps, unit, scale);
            weigh_rows(isa, unit, weight, out);
        });
}

/// Makes `out` again from `unit`: the same bits as [`forward`] gave.
pub fn scale_by_weight<E: Element>(isa: Isa, unit: &[f32], weight: &[f32], out: &mut [E]) {
    let width = weight.len();
    assert!(unit.len() == out.len() && unit.len().is_multiple_of(width), "shapes of a norm");
    unit.par_chunks(ROWS * width)
        .zip(out.par_chunks_mut(ROWS * width))
        .for_each(|(unit, out)| weigh_rows(isa, unit, weight, out));
}

/// Adds the gradient of the rows to `dstream` and that of the weight to `dweight`, from the gradient of `out`.
///
/// With `g = dout * weight` they are `scale * (g - unit * mean(g * unit))` and the sum over rows of `dout * unit`.
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its operands")]
pub fn backward<D: Element>(
    isa: Isa,
    dout: &[D],
    unit: &[f32],
    scale: &[f32],
    weight: &[f32],
    dstream: &mut [f32],
    dweight: &mut [f32],
    partial: &mut Vec<f32>,
) {
    let width = weight.len();
    assert!(dout.len() == unit.len() && dout.len() == scale.len() * width, "shapes of a norm's gradient");
    assert!(dout.len() == dstream.len() && dweight.len() == width, "shapes of a norm's gradient");
    let sums = strip(partial, scale.len().div_ceil(ROWS_OF_GRADIENT) * width);
    dout.par_chunks(ROWS_OF_GRADIENT * width)
        .zip(unit.par_chunks(ROWS_OF_GRADIENT * width))
        .zip(scale.par_chunks(ROWS_OF_GRADIENT))
        .zip(dstream.par_chunks_mut(ROWS_OF_GRADIENT * width))
        .zip(sums.par_chunks_mut(width))
        .for_each(|((((dout, unit), scale), dstream), sum)| {
            backward_rows(isa, dout, unit, scale, weight, dstream, sum);
        });
    for sum in sums.chunks(width) {
        add_rows(isa, dweight, sum);
    }
}

dispatch! { fn norm_rows(
    stream: &[f32], width: usize, eps: f32, unit: &mut [f32], scale: &mut [f32],
) = norm_body }

#[inline(always)]
fn norm_body<V: Version>(stream: &[f32], width: usize, eps: f32, unit: &mut [f32], scale: &mut [f32]) {
    for ((x, unit), scale) in stream.chunks_exact(width).zip(unit.chunks_exact_mut(width)).zip(scale) {
        let factor = 1.0 / (dot::<V, f32, f32>(x, x) / width as f32 + eps).sqrt();
        *scale = factor;
        for (x, unit) in x.iter().zip(unit) {
            *unit = x * factor;
        }
    }
}

dispatch! { fn weigh_rows<E: Element>(unit: &[f32], weight: &[f32], out: &mut [E]) = weigh_body }

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn weigh_body<V: Version, E: Element>(unit: &[f32], weight: &[f32], out: &mut [E]) {
    for (unit, out) in unit.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        for ((unit, weight), out) in unit.iter().zip(weight).zip(out) {
            *out = E::nearest(unit * weight);
        }
    }
}

dispatch! { fn add_rows<X: Element>(sum: &mut [f32], x: &[X]) = add_body }

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn add_body<V: Version, X: Element>(sum: &mut [f32], x: &[X]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x.value();
    }
}

dispatch! { fn backward_rows<D: Element>(
    dout: &[D], unit: &[f32], scale: &[f32], weight: &[f32], dstream: &mut [f32], sum: &mut [f32],
) = backward_body }

#[inline(always)]
fn backward_body<V: Version, D: Element>(
    dout: &[D],
    unit: &[f32],
    scale: &[f32],
    weight: &[f32],
    dstream: &mut [f32],
    sum: &mut [f32],
) {
    let width = weight.len();
    let sum = &mut sum[..width];
    sum.fill(0.0);
    for (row, scale) in scale.iter().enumerate() {
        let dout = &dout[row * width..][..width];
        let unit = &unit[row * width..][..width];
        let dstream = &mut dstream[row * width..][..width];
        let along = weighted_dot::<V, D>(dout, unit, weight) / width as f32;
        for j in 0..width {
            let (dout, unit) = (dout[j].value(), unit[j]);
            let across = V::mul_add(-unit, along, dout * weight[j]);
            dstream[j] = V::mul_add(*scale, across, dstream[j]);
            sum[j] = V::mul_add(dout, unit, sum[j]);
        }
    }
}

/// The sum of `dout * weight * unit`.
#[inline(always)]
fn weighted_dot<V: Version, D: Element>(dout: &[D], unit: &[f32], weight: &[f32]) -> f32 {
    use super::isa::LANES;
    let width = weight.len();
    let whole = width - width % LANES;
    let (dout, unit) = (&dout[..width], &unit[..width]);
    let mut sums = [0f32; LANES];
    for first in (0..whole).step_by(LANES) {
        let (dout, unit) = (&dout[first..][..LANES], &unit[first..][..LANES]);
        let weight = &weight[first..][..LANES];
        for lane in 0..LANES {
            sums[lane] = V::mul_add(dout[lane].value() * weight[lane], unit[lane], sums[lane]);
        }
    }
    for j in whole..width {
        sums[j - whole] = V::mul_add(dout[j].value() * weight[j], unit[j], sums[j - whole]);
    }
    super::sums::together(sums)
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::testing::{close, joined, numbers, same_bits, single, slopes, tolerance, wide};
    use super::*;

    const EPS: f32 = 1e-5;

    /// The norm of the rows, as it is defined.
    fn definition(x: &[f64], weight: &[f64]) -> Vec<f64> {
        let norm = |row: &[f64]| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
            let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
            row.iter().zip(weight).map(|(x, w)| x * scale * w).collect::<Vec<_>>()
        };
        x.chunks(weight.len()).flat_map(norm).collect()
    }

    fn product(x: &[f64], y: &[f64]) -> f64 {
        x.iter().zip(y).map(|(x, y)| x * y).sum()
    }

    struct Made<E> {
        unit: Vec<f32>,
        scale: Vec<f32>,
        out: Vec<E>,
    }

    fn made<E: Element>(isa: Isa, x: &[f32], weight: &[f32]) -> Made<E> {
        let rows = x.len() / weight.len();
        let mut made =
            Made { unit: vec![0.0; x.len()], scale: vec![0.0; rows], out: vec![E::default(); x.len()] };
        forward(isa, x, weight, EPS, &mut made.unit, &mut made.scale, &mut made.out);
        made
    }

    fn rows_are_their_norms<E: Element>() {
        for (rows, width) in [(1, 1), (3, 5), (37, 16), (70, 51)] {
            let (x, weight) = (numbers::<f32>(rows * width, 1), numbers::<f32>(width, 2));
            for isa in Isa::available() {
                let expected = definition(&wide(&x), &wide(&weight));
                let found = made::<E>(isa, &x, &weight);
                close(&found.out, &expected, tolerance::<E>(2.0));
                let mut again = vec![E::default(); x.len()];
                scale_by_weight(isa, &found.unit, &weight, &mut again);
                assert_eq!(again, found.out);

                // In two parts that are added on the way.
                let part = numbers::<E>(x.len(), 3);
                let mut stream: Vec<f32> = x.iter().zip(&part).map(|(x, part)| x - part.value()).collect();
                let sum: Vec<f32> = stream.iter().zip(&part).map(|(x, part)| x + part.value()).collect();
                let whole = made::<E>(isa, &sum, &weight);
                let Made { mut unit, mut scale, mut out } = found;
                let others = (&mut unit[..], &mut scale[..]);
                add_forward(isa, &mut stream, &part, &weight, EPS, others.0, others.1, &mut out);
                assert_eq!((&stream, &unit, &scale, &out), (&sum, &whole.unit, &whole.scale, &whole.out));
            }
        }
    }

    #[test]
    fn every_row_is_divided_by_its_root_mean_square() {
        rows_are_their_norms::<f32>();
        rows_are_their_norms::<bf16>();
    }

    fn gradients_are_slopes<E: Element>() {
        for (rows, width) in [(1, 1), (3, 5), (5, 16), (4, 35)] {
            let (x, weight) = (numbers::<f32>(rows * width, 1), numbers::<f32>(width, 2));
            let dout = numbers::<E>(rows * width, 3);
            let (x64, weight64, dout64) = (wide(&x), wide(&weight), wide(&dout));
            let expected_x: Vec<f64> = slopes(&x64, |x| product(&definition(x, &weight64), &dout64));
            let expected_weight = slopes(&weight64, |weight| product(&definition(&x64, weight), &dout64));
            for isa in Isa::available() {
                let Made { unit, scale, .. } = made::<E>(isa, &x, &weight);
                // Gradients are added to what is there.
                let (mut dx, mut dweight) = (vec![1.0; x.len()], vec![2.0; width]);
                let partial = &mut Vec::new();
                backward(isa, &dout, &unit, &scale, &weight, &mut dx, &mut dweight, partial);
                let expected_x: Vec<f64> = expected_x.iter().map(|g| g + 1.0).collect();
                let expected_weight: Vec<f64> = expected_weight.iter().map(|g| g + 2.0).collect();
                close(&dx, &expected_x, tolerance::<E>(2.0));
                close(&dweight, &expected_weight, tolerance::<E>(2.0));
            }
        }
    }

    #[test]
    fn gradients_agree_with_central_differences() {
        gradients_are_slopes::<f32>();
        gradients_are_slopes::<bf16>();
    }

    fn bits<E: Element>(isa: Isa, split: bool) -> Vec<f32> {
        let (rows, width) = (600, 37);
        let (x, weight) = (numbers::<f32>(rows * width, 1), numbers::<f32>(width, 2));
        let dout = numbers::<E>(rows * width, 3);
        let Made { unit, scale, out } = made::<E>(isa, &x, &weight);
        let (mut dx, mut dweight, mut partial) = (vec![0.5; x.len()], vec![0.25; width], Vec::new());
        let cuts = if split { &[0, 256, 600][..] } else { &[0, 600] };
        for cut in cuts.windows(2).map(|cut| cut[0]..cut[1]) {
            let elements = cut.start * width..cut.end * width;
            let dx = &mut dx[elements.clone()];
            let (dout, unit) = (&dout[elements.clone()], &unit[elements]);
            backward(isa, dout, unit, &scale[cut], &weight, dx, &mut dweight, &mut partial);
        }
        joined(&[&single(&out), &scale, &dx, &dweight])
    }

    #[test]
    fn threads_and_micro_batches_change_no_bit() {
        same_bits(|isa| bits::<f32>(isa, false));
        same_bits(|isa| bits::<bf16>(isa, false));
        for isa in Isa::available() {
            assert_eq!(bits::<f32>(isa, true), bits::<f32>(isa, false));
            assert_eq!(bits::<bf16>(isa, true), bits::<bf16>(isa, false));
        }
    }
}
