//! Each operation in plain candle: the judge of every faster version, on the CPU and on a GPU.
//!
//! The same code runs in f32, which faster versions are held against, and in f64, which is compared with central
//! differences. Where candle's own differentiation would only waste passes over memory, an operation brings its gradient
//! in closed form. How matrices are multiplied is the one thing in which the arithmetic of a run differs: in the type of
//! the tensors ([`Reference`]), or in bf16 ([`Mixed`]), where all the rest stays f32.

use artifacts::job::Precision;
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{sigmoid, softmax_last_dim};
use candle_nn::rotary_emb::rope_thd;

use super::{AdamW, Kernels, Mask, Parameter, Rotary, adjoint, anywhere, inplace, machine};

/// Logits that exist at once in the cross-entropy: rows are taken in groups of at most so many elements, which a core's cache
/// holds.
pub const LOGITS_AT_ONCE: usize = 1 << 20;
/// As many as that on a GPU, which is idle between groups.
pub const LOGITS_AT_ONCE_ON_A_GPU: usize = 1 << 27;

/// Plain candle.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

/// Plain candle, with the products of matrices in bf16: both sides are rounded, sums are taken in f32, and what comes out
/// is rounded once more.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mixed;

/// How matrices are multiplied.
pub trait Products: Send + Sync + 'static {
    /// The word in the kernels' name.
    const NAME: &'static str;
    /// The arithmetic of a run that multiplies so.
    const PRECISION: Precision;

    /// `a b`, over the last two dimensions.
    fn product(a: &Tensor, b: &Tensor) -> Result<Tensor>;
}

impl Products for Reference {
    const NAME: &'static str = "reference";
    const PRECISION: Precision = Precision::F32;

    fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.matmul(b)
    }
}

impl Products for Mixed {
    const NAME: &'static str = "reference-bf16";
    const PRECISION: Precision = Precision::Bf16;

    fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.to_dtype(DType::BF16)?.matmul(&b.to_dtype(DType::BF16)?)?.to_dtype(a.dtype())
    }
}

impl<P: Products> Kernels for P {
    fn name(&self, device: &Device) -> String {
        format!("{}-{}", P::NAME, machine::name(device))
    }

    fn precision(&self) -> Precision {
        P::PRECISION
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
        let y = P::product(&rows, &w.t()?)?.reshape(shape)?;
        let dims = x.dims().to_vec();
        adjoint::binary("linear", (x, weight), y, move |dy| {
            let dy = dy.reshape(((), outputs))?;
            Ok((P::product(&dy, &w)?.reshape(dims.clone())?, P::product(&dy.t()?, &rows)?))
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
        let scores = P::product(&qs, &ks.t()?)?.reshape((b, h, t, s))?;
        let scores = scores.broadcast_add(&mask.additive(q.dtype(), q.device())?)?;
        let p = softmax_last_dim(&scores)?.reshape((group, h / g * t, s))?;
        drop(scores);
        let o = P::product(&p, &vs)?;
        let y = heads_last(&o, t, h)?;
        adjoint::ternary("attention", (q, k, v), y, move |dy| {
            let dy = heads_first(dy, t, h)?;
            let dv = P::product(&p.t()?, &dy)?;
            let along = (&dy * &o)?.sum_keepdim(D::Minus1)?;
            let ds = (&p * P::product(&dy, &vs.t()?)?.broadcast_sub(&along)?)?;
            let dq = P::product(&ds, &ks)?.affine(scale, 0.0)?;
            let dk = P::product(&ds.t()?, &qs)?;
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
        let most = if x.device().is_cpu() { LOGITS_AT_ONCE } else { LOGITS_AT_ONCE_ON_A_GPU };
        let at_once = (most / vocabulary).clamp(1, rows);
        let wants_gradient = x.track_op() || weight.track_op();
        let minus_one = Tensor::full(-1f32, (at_once, 1), x.device())?.to_dtype(x.dtype())?;
        let dw = Tensor::zeros((vocabulary, width), x.dtype(), x.device())?;
        let mut dx = Vec::new();
        let mut loss = Tensor::zeros((), x.dtype(), x.device())?;
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let part = xs.narrow(0, first, count)?;
            let wanted = targets.narrow(0, first, count)?.unsqueeze(1)?.contiguous()?;
            let logits = P::product(&part, &w.t()?)?;
            let p = softmax_last_dim(&logits)?;
            // ln(sum(exp)) = max(logits) - ln(max(p)): never the logarithm of a probability that underflowed.
            let normaliser = (logits.max(D::Minus1)? - p.max(D::Minus1)?.log()?)?;
            let nats = (normaliser - logits.gather(&wanted, 1)?.squeeze(1)?)?;
            loss = (loss + nats.sum_all()?)?;
            if wants_gradient {
                p.scatter_add_set(&wanted, &minus_one.narrow(0, 0, count)?.contiguous()?, 1)?;
                dx.push(P::product(&p, &w)?);
                self.accumulate(&dw, &P::product(&p.t()?, &part)?)?;
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

    fn adamw(&self, update: &AdamW, parameters: &[Parameter<'_>]) -> Result<()> {
        parameters.iter().try_for_each(|parameter| match parameter.values.device() {
            Device::Cpu => inplace::adamw(update, parameter),
            _ => anywhere::adamw(update, parameter),
        })
    }

    fn sum_of_squares(&self, parts: &[Tensor]) -> Result<f64> {
        match parts.first().map(Tensor::device) {
            None => Ok(0.0),
            Some(Device::Cpu) => parts.iter().map(inplace::sum_of_squares).sum(),
            Some(_) => anywhere::sum_of_squares(parts),
        }
    }

    fn accumulate(&self, sum: &Tensor, x: &Tensor) -> Result<()> {
        match sum.device() {
            Device::Cpu => inplace::accumulate(sum, x),
            _ => anywhere::accumulate(sum, x),
        }
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
