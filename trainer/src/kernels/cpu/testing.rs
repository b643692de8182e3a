//! What the tests of the kernels share: numbers, slopes, and the promise of equal bits.

use super::element::Element;
use super::isa::Isa;

/// Numbers in [-1, 1] that follow no pattern, as they are after rounding to `E`.
pub fn numbers<E: Element>(count: usize, seed: usize) -> Vec<E> {
    (0..count).map(|i| E::nearest(libm::sin((i * i + 5 * i + 13 * seed) as f64 * 0.7) as f32)).collect()
}

/// Their values.
pub fn wide<E: Element>(x: &[E]) -> Vec<f64> {
    x.iter().map(|x| f64::from(x.value())).collect()
}

/// The slopes of `f` at `x` along each coordinate, from four points around it.
pub fn slopes(x: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    const DISTANCE: f64 = 1e-3;
    let mut moved = x.to_vec();
    let mut slope = |i: usize| {
        let mut at = |offset: f64| {
            moved[i] = x[i] + offset * DISTANCE;
            f(&moved)
        };
        let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * DISTANCE);
        moved[i] = x[i];
        slope
    };
    (0..x.len()).map(&mut slope).collect()
}

/// Every element agrees within `tolerance` of the largest.
#[track_caller]
pub fn close<E: Element>(found: &[E], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found.value()) - expected).abs();
        assert!(error <= tolerance * largest, "element {i}: {found:?} against {expected}");
    }
}

/// What a kernel that stores in `E` may be off, of the largest element: half a unit in the last place of bf16 for each
/// rounding to it; a few units of f32 for the arithmetic between.
pub fn tolerance<E: Element>(roundings: f64) -> f64 {
    let unit = if size_of::<E>() == 4 { 1e-6 } else { 1.0 / 256.0 };
    roundings * unit
}

/// The results of `kernel` have the same bits at 1, 2 and 3 threads for every instruction set, and those of all sets
/// that fuse multiplication and addition have the same bits.
#[track_caller]
pub fn same_bits(kernel: impl FnMut(Isa) -> Vec<f32> + Send) {
    same_bits_but(|_| false, kernel);
}

/// As [`same_bits`], for kernels that multiply matrices of `E`: what AVX-512's instruction for bf16 rounds inside differs
/// between makes of CPUs.
#[track_caller]
pub fn same_bits_of_products<E: Element>(kernel: impl FnMut(Isa) -> Vec<f32> + Send) {
    same_bits_but(rounds_its_own_way::<E>, kernel);
}

/// Whether matrices of `E` are multiplied by an instruction whose roundings are its maker's own.
pub fn rounds_its_own_way<E: Element>(isa: Isa) -> bool {
    E::TOGETHER == 2 && isa.multiplies_bf16()
}

#[track_caller]
fn same_bits_but(has_its_own: impl Fn(Isa) -> bool, mut kernel: impl FnMut(Isa) -> Vec<f32> + Send) {
    let mut fused: Option<Vec<u32>> = None;
    for isa in Isa::available() {
        let mut at = |threads: usize| -> Vec<u32> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| kernel(isa)).into_iter().map(f32::to_bits).collect()
        };
        let alone = at(1);
        assert!(at(2) == alone && at(3) == alone, "{}: the number of threads changes bits", isa.name());
        if isa != Isa::PORTABLE && !has_its_own(isa) {
            let first = fused.get_or_insert_with(|| alone.clone());
            assert!(*first == alone, "{}: other bits than AVX2", isa.name());
        }
    }
}

/// Values one after the other.
pub fn joined(parts: &[&[f32]]) -> Vec<f32> {
    parts.concat()
}

/// As f32.
pub fn single<E: Element>(x: &[E]) -> Vec<f32> {
    x.iter().map(|x| x.value()).collect()
}
