//! `silu(gate) * up`.
//!
//! Gate and up come out of one product and lie side by side. After the backward they are not needed any more, so their
//! gradients take their place.

use rayon::prelude::*;

use super::element::Element;
use super::exp::exp;
use super::isa::{Isa, Version, dispatch};

/// Elements of the result that a thread takes at once, about.
const AT_ONCE: usize = 1 << 13;

/// `out` (n, f) of `gate_up` (n, 2 f), a row of which is a row of gates and one of ups.
pub fn forward<E: Element>(isa: Isa, gate_up: &[E], width: usize, out: &mut [E]) {
    assert!(gate_up.len() == 2 * out.len() && out.len().is_multiple_of(width), "shapes of gates and ups");
    let rows = (AT_ONCE / width).max(1);
    gate_up.par_chunks(2 * width * rows).zip(out.par_chunks_mut(width * rows)).for_each(|(gate_up, out)| {
        for (gate_up, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = gate_up.split_at(width);
            forward_row(isa, gate, up, out);
        }
    });
}

/// As [`forward`], of gates and ups that lie apart, all of the length of `out`.
pub fn forward_apart<E: Element>(isa: Isa, gate: &[E], up: &[E], out: &mut [E]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "shapes of gates and ups");
    gate.par_chunks(AT_ONCE)
        .zip(up.par_chunks(AT_ONCE))
        .zip(out.par_chunks_mut(AT_ONCE))
        .for_each(|((gate, up), out)| forward_row(isa, gate, up, out));
}

/// The gradients of gates and ups, in their place, from that of the result, `dout` (n, f).
pub fn backward<E: Element>(isa: Isa, dout: &[E], width: usize, gate_up: &mut [E]) {
    assert!(gate_up.len() == 2 * dout.len() && dout.len().is_multiple_of(width), "shapes of gates and ups");
    let rows = (AT_ONCE / width).max(1);
    gate_up.par_chunks_mut(2 * width * rows).zip(dout.par_chunks(width * rows)).for_each(
        |(gate_up, dout)| {
            for (gate_up, dout) in gate_up.chunks_exact_mut(2 * width).zip(dout.chunks_exact(width)) {
                let (gate, up) = gate_up.split_at_mut(width);
                backward_row(isa, dout, gate, up);
            }
        },
    );
}

/// As [`backward`], of gates and ups that lie apart, all of the length of `dout`.
pub fn backward_apart<E: Element>(isa: Isa, dout: &[E], gate: &mut [E], up: &mut [E]) {
    assert!(gate.len() == dout.len() && up.len() == dout.len(), "shapes of gates and ups");
    gate.par_chunks_mut(AT_ONCE)
        .zip(up.par_chunks_mut(AT_ONCE))
        .zip(dout.par_chunks(AT_ONCE))
        .for_each(|((gate, up), dout)| backward_row(isa, dout, gate, up));
}

dispatch! { fn forward_row<E: Element>(gate: &[E], up: &[E], out: &mut [E]) = forward_body }

#[inline(always)]
fn forward_body<V: Version, E: Element>(gate: &[E], up: &[E], out: &mut [E]) {
    let (gate, up) = (&gate[..out.len()], &up[..out.len()]);
    for i in 0..out.len() {
        let gate = gate[i].value();
        out[i] = E::nearest(gate / (1.0 + exp::<V>(-gate)) * up[i].value());
    }
}

dispatch! { fn backward_row<E: Element>(dout: &[E], gate: &mut [E], up: &mut [E]) = backward_body }

#[inline(always)]
fn backward_body<V: Version, E: Element>(dout: &[E], gate: &mut [E], up: &mut [E]) {
    let (gate, up) = (&mut gate[..dout.len()], &mut up[..dout.len()]);
    for i in 0..dout.len() {
        let (dout, x, y) = (dout[i].value(), gate[i].value(), up[i].value());
        let sigmoid = 1.0 / (1.0 + exp::<V>(-x));
        let silu = x * sigmoid;
        let slope = V::mul_add(silu, 1.0 - sigmoid, sigmoid);
        gate[i] = E::nearest(dout * y * slope);
        up[i] = E::nearest(dout * silu);
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::testing::{close, joined, numbers, same_bits, single, slopes, tolerance, wide};
    use super::*;

    /// Rows and width: tails of every kind, and more than one piece.
    const SIZES: [(usize, usize); 4] = [(1, 1), (3, 5), (7, 16), (2, 37)];

    fn definition(gate_up: &[f64], width: usize) -> Vec<f64> {
        let row = |row: &[f64]| {
            let (gate, up) = row.split_at(width);
            gate.iter().zip(up).map(|(x, y)| x / (1.0 + libm::exp(-x)) * y).collect::<Vec<_>>()
        };
        gate_up.chunks(2 * width).flat_map(row).collect()
    }

    /// Gates from -8 to 8.
    fn operands<E: Element>(rows: usize, width: usize) -> Vec<E> {
        numbers::<E>(rows * 2 * width, 1).into_iter().map(|x| E::nearest(x.value() * 8.0)).collect()
    }

    fn agrees<E: Element>() {
        for (rows, width) in SIZES {
            let gate_up = operands::<E>(rows, width);
            let dout = numbers::<E>(rows * width, 2);
            let wide_dout = wide(&dout);
            let expected = slopes(&wide(&gate_up), |x| {
                definition(x, width).iter().zip(&wide_dout).map(|(y, d)| y * d).sum()
            });
            for isa in Isa::available() {
                let mut out = vec![E::default(); rows * width];
                forward(isa, &gate_up, width, &mut out);
                close(&out, &definition(&wide(&gate_up), width), tolerance::<E>(1.0));
                let mut gradient = gate_up.clone();
                backward(isa, &dout, width, &mut gradient);
                close(&gradient, &expected, tolerance::<E>(1.0));
            }
        }
    }

    #[test]
    fn values_and_gradients_agree_with_the_definition() {
        agrees::<f32>();
        agrees::<bf16>();
    }

    #[test]
    fn gates_without_bound_have_finite_results() {
        for isa in Isa::available() {
            let mut gate_up = [-1e30, -200.0, 200.0, 1e30, 1.0, 1.0, 1.0, 1.0];
            let mut out = [f32::NAN; 4];
            forward(isa, &gate_up, 4, &mut out);
            assert_eq!(out, [0.0, 0.0, 200.0, 1e30]);
            backward(isa, &[1f32; 4], 4, &mut gate_up);
            assert_eq!(gate_up, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 200.0, 1e30]);
        }
    }

    fn bits<E: Element>(isa: Isa) -> Vec<f32> {
        let (rows, width) = (40, 803);
        let mut gate_up = operands::<E>(rows, width);
        let dout = numbers::<E>(rows * width, 2);
        let mut out = vec![E::default(); rows * width];
        forward(isa, &gate_up, width, &mut out);
        backward(isa, &dout, width, &mut gate_up);
        joined(&[&single(&out), &single(&gate_up)])
    }

    #[test]
    fn threads_change_no_bit() {
        same_bits(bits::<f32>);
        same_bits(bits::<bf16>);
    }

    #[test]
    fn side_by_side_and_apart_give_the_same_bits() {
        let (rows, width) = (5, 37);
        let gate_up = operands::<f32>(rows, width);
        let dout = numbers::<f32>(rows * width, 2);
        let half = |first: usize| -> Vec<f32> {
            gate_up.chunks(2 * width).flat_map(|row| row[first..][..width].to_vec()).collect()
        };
        let (mut gate, mut up) = (half(0), half(width));
        for isa in Isa::available() {
            let (mut together, mut apart) = (vec![0.0; rows * width], vec![0.0; rows * width]);
            forward(isa, &gate_up, width, &mut together);
            forward_apart(isa, &gate, &up, &mut apart);
            assert_eq!(together, apart);
        }
        let mut side_by_side = gate_up.clone();
        backward(Isa::best(), &dout, width, &mut side_by_side);
        backward_apart(Isa::best(), &dout, &mut gate, &mut up);
        for (row, both) in side_by_side.chunks(2 * width).enumerate() {
            assert_eq!(both[..width], gate[row * width..][..width]);
            assert_eq!(both[width..], up[row * width..][..width]);
        }
    }
}
