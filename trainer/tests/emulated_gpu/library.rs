//! Attention by a library, as one would have it that takes its time: every score, one after the other.

use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

use candle_core::Result;
use half::bf16;
use trainer::kernels::cuda::{AttentionLibrary, PASSED, Shape};

/// Attention of a shape.
pub struct Plain(pub Shape);

/// How often it was asked for, forward or backward.
pub static CALLS: AtomicU32 = AtomicU32::new(0);

/// A head's row of a tensor whose tokens have rows of `stride` numbers.
unsafe fn row<'a>(first: u64, stride: usize, token: usize, head: usize, width: usize) -> &'a mut [bf16] {
    let first = first as *mut bf16;
    // SAFETY: the caller's tensor is as large as its shape says.
    unsafe { slice::from_raw_parts_mut(first.add(token * stride + head * width), width) }
}

fn dot(x: &[bf16], y: &[bf16]) -> f32 {
    x.iter().zip(y).map(|(x, y)| x.to_f32() * y.to_f32()).sum()
}

impl Plain {
    /// Calls `f` with each head of each sequence: its first token, its number, and that of its group.
    fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        let Shape { sequences, positions, heads, groups, .. } = self.0;
        for sequence in 0..sequences {
            for head in 0..heads {
                f(sequence * positions, head, head / (heads / groups));
            }
        }
    }

    fn strides(&self) -> [usize; 2] {
        let Shape { heads, groups, width, .. } = self.0;
        [(heads + 2 * groups) * width, heads * width]
    }

    fn scale(&self) -> f32 {
        1.0 / (self.0.width as f32).sqrt()
    }

    /// The place of a head's sum: they lie by sequence, head and position.
    unsafe fn sum<'a>(&self, first: u64, token: usize, head: usize) -> &'a mut f32 {
        let Shape { positions, heads, .. } = self.0;
        let place = (token / positions * heads + head) * positions + token % positions;
        // SAFETY: the caller's tensor is as large as its shape says.
        unsafe { &mut *(first as *mut f32).add(place) }
    }
}

impl AttentionLibrary for Plain {
    fn name(&self) -> String {
        "plain".to_owned()
    }

    fn shape(&self) -> Shape {
        self.0
    }

    unsafe fn forward(&self, [query, key, value, out, sums]: [u64; PASSED[0]]) -> Result<()> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let (Shape { positions, width, .. }, [stride, queries]) = (self.0, self.strides());
        self.each(|first, head, group| {
            for token in first..first + positions {
                // SAFETY: the caller's word.
                let q = unsafe { row(query, stride, token, head, width) };
                let scores: Vec<f32> = (first..=token)
                    // SAFETY: the caller's word.
                    .map(|other| dot(q, unsafe { row(key, stride, other, group, width) }) * self.scale())
                    .collect();
                let most = scores.iter().copied().fold(f32::MIN, f32::max);
                let sum: f32 = scores.iter().map(|score| (score - most).exp()).sum();
                let mut attended = vec![0f32; width];
                for (other, score) in (first..).zip(&scores) {
                    // SAFETY: the caller's word.
                    let v = unsafe { row(value, stride, other, group, width) };
                    let share = (score - most).exp() / sum;
                    attended.iter_mut().zip(v).for_each(|(to, v)| *to += share * v.to_f32());
                }
                // SAFETY: the caller's word.
                unsafe {
                    let to = row(out, queries, token, head, width);
                    to.iter_mut().zip(attended).for_each(|(to, x)| *to = bf16::from_f32(x));
                    *self.sum(sums, token, head) = most + sum.ln();
                }
            }
        });
        Ok(())
    }

    unsafe fn backward(&self, addresses: [u64; PASSED[1]]) -> Result<()> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let [query, key, value, out, sums, slope, dquery, dkey, dvalue] = addresses;
        let (Shape { positions, width, groups, sequences, .. }, [stride, queries]) = (self.0, self.strides());
        let mut keys = vec![0f32; sequences * positions * groups * width];
        let mut values = keys.clone();
        let of = |token: usize, group: usize| (token * groups + group) * width;
        self.each(|first, head, group| {
            for token in first..first + positions {
                // SAFETY: the caller's word.
                let (q, o, dy, sum) = unsafe {
                    (
                        row(query, stride, token, head, width),
                        row(out, queries, token, head, width),
                        row(slope, queries, token, head, width),
                        *self.sum(sums, token, head),
                    )
                };
                let along = dot(o, dy);
                let mut queries = vec![0f32; width];
                for other in first..=token {
                    // SAFETY: the caller's word.
                    let (k, v) = unsafe {
                        (row(key, stride, other, group, width), row(value, stride, other, group, width))
                    };
                    let share = (dot(q, k) * self.scale() - sum).exp();
                    let steep = share * (dot(dy, v) - along) * self.scale();
                    let place = of(other, group);
                    for i in 0..width {
                        values[place + i] += share * dy[i].to_f32();
                        keys[place + i] += steep * q[i].to_f32();
                        queries[i] += steep * k[i].to_f32();
                    }
                }
                // SAFETY: the caller's word.
                let to = unsafe { row(dquery, stride, token, head, width) };
                to.iter_mut().zip(queries).for_each(|(to, x)| *to = bf16::from_f32(x));
            }
        });
        for token in 0..sequences * positions {
            for group in 0..groups {
                for (sums, to) in [(&keys, dkey), (&values, dvalue)] {
                    // SAFETY: the caller's word.
                    let to = unsafe { row(to, stride, token, group, width) };
                    to.iter_mut().zip(&sums[of(token, group)..]).for_each(|(to, x)| *to = bf16::from_f32(*x));
                }
            }
        }
        Ok(())
    }
}
