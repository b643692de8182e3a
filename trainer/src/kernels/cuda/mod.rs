//! Own kernels for NVIDIA's GPUs, as operations on tensors.
//!
//! Between two products of matrices, what takes a GPU's time is memory that is read and written: candle's own operations read
//! and write every value of a norm four times. Here each operation is one kernel that does it once, written in `source`. A
//! [`Machine`] runs them. The one for training is a GPU (`Gpu`, with the feature `cuda`); tests have one that runs the same
//! sources on a CPU, thread by thread, so that what they compute is known before a GPU sees them.

mod attention;
#[cfg(feature = "cuda")]
pub mod cudnn;
mod fused;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod matmul;
#[cfg(feature = "cuda")]
pub mod nccl;
mod passes;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};

pub use attention::{Attention, AttentionLibrary, PASSED, Shape, Slopes, WIDEST_HEAD};
pub use fused::{Norm, Occurrences, PARTS};
#[cfg(feature = "cuda")]
pub use launch::Gpu;

/// Threads that run in step.
const WARP: usize = 32;

/// Threads of a block, for kernels that do not say otherwise, and at most.
const THREADS: u32 = 256;

/// Blocks of a kernel whose threads take one element after the other, at most: several for each multiprocessor of any GPU.
const MANY: usize = 4096;

/// What runs kernels on memory of its own. Work is done in the order in which it is asked for, and calls may return before it
/// is done.
pub trait Machine: Send + Sync {
    /// What the bits of its results hang on, as a word.
    fn name(&self) -> String;

    /// The address of a tensor's first element.
    ///
    /// # Errors
    /// The tensor's memory is not this machine's.
    fn address(&self, tensor: &Tensor) -> Result<u64>;

    /// Runs a kernel.
    ///
    /// # Safety
    /// The arguments are those that the kernel wants, and what it reads and writes there is inside the tensors they come from.
    ///
    /// # Errors
    /// There is no such kernel, or it cannot be started.
    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()>;

    /// Multiplies two matrices.
    ///
    /// # Safety
    /// All three are as large as the product says.
    ///
    /// # Errors
    /// It cannot be started.
    unsafe fn multiply(&self, product: &Product) -> Result<()>;

    /// What has attention of a shape faster than the kernels here, where something has. For an equal shape the same one comes.
    ///
    /// # Errors
    /// There is not the memory that it works in.
    fn attention_library(&self, _: Shape) -> Result<Option<Arc<dyn AttentionLibrary>>> {
        Ok(None)
    }

    /// Returns when all work that was asked for is done.
    ///
    /// # Errors
    /// Some of it failed.
    fn wait(&self) -> Result<()>;
}

/// Numbers of f32 that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Of the first one.
    pub address: u64,
    /// How many there are.
    pub count: usize,
}

/// What adds up over the machines of several ranks, beside their other work.
pub trait AllReduce: Send + Sync {
    /// What the bits of its sums hang on, as a word.
    fn name(&self) -> String;

    /// Starts to put the sums over all ranks in the place of some numbers, once the machine's work so far is done. All ranks call
    /// it in the same order with runs of the same lengths.
    ///
    /// # Safety
    /// The numbers are there, and the machine is not asked to touch them before all sums [are done](Self::is_done).
    ///
    /// # Errors
    /// It cannot be started.
    unsafe fn start(&self, runs: Vec<Run>) -> Result<()>;

    /// Whether all sums that were started are there. It does not wait: a rank that has ended would be waited for in vain.
    ///
    /// # Errors
    /// One of them failed.
    fn is_done(&self) -> Result<bool>;

    /// Gives all sums up, for good.
    fn abort(&self);
}

/// A kernel, and what it is to do.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Its name in `source`.
    pub kernel: &'a str,
    /// Blocks along both sides of the grid.
    pub blocks: (u32, u32),
    /// Threads of a block, whole warps.
    pub threads: u32,
    /// Bytes of shared memory that it is given.
    pub shared: u32,
    /// Each in the low bytes of a word.
    pub arguments: &'a [u64],
}

/// A matrix by rows, or by columns where it is transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Side {
    /// Its first element.
    pub address: u64,
    /// Whether it lies by columns.
    pub transposed: bool,
}

/// `c = a b`, or `c += a b`: a (m, k), b (k, n), c (m, n) by rows. Sums are taken in f32.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// The left side.
    pub a: Side,
    /// The right side.
    pub b: Side,
    /// Where it goes.
    pub c: u64,
    /// Rows of `a`.
    pub m: usize,
    /// Columns of `b`.
    pub n: usize,
    /// Columns of `a`.
    pub k: usize,
    /// Type of both sides, f32 or bf16.
    pub sides: DType,
    /// Type of `c`, f32 or that of the sides.
    pub result: DType,
    /// Whether it is added to what is there.
    pub add: bool,
}

/// The operations of a step, on a machine. Tensors may be larger than what is asked for: rows are counted from the first.
#[derive(Clone)]
pub struct Operations {
    machine: Arc<dyn Machine>,
    sums: Option<Arc<dyn AllReduce>>,
}

impl Operations {
    /// The operations on a machine.
    pub fn new(machine: Arc<dyn Machine>) -> Self {
        Self { machine, sums: None }
    }

    /// Those of one rank of several, which add up by `sums`.
    pub fn with_sums(self, sums: Arc<dyn AllReduce>) -> Self {
        Self { sums: Some(sums), ..self }
    }

    /// What adds up over the ranks, where there are several and something does.
    pub fn sums(&self) -> Option<&dyn AllReduce> {
        self.sums.as_deref()
    }

    /// What the bits of the results hang on, as a word.
    pub fn name(&self) -> String {
        let machine = self.machine.name();
        self.sums.as_ref().map_or(machine.clone(), |sums| format!("{machine}-{}", sums.name()))
    }

    /// Starts to add tensors up over all ranks, where something does that: their numbers are not touched before it is done.
    ///
    /// # Errors
    /// A tensor is not of f32 or not in one piece, or it cannot be started.
    pub fn start_sums<'a>(&self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<()> {
        let Some(sums) = &self.sums else { return Ok(()) };
        let run = |tensor: &Tensor| {
            let count = tensor.elem_count();
            Ok(Run { address: self.memory(tensor, DType::F32, count)?, count })
        };
        let runs = tensors.into_iter().map(run).collect::<Result<_>>()?;
        // SAFETY: all are tensors of so many elements; a step leaves its gradient alone until the sums are there.
        unsafe { sums.start(runs) }
    }

    /// What has attention of a shape faster than the kernels here, where something has: made when it is asked for the first time,
    /// with the memory that it works in.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn attention_library(&self, shape: Shape) -> Result<Option<Arc<dyn AttentionLibrary>>> {
        self.machine.attention_library(shape)
    }

    /// Waits until all work that was asked for is done.
    ///
    /// # Errors
    /// Some of it failed.
    pub fn wait(&self) -> Result<()> {
        self.machine.wait()
    }

    /// `c = a b`, or `c += a b`; the sides are tensors, transposed where said so, of (m, k) and (k, n).
    ///
    /// # Errors
    /// A tensor is too small or of a type that was not expected, or the machine fails.
    pub fn multiply(
        &self,
        (a, a_transposed): (&Tensor, bool),
        (b, b_transposed): (&Tensor, bool),
        c: &Tensor,
        (m, n, k): (usize, usize, usize),
        add: bool,
    ) -> Result<()> {
        let (sides, result) = (a.dtype(), c.dtype());
        if result != DType::F32 && result != sides {
            bail!("a product of {sides:?} is {sides:?} or F32, not {result:?}");
        }
        let side = |tensor: &Tensor, transposed: bool, count: usize| {
            Ok::<_, candle_core::Error>(Side { address: self.memory(tensor, sides, count)?, transposed })
        };
        let product = Product {
            a: side(a, a_transposed, m * k)?,
            b: side(b, b_transposed, k * n)?,
            c: self.memory(c, result, m * n)?,
            m,
            n,
            k,
            sides,
            result,
            add,
        };
        // SAFETY: all three are tensors of at least as many elements.
        unsafe { self.machine.multiply(&product) }
    }

    /// The address of a tensor that has at least `count` elements in one piece.
    fn memory(&self, tensor: &Tensor, dtype: DType, count: usize) -> Result<u64> {
        if tensor.dtype() != dtype {
            bail!("a tensor of {dtype:?} was expected, not of {:?}", tensor.dtype());
        }
        if !tensor.is_contiguous() || tensor.elem_count() < count {
            bail!("{count} elements in one piece were expected, not {:?}", tensor.shape());
        }
        self.machine.address(tensor)
    }

    fn call(&self, kernel: impl Into<String>) -> Call<'_> {
        Call { operations: self, kernel: kernel.into(), arguments: Vec::with_capacity(16), aligned: None }
    }
}

/// A kernel's call, argument by argument in its order.
struct Call<'a> {
    operations: &'a Operations,
    kernel: String,
    arguments: Vec<u64>,
    /// Elements that it takes at once, where it does.
    aligned: Option<u64>,
}

impl<'a> Call<'a> {
    /// The version for a type.
    fn of_type(mut self, dtype: DType) -> Result<Self> {
        self.kernel.push('_');
        self.kernel.push_str(suffix(dtype)?);
        Ok(self)
    }

    /// The version that takes four elements at once, where rows of `width` allow it, else one.
    fn of_width(mut self, width: usize) -> Self {
        let by_four = width.is_multiple_of(4);
        self.kernel.push_str(if by_four { "_four" } else { "_one" });
        self.aligned = by_four.then_some(4);
        self
    }

    /// A tensor's address: at least `count` elements of a type, in whole rows.
    fn tensor(self, tensor: &Tensor, dtype: DType, count: usize) -> Result<Self> {
        let aligned = self.aligned;
        let call = self.scalars(tensor, dtype, count)?;
        if let (Some(elements), Some(address)) = (aligned, call.arguments.last())
            && !address.is_multiple_of(elements * dtype.size_in_bytes() as u64)
        {
            bail!("{}: a tensor begins inside a vector", call.kernel);
        }
        Ok(call)
    }

    /// As [`tensor`](Self::tensor), of numbers that are taken one by one.
    fn scalars(mut self, tensor: &Tensor, dtype: DType, count: usize) -> Result<Self> {
        self.arguments.push(self.operations.memory(tensor, dtype, count)?);
        Ok(self)
    }

    /// As [`tensor`](Self::tensor), or none.
    fn tensor_or_none(mut self, tensor: Option<&Tensor>, dtype: DType, count: usize) -> Result<Self> {
        match tensor {
            Some(tensor) => self.tensor(tensor, dtype, count),
            None => {
                self.arguments.push(0);
                Ok(self)
            }
        }
    }

    /// A number of 32 bits.
    fn int(mut self, number: usize) -> Result<Self> {
        match i32::try_from(number) {
            Ok(number) => {
                self.arguments.push(u64::from(number.cast_unsigned()));
                Ok(self)
            }
            Err(_) => bail!("{}: {number} is more than a kernel counts", self.kernel),
        }
    }

    /// A number of 64 bits.
    fn long(mut self, number: usize) -> Self {
        self.arguments.push(number as u64);
        self
    }

    fn float(mut self, number: f32) -> Self {
        self.arguments.push(u64::from(number.to_bits()));
        self
    }

    /// Runs it on so many blocks.
    ///
    /// # Safety
    /// The arguments are those that the kernel wants, and it touches nothing outside the tensors.
    unsafe fn launch(self, blocks: (usize, usize), threads: u32, shared: usize) -> Result<()> {
        let side = |blocks: usize| match u32::try_from(blocks) {
            Ok(blocks) => Ok(blocks),
            Err(_) => bail!("{}: {blocks} blocks are more than a GPU counts", self.kernel),
        };
        let blocks = (side(blocks.0)?, side(blocks.1)?);
        if blocks.0 == 0 || blocks.1 == 0 {
            return Ok(());
        }
        let launch = Launch {
            kernel: &self.kernel,
            blocks,
            threads,
            shared: u32::try_from(shared).unwrap_or(u32::MAX),
            arguments: &self.arguments,
        };
        // SAFETY: the caller's word.
        unsafe { self.operations.machine.launch(&launch) }
    }
}

/// The word for a type in kernels' names.
fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        other => bail!("there are no kernels for {other:?}"),
    }
}

/// Threads for a row of so many elements that are taken by four: whole warps, enough for the row but not more.
fn threads_for(row: usize) -> u32 {
    (row.div_ceil(4 * WARP) * WARP).clamp(WARP, THREADS as usize) as u32
}

/// Blocks of threads that take one of `count` after the other.
fn blocks_for(count: usize) -> usize {
    count.div_ceil(THREADS as usize).clamp(1, MANY)
}
