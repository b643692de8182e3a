//! The values of tensors as plain slices.
//!
//! candle keeps weights, moments and gradients, so that they have names, shapes and files; the CPU's kernels compute on
//! their memory. candle lends the memory of one tensor at a time for writing, and kernels write to many at once: their
//! memory is taken out of them, and put back when the kernel is done.

use std::ops::{Deref, Range};
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CudaStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

/// The values of a tensor that is f32, on the CPU, and in one piece.
pub struct View<S> {
    storage: S,
    range: Range<usize>,
}

/// Opens a tensor for reading.
pub fn view(tensor: &Tensor) -> Result<View<impl Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let range = whole(layout)?;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(all)) if all.len() >= range.end => Ok(View { storage, range }),
        Storage::Cpu(CpuStorage::F32(_)) => bail!("a tensor is read while it is being written"),
        _ => bail!("f32 on the CPU was expected"),
    }
}

impl<S: Deref<Target = Storage>> Deref for View<S> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.range.clone()],
            // Nothing changes the type of a storage; `view` saw it.
            _ => &[],
        }
    }
}

/// Calls `f` with the values of all `tensors`, to be changed: f32, on the CPU, in one piece each. No two may share
/// their memory, and `f` may not open them.
pub fn write<R>(tensors: &[&Tensor], f: impl FnOnce(&mut [&mut [f32]]) -> Result<R>) -> Result<R> {
    let mut taken = Taken { tensors, memory: Vec::with_capacity(tensors.len()) };
    let mut ranges = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let range = whole(tensor.layout())?;
        let memory = exchange(tensor, Vec::new())?;
        let length = memory.len();
        taken.memory.push(memory);
        if length < range.end {
            bail!("a tensor is written twice at once");
        }
        ranges.push(range);
    }
    let mut slices: Vec<&mut [f32]> =
        taken.memory.iter_mut().zip(ranges).map(|(memory, range)| &mut memory[range]).collect();
    f(&mut slices)
}

/// The memory of some tensors, the first ones of `tensors`.
struct Taken<'a> {
    tensors: &'a [&'a Tensor],
    memory: Vec<Vec<f32>>,
}

impl Drop for Taken<'_> {
    /// Puts all back, the last one first: memory that two tensors share was the first one's.
    fn drop(&mut self) {
        while let Some(memory) = self.memory.pop() {
            // It cannot fail where it did not when the memory was taken.
            let _ = exchange(self.tensors[self.memory.len()], memory);
        }
    }
}

/// A tensor that is all of its memory: itself, or a copy where it is a part of a larger one. What brings a tensor from one device
/// to another brings all of its memory.
pub fn alone(tensor: &Tensor) -> Result<Tensor> {
    let (storage, layout) = tensor.storage_and_layout();
    let all = match &*storage {
        Storage::Cpu(CpuStorage::F32(all)) => all.len(),
        Storage::Cuda(all) => elements(all)?,
        _ => bail!("f32 was expected"),
    };
    let is_all = layout.contiguous_offsets() == Some((0, all));
    drop(storage);
    if is_all { Ok(tensor.clone()) } else { tensor.force_contiguous() }
}

#[cfg(feature = "cuda")]
fn elements(storage: &CudaStorage) -> Result<usize> {
    Ok(storage.as_cuda_slice::<f32>()?.len())
}

#[cfg(not(feature = "cuda"))]
fn elements(_: &CudaStorage) -> Result<usize> {
    bail!("this program was built without CUDA")
}

/// Gives a tensor other memory, and takes what it had.
fn exchange(tensor: &Tensor, memory: Vec<f32>) -> Result<Vec<f32>> {
    let exchange = Exchange(Mutex::new(memory));
    tensor.inplace_op1(&exchange)?;
    Ok(exchange.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

struct Exchange(Mutex<Vec<f32>>);

impl InplaceOp1 for Exchange {
    fn name(&self) -> &'static str {
        "exchange"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> Result<()> {
        let CpuStorage::F32(all) = storage else { bail!("f32 on the CPU was expected") };
        std::mem::swap(all, &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

fn whole(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((first, end)) => Ok(first..end),
        None => bail!("a tensor in one piece was expected"),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn all_tensors_are_open_at_once() {
        let tensors: Vec<Tensor> =
            (0..1000).map(|i| Tensor::full(i as f32, (2, 3), &Device::Cpu).unwrap()).collect();
        let all: Vec<&Tensor> = tensors.iter().collect();
        let sum = write(&all, |slices| {
            assert_eq!(slices.len(), 1000);
            for slice in slices.iter_mut() {
                slice[5] += 1.0;
            }
            Ok(slices.iter().map(|slice| slice[0]).sum::<f32>())
        });
        assert_eq!(sum.unwrap(), 999.0 * 500.0);
        let seventh = view(&tensors[7]).unwrap();
        assert_eq!((seventh[4], seventh[5]), (7.0, 8.0));
    }

    #[test]
    fn after_a_failure_the_tensors_have_their_memory() {
        let tensor = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
        let failed: Result<()> = write(&[&tensor], |_| bail!("it did not work"));
        assert!(failed.unwrap_err().to_string().contains("it did not work"));
        let panics = AssertUnwindSafe(|| write::<()>(&[&tensor], |_| panic!("it went wrong")));
        assert!(catch_unwind(panics).is_err());
        assert_eq!(view(&tensor).unwrap()[..], [1.0; 3]);
    }

    #[test]
    fn a_tensor_is_not_opened_twice() {
        let tensor = Tensor::ones((2, 3), DType::F32, &Device::Cpu).unwrap();
        let other = tensor.flatten_all().unwrap();
        let refusal = write(&[&tensor, &other], |_| Ok(())).unwrap_err();
        assert!(refusal.to_string().contains("written twice at once"), "{refusal}");
        let refusal = write(&[&tensor], |_| view(&other).map(|_| ())).unwrap_err();
        assert!(refusal.to_string().contains("read while it is being written"), "{refusal}");
        assert_eq!(view(&tensor).unwrap()[..], [1.0; 6]);
    }

    /// Each tensor was opened inside the one before, which took stack: a model of many layers ended the process.
    #[test]
    fn the_number_of_tensors_takes_no_stack() {
        let tensors: Vec<Tensor> =
            (0..100_000).map(|_| Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap()).collect();
        let all: Vec<&Tensor> = tensors.iter().collect();
        assert_eq!(write(&all, |slices| Ok(slices.len())).unwrap(), 100_000);
    }

    #[test]
    fn other_values_than_f32_in_one_piece_are_refused() {
        let other = Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap();
        let apart = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap().t().unwrap();
        for tensor in [&other, &apart] {
            assert!(view(tensor).is_err());
            assert!(write(&[tensor], |_| Ok(())).is_err());
        }
    }
}
