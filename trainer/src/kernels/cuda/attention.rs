//! Attention between its projections.

use candle_core::{DType, Result, Tensor, bail};
use half::bf16;

use super::{Call, Operations, THREADS, suffix};

/// How kernels take attention apart, as their sources have it.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// Threads of a block.
    threads: u32,
    /// Rows of a block's own.
    rows: usize,
    /// Rows of the other side that it looks at at once, forward and backward.
    tile: [usize; 2],
    /// Bytes of a row of a head in shared memory.
    row: usize,
}

impl Cut {
    /// `source/attention.cu`: rows of f32, one element longer than a head.
    fn of_any(width: usize) -> Self {
        Self { threads: THREADS, rows: 16, tile: [32; 2], row: (width + 1) * size_of::<f32>() }
    }

    /// `source/tensor_core_attention.cu`: rows of bf16, eight elements longer than a head.
    fn of_tensor_cores(width: usize) -> Self {
        Self { threads: 128, rows: 64, tile: [64, 32], row: (width + 8) * size_of::<bf16>() }
    }
}

/// The widest head that the kernels have registers for.
pub const WIDEST_HEAD: usize = 256;

/// The sizes of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Sequences.
    pub sequences: usize,
    /// Positions of each.
    pub positions: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub groups: usize,
    /// Width of a head.
    pub width: usize,
}

/// How many tensors a library is given, forward and backward.
pub const PASSED: [usize; 2] = [5, 9];

/// Attention of one shape in bf16, documents not told apart, by a library that has it faster than the kernels here.
pub trait AttentionLibrary: Send + Sync {
    /// What the bits of its results hang on, as a word.
    fn name(&self) -> String;

    /// The shape.
    fn shape(&self) -> Shape;

    /// Puts attention there: the addresses are those of query, key, value, output and logarithms of the sums.
    ///
    /// # Safety
    /// The tensors are as large as the shape says, and lie as [`Attention`] has them.
    ///
    /// # Errors
    /// It cannot be started.
    unsafe fn forward(&self, addresses: [u64; PASSED[0]]) -> Result<()>;

    /// Puts the gradients there: the addresses are those of `forward`, and of the gradients of output, query, key and value.
    ///
    /// # Safety
    /// As of [`forward`](Self::forward).
    ///
    /// # Errors
    /// As of [`forward`](Self::forward).
    unsafe fn backward(&self, addresses: [u64; PASSED[1]]) -> Result<()>;
}

/// How attention's operands lie: query, key and value of a token side by side in a row of `attended`.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Its sizes.
    pub shape: Shape,
    /// What does it where it can.
    pub library: Option<&'a dyn AttentionLibrary>,
    /// (sequences * positions, (heads + 2 groups) * width).
    pub attended: &'a Tensor,
    /// Numbers of the documents, (sequences * positions), where they are told apart: from one position to the next they stay or
    /// rise.
    pub documents: Option<&'a Tensor>,
    /// What attention gave, (sequences * positions, heads * width).
    pub out: &'a Tensor,
    /// Logarithm of the sum of each softmax, f32, (sequences, heads, positions).
    pub log_sums: &'a Tensor,
}

/// The gradients of attention.
#[derive(Debug, Clone, Copy)]
pub struct Slopes<'a> {
    /// That of its output, as it comes.
    pub out: &'a Tensor,
    /// Those of query, key and value, as they go.
    pub attended: &'a Tensor,
    /// Memory to work on, f32, (sequences, heads, positions).
    pub along: &'a Tensor,
}

impl Shape {
    fn tokens(&self) -> usize {
        self.sequences * self.positions
    }

    fn queries(&self) -> usize {
        self.tokens() * self.heads * self.width
    }

    fn all(&self) -> usize {
        self.tokens() * (self.heads + 2 * self.groups) * self.width
    }

    /// The addresses of query, key and value, which lie side by side from there on, in bf16.
    fn side_by_side(&self, first: u64) -> [u64; 3] {
        let heads = |count: usize| (count * self.width * size_of::<bf16>()) as u64;
        [first, first + heads(self.heads), first + heads(self.heads + self.groups)]
    }

    fn pass<'a>(&self, call: Call<'a>) -> Result<Call<'a>> {
        let call = call.int(self.positions)?.int(self.heads)?.int(self.groups)?.int(self.width)?;
        Ok(call.float(1.0 / (self.width as f32).sqrt()))
    }
}

impl Attention<'_> {
    /// How the kernels take it apart, and which they are.
    fn kernels(&self) -> Result<(Cut, String)> {
        let Shape { width, .. } = self.shape;
        Ok(match (self.attended.dtype(), width) {
            (DType::BF16, 64 | 128) => (Cut::of_tensor_cores(width), width.to_string()),
            (dtype, _) => (Cut::of_any(width), suffix(dtype)?.to_owned()),
        })
    }

    /// The library, where it does this one.
    fn by_library(&self) -> Option<&dyn AttentionLibrary> {
        let fits = self.documents.is_none() && self.attended.dtype() == DType::BF16;
        self.library.filter(|library| fits && library.shape() == self.shape)
    }
}

impl Operations {
    /// Attention of each query to the keys at its position and before, of its own document: `out` and `log_sums`.
    ///
    /// # Errors
    /// Heads are wider than 256 or do not fall into the groups, a tensor is too small or of a type that was not expected, or
    /// the machine fails.
    pub fn attention(&self, attention: Attention<'_>) -> Result<()> {
        let Attention { shape, attended, documents, out, log_sums, .. } = attention;
        let Shape { sequences, positions, heads, groups, width } = shape;
        if width > WIDEST_HEAD || groups == 0 || !heads.is_multiple_of(groups) {
            bail!("attention: {heads} heads of width {width} in {groups} groups");
        }
        if let Some(library) = attention.by_library() {
            let addresses = self.passed(attention)?;
            // SAFETY: `passed` saw that all are as large as the shape says.
            return unsafe { library.forward(addresses) };
        }
        let (dtype, tokens) = (attended.dtype(), shape.tokens());
        let (cut, kernels) = attention.kernels()?;
        let call = self.call(format!("attention_forward_{kernels}"));
        let call = call.tensor(attended, dtype, shape.all())?;
        let call = call.tensor_or_none(documents, DType::U32, tokens)?;
        let call = call.tensor(out, dtype, shape.queries())?;
        let call = shape.pass(call.tensor(log_sums, DType::F32, tokens * heads)?)?;
        let blocks = (sequences * heads, positions.div_ceil(cut.rows));
        // SAFETY: (attended, documents, out, log_sums, positions, heads, groups, width, scale), a block for so many queries of
        // a head; shared memory for its rows and two tiles.
        unsafe { call.launch(blocks, cut.threads, cut.row * (cut.rows + 2 * cut.tile[0])) }
    }

    /// The gradients of query, key and value, from that of the output.
    ///
    /// # Errors
    /// As [`attention`](Self::attention).
    pub fn attention_backward(&self, attention: Attention<'_>, slopes: Slopes<'_>) -> Result<()> {
        let Attention { shape, attended, documents, out, log_sums, .. } = attention;
        let Shape { sequences, positions, heads, groups, .. } = shape;
        let (dtype, tokens) = (attended.dtype(), shape.tokens());
        let (queries, per_head) = (shape.queries(), tokens * heads);
        if let Some(library) = attention.by_library() {
            let [query, key, value, output, sums] = self.passed(attention)?;
            let slope = self.memory(slopes.out, dtype, queries)?;
            let [dquery, dkey, dvalue] =
                shape.side_by_side(self.memory(slopes.attended, dtype, shape.all())?);
            // SAFETY: as in `attention`; the gradients were looked at just now.
            return unsafe {
                library.backward([query, key, value, output, sums, slope, dquery, dkey, dvalue])
            };
        }
        let call = self.call("attention_along").of_type(dtype)?.tensor(out, dtype, queries)?;
        let call = call.tensor(slopes.out, dtype, queries)?.tensor(slopes.along, DType::F32, per_head)?;
        let call = shape.pass(call)?.int(tokens)?;
        // SAFETY: (out, dout, along, positions, heads, groups, width, scale, tokens), a warp a query of a head.
        unsafe { call.launch((per_head.div_ceil(THREADS as usize / 32), 1), THREADS, 0)? };
        let (cut, kernels) = attention.kernels()?;
        for (side, heads) in [("queries", heads), ("keys", groups)] {
            let call = self.call(format!("attention_{side}_{kernels}"));
            let call = call.tensor(attended, dtype, shape.all())?;
            let call = call.tensor_or_none(documents, DType::U32, tokens)?;
            let call = call.tensor(slopes.out, dtype, queries)?;
            let call = call.tensor(log_sums, DType::F32, per_head)?;
            let call = call.tensor(slopes.along, DType::F32, per_head)?;
            let call = shape.pass(call.tensor(slopes.attended, dtype, shape.all())?)?;
            let blocks = (sequences * heads, positions.div_ceil(cut.rows));
            // SAFETY: (attended, documents, dout, log_sums, along, dattended, positions, heads, groups, width, scale); shared
            // memory for its rows of two matrices and two tiles.
            unsafe { call.launch(blocks, cut.threads, cut.row * 2 * (cut.rows + cut.tile[1]))? };
        }
        Ok(())
    }

    /// What a library is given of attention's tensors: as large as the shape says, in bf16.
    fn passed(&self, attention: Attention<'_>) -> Result<[u64; PASSED[0]]> {
        let Attention { shape, attended, out, log_sums, .. } = attention;
        let dtype = attended.dtype();
        let [query, key, value] = shape.side_by_side(self.memory(attended, dtype, shape.all())?);
        let out = self.memory(out, dtype, shape.queries())?;
        let log_sums = self.memory(log_sums, DType::F32, shape.tokens() * shape.heads)?;
        Ok([query, key, value, out, log_sums])
    }
}
