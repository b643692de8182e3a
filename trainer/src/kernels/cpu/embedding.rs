//! Rows of the embedding, and their gradient.
//!
//! The backward adds many rows to few: tasks own ranges of the vocabulary, so none waits for another, and each row of the
//! vocabulary receives its sums in the order of the tokens, whatever the number of threads and wherever a batch is cut.

use rayon::prelude::*;

use super::isa::{Isa, Version, dispatch};

/// Rows that a thread gathers at once.
const ROWS: usize = 64;

/// Rows of the vocabulary that a thread owns at once: few, since frequent tokens stand together.
const VOCABULARY: usize = 256;

/// Rows of `weight` (V, d) at `tokens` (n), which are below V: `out` (n, d).
pub fn forward(weight: &[f32], width: usize, tokens: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), tokens.len() * width, "shapes of an embedding");
    out.par_chunks_mut(ROWS * width).zip(tokens.par_chunks(ROWS)).for_each(|(out, tokens)| {
        for (out, token) in out.chunks_exact_mut(width).zip(tokens) {
            out.copy_from_slice(&weight[*token as usize * width..][..width]);
        }
    });
}

/// Adds row i of `dout` (n, d) to row `tokens[i]` of `dweight` (V, d).
pub fn backward(isa: Isa, dout: &[f32], width: usize, tokens: &[u32], dweight: &mut [f32]) {
    assert_eq!(dout.len(), tokens.len() * width, "shapes of an embedding's gradient");
    assert!(dweight.len().is_multiple_of(width), "shapes of an embedding's gradient");
    dweight.par_chunks_mut(VOCABULARY * width).enumerate().for_each(|(block, dweight)| {
        scatter(isa, dout, width, tokens, block * VOCABULARY, dweight);
    });
}

dispatch! { fn scatter(dout: &[f32], width: usize, tokens: &[u32], first: usize, dweight: &mut [f32]) = scatter_body }

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "every body has a version")]
fn scatter_body<V: Version>(dout: &[f32], width: usize, tokens: &[u32], first: usize, dweight: &mut [f32]) {
    let count = dweight.len() / width;
    for (number, token) in tokens.iter().enumerate() {
        let row = (*token as usize).wrapping_sub(first);
        if row < count {
            let dout = &dout[number * width..][..width];
            for (sum, dout) in dweight[row * width..][..width].iter_mut().zip(dout) {
                *sum += dout;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, numbers, same_bits, wide};
    use super::*;

    const WIDTH: usize = 19;
    const ROWS_OF_WEIGHT: usize = 700;

    /// Some tokens often, the last and the first too.
    fn tokens() -> Vec<u32> {
        (0..300u32)
            .map(|i| if i % 3 == 0 { i % 7 } else { (i * i * 31 + 699) % ROWS_OF_WEIGHT as u32 })
            .collect()
    }

    fn gradient(isa: Isa, cuts: &[usize]) -> Vec<f32> {
        let tokens = tokens();
        let dout = numbers::<f32>(tokens.len() * WIDTH, 2);
        let mut dweight = vec![0.5; ROWS_OF_WEIGHT * WIDTH];
        for cut in cuts.windows(2) {
            let dout = &dout[cut[0] * WIDTH..cut[1] * WIDTH];
            backward(isa, dout, WIDTH, &tokens[cut[0]..cut[1]], &mut dweight);
        }
        dweight
    }

    #[test]
    fn every_token_has_its_row() {
        let weight = numbers::<f32>(ROWS_OF_WEIGHT * WIDTH, 1);
        let tokens = tokens();
        let mut out = vec![0.0; tokens.len() * WIDTH];
        forward(&weight, WIDTH, &tokens, &mut out);
        for (row, token) in out.chunks(WIDTH).zip(tokens) {
            assert_eq!(row, &weight[token as usize * WIDTH..][..WIDTH]);
        }
    }

    #[test]
    fn every_row_receives_the_gradients_of_its_tokens() {
        let tokens = tokens();
        let dout = wide(&numbers::<f32>(tokens.len() * WIDTH, 2));
        let mut expected = vec![0.5; ROWS_OF_WEIGHT * WIDTH];
        for (row, token) in dout.chunks(WIDTH).zip(&tokens) {
            for (sum, x) in expected[*token as usize * WIDTH..][..WIDTH].iter_mut().zip(row) {
                *sum += x;
            }
        }
        for isa in Isa::available() {
            close(&gradient(isa, &[0, tokens.len()]), &expected, 1e-6);
        }
    }

    #[test]
    fn threads_and_cuts_change_no_bit() {
        same_bits(|isa| gradient(isa, &[0, 300]));
        for isa in Isa::available() {
            assert_eq!(gradient(isa, &[0, 1, 77, 300]), gradient(isa, &[0, 300]));
        }
    }
}
