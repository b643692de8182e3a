//! Each operation in plain candle: the judge of every faster version.
//!
//! The same code runs in f32, which faster versions are held against, and in f64, which is compared with central
//! differences. Where candle's own differentiation would only waste passes over memory, an operation brings its gradient
//! in closed form.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::{sigmoid, softmax_last_dim};
use candle_nn::rotary_emb::rope_thd;

use super::cpu::isa::Isa;
use super::{AdamW, Kernels, Mask, Parameter, Passes, Rotary, adjoint, inplace};

/// Logits that exist at once in the cross-entropy: rows are taken in groups of at most so many elements.
const LOGITS_AT_ONCE: usize = 1 << 20;

/// Plain candle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

impl Kernels for Reference {
    fn name(&self) -> String {
        format!("reference-{}", Isa::best().name())
    }

    fn embedding(&self, weight: &Tensor, tokens: &Tensor) -> Result<Tensor> {
        let (sequences, positions) = tokens.dims2()?;
        let width = weight.dim(1)?;
        weight.index_select(&tokens.flatten_all()?, 0)?.reshape((sequences, positions, width))
    }

    fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = weight.dims2()?;
        let mut shape = x.dims().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let (rows, w) = (x.detach().reshape(((), inputs))?, weight.detach());
        let y = rows.matmul(&w.t()?)?.reshape(shape)?;
        let dims = x.dims().to_vec();
        adjoint::binary("linear", (x, weight), y, move |dy| {
            let dy = dy.reshape(((), outputs))?;
            Ok((dy.matmul(&w)?.reshape(dims.clone())?, dy.t()?.matmul(&rows)?))
        })
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        let width = weight.dims1()?;
        let dims = x.dims().to_vec();
        let (rows, w) = (x.detach().reshape(((), width))?, weight.detach());
        let scale = mean(&rows.sqr()?, width)?.affine(1.0, eps)?.sqrt()?.recip()?;
        let unit = rows.broadcast_mul(&scale)?;
        let y = unit.broadcast_mul(&w)?.reshape(dims.clone())?;
        adjoint::binary("rms-norm", (x, weight), y, move |dy| {
            let dy = dy.reshape(((), width))?;
            let dw = sum_of_rows(&(&dy * &unit)?)?;
            let g = dy.broadcast_mul(&w)?;
            let along = unit.broadcast_mul(&mean(&(&g * &unit)?, width)?)?;
            let dx = (g - along)?.broadcast_mul(&scale)?;
            Ok((dx.reshape(dims.clone())?, dw))
        })
    }

    fn rope(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        let Rotary { cos, sin } = rotary.clone();
        let y = rope_thd(&x.detach(), &cos, &sin)?;
        // A rotation's transpose turns the other way.
        adjoint::unary("rope", x, y, move |dy| rope_thd(dy, &cos, &sin.neg()?))
    }

    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor> {
        let (b, t, h, hd) = q.dims4()?;
        let (_, s, g, _) = k.dims4()?;
        let scale = 1.0 / (hd as f64).sqrt();
        // The h / g heads of a group stand below each other, so that keys and values are never repeated.
        let group = b * g;
        let heads_first = move |x: &Tensor, positions: usize, heads: usize| {
            x.transpose(1, 2)?.contiguous()?.reshape((group, heads / g * positions, hd))
        };
        let heads_last = move |x: &Tensor, positions: usize, heads: usize| {
            x.reshape((b, heads, positions, hd))?.transpose(1, 2)?.contiguous()
        };
        let qs = heads_first(&q.detach(), t, h)?.affine(scale, 0.0)?;
        let ks = heads_first(&k.detach(), s, g)?;
        let vs = heads_first(&v.detach(), s, g)?;
        let scores = qs.matmul(&ks.t()?)?.reshape((b, h, t, s))?;
        let scores = scores.broadcast_add(&mask.additive(q.dtype(), q.device())?)?;
        let p = softmax_last_dim(&scores)?.reshape((group, h / g * t, s))?;
        drop(scores);
        let o = p.matmul(&vs)?;
        let y = heads_last(&o, t, h)?;
        adjoint::ternary("attention", (q, k, v), y, move |dy| {
            let dy = heads_first(dy, t, h)?;
            let dv = p.t()?.matmul(&dy)?;
            let along = (&dy * &o)?.sum_keepdim(D::Minus1)?;
            let ds = (&p * dy.matmul(&vs.t()?)?.broadcast_sub(&along)?)?;
            let dq = ds.matmul(&ks)?.affine(scale, 0.0)?;
            let dk = ds.t()?.matmul(&qs)?;
            Ok((heads_last(&dq, t, h)?, heads_last(&dk, s, g)?, heads_last(&dv, s, g)?))
        })
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        let (g, u) = (gate.detach(), up.detach());
        let s = sigmoid(&g)?;
        let silu = (&g * &s)?;
        let y = (&silu * &u)?;
        adjoint::binary("swiglu", (gate, up), y, move |dy| {
            // d silu / dg = s + silu * (1 - s)
            let slope = (&s + (&silu - (&silu * &s)?)?)?;
            Ok(((dy * &u)?.mul(&slope)?, (dy * &silu)?))
        })
    }

    fn linear_cross_entropy(&self, x: &Tensor, weight: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let vocabulary = weight.dim(0)?;
        let (xs, w) = (x.detach(), weight.detach());
        let at_once = (LOGITS_AT_ONCE / vocabulary).clamp(1, rows);
        let wants_gradient = x.track_op() || weight.track_op();
        let minus_one = Tensor::full(-1f32, (at_once, 1), x.device())?.to_dtype(x.dtype())?;
        let dw = Tensor::zeros((vocabulary, width), x.dtype(), x.device())?;
        let mut dx = Vec::new();
        let mut loss = Tensor::zeros((), x.dtype(), x.device())?;
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let part = xs.narrow(0, first, count)?;
            let wanted = targets.narrow(0, first, count)?.unsqueeze(1)?.contiguous()?;
            let logits = part.matmul(&w.t()?)?;
            let p = softmax_last_dim(&logits)?;
            // ln(sum(exp)) = max(logits) - ln(max(p)): never the logarithm of a probability that underflowed.
            let normaliser = (logits.max(D::Minus1)? - p.max(D::Minus1)?.log()?)?;
            let nats = (normaliser - logits.gather(&wanted, 1)?.squeeze(1)?)?;
            loss = (loss + nats.sum_all()?)?;
            if wants_gradient {
                p.scatter_add_set(&wanted, &minus_one.narrow(0, 0, count)?.contiguous()?, 1)?;
                dx.push(p.matmul(&w)?);
                self.accumulate(&dw, &p.t()?.matmul(&part)?)?;
            }
        }
        let mean = 1.0 / rows as f64;
        let loss = loss.affine(mean, 0.0)?;
        if !wants_gradient {
            return Ok(loss);
        }
        let dx = Tensor::cat(&dx, 0)?;
        adjoint::binary("linear-cross-entropy", (x, weight), loss, move |dy| {
            let dy = dy.affine(mean, 0.0)?;
            Ok((dx.broadcast_mul(&dy)?, dw.broadcast_mul(&dy)?))
        })
    }
}

impl Passes for Reference {
    fn adamw(&self, update: &AdamW, parameters: &[Parameter<'_>]) -> Result<()> {
        parameters.iter().try_for_each(|parameter| inplace::adamw(update, parameter))
    }

    fn sum_of_squares(&self, parts: &[Tensor]) -> Result<f64> {
        parts.iter().map(inplace::sum_of_squares).sum()
    }

    fn accumulate(&self, sum: &Tensor, x: &Tensor) -> Result<()> {
        inplace::accumulate(sum, x)
    }
}

/// Mean over the last dimension, kept.
fn mean(x: &Tensor, width: usize) -> Result<Tensor> {
    x.sum_keepdim(D::Minus1)?.affine(1.0 / width as f64, 0.0)
}

/// Sum of the rows of (N, D), as a product: candle's own sum over a first dimension divides for every element.
fn sum_of_rows(x: &Tensor) -> Result<Tensor> {
    let rows = x.dim(0)?;
    Tensor::ones((1, rows), x.dtype(), x.device())?.matmul(x)?.squeeze(0)
}
