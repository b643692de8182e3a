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

/// How attention's operands lie: query, key and value of a token side by side in a row of `attended`.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// (sequences * positions, (heads + 2 groups) * width).
    pub attended: &'a Tensor,
    /// Numbers of the documents, (sequences * positions), where they are told apart: from one position to the next they stay or
    /// rise.
    pub documents: Option<&'a Tensor>,
    /// What attention gave, (sequences * positions, heads * width).
    pub out: &'a Tensor,
    /// Logarithm of the sum of each softmax, f32, (sequences, heads, positions).
    pub log_sums: &'a Tensor,
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

impl Attention<'_> {
    fn tokens(&self) -> usize {
        self.sequences * self.positions
    }

    fn queries(&self) -> usize {
        self.tokens() * self.heads * self.width
    }

    fn all(&self) -> usize {
        self.tokens() * (self.heads + 2 * self.groups) * self.width
    }

    /// How it is taken apart, and the kernels that do it.
    fn kernels(&self) -> Result<(Cut, String)> {
        let Self { width, .. } = *self;
        Ok(match (self.attended.dtype(), width) {
            (DType::BF16, 64 | 128) => (Cut::of_tensor_cores(width), width.to_string()),
            (dtype, _) => (Cut::of_any(width), suffix(dtype)?.to_owned()),
        })
    }

    fn sizes<'a>(&self, call: Call<'a>) -> Result<Call<'a>> {
        let call = call.int(self.positions)?.int(self.heads)?.int(self.groups)?.int(self.width)?;
        Ok(call.float(1.0 / (self.width as f32).sqrt()))
    }
}

impl Operations {
    /// Attention of each query to the keys at its position and before, of its own document: `out` and `log_sums`.
    ///
    /// # Errors
    /// Heads are wider than 256 or do not fall into the groups, a tensor is too small or of a type that was not expected, or
    /// the machine fails.
    pub fn attention(&self, attention: Attention<'_>) -> Result<()> {
        let Attention { attended, documents, out, log_sums, sequences, positions, heads, groups, width } =
            attention;
        if width > WIDEST_HEAD || groups == 0 || !heads.is_multiple_of(groups) {
            bail!("attention: {heads} heads of width {width} in {groups} groups");
        }
        let (dtype, tokens) = (attended.dtype(), attention.tokens());
        let (cut, kernels) = attention.kernels()?;
        let call = self.call(format!("attention_forward_{kernels}"));
        let call = call.tensor(attended, dtype, attention.all())?;
        let call = call.tensor_or_none(documents, DType::U32, tokens)?;
        let call = call.tensor(out, dtype, attention.queries())?;
        let call = attention.sizes(call.tensor(log_sums, DType::F32, tokens * heads)?)?;
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
        let Attention { attended, documents, out, log_sums, sequences, positions, heads, groups, .. } =
            attention;
        let (dtype, tokens) = (attended.dtype(), attention.tokens());
        let (queries, per_head) = (attention.queries(), tokens * heads);
        let call = self.call("attention_along").of_type(dtype)?.tensor(out, dtype, queries)?;
        let call = call.tensor(slopes.out, dtype, queries)?.tensor(slopes.along, DType::F32, per_head)?;
        let call = attention.sizes(call)?.int(tokens)?;
        // SAFETY: (out, dout, along, positions, heads, groups, width, scale, tokens), a warp a query of a head.
        unsafe { call.launch((per_head.div_ceil(THREADS as usize / 32), 1), THREADS, 0)? };
        let (cut, kernels) = attention.kernels()?;
        for (side, heads) in [("queries", heads), ("keys", groups)] {
            let call = self.call(format!("attention_{side}_{kernels}"));
            let call = call.tensor(attended, dtype, attention.all())?;
            let call = call.tensor_or_none(documents, DType::U32, tokens)?;
            let call = call.tensor(slopes.out, dtype, queries)?;
            let call = call.tensor(log_sums, DType::F32, per_head)?;
            let call = call.tensor(slopes.along, DType::F32, per_head)?;
            let call = attention.sizes(call.tensor(slopes.attended, dtype, attention.all())?)?;
            let blocks = (sequences * heads, positions.div_ceil(cut.rows));
            // SAFETY: (attended, documents, dout, log_sums, along, dattended, positions, heads, groups, width, scale); shared
            // memory for its rows of two matrices and two tiles.
            unsafe { call.launch(blocks, cut.threads, cut.row * 2 * (cut.rows + cut.tile[1]))? };
        }
        Ok(())
    }
}
