//! The rotary embedding, in place.
//!
//! Query and key heads lie side by side in one row, so one call turns them all. A rotation's transpose turns the other
//! way: that is its gradient.

use rayon::prelude::*;

use super::element::Element;
use super::isa::{Isa, Version, dispatch};

/// Rows that a thread takes at once.
const ROWS: usize = 32;

/// Which heads of a row are turned: the first `count` of `width` each, in rows that begin `stride` elements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Elements between the beginnings of two rows.
    pub stride: usize,
    /// Heads to turn.
    pub count: usize,
    /// Elements of a head, an even number.
    pub width: usize,
}

/// Cosines and sines, (at least `positions`, width / 2) each, and the length of a sequence: row `r` is at position
/// `r % positions`.
#[derive(Debug, Clone, Copy)]
pub struct Angles<'a> {
    /// Cosines.
    pub cos: &'a [f32],
    /// Sines.
    pub sin: &'a [f32],
    /// Rows of a sequence.
    pub positions: usize,
}

/// Turns every head by the angles of its position; the pairs are the two halves of a head.
pub fn forward<E: Element>(isa: Isa, rows: &mut [E], heads: Heads, angles: Angles<'_>) {
    turn(isa, rows, heads, angles, 1.0);
}

/// Turns them back: the gradient of the heads from that of the turned ones.
pub fn backward<E: Element>(isa: Isa, rows: &mut [E], heads: Heads, angles: Angles<'_>) {
    turn(isa, rows, heads, angles, -1.0);
}

fn turn<E: Element>(isa: Isa, rows: &mut [E], heads: Heads, angles: Angles<'_>, sign: f32) {
    let Heads { stride, count, width } = heads;
    let table = angles.positions * (width / 2);
    assert!(width.is_multiple_of(2) && count * width <= stride, "heads lie in their row, in two halves each");
    assert!(angles.cos.len() >= table && angles.sin.len() >= table, "every position has its angles");
    rows.par_chunks_mut(ROWS * stride).enumerate().for_each(|(block, rows)| {
        turn_rows(isa, rows, heads, angles, block * ROWS, sign);
    });
}

dispatch! { fn turn_rows<E: Element>(
    rows: &mut [E], heads: Heads, angles: Angles<'_>, first: usize, sign: f32,
) = turn_body }

#[inline(always)]
fn turn_body<V: Version, E: Element>(
    rows: &mut [E],
    heads: Heads,
    angles: Angles<'_>,
    first: usize,
    sign: f32,
) {
    let half = heads.width / 2;
    for (number, row) in rows.chunks_mut(heads.stride).enumerate() {
        let position = (first + number) % angles.positions;
        let cos = &angles.cos[position * half..][..half];
        let sin = &angles.sin[position * half..][..half];
        for head in row[..heads.count * heads.width].chunks_exact_mut(heads.width) {
            let (left, right) = head.split_at_mut(half);
            let right = &mut right[..half];
            for pair in 0..half {
                let (x, y, sin) = (left[pair].value(), right[pair].value(), sign * sin[pair]);
                left[pair] = E::nearest(V::mul_add(x, cos[pair], -(y * sin)));
                right[pair] = E::nearest(V::mul_add(y, cos[pair], x * sin));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::testing::{close, numbers, same_bits, single, tolerance, wide};
    use super::*;

    struct Case {
        rows: usize,
        heads: Heads,
        positions: usize,
    }

    const CASES: [Case; 3] = [
        Case { rows: 1, heads: Heads { stride: 2, count: 1, width: 2 }, positions: 1 },
        Case { rows: 6, heads: Heads { stride: 33, count: 3, width: 10 }, positions: 3 },
        Case { rows: 70, heads: Heads { stride: 128, count: 3, width: 32 }, positions: 35 },
    ];

    fn tables(case: &Case) -> (Vec<f32>, Vec<f32>) {
        let half = case.heads.width / 2;
        let angle = |i: usize| ((i / half) as f64) * libm::pow(100.0, -((i % half) as f64) / half as f64);
        let all = (0..case.positions * half).map(angle);
        all.map(|angle| (libm::cos(angle) as f32, libm::sin(angle) as f32)).unzip()
    }

    /// The turned rows, as they are defined; what is not a turned head stays.
    fn definition(case: &Case, x: &[f64], sign: f64) -> Vec<f64> {
        let (cos, sin) = tables(case);
        let Heads { stride, count, width } = case.heads;
        let half = width / 2;
        let mut y = x.to_vec();
        for (row, head, pair) in (0..case.rows)
            .flat_map(|row| (0..count).flat_map(move |head| (0..half).map(move |pair| (row, head, pair))))
        {
            let angle = row % case.positions * half + pair;
            let (c, s) = (f64::from(cos[angle]), sign * f64::from(sin[angle]));
            let at = row * stride + head * width + pair;
            (y[at], y[at + half]) = (x[at] * c - x[at + half] * s, x[at + half] * c + x[at] * s);
        }
        y
    }

    fn heads_are_turned<E: Element>() {
        for case in &CASES {
            let x = numbers::<E>(case.rows * case.heads.stride, 1);
            let (cos, sin) = tables(case);
            let angles = Angles { cos: &cos, sin: &sin, positions: case.positions };
            for isa in Isa::available() {
                let mut y = x.clone();
                forward(isa, &mut y, case.heads, angles);
                close(&y, &definition(case, &wide(&x), 1.0), tolerance::<E>(1.0));
                let mut y = x.clone();
                backward(isa, &mut y, case.heads, angles);
                close(&y, &definition(case, &wide(&x), -1.0), tolerance::<E>(1.0));
            }
        }
    }

    #[test]
    fn heads_are_turned_by_their_position_and_back() {
        heads_are_turned::<f32>();
        heads_are_turned::<bf16>();
    }

    #[test]
    fn the_gradient_is_the_transpose() {
        for case in &CASES {
            let count = case.rows * case.heads.stride;
            let (x, dy) = (numbers::<f32>(count, 1), numbers::<f32>(count, 2));
            let (cos, sin) = tables(case);
            let angles = Angles { cos: &cos, sin: &sin, positions: case.positions };
            let (mut y, mut dx) = (x.clone(), dy.clone());
            forward(Isa::best(), &mut y, case.heads, angles);
            backward(Isa::best(), &mut dx, case.heads, angles);
            let product = |x: &[f32], y: &[f32]| wide(x).iter().zip(wide(y)).map(|(x, y)| x * y).sum::<f64>();
            assert!((product(&y, &dy) - product(&x, &dx)).abs() < 1e-6 * count as f64);
        }
    }

    fn bits<E: Element>(isa: Isa) -> Vec<f32> {
        let case = &CASES[2];
        let (cos, sin) = tables(case);
        let angles = Angles { cos: &cos, sin: &sin, positions: case.positions };
        let mut rows = numbers::<E>(case.rows * case.heads.stride, 1);
        forward(isa, &mut rows, case.heads, angles);
        single(&rows)
    }

    #[test]
    fn threads_change_no_bit() {
        same_bits(bits::<f32>);
        same_bits(bits::<bf16>);
    }
}
