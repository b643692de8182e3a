//! The kernels of the CPU: plain slices in, plain slices out, nothing allocated in the steady state.
//!
//! Each operation is one file with its forward and its backward. They know nothing of candle: what knows tensors calls
//! them. All of them give the same bits at every number of threads, since work is cut into pieces of a fixed size and
//! sums are taken in the order of the pieces.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod element;
pub mod embedding;
pub mod exp;
pub mod gemm;
pub mod gemv;
pub mod isa;
pub mod matrix;
pub mod norm;
pub mod rope;
pub mod sums;
pub mod swiglu;

#[cfg(test)]
mod testing;
