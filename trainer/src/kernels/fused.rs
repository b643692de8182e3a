//! The CPU's own kernels behind the seam, over candle's tensors.
//!
//! Each operation is one call of a kernel on slices and one node of candle's graph with its own backward. They are for
//! f32 on the CPU; what is anything else goes to the reference.

mod attention;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use super::cpu::gemm::{Panels, Scratch, Store, product};
use super::cpu::isa::Isa;
use super::cpu::matrix::{Matrix, MatrixMut};
use super::cpu::rope::{Angles, Heads};
use super::cpu::{adamw, cross_entropy, embedding, gemv, norm, rope, swiglu};
use super::slices::{self, view};
use super::{AdamW, Kernels, Mask, Moments, Parameter, Passes, Reference, Rotary, adjoint};

/// The kernels of [`cpu`](super::cpu), on one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    isa: Isa,
}

impl Cpu {
    /// The kernels on `isa`.
    pub fn new(isa: Isa) -> Self {
        Self { isa }
    }
}

impl Default for Cpu {
    /// On the fastest set that this machine has.
    fn default() -> Self {
        Self::new(Isa::best())
    }
}

impl Kernels for Cpu {
    fn name(&self) -> String {
        format!("cpu-{}", self.isa.name())
    }

    fn embedding(&self, weight: &Tensor, tokens: &Tensor) -> Result<Tensor> {
        if !ours(&[weight]) {
            return Reference.embedding(weight, tokens);
        }
        let (sequences, positions) = tokens.dims2()?;
        let (vocabulary, width) = weight.dims2()?;
        let numbers = numbers_below(tokens, vocabulary)?;
        let mut out = vec![0f32; numbers.len() * width];
        let w = weight.contiguous()?;
        embedding::forward(&view(&w)?, width, &numbers, &mut out);
        let y = tensor(out, (sequences, positions, width))?;
        let isa = self.isa;
        adjoint::unary("embedding", weight, y, move |dy| {
            let mut dweight = vec![0f32; vocabulary * width];
            embedding::backward(isa, &view(dy)?, width, &numbers, &mut dweight);
            tensor(dweight, (vocabulary, width))
        })
    }

    fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        if !ours(&[x, weight]) {
            return Reference.linear(x, weight);
        }
        let isa = self.isa;
        let (outputs, inputs) = weight.dims2()?;
        let rows = x.elem_count() / inputs;
        let dims = x.dims().to_vec();
        if dims.last() != Some(&inputs) {
            bail!("linear: {dims:?} does not end with the {inputs} inputs of the weight");
        }
        let mut shape = dims.clone();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let (x_rows, w) = (x.detach().contiguous()?, weight.detach().contiguous()?);
        let mut y = vec![0f32; rows * outputs];
        if rows == 1 {
            gemv::product(isa, &view(&w)?, &view(&x_rows)?, &mut y);
        } else {
            let w = view(&w)?;
            multiply(
                isa,
                Matrix::new(&view(&x_rows)?, rows, inputs),
                Matrix::new(&w, outputs, inputs).transpose(),
                &mut y,
            );
        }
        adjoint::binary("linear", (x, weight), tensor(y, shape)?, move |dy| {
            let (dy, x, w) = (view(dy)?, view(&x_rows)?, view(&w)?);
            let dy = Matrix::new(&dy, rows, outputs);
            let mut dx = vec![0f32; rows * inputs];
            multiply(isa, dy, Matrix::new(&w, outputs, inputs), &mut dx);
            let mut dw = vec![0f32; outputs * inputs];
            multiply(isa, dy.transpose(), Matrix::new(&x, rows, inputs), &mut dw);
            Ok((tensor(dx, dims.clone())?, tensor(dw, (outputs, inputs))?))
        })
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
        if !ours(&[x, weight]) {
            return Reference.rms_norm(x, weight, eps);
        }
        let (rows, w) = (x.contiguous()?, weight.contiguous()?);
        let (stream, width) = (view(&rows)?, weight.dims1()?);
        let mut normed = Normed::empty(stream.len(), width);
        let Normed { unit, scale, out } = &mut normed;
        norm::forward(self.isa, &stream, &view(&w)?, eps as f32, unit, scale, out);
        normed.tracked(self.isa, x, weight)
    }

    fn add_rms_norm(
        &self,
        residual: &Tensor,
        x: &Tensor,
        weight: &Tensor,
        eps: f64,
    ) -> Result<(Tensor, Tensor)> {
        if !ours(&[residual, x, weight]) {
            return Reference.add_rms_norm(residual, x, weight, eps);
        }
        let (x_rows, w) = (x.contiguous()?, weight.contiguous()?);
        let mut sum = residual.flatten_all()?.to_vec1::<f32>()?;
        let mut normed = Normed::empty(sum.len(), weight.dims1()?);
        let Normed { unit, scale, out } = &mut normed;
        let (x_rows, w) = (view(&x_rows)?, view(&w)?);
        norm::add_forward(self.isa, &mut sum, &x_rows, &w, eps as f32, unit, scale, out);
        let sum = tensor(sum, residual.shape())?;
        let sum = adjoint::binary("residual", (residual, x), sum, |dy| Ok((dy.clone(), dy.clone())))?;
        let normed = normed.tracked(self.isa, &sum, weight)?;
        Ok((sum, normed))
    }

    fn rope(&self, x: &Tensor, rotary: &Rotary) -> Result<Tensor> {
        if !ours(&[x, &rotary.cos, &rotary.sin]) {
            return Reference.rope(x, rotary);
        }
        let (isa, rotary) = (self.isa, rotary.clone());
        let y = turned(x, &rotary, |rows, heads, angles| rope::forward(isa, rows, heads, angles))?;
        adjoint::unary("rope", x, y, move |dy| {
            turned(dy, &rotary, |rows, heads, angles| rope::backward(isa, rows, heads, angles))
        })
    }

    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor> {
        // Where only the last positions ask, as in generation, the kernels have no backward.
        let tracked = [q, k, v].iter().any(|x| x.track_op());
        if !ours(&[q, k, v]) || (tracked && q.dim(1)? != k.dim(1)?) {
            return Reference.attention(q, k, v, mask);
        }
        attention::attention(self.isa, q, k, v, mask)
    }

    fn swiglu(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
        if !ours(&[gate, up]) {
            return Reference.swiglu(gate, up);
        }
        let (isa, shape) = (self.isa, gate.shape().clone());
        let (g, u) = (gate.detach().contiguous()?, up.detach().contiguous()?);
        let mut out = vec![0f32; shape.elem_count()];
        swiglu::forward_apart(isa, &view(&g)?, &view(&u)?, &mut out);
        adjoint::binary("swiglu", (gate, up), tensor(out, &shape)?, move |dy| {
            let (mut dgate, mut dup) = (view(&g)?.to_vec(), view(&u)?.to_vec());
            swiglu::backward_apart(isa, &view(dy)?, &mut dgate, &mut dup);
            Ok((tensor(dgate, &shape)?, tensor(dup, &shape)?))
        })
    }

    fn linear_cross_entropy(&self, x: &Tensor, weight: &Tensor, targets: &Tensor) -> Result<Tensor> {
        if !ours(&[x, weight]) {
            return Reference.linear_cross_entropy(x, weight, targets);
        }
        let (rows, width) = x.dims2()?;
        let vocabulary = weight.dim(0)?;
        let numbers = numbers_below(targets, vocabulary)?;
        let wants_gradient = x.track_op() || weight.track_op();
        let mut head = cross_entropy::Head::<f32>::default();
        let w = weight.contiguous()?;
        head.pack(self.isa, Matrix::new(&view(&w)?, vocabulary, width), wants_gradient);
        let (x_rows, mut nats, mut scratch) = (x.contiguous()?, 0.0, cross_entropy::Scratch::default());
        let (mut dx, mut dw) = (Vec::new(), Vec::new());
        let x_rows = view(&x_rows)?;
        if wants_gradient {
            dx.resize(rows * width, 0f32);
            dw.resize(vocabulary * width, 0f32);
            let (isa, scale) = (self.isa, 1.0 / rows as f32);
            cross_entropy::loss_and_gradient(
                isa,
                &x_rows,
                &head,
                &numbers,
                scale,
                &mut nats,
                &mut dx,
                &mut dw,
                &mut scratch,
            );
        } else {
            cross_entropy::loss(self.isa, &x_rows, &head, &numbers, &mut nats, &mut scratch);
        }
        let loss = Tensor::new((nats / rows as f64) as f32, &Device::Cpu)?;
        if !wants_gradient {
            return Ok(loss);
        }
        let (dx, dw) = (tensor(dx, (rows, width))?, tensor(dw, (vocabulary, width))?);
        adjoint::binary("linear-cross-entropy", (x, weight), loss, move |dy| {
            Ok((dx.broadcast_mul(dy)?, dw.broadcast_mul(dy)?))
        })
    }
}

impl Passes for Cpu {
    fn adamw(&self, update: &AdamW, parameters: &[Parameter<'_>]) -> Result<()> {
        let is_ours = |parameter: &Parameter<'_>| {
            let Moments { exp_avg, exp_avg_sq } = parameter.moments;
            ours(&[parameter.values, parameter.gradient, exp_avg, exp_avg_sq])
        };
        if !parameters.iter().all(is_ours) {
            return Reference.adamw(update, parameters);
        }
        let gradients =
            parameters.iter().map(|parameter| parameter.gradient.contiguous()).collect::<Result<Vec<_>>>()?;
        let gradients = gradients.iter().map(view).collect::<Result<Vec<_>>>()?;
        let written: Vec<&Tensor> = parameters
            .iter()
            .flat_map(|Parameter { values, moments, .. }| [values, &moments.exp_avg, &moments.exp_avg_sq])
            .collect();
        slices::write(&written, |opened| {
            let (triples, _) = opened.as_chunks_mut::<3>();
            let mut slots: Vec<_> =
                triples
                    .iter_mut()
                    .zip(&gradients)
                    .zip(parameters)
                    .map(|(([parameter, exp_avg, exp_avg_sq], gradient), Parameter { decays, .. })| {
                        adamw::Slot { parameter, exp_avg, exp_avg_sq, gradient, decays: *decays }
                    })
                    .collect();
            adamw::update(self.isa, update, &mut slots);
            Ok(())
        })
    }

    fn sum_of_squares(&self, parts: &[Tensor]) -> Result<f64> {
        if !parts.iter().all(|part| ours(&[part])) {
            return Reference.sum_of_squares(parts);
        }
        let parts = parts.iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
        let views = parts.iter().map(view).collect::<Result<Vec<_>>>()?;
        let parts: Vec<&[f32]> = views.iter().map(|view| &**view).collect();
        Ok(adamw::sum_of_squares(self.isa, &parts, &mut Vec::new()))
    }

    fn accumulate(&self, sum: &Tensor, x: &Tensor) -> Result<()> {
        if !ours(&[sum, x]) {
            return Reference.accumulate(sum, x);
        }
        let x = x.contiguous()?;
        slices::write(&[sum], |opened| {
            opened.iter_mut().try_for_each(|sum| {
                adamw::add(self.isa, sum, &view(&x)?);
                Ok(())
            })
        })
    }
}

/// What a norm makes, and its backward needs.
struct Normed {
    unit: Vec<f32>,
    scale: Vec<f32>,
    out: Vec<f32>,
}

impl Normed {
    fn empty(length: usize, width: usize) -> Self {
        Self { unit: vec![0.0; length], scale: vec![0.0; length / width], out: vec![0.0; length] }
    }

    /// Its output, whose gradient flows to `x` and `weight`.
    fn tracked(self, isa: Isa, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let Self { unit, scale, out } = self;
        let (y, w) = (tensor(out, x.shape())?, weight.detach().contiguous()?);
        adjoint::binary("rms-norm", (x, weight), y, move |dy| {
            let w = view(&w)?;
            let (mut dx, mut dweight) = (vec![0f32; unit.len()], vec![0f32; w.len()]);
            let partial = &mut Vec::new();
            norm::backward(isa, &view(dy)?, &unit, &scale, &w, &mut dx, &mut dweight, partial);
            let width = dweight.len();
            Ok((tensor(dx, dy.shape())?, tensor(dweight, width)?))
        })
    }
}

/// Whether the tensors are for these kernels.
fn ours(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32 && tensor.device().is_cpu())
}

/// `y = a b`, with memory of its own.
fn multiply(isa: Isa, a: Matrix<'_, f32>, b: Matrix<'_, f32>, y: &mut [f32]) {
    let mut panels = Panels::<f32>::default();
    panels.pack(isa, b);
    let y = MatrixMut::new(y, a.rows(), b.columns());
    product(isa, a, &panels, y, Store::Write, &mut Scratch::default());
}

/// `x` (B, T, heads, hd) after `turn`.
fn turned(x: &Tensor, rotary: &Rotary, turn: impl Fn(&mut [f32], Heads, Angles<'_>)) -> Result<Tensor> {
    let (_, positions, count, width) = x.dims4()?;
    let (cos, sin) = (rotary.cos.contiguous()?, rotary.sin.contiguous()?);
    if cos.dims2()? != (positions, width / 2) || sin.dims() != cos.dims() {
        bail!("rope: the tables are {:?}, but {positions} positions were expected", cos.dims());
    }
    let mut rows = x.flatten_all()?.to_vec1::<f32>()?;
    let angles = Angles { cos: &view(&cos)?, sin: &view(&sin)?, positions };
    turn(&mut rows, Heads { stride: count * width, count, width }, angles);
    tensor(rows, x.shape())
}

/// The numbers of tokens, all below `vocabulary`.
fn numbers_below(tokens: &Tensor, vocabulary: usize) -> Result<Vec<u32>> {
    let numbers = tokens.flatten_all()?.to_vec1::<u32>()?;
    match numbers.iter().find(|number| **number as usize >= vocabulary) {
        Some(number) => bail!("token {number} is outside the vocabulary of {vocabulary} tokens"),
        None => Ok(numbers),
    }
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape: Shape = shape.into();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

#[cfg(test)]
mod tests;
