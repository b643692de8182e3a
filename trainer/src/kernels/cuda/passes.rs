//! The passes over all parameters, each as one launch: they are cut into chunks, and a block takes a chunk, whoever's it is.

use candle_core::{DType, Device, Result, Tensor};

use super::{Operations, THREADS, blocks_for};
use crate::kernels::{AdamW, Parameter, Passes};

/// Elements of a chunk, as `source/parameters.cu` has it.
const CHUNK: usize = 1 << 16;

/// Threads of a block with a chunk.
const OF_A_CHUNK: u32 = 512;

/// A table of parameters, and which chunk is whose.
struct Table {
    parameters: Tensor,
    chunks: Tensor,
    count: usize,
}

impl Operations {
    /// The table of some parameters. Of each: addresses of values, gradient and moments, elements, and whether it decays.
    fn table(&self, entries: Vec<[u64; 6]>, device: &Device) -> Result<Table> {
        let mut chunks = Vec::new();
        for (number, [.., count, _]) in (0u32..).zip(&entries) {
            let of_it = u32::try_from((*count as usize).div_ceil(CHUNK))?;
            chunks.extend((0..of_it).flat_map(|chunk| [number, chunk]));
        }
        let count = chunks.len() / 2;
        // Words of 64 bits: candle has signed ones.
        let words: Vec<i64> = entries.iter().flatten().map(|word| word.cast_signed()).collect();
        let (length, pairs) = (words.len(), chunks.len());
        Ok(Table {
            parameters: Tensor::from_vec(words, length, device)?,
            chunks: Tensor::from_vec(chunks, pairs, device)?,
            count,
        })
    }
}

impl Passes for Operations {
    fn adamw(&self, update: &AdamW, parameters: &[Parameter<'_>]) -> Result<()> {
        let Some(first) = parameters.first() else { return Ok(()) };
        let device = first.values.device();
        let entry = |parameter: &Parameter<'_>| {
            let Parameter { values, gradient, moments, decays } = parameter;
            let count = values.elem_count();
            let address = |tensor: &Tensor| self.memory(tensor, DType::F32, count);
            let (first, second) = (address(&moments.exp_avg)?, address(&moments.exp_avg_sq)?);
            Ok([address(values)?, address(gradient)?, first, second, count as u64, u64::from(*decays)])
        };
        let table = self.table(parameters.iter().map(entry).collect::<Result<_>>()?, device)?;
        let numbers = [
            update.beta1,
            (1.0 - update.beta1) * update.gradient_scale,
            update.beta2,
            1.0 - update.beta2,
            update.gradient_scale,
            1.0,
            1.0 - update.learning_rate * update.weight_decay,
            update.learning_rate / update.correction1,
            update.correction2.sqrt(),
            update.eps,
        ];
        let numbers = Tensor::from_vec(numbers.map(|number| number as f32).to_vec(), numbers.len(), device)?;
        let call = self.call("adamw").tensor(&table.parameters, DType::I64, 6 * parameters.len())?;
        let call = call.tensor(&table.chunks, DType::U32, 2 * table.count)?;
        let call = call.tensor(&numbers, DType::F32, 10)?;
        // SAFETY: (parameters, chunks, update), a block a chunk; each address is of a tensor of so many elements, which live
        // until the call: memory is given back in the order of the work.
        unsafe { call.launch((table.count, 1), OF_A_CHUNK, 0) }
    }

    fn sum_of_squares(&self, parts: &[Tensor]) -> Result<f64> {
        let Some(first) = parts.first() else { return Ok(0.0) };
        let entry = |part: &Tensor| {
            let count = part.elem_count();
            Ok([0, self.memory(part, DType::F32, count)?, 0, 0, count as u64, 0])
        };
        let table = self.table(parts.iter().map(entry).collect::<Result<_>>()?, first.device())?;
        let sums = Tensor::zeros(table.count, DType::F64, first.device())?;
        let call = self.call("squares").tensor(&table.parameters, DType::I64, 6 * parts.len())?;
        let call = call.tensor(&table.chunks, DType::U32, 2 * table.count)?;
        let call = call.tensor(&sums, DType::F64, table.count)?;
        // SAFETY: (parameters, chunks, sums), a block a chunk; of a parameter only the gradient is read.
        unsafe { call.launch((table.count, 1), OF_A_CHUNK, 0)? };
        Ok(sums.to_vec1::<f64>()?.iter().sum())
    }

    fn accumulate(&self, sum: &Tensor, x: &Tensor) -> Result<()> {
        let count = sum.elem_count();
        let call = self.call("accumulate").tensor(sum, DType::F32, count)?;
        let call = call.tensor(x, DType::F32, count)?.long(count);
        // SAFETY: (sum, x, count), and both have so many.
        unsafe { call.launch((blocks_for(count), 1), THREADS, 0) }
    }
}
