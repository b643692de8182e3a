//! The values of tensors as plain slices.
//!
//! candle keeps weights, moments and gradients, so that they have names, shapes and files; the CPU's kernels compute on
//! their memory. candle lends the memory of one tensor at a time for writing, so many are opened one inside the other.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};

/// The values of a tensor that is f32, on the CPU, and in one piece.
pub struct View<S> {
    storage: S,
    first: usize,
    end: usize,
}

/// Opens a tensor for reading.
pub fn view(tensor: &Tensor) -> Result<View<impl Deref<Target = Storage> + '_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let (first, end) = whole(layout)?;
    match &*storage {
        Storage::Cpu(CpuStorage::F32(_)) => Ok(View { storage, first, end }),
        _ => bail!("f32 on the CPU was expected"),
    }
}

impl<S: Deref<Target = Storage>> Deref for View<S> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(all)) => &all[self.first..self.end],
            // Nothing changes the type of a storage; `view` saw it.
            _ => &[],
        }
    }
}

/// Calls `f` with the values of all `tensors`, to be changed: f32, on the CPU, in one piece each. No two may share
/// their memory.
pub fn write<R>(tensors: &[&Tensor], f: impl FnOnce(&mut [&mut [f32]]) -> Result<R>) -> Result<R> {
    open(tensors, Vec::with_capacity(tensors.len()), f)
}

fn open<R, F>(tensors: &[&Tensor], mut opened: Vec<&mut [f32]>, f: F) -> Result<R>
where
    F: FnOnce(&mut [&mut [f32]]) -> Result<R>,
{
    let Some((first, rest)) = tensors.split_first() else { return f(&mut opened) };
    let inside = Opening { rest, state: Mutex::new(State::Before(opened, f)) };
    first.inplace_op1(&inside)?;
    match inside.state.into_inner().unwrap_or_else(PoisonError::into_inner) {
        State::After(result) => Ok(result),
        State::Before(..) | State::Between => bail!("a tensor was not opened"),
    }
}

/// One level: a tensor is open, the rest are opened inside.
struct Opening<'t, 'a, F, R> {
    rest: &'t [&'t Tensor],
    state: Mutex<State<'a, F, R>>,
}

enum State<'a, F, R> {
    Before(Vec<&'a mut [f32]>, F),
    Between,
    After(R),
}

impl<R, F: FnOnce(&mut [&mut [f32]]) -> Result<R>> InplaceOp1 for Opening<'_, '_, F, R> {
    fn name(&self) -> &'static str {
        "open"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let state = std::mem::replace(&mut *self.lock(), State::Between);
        let State::Before(mut opened, f) = state else { bail!("a tensor was opened twice") };
        let CpuStorage::F32(all) = storage else { bail!("f32 on the CPU was expected") };
        let (first, end) = whole(layout)?;
        opened.push(&mut all[first..end]);
        let result = open(self.rest, opened, f)?;
        *self.lock() = State::After(result);
        Ok(())
    }
}

impl<'a, F, R> Opening<'_, 'a, F, R> {
    fn lock(&self) -> MutexGuard<'_, State<'a, F, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn whole(layout: &Layout) -> Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(range) => Ok(range),
        None => bail!("a tensor in one piece was expected"),
    }
}

#[cfg(test)]
mod tests {
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
    fn a_failure_inside_comes_out() {
        let tensor = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        let failed: Result<()> = write(&[&tensor], |_| bail!("it did not work"));
        assert!(failed.unwrap_err().to_string().contains("it did not work"));
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
