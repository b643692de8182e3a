//! Against the reference in f64 and f32, against slopes, and against itself in other threads.

use candle_core::{DType, Device, Tensor, Var};
use half::bf16;

use super::super::matrix::MatrixMut;
use super::super::testing::{close, joined, numbers, same_bits_of_products, single, slopes, tolerance, wide};
use super::*;
use crate::kernels::{Kernels, Mask, Reference};

fn shape(sequences: usize, positions: usize, heads: usize, groups: usize, width: usize) -> Shape {
    Shape { sequences, queries: positions, keys: positions, heads, groups, width }
}

/// Documents of lengths that no block has, other ones in each sequence.
fn documents(shape: &Shape) -> Vec<u32> {
    let number = |sequence: usize, position: usize| match sequence % 3 {
        0 => position / 37 * 2,
        1 => position / 5 + position / 90,
        _ => usize::from(position >= 3) * 7,
    };
    (0..shape.sequences).flat_map(|b| (0..shape.keys).map(move |t| number(b, t) as u32)).collect()
}

/// What an attention is given and what it makes. Inputs are columns of one matrix, beside others that are not theirs.
struct Case<E> {
    shape: Shape,
    documents: Option<Vec<u32>>,
    qkv: Vec<E>,
    dout: Vec<E>,
}

struct Made<E> {
    out: Vec<E>,
    lse: Vec<f32>,
    gradient: Vec<E>,
}

const OTHERS: usize = 3;

impl<E: Element> Case<E> {
    fn new(shape: Shape, with_documents: bool) -> Self {
        let rows = shape.sequences * shape.keys;
        // Far enough from 0 that some queries see one key and little else.
        let qkv = numbers::<E>(rows * Self::stride(&shape), 1);
        let qkv = qkv.into_iter().map(|x| E::nearest(2.0 * x.value())).collect();
        let dout = numbers(rows * shape.heads * shape.width, 2);
        Self { shape, documents: with_documents.then(|| documents(&shape)), qkv, dout }
    }

    fn stride(shape: &Shape) -> usize {
        (shape.heads + 2 * shape.groups) * shape.width + OTHERS
    }

    fn operands(&self) -> Operands<'_, E> {
        let Shape { sequences, keys, heads, groups, width, .. } = self.shape;
        let part = |first: usize, heads: usize| {
            let rows = sequences * keys;
            Matrix::strided(&self.qkv[first * width..], rows, heads * width, Self::stride(&self.shape))
        };
        Operands {
            q: part(0, heads),
            k: part(heads, groups),
            v: part(heads + groups, groups),
            documents: self.documents.as_deref(),
        }
    }

    fn made(&self, isa: Isa, scratch: &mut Scratch<E>) -> Made<E> {
        let Shape { sequences, queries, heads, width, .. } = self.shape;
        let (rows, columns) = (sequences * queries, heads * width);
        let mut out = vec![E::nearest(f32::NAN); rows * columns];
        let mut lse = vec![f32::NAN; sequences * heads * queries];
        forward(isa, self.shape, self.operands(), MatrixMut::new(&mut out, rows, columns), &mut lse, scratch);
        let stride = Self::stride(&self.shape);
        let mut gradient = vec![E::nearest(7.0); rows * stride];
        let given = Given {
            out: Matrix::new(&out, rows, columns),
            lse: &lse,
            dout: Matrix::new(&self.dout, rows, columns),
        };
        let to = MatrixMut::strided(&mut gradient, rows, stride - OTHERS, stride);
        backward(isa, self.shape, self.operands(), given, to, scratch);
        for row in gradient.chunks(stride) {
            assert!(
                row[stride - OTHERS..].iter().all(|x| x.value() == 7.0),
                "others' columns are not written"
            );
        }
        let gradient = gradient.chunks(stride).flat_map(|row| &row[..stride - OTHERS]).copied().collect();
        Made { out, lse, gradient }
    }

    /// Output and gradient of the reference, computed in `dtype`.
    fn expected(&self, dtype: DType) -> (Vec<f64>, Vec<f64>) {
        let Shape { sequences: b, keys: t, heads, groups, width, .. } = self.shape;
        let rows: Vec<Vec<f64>> = self.qkv.chunks(Self::stride(&self.shape)).map(wide).collect();
        let part = |first: usize, heads: usize| {
            let values: Vec<f64> =
                rows.iter().flat_map(|row| &row[first * width..(first + heads) * width]).copied().collect();
            let values = Tensor::from_vec(values, (b, t, heads, width), &Device::Cpu).unwrap();
            Var::from_tensor(&values.to_dtype(dtype).unwrap()).unwrap()
        };
        let (q, k, v) = (part(0, heads), part(heads, groups), part(heads + groups, groups));
        let mask = match &self.documents {
            None => Mask::causal(t, t),
            Some(numbers) => {
                Mask::within(Tensor::from_vec(numbers.clone(), (b, t), &Device::Cpu).unwrap()).unwrap()
            }
        };
        let out = Reference.attention(&q, &k, &v, &mask).unwrap();
        let dout = Tensor::from_vec(wide(&self.dout), out.shape(), &Device::Cpu).unwrap();
        let dout = dout.to_dtype(dtype).unwrap();
        let gradients = (&out * dout).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |var: &Var| gradients.get(var).unwrap().reshape((b * t, ())).unwrap();
        let gradient = Tensor::cat(&[of(&q), of(&k), of(&v)], 1).unwrap();
        let values =
            |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        (values(&out), values(&gradient))
    }
}

/// In f32 a score of 30 is off by some of its last bits, 2^-19, and its weight by as much of itself. In bf16 the result
/// is rounded, and so was each probability before.
fn roundings<E: Element>() -> f64 {
    if size_of::<E>() == 4 { 10.0 } else { 2.0 }
}

fn agrees_with_reference<E: Element>() {
    for (sequences, positions, heads, groups, width) in [
        (1, 1, 1, 1, 1),
        (2, 3, 4, 2, 6),
        (3, 65, 3, 1, 8),
        (2, 127, 4, 1, 24),
        (3, 130, 2, 2, 32),
        (1, 331, 6, 3, 64),
    ] {
        for with_documents in [false, true] {
            let case = Case::<E>::new(shape(sequences, positions, heads, groups, width), with_documents);
            let expected = [DType::F64, DType::F32].map(|dtype| case.expected(dtype));
            for isa in Isa::available() {
                let made = case.made(isa, &mut Scratch::default());
                for (out, gradient) in &expected {
                    close(&made.out, out, tolerance::<E>(roundings::<E>()));
                    close(&made.gradient, gradient, tolerance::<E>(roundings::<E>()));
                }
            }
        }
    }
}

#[test]
fn output_and_gradients_are_those_of_the_reference() {
    agrees_with_reference::<f32>();
    agrees_with_reference::<bf16>();
}

/// The attention of (T, H * hd) queries to (T, G * hd) keys and values, as it is defined, and its log-sum-exp (H, T).
fn definition(shape: &Shape, documents: Option<&[u32]>, qkv: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let Shape { keys, heads, groups, width, .. } = *shape;
    let row = |position: usize, column: usize| {
        &qkv[position * (heads + 2 * groups) * width + column * width..][..width]
    };
    let mut out = vec![0.0; keys * heads * width];
    let mut lse = vec![0.0; heads * keys];
    for (head, query) in (0..heads).flat_map(|head| (0..keys).map(move |query| (head, query))) {
        let group = head / (heads / groups);
        let seen = (0..=query).filter(|key| documents.is_none_or(|d| d[*key] == d[query]));
        let dot = |key: usize| -> f64 {
            row(query, head).iter().zip(row(key, heads + group)).map(|(q, k)| q * k).sum()
        };
        let weights: Vec<(usize, f64)> =
            seen.map(|key| (key, libm::exp(dot(key) / (width as f64).sqrt()))).collect();
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        lse[head * keys + query] = sum.ln();
        for (key, weight) in weights {
            let out = &mut out[(query * heads + head) * width..][..width];
            for (out, v) in out.iter_mut().zip(row(key, heads + groups + group)) {
                *out += weight / sum * v;
            }
        }
    }
    (out, lse)
}

#[test]
fn gradients_agree_with_central_differences() {
    for (positions, heads, groups, width, with_documents) in [(5, 2, 1, 3, false), (9, 4, 2, 2, true)] {
        let shape = shape(1, positions, heads, groups, width);
        let case = Case::<f32>::new(shape, with_documents);
        let stride = Case::<f32>::stride(&shape);
        let qkv: Vec<f64> = case.qkv.chunks(stride).flat_map(|row| wide(&row[..stride - OTHERS])).collect();
        let (documents, dout) = (case.documents.as_deref(), wide(&case.dout));
        let loss = |qkv: &[f64]| -> f64 {
            definition(&shape, documents, qkv).0.iter().zip(&dout).map(|(out, dout)| out * dout).sum()
        };
        let slopes = slopes(&qkv, loss);
        let (out, lse) = definition(&shape, documents, &qkv);
        for isa in Isa::available() {
            let made = case.made(isa, &mut Scratch::default());
            close(&made.out, &out, tolerance::<f32>(2.0));
            close(&made.lse, &lse, tolerance::<f32>(2.0));
            close(&made.gradient, &slopes, tolerance::<f32>(2.0));
        }
    }
}

fn all<E: Element>(made: &Made<E>) -> Vec<f32> {
    joined(&[&single(&made.out), &single(&made.gradient), &made.lse])
}

fn keeps_its_bits<E: Element>() {
    // At 1, 2, 3, 4, 7 threads 4 units are all, all, 3, all, none of them done by one thread each. More than CHUNKS
    // blocks make chunks of several.
    for (positions, heads, groups, width) in [(200, 4, 2, 16), (1100, 2, 2, 8)] {
        for with_documents in [false, true] {
            let case = Case::<E>::new(shape(2, positions, heads, groups, width), with_documents);
            let mut scratch = Scratch::default();
            same_bits_of_products::<E>(|isa| all(&case.made(isa, &mut scratch)));
            let alone = all(&case.made(Isa::best(), &mut scratch));
            for threads in [1, 4, 7] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let made = pool.install(|| all(&case.made(Isa::best(), &mut scratch)));
                let equal = made.iter().map(|x| x.to_bits()).eq(alone.iter().map(|x| x.to_bits()));
                assert!(equal, "{threads} threads change bits");
            }
        }
    }
}

#[test]
fn threads_and_used_scratch_change_no_bit() {
    keeps_its_bits::<f32>();
    keeps_its_bits::<bf16>();
}

#[test]
fn memory_is_kept_and_grows_with_positions_and_not_with_their_square() {
    let used = |positions: usize| {
        let case = Case::<f32>::new(shape(1, positions, 2, 1, 8), true);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            let mut scratch = Scratch::default();
            case.made(Isa::best(), &mut scratch);
            let first = scratch.bytes();
            case.made(Isa::best(), &mut scratch);
            assert_eq!(scratch.bytes(), first, "a second call takes no memory");
            first
        })
    };
    let (short, middle, long) = (used(256), used(512), used(1024));
    // Twice as many further positions take twice the memory.
    assert!(short < middle && long - middle <= 2 * (middle - short), "{short} {middle} {long}");
}

#[test]
fn a_sequence_has_the_same_bits_in_every_batch() {
    let case = Case::<f32>::new(shape(3, 150, 4, 2, 16), true);
    let rows = 150 * Case::<f32>::stride(&case.shape);
    let elements = 150 * 4 * 16;
    let documents = case.documents.as_ref().unwrap();
    for isa in Isa::available() {
        let whole = case.made(isa, &mut Scratch::default());
        for sequence in 0..3 {
            let part = Case {
                shape: shape(1, 150, 4, 2, 16),
                documents: Some(documents[sequence * 150..][..150].to_vec()),
                qkv: case.qkv[sequence * rows..][..rows].to_vec(),
                dout: case.dout[sequence * elements..][..elements].to_vec(),
            };
            let made = part.made(isa, &mut Scratch::default());
            assert_eq!(made.out, whole.out[sequence * elements..][..elements]);
            let gradient = made.gradient.len();
            assert_eq!(made.gradient, whole.gradient[sequence * gradient..][..gradient]);
        }
    }
}

#[test]
fn the_last_queries_alone_have_the_output_that_they_have_among_all() {
    let all = shape(2, 200, 4, 2, 16);
    let case = Case::<f32>::new(all, false);
    for isa in Isa::available() {
        let whole = case.made(isa, &mut Scratch::default());
        for queries in [1, 2, 63, 65, 199] {
            let Operands { q, k, v, .. } = case.operands();
            let rows = |b: usize| (0..queries).map(move |i| (b + 1) * 200 - queries + i);
            let asked: Vec<usize> = (0..2).flat_map(rows).collect();
            let columns = all.heads * all.width;
            let last: Vec<f32> =
                asked.iter().flat_map(|row| &q.data()[row * q.stride()..][..columns]).copied().collect();
            let q = Matrix::new(&last, asked.len(), columns);
            let mut out = vec![f32::NAN; asked.len() * columns];
            let mut lse = vec![f32::NAN; asked.len() * all.heads];
            let to = MatrixMut::new(&mut out, asked.len(), columns);
            let operands = Operands { q, k, v, documents: None };
            forward(isa, Shape { queries, ..all }, operands, to, &mut lse, &mut Scratch::default());
            let expected: Vec<f64> =
                asked.iter().flat_map(|row| wide(&whole.out[row * columns..][..columns])).collect();
            close(&out, &expected, tolerance::<f32>(2.0));
        }
    }
}

#[test]
fn a_query_that_is_alone_in_its_document_has_its_own_value() {
    let mut case = Case::<f32>::new(shape(1, 70, 2, 1, 8), false);
    case.documents = Some((0..70).collect());
    let v = case.operands().v;
    for isa in Isa::available() {
        let made = case.made(isa, &mut Scratch::default());
        for (row, out) in made.out.chunks(2 * 8).enumerate() {
            let own = wide(&v.data()[row * v.stride()..][..8]);
            close(&out[..8], &own, tolerance::<f32>(0.2));
            close(&out[8..], &own, tolerance::<f32>(0.2));
        }
    }
}

#[test]
fn large_scores_neither_overflow_nor_vanish() {
    let mut case = Case::<f32>::new(shape(1, 80, 1, 1, 4), false);
    case.qkv.iter_mut().for_each(|x| *x *= 100.0);
    let (out, gradient) = case.expected(DType::F64);
    for isa in Isa::available() {
        let made = case.made(isa, &mut Scratch::default());
        // Scores are as large as 10^4, and an error of one of them is one of its weight.
        close(&made.out, &out, 2e-3);
        close(&made.gradient, &gradient, 2e-2);
    }
}

#[test]
fn a_number_that_is_none_is_not_hidden() {
    let mut case = Case::<f32>::new(shape(1, 70, 1, 1, 4), false);
    case.qkv[66 * Case::<f32>::stride(&case.shape)] = f32::NAN;
    for isa in Isa::available() {
        let made = case.made(isa, &mut Scratch::default());
        assert!(made.out[..66 * 4].iter().all(|x| x.is_finite()));
        assert!(made.out[66 * 4..67 * 4].iter().all(|x| x.is_nan()));
    }
}

#[test]
#[should_panic(expected = "fall within a sequence")]
fn documents_that_fall_are_refused() {
    let mut case = Case::<f32>::new(shape(1, 3, 1, 1, 4), false);
    case.documents = Some(vec![1, 1, 0]);
    case.made(Isa::PORTABLE, &mut Scratch::default());
}
