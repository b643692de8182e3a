//! Attention between its projections.

use candle_core::{DType, Result, Tensor, bail};

use super::{Call, Operations, THREADS};

/// What the kernels in `source/attention.cu` have as constants: rows of a block's own, and rows of a tile.
const ROWS: usize = 16;
const TILE: usize = 32;

/// The widest head that the kernels have registers for.
pub const WIDEST_HEAD: usize = 256;

/// How attention's operands lie: query, key and value of a token side by side in a row of `attended`.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// (sequences * positions, (heads + 2 groups) * width).
    pub attended: &'a Tensor,
    /// Numbers of the documents, (sequences * positions), where they are told apart.
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

    /// Shared memory for so many rows of a head, each with one element more.
    fn shared(&self, rows: usize) -> usize {
        rows * (self.width + 1) * size_of::<f32>()
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
        let call = self.call("attention_forward").of_type(dtype)?;
        let call = call.tensor(attended, dtype, attention.all())?;
        let call = call.tensor_or_none(documents, DType::U32, tokens)?;
        let call = call.tensor(out, dtype, attention.queries())?;
        let call = attention.sizes(call.tensor(log_sums, DType::F32, tokens * heads)?)?;
        let blocks = (positions.div_ceil(ROWS), sequences * heads);
        // SAFETY: (attended, documents, out, log_sums, positions, heads, groups, width, scale), a block for so many queries of
        // a head; shared memory for its rows and two tiles.
        unsafe { call.launch(blocks, THREADS, attention.shared(ROWS + 2 * TILE)) }
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
        for (kernel, heads) in [("attention_queries", heads), ("attention_keys", groups)] {
            let call = self.call(kernel).of_type(dtype)?.tensor(attended, dtype, attention.all())?;
            let call = call.tensor_or_none(documents, DType::U32, tokens)?;
            let call = call.tensor(slopes.out, dtype, queries)?;
            let call = call.tensor(log_sums, DType::F32, per_head)?;
            let call = call.tensor(slopes.along, DType::F32, per_head)?;
            let call = attention.sizes(call.tensor(slopes.attended, dtype, attention.all())?)?;
            let blocks = (positions.div_ceil(ROWS), sequences * heads);
            // SAFETY: (attended, documents, dout, log_sums, along, dattended, positions, heads, groups, width, scale); shared
            // memory for its rows of two matrices and two tiles.
            unsafe { call.launch(blocks, THREADS, attention.shared(2 * ROWS + 2 * TILE))? };
        }
        Ok(())
    }
}
