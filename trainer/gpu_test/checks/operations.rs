//! Each operation of the kernels, forward and backward, against plain candle in f64.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use trainer::kernels::cuda::{
    self, Attention, AttentionLibrary, Norm, Occurrences, Operations, PARTS, Slopes,
};
use trainer::kernels::{AdamW, Kernels, Mask, Moments, Parameter, Passes, Reference, Rotary};

use super::{Checks, some, values};

const EPS: f64 = 1e-5;

/// Sizes of a model and a batch.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub sequences: usize,
    pub positions: usize,
    pub heads: usize,
    pub groups: usize,
    pub head: usize,
}

impl Shape {
    pub fn of_attention(self) -> cuda::Shape {
        let Self { sequences, positions, heads, groups, head } = self;
        cuda::Shape { sequences, positions, heads, groups, width: head }
    }
}

/// Round ones and odd ones: widths that are no multiple of four, lengths that are no multiple of any tile, one of everything.
/// Heads of 64 and 128 in bf16 are for tensor cores.
pub const SHAPES: [Shape; 5] = [
    Shape { sequences: 2, positions: 64, heads: 8, groups: 2, head: 32 },
    Shape { sequences: 1, positions: 1, heads: 1, groups: 1, head: 2 },
    Shape { sequences: 3, positions: 77, heads: 6, groups: 3, head: 18 },
    Shape { sequences: 1, positions: 257, heads: 5, groups: 1, head: 64 },
    Shape { sequences: 2, positions: 130, heads: 2, groups: 2, head: 128 },
];

/// More rows than a norm's gradient has parts, each for several warps.
const TALL: Shape = Shape { sequences: 1, positions: 600, heads: 4, groups: 1, head: 70 };

/// The operations of a machine, on tensors of a device.
pub struct Held<'a> {
    pub operations: &'a Operations,
    pub device: &'a Device,
    pub checks: &'a mut Checks,
}

/// What an operation gives in f64, and the gradient of each of its tensors after `weight` times its sum.
fn reference(
    inputs: &[&Tensor],
    weight: &Tensor,
    of: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> (Tensor, Vec<Tensor>) {
    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
    let variables: Vec<Var> = inputs.iter().map(|input| Var::from_tensor(&wide(input)).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
    let y = of(&tensors).unwrap();
    let gradients = (&y * wide(weight)).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = variables.iter().map(|variable| gradients.get(variable).unwrap().clone()).collect();
    (y, gradients)
}

impl Held<'_> {
    /// All operations, in both types, on all shapes.
    pub fn all(&mut self) {
        self.products();
        self.passes();
        for dtype in [DType::F32, DType::BF16] {
            self.norm(TALL, dtype);
        }
        for shape in SHAPES {
            self.embedding(shape);
            for dtype in [DType::F32, DType::BF16] {
                self.rounding(shape, dtype);
                self.norm(shape, dtype);
                self.rope(shape, dtype);
                self.attention(shape, dtype, false, None);
                self.attention(shape, dtype, true, None);
                self.swiglu(shape, dtype);
                self.cross_entropy(shape, dtype);
            }
        }
        self.by_library();
    }

    /// Attention by a library, where there is one, on all shapes.
    pub fn by_library(&mut self) {
        for shape in SHAPES {
            if let Some(library) = self.operations.attention_library(shape.of_attention()).unwrap() {
                self.attention(shape, DType::BF16, false, Some(&*library));
            }
        }
    }

    /// Some numbers of a type, on the CPU and on the device.
    fn some(&self, shape: &[usize], seed: usize, dtype: DType) -> (Tensor, Tensor) {
        let numbers = some(shape, seed).to_dtype(dtype).unwrap();
        (numbers.clone(), self.there(&numbers))
    }

    /// A copy on the device.
    fn there(&self, tensor: &Tensor) -> Tensor {
        tensor.copy().unwrap().to_device(self.device).unwrap()
    }

    /// Memory on the device, of numbers that are none.
    fn memory(&self, shape: &[usize], dtype: DType) -> Tensor {
        Tensor::full(f32::NAN, shape, self.device)
            .unwrap()
            .to_dtype(dtype)
            .unwrap()
            .contiguous()
            .unwrap()
            .copy()
            .unwrap()
    }

    fn near(&mut self, what: &str, shape: Shape, found: &Tensor, expected: &Tensor) {
        let (dtype, what) = (found.dtype(), format!("{what} {shape:?}"));
        self.checks.near(&what, dtype, &values(found), &values(expected));
    }

    fn products(&mut self) {
        let types = [(DType::F32, DType::F32), (DType::BF16, DType::F32), (DType::BF16, DType::BF16)];
        for (m, n, k) in [(64, 96, 32), (1, 1, 1), (33, 7, 130)] {
            for (sides, result) in types {
                for (a_transposed, b_transposed, add) in
                    [(false, false, false), (false, true, false), (true, false, true), (true, true, true)]
                {
                    let shape = |transposed: bool, rows: usize, columns: usize| {
                        if transposed { [columns, rows] } else { [rows, columns] }
                    };
                    let (a, a_there) = self.some(&shape(a_transposed, m, k), 1, sides);
                    let (b, b_there) = self.some(&shape(b_transposed, k, n), 2, sides);
                    let (before, c) = self.some(&[m, n], 3, result);
                    let sides_of = ((&a_there, a_transposed), (&b_there, b_transposed));
                    self.operations.multiply(sides_of.0, sides_of.1, &c, (m, n, k), add).unwrap();
                    let wide = |tensor: &Tensor, transposed: bool| {
                        let tensor = tensor.to_dtype(DType::F64).unwrap();
                        if transposed { tensor.t().unwrap() } else { tensor }
                    };
                    let mut expected = wide(&a, a_transposed).matmul(&wide(&b, b_transposed)).unwrap();
                    if add {
                        expected = (expected + wide(&before, false)).unwrap();
                    }
                    let what =
                        format!("product ({m}, {n}, {k}) of {sides:?}, {a_transposed} {b_transposed} {add}");
                    self.checks.near(&what, result, &values(&c), &values(&expected));
                }
            }
        }
    }

    fn rounding(&mut self, shape: Shape, dtype: DType) {
        let (here, there) = self.some(&[shape.positions, shape.heads * shape.head], 1, DType::F32);
        let rounded = self.memory(here.dims(), dtype);
        self.operations.round(&there, &rounded).unwrap();
        let exact = values(&rounded) == values(&here.to_dtype(dtype).unwrap());
        self.checks.hold(&format!("rounding {shape:?} to {dtype:?}, bits"), f64::from(u8::from(!exact)), 0.0);
    }

    fn embedding(&mut self, shape: Shape) {
        const VOCABULARY: usize = 97;
        let (rows, width) = (shape.sequences * shape.positions, shape.heads * shape.head);
        let tokens: Vec<u32> = (0..rows).map(|i| ((i * 31 + i * i) % VOCABULARY) as u32).collect();
        let here = Tensor::from_slice(&tokens, (1, rows), &Device::Cpu).unwrap();
        let (weight, weight_there) = self.some(&[VOCABULARY, width], 1, DType::F32);
        let (dy, dy_there) = self.some(&[1, rows, width], 2, DType::F32);
        let (y, gradients) = reference(&[&weight], &dy, |x| Reference.embedding(&x[0], &here));
        let out = self.memory(&[rows, width], DType::F32);
        let on_device = self.there(&here.flatten_all().unwrap());
        self.operations.embedding(&weight_there, &on_device, VOCABULARY as u32 - 1, &out).unwrap();
        self.near("embedding", shape, &out, &y);
        let occurrences = Occurrences::new(&tokens, self.device).unwrap();
        let (before, dweight) = self.some(&[VOCABULARY, width], 3, DType::F32);
        self.operations.embedding_backward(&dy_there, &occurrences, &dweight).unwrap();
        let expected = (before.to_dtype(DType::F64).unwrap() + &gradients[0]).unwrap();
        self.near("embedding's gradient", shape, &dweight, &expected);
    }

    fn norm(&mut self, shape: Shape, dtype: DType) {
        let (rows, width) = (shape.sequences * shape.positions, shape.heads * shape.head);
        let (before, before_there) = self.some(&[rows, width], 1, DType::F32);
        let (branch, branch_there) = self.some(&[rows, width], 2, dtype);
        let (weight, weight_there) = self.some(&[width], 3, DType::F32);
        let (dy, dy_there) = self.some(&[rows, width], 4, dtype);
        let sum = (&before + branch.to_dtype(DType::F32).unwrap()).unwrap();
        let norm_of = |x: &[Tensor]| Reference.rms_norm(&x[0], &x[1], EPS);
        let (stream, scales) = (self.memory(&[rows, width], DType::F32), self.memory(&[rows], DType::F32));
        let normed = self.memory(&[rows, width], dtype);
        let norm = Norm { stream: &stream, scales: &scales, weight: &weight_there, width };
        let added = Some((&branch_there, &before_there));
        self.operations.norm(norm, added, &normed, rows, EPS as f32).unwrap();
        let (y, gradients) = reference(&[&sum, &weight], &dy, norm_of);
        self.near("sum of the stream", shape, &stream, &sum);
        self.near("norm of a sum", shape, &normed, &y);
        let again = self.memory(&[rows, width], dtype);
        self.operations.norm_again(norm, &again, rows).unwrap();
        let differs = values(&again) != values(&normed);
        self.checks.hold(&format!("norm again {shape:?}, bits"), f64::from(u8::from(differs)), 0.0);

        // Without a branch the stream is only read.
        let alone = self.memory(&[rows, width], dtype);
        let norm = Norm { stream: &self.there(&sum), ..norm };
        self.operations.norm(norm, None, &alone, rows, EPS as f32).unwrap();
        self.near("norm", shape, &alone, &y);

        let (slope, dstream) = self.some(&[rows, width], 5, DType::F32);
        let rounded = self.memory(&[rows, width], dtype);
        let partial = self.memory(&[PARTS, width], DType::F32);
        let (earlier, dweight) = self.some(&[width], 6, DType::F32);
        let backward = |dstream: &Tensor, dweight: &Tensor, add: bool| {
            let (stream, sums) = ((dstream, &rounded), (&partial, dweight));
            self.operations.norm_backward(norm, &dy_there, stream, sums, rows, add).unwrap();
        };
        backward(&dstream, &dweight, true);
        let written = self.memory(&[width], DType::F32);
        backward(&dstream.copy().unwrap(), &written, false);
        let plus = |x: &Tensor, y: &Tensor| (x.to_dtype(DType::F64).unwrap() + y).unwrap();
        let dx = plus(&slope, &gradients[0]);
        self.near("norm's gradient", shape, &dstream, &dx);
        self.near("norm's gradient, added up for a weight", shape, &dweight, &plus(&earlier, &gradients[1]));
        self.near("norm's gradient for a weight", shape, &written, &gradients[1]);
    }

    fn rope(&mut self, shape: Shape, dtype: DType) {
        let Shape { sequences, positions, heads, groups, head } = shape;
        let (rows, stride) = (sequences * positions, (heads + 2 * groups) * head);
        let turned = heads + groups;
        let (here, there) = self.some(&[rows, stride], 1, dtype);
        let table =
            |dtype: DType, device: &Device| Rotary::new(positions, head, 10_000.0, dtype, device).unwrap();
        let rotary = table(DType::F32, self.device);
        let wide = Rotary {
            cos: table(DType::F32, &Device::Cpu).cos.to_dtype(DType::F64).unwrap(),
            sin: table(DType::F32, &Device::Cpu).sin.to_dtype(DType::F64).unwrap(),
        };
        let all = here.to_dtype(DType::F64).unwrap();
        let part = all.narrow(1, 0, turned * head).unwrap().contiguous().unwrap();
        let part = part.reshape((sequences, positions, turned, head)).unwrap();
        let forward = Reference.rope(&part, &wide).unwrap();
        let back = Reference.rope(&part, &Rotary { sin: wide.sin.neg().unwrap(), ..wide.clone() }).unwrap();
        for (word, expected, backwards) in [("rope", forward, false), ("rope's gradient", back, true)] {
            let memory = there.copy().unwrap();
            self.operations.rope(&memory, &rotary, (rows, positions), (turned, stride), backwards).unwrap();
            let rest = all.narrow(1, turned * head, stride - turned * head).unwrap();
            let expected =
                Tensor::cat(&[&expected.reshape((rows, turned * head)).unwrap(), &rest], 1).unwrap();
            self.near(word, shape, &memory, &expected);
        }
    }

    fn attention(&mut self, shape: Shape, dtype: DType, apart: bool, library: Option<&dyn AttentionLibrary>) {
        let Shape { sequences, positions, heads, groups, head } = shape;
        let tokens = sequences * positions;
        let (queries, keys) = (heads * head, groups * head);
        let stride = queries + 2 * keys;
        let (here, there) = self.some(&[tokens, stride], 1, dtype);
        let (dy, dy_there) = self.some(&[tokens, queries], 2, dtype);
        let documents: Vec<u32> = (0..tokens).map(|i| (i % positions / 19) as u32).collect();
        let documents = Tensor::from_vec(documents, (sequences, positions), &Device::Cpu).unwrap();
        let attend = |x: &[Tensor]| {
            let columns = |first: usize, heads: usize| {
                let part = x[0].narrow(1, first, heads * head)?.contiguous()?;
                part.reshape((sequences, positions, heads, head))
            };
            let (q, k, v) = (columns(0, heads)?, columns(queries, groups)?, columns(queries + keys, groups)?);
            let mask =
                if apart { Mask::within(documents.clone())? } else { Mask::causal(positions, positions) };
            Reference.attention(&q, &k, &v, &mask)?.reshape((tokens, queries))
        };
        let (y, gradients) = reference(&[&here], &dy, attend);
        let documents_there = self.there(&documents.flatten_all().unwrap());
        let out = self.memory(&[tokens, queries], dtype);
        let log_sums = self.memory(&[tokens * heads], DType::F32);
        let attention = Attention {
            shape: shape.of_attention(),
            library,
            attended: &there,
            documents: apart.then_some(&documents_there),
            out: &out,
            log_sums: &log_sums,
        };
        self.operations.attention(attention).unwrap();
        let dx = self.memory(&[tokens, stride], dtype);
        let along = self.memory(&[tokens * heads], DType::F32);
        let slopes = Slopes { out: &dy_there, attended: &dx, along: &along };
        self.operations.attention_backward(attention, slopes).unwrap();
        let within = match library {
            Some(library) => format!(" by {}", library.name()),
            None if apart => " within documents".to_owned(),
            None => String::new(),
        };
        self.near(&format!("attention{within}"), shape, &out, &y);
        for (word, first, count) in
            [("queries", 0, queries), ("keys", queries, keys), ("values", queries + keys, keys)]
        {
            let part = |x: &Tensor| x.narrow(1, first, count).unwrap();
            let word = format!("attention's gradient{within}, {word}");
            if positions == 1 && !word.ends_with("values") {
                // One score has no slope: what is left are roundings.
                let most = values(&part(&dx)).iter().fold(0f64, |most, x| most.max(x.abs()));
                self.checks.hold(&format!("{word} of one position"), most, 1e-2);
                continue;
            }
            self.near(&word, shape, &part(&dx), &part(&gradients[0]));
        }
    }

    fn swiglu(&mut self, shape: Shape, dtype: DType) {
        let (rows, inner) = (shape.sequences * shape.positions, shape.heads * shape.head);
        let (here, there) = self.some(&[rows, 2 * inner], 1, dtype);
        let (dy, dy_there) = self.some(&[rows, inner], 2, dtype);
        let (y, gradients) = reference(&[&here], &dy, |x| {
            let half = |first: usize| x[0].narrow(1, first, inner)?.contiguous();
            Reference.swiglu(&half(0)?, &half(inner)?)
        });
        let out = self.memory(&[rows, inner], dtype);
        self.operations.swiglu(&there, &out, rows, inner).unwrap();
        self.operations.swiglu_backward(&dy_there, &there, rows, inner).unwrap();
        self.near("swiglu", shape, &out, &y);
        self.near("swiglu's gradient", shape, &there, &gradients[0]);
    }

    fn cross_entropy(&mut self, shape: Shape, dtype: DType) {
        const SCALE: f32 = 0.125;
        let rows = shape.sequences * shape.positions;
        // Fewer than a warp, fewer than a block, more than a block.
        for vocabulary in [7, 97, 1031] {
            let targets: Vec<u32> = (0..rows).map(|i| ((i * 31 + i * i) % vocabulary) as u32).collect();
            let targets = Tensor::from_vec(targets, rows, &Device::Cpu).unwrap();
            let logits = (some(&[rows, vocabulary], 1) * 9.0).unwrap();
            let there = self.there(&logits);
            let weight = Tensor::full(SCALE, rows, &Device::Cpu).unwrap();
            let (y, gradients) = reference(&[&logits], &weight, |x| {
                let largest = x[0].max_keepdim(D::Minus1)?.detach();
                let shifted = x[0].broadcast_sub(&largest)?;
                let normaliser = shifted.exp()?.sum(D::Minus1)?.log()?;
                normaliser - shifted.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?
            });
            let (nats, gradient) =
                (self.memory(&[rows], DType::F32), self.memory(&[rows, vocabulary], dtype));
            let wanted = (&self.there(&targets), vocabulary as u32 - 1);
            let slope = Some((&gradient, SCALE));
            self.operations.cross_entropy((&there, vocabulary), wanted, &nats, slope).unwrap();
            self.near("cross-entropy", shape, &nats, &y);
            self.near("cross-entropy's gradient", shape, &gradient, &gradients[0]);
            let alone = self.memory(&[rows], DType::F32);
            self.operations.cross_entropy((&there, vocabulary), wanted, &alone, None).unwrap();
            let differs = values(&alone) != values(&nats);
            self.checks.hold("cross-entropy without its gradient, bits", f64::from(u8::from(differs)), 0.0);
            let sum = self.there(&Tensor::new(&[3f64], &Device::Cpu).unwrap());
            self.operations.add_all(&nats, rows, &sum).unwrap();
            let expected = 3.0 + values(&nats).iter().sum::<f64>();
            self.checks.hold("sum of losses", (values(&sum)[0] - expected).abs() / expected, 1e-14);
        }
    }

    /// The passes over all parameters: one that is longer than a chunk, one shorter, one element.
    fn passes(&mut self) {
        let shapes: [&[usize]; 3] = [&[129, 650], &[65], &[1]];
        let update = AdamW {
            learning_rate: 1e-2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            correction1: 0.19,
            correction2: 0.0975,
            gradient_scale: 0.25,
        };
        let tensors = |seed: usize, device: &Device, dtype: DType| -> Vec<Tensor> {
            let tensor =
                |shape: &&[usize]| some(shape, seed).to_dtype(dtype).unwrap().to_device(device).unwrap();
            shapes.iter().map(tensor).collect()
        };
        let run = |passes: &dyn Passes, device: &Device, dtype: DType| {
            let (parameters, gradients) = (tensors(1, device, dtype), tensors(2, device, dtype));
            let moments: Vec<Moments> = tensors(3, device, dtype)
                .into_iter()
                .zip(tensors(4, &Device::Cpu, dtype))
                .map(|(exp_avg, second)| {
                    let exp_avg_sq = second.sqr().unwrap().to_device(device).unwrap();
                    Moments { exp_avg, exp_avg_sq }
                })
                .collect();
            let all: Vec<Parameter<'_>> = parameters
                .iter()
                .zip(&gradients)
                .zip(&moments)
                .enumerate()
                .map(|(number, ((values, gradient), moments))| Parameter {
                    values,
                    gradient,
                    moments,
                    decays: number == 0,
                })
                .collect();
            passes.adamw(&update, &all).unwrap();
            let sum = passes.sum_of_squares(&gradients).unwrap();
            let added = some(shapes[0], 7).to_dtype(dtype).unwrap().to_device(device).unwrap();
            passes.accumulate(&added, &gradients[0]).unwrap();
            let of =
                |tensors: &mut dyn Iterator<Item = &Tensor>| tensors.flat_map(values).collect::<Vec<f64>>();
            [
                of(&mut parameters.iter()),
                of(&mut moments.iter().map(|moments| &moments.exp_avg)),
                of(&mut moments.iter().map(|moments| &moments.exp_avg_sq)),
                vec![sum],
                values(&added),
            ]
        };
        let found = run(self.operations, self.device, DType::F32);
        let expected = run(&Reference, &Device::Cpu, DType::F64);
        let words = [
            "AdamW: values",
            "AdamW: first moment",
            "AdamW: second moment",
            "sum of squares",
            "accumulation",
        ];
        for ((found, expected), what) in found.iter().zip(&expected).zip(words) {
            self.checks.near(what, DType::F32, found, expected);
        }
    }
}
