//! What stands between the products: norms, rotary embedding, SwiGLU, the embedding and the loss.

use candle_core::{D, DType, Device, Result, Tensor, bail};

use super::{Operations, THREADS, blocks_for, threads_for};
use crate::kernels::Rotary;

/// Rows of a norm's weight gradient that are summed apart. Their number decides the order of the sum, so it is the same on
/// every GPU.
pub const PARTS: usize = 512;

/// A norm: what it reads, and what it leaves for its backward. Rows of `width`.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// The residual stream that is normed, f32: (rows, width).
    pub stream: &'a Tensor,
    /// One over its root mean square, f32: (rows).
    pub scales: &'a Tensor,
    /// The norm's weight, f32: (width).
    pub weight: &'a Tensor,
    /// Width of a row.
    pub width: usize,
}

/// Which tokens occur in a batch, and where: what the embedding's gradient is summed by.
#[derive(Debug)]
pub struct Occurrences {
    tokens: Tensor,
    starts: Tensor,
    places: Tensor,
    distinct: usize,
    largest: usize,
    count: usize,
}

impl Occurrences {
    /// Of the tokens at places 0, 1, ..
    ///
    /// # Errors
    /// The device has no memory.
    pub fn new(tokens: &[u32], device: &Device) -> Result<Self> {
        let mut places: Vec<u32> = (0..).take(tokens.len()).collect();
        places.sort_by_key(|place| tokens[*place as usize]);
        let (mut distinct, mut starts) = (Vec::new(), Vec::new());
        for (number, place) in (0..).zip(&places) {
            let token = tokens[*place as usize];
            if distinct.last() != Some(&token) {
                distinct.push(token);
                starts.push(number);
            }
        }
        starts.push(u32::try_from(places.len())?);
        let count = distinct.len();
        let on_device = |numbers: Vec<u32>| {
            let count = numbers.len();
            Tensor::from_vec(numbers, count, device)
        };
        Ok(Self {
            largest: distinct.last().map_or(0, |token| *token as usize),
            count: tokens.len(),
            distinct: count,
            tokens: on_device(distinct)?,
            starts: on_device(starts)?,
            places: on_device(places)?,
        })
    }
}

impl Operations {
    /// `to = from` (f32), in the type of `to`.
    ///
    /// # Errors
    /// Of all operations here: a tensor is too small or of a type that was not expected, or the machine fails.
    pub fn round(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        let (count, width) = (from.elem_count(), from.dim(D::Minus1)?);
        let call = self.call("round").of_type(to.dtype())?.of_width(width);
        let call = call.tensor(from, DType::F32, count)?.tensor(to, to.dtype(), count)?.long(count);
        // SAFETY: (from, to, count), and both have so many.
        unsafe { call.launch((blocks_for(count.div_ceil(4)), 1), THREADS, 0) }
    }

    /// `out` (rows, width) = the rows of `weight` (V, width) at `tokens`, all below V; both f32.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn embedding(&self, weight: &Tensor, tokens: &Tensor, largest: u32, out: &Tensor) -> Result<()> {
        let (vocabulary, width) = weight.dims2()?;
        let rows = tokens.elem_count();
        below(largest as usize, vocabulary)?;
        let call = self.call("embedding_forward").of_width(width);
        let call = call.tensor(weight, DType::F32, vocabulary * width)?;
        let call =
            call.scalars(tokens, DType::U32, rows)?.tensor(out, DType::F32, rows * width)?.int(width)?;
        // SAFETY: (weight, tokens, out, width), a block a token; tokens are below the vocabulary.
        unsafe { call.launch((rows, 1), threads_for(width), 0) }
    }

    /// Adds to `dweight` (V, width) the gradients `dout` (rows, width) at the places of each token; both f32.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn embedding_backward(
        &self,
        dout: &Tensor,
        occurrences: &Occurrences,
        dweight: &Tensor,
    ) -> Result<()> {
        let (vocabulary, width) = dweight.dims2()?;
        let Occurrences { tokens, starts, places, distinct, largest, count } = occurrences;
        below(*largest, vocabulary)?;
        let call = self.call("embedding_backward").of_width(width);
        let call = call.tensor(dout, DType::F32, count * width)?;
        let call = call.scalars(tokens, DType::U32, *distinct)?;
        let call = call.scalars(starts, DType::U32, distinct + 1)?;
        let call = call.scalars(places, DType::U32, *count)?;
        let call = call.tensor(dweight, DType::F32, vocabulary * width)?.int(width)?;
        let strips = width.div_ceil(4 * THREADS as usize);
        // SAFETY: (dout, tokens, starts, places, dweight, width), a block a token that occurs; places are below the rows, and
        // tokens below the vocabulary.
        unsafe { call.launch((*distinct, strips), THREADS, 0) }
    }

    /// The stream, and to it `branch.0` where there is one, which makes `norm.stream` of `branch.1`; `normed` is the norm of
    /// it. Without a branch `norm.stream` is read only.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn norm(
        &self,
        norm: Norm<'_>,
        branch: Option<(&Tensor, &Tensor)>,
        normed: &Tensor,
        rows: usize,
        eps: f32,
    ) -> Result<()> {
        let Norm { stream, scales, weight, width } = norm;
        let (dtype, all) = (normed.dtype(), rows * width);
        let (added, before) = branch.map_or((None, stream), |(added, before)| (Some(added), before));
        let call = self.call("norm_forward").of_type(dtype)?.of_width(width);
        let call = call.tensor(before, DType::F32, all)?.tensor_or_none(added, dtype, all)?;
        let call = call.tensor(weight, DType::F32, width)?.tensor(stream, DType::F32, all)?;
        let call = call.tensor(normed, dtype, all)?;
        let call = call.scalars(scales, DType::F32, rows)?.int(width)?.float(eps);
        // SAFETY: (stream, branch, weight, sum, normed, scales, width, eps), a block a row.
        unsafe { call.launch((rows, 1), threads_for(width), 0) }
    }

    /// `normed` of a norm whose forward was done, to the same bits.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn norm_again(&self, norm: Norm<'_>, normed: &Tensor, rows: usize) -> Result<()> {
        let Norm { stream, scales, weight, width } = norm;
        let (dtype, all) = (normed.dtype(), rows * width);
        let call = self.call("norm_again").of_type(dtype)?.of_width(width);
        let call = call.tensor(stream, DType::F32, all)?.scalars(scales, DType::F32, rows)?;
        let call = call.tensor(weight, DType::F32, width)?.tensor(normed, dtype, all)?.int(width)?;
        // SAFETY: (stream, scales, weight, normed, width), a block a row.
        unsafe { call.launch((rows, 1), threads_for(width), 0) }
    }

    /// Adds to the gradient `dstream` (rows, width) of the stream, f32, what comes through a norm, and leaves it in `rounded`
    /// too. The weight's gradient is written to `dweight`, or added; `partial` is memory of
    /// [`PARTS`] rows.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn norm_backward(
        &self,
        norm: Norm<'_>,
        dnormed: &Tensor,
        (dstream, rounded): (&Tensor, &Tensor),
        (partial, dweight): (&Tensor, &Tensor),
        rows: usize,
        add: bool,
    ) -> Result<()> {
        let Norm { stream, scales, weight, width } = norm;
        let (dtype, all, parts) = (dnormed.dtype(), rows * width, PARTS.min(rows));
        let call = self.call("norm_backward").of_type(dtype)?.of_width(width);
        let call = call.tensor(dnormed, dtype, all)?.tensor(stream, DType::F32, all)?;
        let call = call.scalars(scales, DType::F32, rows)?.tensor(weight, DType::F32, width)?;
        let call = call.tensor(dstream, DType::F32, all)?.tensor(rounded, dtype, all)?;
        let call = call.tensor(partial, DType::F32, parts * width)?.int(rows)?.int(width)?;
        // SAFETY: (dnormed, stream, scales, weight, dstream, rounded, partial, rows, width); shared memory for a row.
        unsafe { call.launch((parts, 1), threads_for(width), width * size_of::<f32>())? };
        let call = self.call("column_sums").tensor(partial, DType::F32, parts * width)?;
        let call = call.tensor(dweight, DType::F32, width)?.int(parts)?.int(width)?.int(usize::from(add))?;
        // SAFETY: (partial, sums, rows, columns, add), 32 columns a block of 32 warps.
        unsafe { call.launch((width.div_ceil(32), 1), 1024, 0) }
    }

    /// Turns the first heads of each row of `rows`, in place, or back: `heads` of them, rows of `stride`, in sequences of
    /// `positions`.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn rope(
        &self,
        memory: &Tensor,
        rotary: &Rotary,
        (rows, positions): (usize, usize),
        (heads, stride): (usize, usize),
        back: bool,
    ) -> Result<()> {
        let dtype = memory.dtype();
        let (known, half) = rotary.cos.dims2()?;
        if known < positions || heads * 2 * half > stride {
            bail!("rope: {positions} positions of {heads} heads in rows of {stride}, but tables of {known}");
        }
        let call = self.call("rope").of_type(dtype)?.tensor(memory, dtype, rows * stride)?;
        let call = call.tensor(&rotary.cos, DType::F32, positions * half)?;
        let call = call.tensor(&rotary.sin, DType::F32, positions * half)?.int(rows)?.int(positions)?;
        let call = call.int(heads)?.int(2 * half)?.int(stride)?.float(if back { -1.0 } else { 1.0 });
        // SAFETY: (rows, cosines, sines, count, positions, heads, head, stride, direction).
        unsafe { call.launch((blocks_for(rows * heads * half), 1), THREADS, 0) }
    }

    /// `out` (rows, inner) = `silu(gate) * up`, side by side in `gate_up` (rows, 2 inner).
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn swiglu(&self, gate_up: &Tensor, out: &Tensor, rows: usize, inner: usize) -> Result<()> {
        let dtype = out.dtype();
        let call = self.call("swiglu_forward").of_type(dtype)?.of_width(inner);
        let call = call.tensor(gate_up, dtype, 2 * rows * inner)?.tensor(out, dtype, rows * inner)?;
        // SAFETY: (gate_up, out, rows, inner).
        unsafe { call.int(rows)?.int(inner)?.launch((blocks_for(rows * inner / 4), 1), THREADS, 0) }
    }

    /// Puts the gradients of gate and up in their places, from that of the output, `dout` (rows, inner).
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn swiglu_backward(&self, dout: &Tensor, gate_up: &Tensor, rows: usize, inner: usize) -> Result<()> {
        let dtype = dout.dtype();
        let call = self.call("swiglu_backward").of_type(dtype)?.of_width(inner);
        let call = call.tensor(dout, dtype, rows * inner)?.tensor(gate_up, dtype, 2 * rows * inner)?;
        // SAFETY: (dout, gate_up, rows, inner).
        unsafe { call.int(rows)?.int(inner)?.launch((blocks_for(rows * inner / 4), 1), THREADS, 0) }
    }

    /// `nats` (rows), f32: the losses of `logits` (rows, V), f32, at `targets`, all below V. Where it is wanted, the gradient of
    /// `scale` times their sum goes to `gradient` (rows, V).
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn cross_entropy(
        &self,
        (logits, vocabulary): (&Tensor, usize),
        (targets, largest): (&Tensor, u32),
        nats: &Tensor,
        gradient: Option<(&Tensor, f32)>,
    ) -> Result<()> {
        let rows = targets.elem_count();
        below(largest as usize, vocabulary)?;
        let dtype = gradient.map_or(DType::F32, |(gradient, _)| gradient.dtype());
        let call = self.call("cross_entropy").of_type(dtype)?;
        let call = call.tensor(logits, DType::F32, rows * vocabulary)?;
        let call = call.scalars(targets, DType::U32, rows)?.tensor(nats, DType::F32, rows)?;
        let call = call.tensor_or_none(gradient.map(|(gradient, _)| gradient), dtype, rows * vocabulary)?;
        let call = call.int(vocabulary)?.float(gradient.map_or(0.0, |(_, scale)| scale));
        // SAFETY: (logits, targets, nats, gradient, vocabulary, scale), a block a row; targets are below the vocabulary.
        unsafe { call.launch((rows, 1), threads_for(vocabulary), 0) }
    }

    /// Adds the first `count` of some f32 numbers to `sum`, one f64.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn add_all(&self, numbers: &Tensor, count: usize, sum: &Tensor) -> Result<()> {
        let call = self.call("add_all").tensor(numbers, DType::F32, count)?;
        let call = call.tensor(sum, DType::F64, 1)?.int(count)?;
        // SAFETY: (numbers, sum, count), one block.
        unsafe { call.launch((1, 1), 1024, 0) }
    }
}

/// Refuses a token outside the vocabulary: a kernel would read and write somewhere else.
fn below(token: usize, vocabulary: usize) -> Result<()> {
    if token >= vocabulary {
        bail!("token {token} is outside the vocabulary of {vocabulary} tokens");
    }
    Ok(())
}
