//! A value that brings its own backward.
//!
//! candle differentiates through every small operation on its own: each saves its result, and each gradient costs a
//! tensor of zeros and an addition. A few operations written with their closed-form gradient avoid most of that, and
//! may use candle's fused forward operations, which have no gradient themselves. Forward and backward are both plain
//! tensor code; only the graph's edge between them is made here.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};

/// A computed value, and what gives the gradients of its arguments from the gradient of the value.
struct Adjoint<B> {
    name: &'static str,
    /// Taken when the graph's node is made, which holds a copy: keeping both would double the memory.
    value: Mutex<Option<Tensor>>,
    backward: B,
}

impl<B> Adjoint<B> {
    fn new(name: &'static str, value: &Tensor, backward: B) -> Self {
        Self { name, value: Mutex::new(Some(value.detach())), backward }
    }

    fn value(&self) -> Result<(CpuStorage, Shape)> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(value) = value else { bail!("{}: its value was taken before", self.name) };
        let value = value.contiguous()?;
        let (storage, layout) = value.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(all)), Some((first, end))) => {
                Ok((CpuStorage::F32(all[first..end].to_vec()), layout.shape().clone()))
            }
            (Storage::Cpu(CpuStorage::F64(all)), Some((first, end))) => {
                Ok((CpuStorage::F64(all[first..end].to_vec()), layout.shape().clone()))
            }
            _ => bail!("{}: only f32 and f64 on the CPU", self.name),
        }
    }
}

/// `value`, whose gradient flows to `x` through `backward`.
pub(super) fn unary<B>(name: &'static str, x: &Tensor, value: Tensor, backward: B) -> Result<Tensor>
where
    B: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() {
        return Ok(value);
    }
    x.apply_op1(Adjoint::new(name, &value, backward))
}

/// `value`, whose gradient flows to `x` and `y` through `backward`.
pub(super) fn binary<B>(
    name: &'static str,
    (x, y): (&Tensor, &Tensor),
    value: Tensor,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor) -> Result<(Tensor, Tensor)> + Send + Sync + 'static,
{
    if !x.track_op() && !y.track_op() {
        return Ok(value);
    }
    x.apply_op2(y, Adjoint::new(name, &value, backward))
}

/// `value`, whose gradient flows to `x`, `y` and `z` through `backward`.
pub(super) fn ternary<B>(
    name: &'static str,
    (x, y, z): (&Tensor, &Tensor, &Tensor),
    value: Tensor,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor) -> Result<(Tensor, Tensor, Tensor)> + Send + Sync + 'static,
{
    if !x.track_op() && !y.track_op() && !z.track_op() {
        return Ok(value);
    }
    x.apply_op3(y, z, Adjoint::new(name, &value, backward))
}

impl<B: Fn(&Tensor) -> Result<Tensor>> CustomOp1 for Adjoint<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let dx = (self.backward)(&gradient.contiguous()?)?;
        Ok(x.track_op().then_some(dx))
    }
}

impl<B: Fn(&Tensor) -> Result<(Tensor, Tensor)>> CustomOp2 for Adjoint<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value()
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dy) = (self.backward)(&gradient.contiguous()?)?;
        Ok((x.track_op().then_some(dx), y.track_op().then_some(dy)))
    }
}

impl<B: Fn(&Tensor) -> Result<(Tensor, Tensor, Tensor)>> CustomOp3 for Adjoint<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.value()
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dy, dz) = (self.backward)(&gradient.contiguous()?)?;
        Ok((x.track_op().then_some(dx), y.track_op().then_some(dy), z.track_op().then_some(dz)))
    }
}
