//! Products against their definition, to the bit where the order of the sums is the promise.

use half::bf16;
use rayon::ThreadPoolBuilder;

use super::super::element::Element;
use super::super::isa::{Fused, Isa, Separate, Version};
use super::super::matrix::{Matrix, MatrixMut};
use super::super::testing::rounds_its_own_way;
use super::{BLOCK, Panels, Scratch, Store, product, product_alone};

/// Every remainder of groups, panels, units and blocks: (rows, columns, inner).
const SHAPES: [(usize, usize, usize); 21] = [
    (1, 1, 1),
    (1, 16, 2),
    (2, 33, 3),
    (3, 8, 0),
    (4, 7, 5),
    (5, 31, 8),
    (6, 32, 9),
    (7, 17, 16),
    (8, 100, 33),
    (9, 15, 255),
    (10, 24, 256),
    (11, 9, 257),
    (12, 64, 64),
    (13, 65, 127),
    (23, 40, 512),
    (25, 47, 513),
    (64, 64, 32),
    (97, 130, 61),
    (200, 70, 300),
    (30, 600, 130),
    (1100, 9, 300),
];

/// Numbers of an element's own, within (-1, 1).
fn numbers<E: Element>(count: usize, seed: u32) -> Vec<E> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        E::nearest((state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A matrix of numbers in which rows (columns where it is `transposed`) are some elements apart.
struct Owned<E> {
    data: Vec<E>,
    rows: usize,
    columns: usize,
    transposed: bool,
}

const GAP: usize = 3;

impl<E: Element> Owned<E> {
    fn new(rows: usize, columns: usize, transposed: bool, seed: u32) -> Self {
        let (lines, length) = if transposed { (columns, rows) } else { (rows, columns) };
        Self { data: numbers(lines * (length + GAP), seed), rows, columns, transposed }
    }

    fn view(&self) -> Matrix<'_, E> {
        if self.transposed {
            Matrix::strided(&self.data, self.columns, self.rows, self.rows + GAP).transpose()
        } else {
            Matrix::strided(&self.data, self.rows, self.columns, self.columns + GAP)
        }
    }

    fn at(&self, i: usize, j: usize) -> E {
        if self.transposed {
            self.data[j * (self.rows + GAP) + i]
        } else {
            self.data[i * (self.columns + GAP) + j]
        }
    }
}

/// An element of the result as the promised chain of sums computes it.
fn chain<E: Element, O: Element>(isa: Isa, a: &[E], b: &[E], c: O, store: Store) -> O {
    let fused = isa != Isa::PORTABLE;
    let mul_add = |x: E, y: E, sum: f32| {
        let multiply = if fused { Fused::mul_add } else { Separate::mul_add };
        multiply(x.value(), y.value(), sum)
    };
    let mut result = if store == Store::Add { c.value() } else { 0.0 };
    for (index, (a, b)) in a.chunks(BLOCK).zip(b.chunks(BLOCK)).enumerate() {
        let mut sum = 0f32;
        for (a, b) in a.chunks(E::TOGETHER).zip(b.chunks(E::TOGETHER)) {
            for (x, y) in a.iter().zip(b).rev() {
                sum = mul_add(*x, *y, sum);
            }
        }
        result = if index == 0 && store == Store::Write { sum } else { result + sum };
    }
    O::nearest(result)
}

/// One product in every version, by all threads and by one, against the chain's bits and the f64 definition.
struct Case {
    shape: (usize, usize, usize),
    transposed: (bool, bool),
    store: Store,
}

impl Case {
    fn check<E: Element, O: Element>(&self, isa: Isa, memory: &mut (Panels<E>, Scratch<E>)) {
        let (rows, columns, inner) = self.shape;
        let a = Owned::<E>::new(rows, inner, self.transposed.0, 1);
        let b = Owned::<E>::new(inner, columns, self.transposed.1, 2);
        let stride = columns + GAP;
        let before = numbers::<O>(rows * stride, 3);
        let (panels, scratch) = memory;
        panels.pack(isa, b.view());
        let mut by_all = before.clone();
        product(
            isa,
            a.view(),
            panels,
            MatrixMut::strided(&mut by_all, rows, columns, stride),
            self.store,
            scratch,
        );
        panels.pack_alone(isa, b.view());
        let mut alone = before.clone();
        let c = MatrixMut::strided(&mut alone, rows, columns, stride);
        product_alone(isa, a.view(), panels, c, self.store, scratch);
        assert_eq!(by_all, alone);
        for i in 0..rows {
            let left: Vec<E> = (0..inner).map(|p| a.at(i, p)).collect();
            for j in 0..columns {
                let right: Vec<E> = (0..inner).map(|p| b.at(p, j)).collect();
                let (found, old) = (by_all[i * stride + j], before[i * stride + j]);
                let name =
                    format!("{} {:?} {:?} {:?} {i} {j}", isa.name(), self.shape, self.transposed, self.store);
                if !rounds_its_own_way::<E>(isa) {
                    assert_eq!(found, chain(isa, &left, &right, old, self.store), "{name}");
                }
                self.check_value(&left, &right, old, found, &name);
            }
            assert_eq!(by_all[i * stride + columns..][..GAP], before[i * stride + columns..][..GAP]);
        }
    }

    fn check_value<E: Element, O: Element>(&self, a: &[E], b: &[E], old: O, found: O, name: &str) {
        let old = if self.store == Store::Add { f64::from(old.value()) } else { 0.0 };
        let products = || a.iter().zip(b).map(|(a, b)| f64::from(a.value()) * f64::from(b.value()));
        let expected = old + products().sum::<f64>();
        let size = old.abs() + products().map(f64::abs).sum::<f64>();
        let rounding = f64::from(O::nearest(1.004).value() - 1.004).abs().max(f64::from(f32::EPSILON));
        let error = (f64::from(found.value()) - expected).abs();
        let bound = size * (a.len() + 2) as f64 * f64::from(f32::EPSILON) + 2.0 * rounding * expected.abs();
        assert!(error <= bound, "{name}: {} instead of {expected}", found.value());
    }
}

fn check_all<E: Element, O: Element>() {
    for isa in Isa::available() {
        let mut memory = (Panels::default(), Scratch::default());
        for shape in SHAPES {
            for transposed in [(false, false), (false, true), (true, false), (true, true)] {
                for store in [Store::Write, Store::Add] {
                    Case { shape, transposed, store }.check::<E, O>(isa, &mut memory);
                }
            }
        }
    }
}

#[test]
fn products_of_f32_are_the_chain_of_their_definition() {
    check_all::<f32, f32>();
}

#[test]
fn products_of_bf16_are_the_chain_of_their_definition() {
    check_all::<bf16, bf16>();
}

#[test]
fn products_of_bf16_are_kept_in_f32_where_that_is_asked() {
    check_all::<bf16, f32>();
}

#[test]
fn products_of_f32_are_rounded_once_where_bf16_is_asked() {
    check_all::<f32, bf16>();
}

/// Whole numbers of few bits, whose products and sums no rounding changes: whatever an instruction does inside, each
/// element meets its partner.
#[test]
fn products_of_whole_numbers_are_exact() {
    fn check<E: Element>(isa: Isa) {
        let whole = |count: usize, seed: usize| -> Vec<E> {
            (0..count).map(|i| E::nearest(((i * i + 3 * i + seed) % 17) as f32 - 8.0)).collect()
        };
        for (rows, columns, inner) in [(1, 1, 1), (13, 33, 7), (97, 70, 300), (25, 513, 2 * BLOCK + 77)] {
            let (a, b) = (whole(rows * inner, 1), whole(inner * columns, 2));
            let (mut panels, mut c) = (Panels::<E>::default(), vec![0f32; rows * columns]);
            panels.pack(isa, Matrix::new(&b, inner, columns));
            let (left, to) = (Matrix::new(&a, rows, inner), MatrixMut::new(&mut c, rows, columns));
            product(isa, left, &panels, to, Store::Write, &mut Scratch::default());
            for (at, found) in c.iter().enumerate() {
                let (i, j) = (at / columns, at % columns);
                let sum: f64 = (0..inner)
                    .map(|p| f64::from(a[i * inner + p].value()) * f64::from(b[p * columns + j].value()))
                    .sum();
                assert_eq!(f64::from(*found), sum, "{} {rows} x {columns} x {inner}: {i} {j}", isa.name());
            }
        }
    }
    for isa in Isa::available() {
        check::<f32>(isa);
        check::<bf16>(isa);
    }
}

fn bits<E: Element, O: Element>(isa: Isa, threads: usize) -> Vec<O> {
    let (rows, columns, inner) = (301, 1070, 333);
    let a = Owned::<E>::new(rows, inner, true, 1);
    let b = Owned::<E>::new(inner, columns, true, 2);
    let mut c = numbers::<O>(rows * columns, 3);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| {
        let mut panels = Panels::default();
        panels.pack(isa, b.view());
        let matrix = MatrixMut::new(&mut c, rows, columns);
        product(isa, a.view(), &panels, matrix, Store::Add, &mut Scratch::default());
    });
    c
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for isa in Isa::available() {
        for threads in [2, 3] {
            assert_eq!(bits::<f32, f32>(isa, 1), bits::<f32, f32>(isa, threads));
            assert_eq!(bits::<bf16, bf16>(isa, 1), bits::<bf16, bf16>(isa, threads));
        }
    }
}

#[test]
fn versions_that_fuse_compute_equal_bits() {
    let all: Vec<Vec<f32>> = Isa::available().into_iter().map(|isa| bits::<f32, f32>(isa, 1)).collect();
    assert!(all[1..].windows(2).all(|pair| pair[0] == pair[1]));
}

fn splits<E: Element>(isa: Isa) {
    let (rows, columns, inner) = (50, 70, 2 * BLOCK + 77);
    let a = Owned::<E>::new(rows, inner, true, 1);
    let b = Owned::<E>::new(inner, columns, false, 2);
    let (mut panels, mut scratch) = (Panels::default(), Scratch::default());
    let mut whole = vec![0f32; rows * columns];
    panels.pack(isa, b.view());
    product(isa, a.view(), &panels, MatrixMut::new(&mut whole, rows, columns), Store::Write, &mut scratch);
    let mut parts = vec![0f32; rows * columns];
    for from in (0..inner).step_by(BLOCK) {
        let inner = BLOCK.min(inner - from);
        let a = Matrix::strided(&a.data[from * (rows + GAP)..], inner, rows, rows + GAP).transpose();
        let b = Matrix::strided(&b.data[from * (columns + GAP)..], inner, columns, columns + GAP);
        panels.pack(isa, b);
        product(isa, a, &panels, MatrixMut::new(&mut parts, rows, columns), Store::Add, &mut scratch);
    }
    assert_eq!(whole, parts);
}

#[test]
fn a_product_cut_at_blocks_has_the_bits_of_one_call() {
    for isa in Isa::available() {
        splits::<f32>(isa);
        splits::<bf16>(isa);
    }
}

/// Where a transposed operand lies decides how it is read, and nothing else: in place; packed, as the product has many
/// columns, in one part for each block; packed, as its rows are a kibibyte apart.
#[test]
fn a_transposed_operand_gives_the_bits_of_its_copy() {
    for isa in Isa::available() {
        for (rows, columns, inner) in [(2100, 40, 333), (2100, 353, 2 * BLOCK + 77), (253, 40, 300)] {
            let a = Owned::<f32>::new(rows, inner, true, 1);
            let copy: Vec<f32> = (0..rows * inner).map(|i| a.at(i / inner, i % inner)).collect();
            let mut panels = Panels::default();
            panels.pack(isa, Owned::<f32>::new(inner, columns, false, 2).view());
            let [transposed, copied] = [a.view(), Matrix::new(&copy, rows, inner)].map(|a| {
                let mut c = numbers::<f32>(rows * columns, 3);
                let to = MatrixMut::new(&mut c, rows, columns);
                product(isa, a, &panels, to, Store::Add, &mut Scratch::default());
                c
            });
            assert_eq!(transposed, copied, "{rows} x {columns} x {inner}");
        }
    }
}

#[test]
fn packing_rounds_f32_to_the_nearest_bf16() {
    for isa in Isa::available() {
        for transposed in [false, true] {
            let (rows, columns, inner) = (10, 50, 101);
            let b = Owned::<f32>::new(inner, columns, transposed, 2);
            let rounded = b.data.iter().map(|x| bf16::nearest(*x)).collect();
            let rounded = Owned::<bf16> { data: rounded, rows: inner, columns, transposed };
            let a = numbers::<bf16>(rows * inner, 1);
            let results =
                [&mut |panels: &mut Panels<bf16>| panels.pack(isa, b.view()), &mut |panels: &mut Panels<
                    bf16,
                >| {
                    panels.pack(isa, rounded.view());
                }] as [&mut dyn FnMut(&mut Panels<bf16>); 2];
            let results = results.map(|pack| {
                let (mut panels, mut c) = (Panels::default(), vec![0f32; rows * columns]);
                pack(&mut panels);
                let to = MatrixMut::new(&mut c, rows, columns);
                let a = Matrix::new(&a, rows, inner);
                product(isa, a, &panels, to, Store::Write, &mut Scratch::default());
                c
            });
            assert_eq!(results[0], results[1]);
        }
    }
}

#[test]
fn memory_of_panels_is_kept() {
    let mut panels = Panels::<f32>::default();
    let b = numbers::<f32>(100 * 100, 1);
    panels.pack(Isa::best(), Matrix::new(&b, 100, 100));
    let bytes = panels.bytes();
    // Whole panels, however wide those of this machine are.
    assert_eq!(bytes, 100_usize.next_multiple_of(panels.width()) * 100 * size_of::<f32>());
    panels.pack(Isa::best(), Matrix::new(&b, 10, 10));
    assert_eq!(panels.bytes(), bytes);
}

#[test]
#[should_panic(expected = "shapes of a product")]
fn operands_that_do_not_fit_are_refused() {
    let (mut panels, mut c) = (Panels::<f32>::default(), [0f32; 6]);
    panels.pack(Isa::PORTABLE, Matrix::new(&[0f32; 6], 2, 3));
    let (a, c) = (Matrix::new(&[0f32; 6], 2, 3), MatrixMut::new(&mut c, 2, 3));
    product(Isa::PORTABLE, a, &panels, c, Store::Write, &mut Scratch::default());
}
