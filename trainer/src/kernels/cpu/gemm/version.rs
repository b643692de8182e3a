//! Which tiles compute a product.

use std::any::TypeId;

use half::bf16;

use super::super::element::Element;
use super::super::isa::{Isa, Kind};
use super::micro::Kernels;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Those of an instruction set for elements of type `E`.
pub(super) fn kernels<E: Element>(isa: Isa) -> Kernels {
    let halves = TypeId::of::<E>() == TypeId::of::<bf16>();
    assert!(halves || TypeId::of::<E>() == TypeId::of::<f32>(), "an element of a product is f32 or bf16");
    match isa.kind() {
        Kind::Portable if halves => portable::BF16,
        Kind::Portable => portable::F32,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 if halves => avx2::BF16,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => avx2::F32,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 if halves && isa.multiplies_bf16() => avx512::BF16,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 if halves => avx512::BF16_WIDENED,
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => avx512::F32,
    }
}
