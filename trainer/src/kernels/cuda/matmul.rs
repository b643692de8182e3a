//! Products of matrices by cuBLASLt.
//!
//! For each shape the library is asked once which of its algorithms it thinks the fastest, and that one is kept: asking takes
//! longer than a small product, and another answer would be other bits. Nothing is measured, for the same reason.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasOperation_t;
use candle_core::cuda_backend::cudarc::cublaslt::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{DType, Error, Result, bail};

use super::Product;

/// Memory that algorithms may work in: what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// The alignment beyond which no algorithm asks for more, bytes.
const ALIGNED: u64 = 256;

/// Which products have one algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    shape: [usize; 3],
    transposed: [bool; 2],
    types: [DType; 2],
    alignments: [u32; 3],
}

impl Key {
    fn of(product: &Product) -> Self {
        let alignment = |address: u64| (1 << address.trailing_zeros().min(63)).min(ALIGNED) as u32;
        Self {
            shape: [product.m, product.n, product.k],
            transposed: [product.a.transposed, product.b.transposed],
            types: [product.sides, product.result],
            alignments: [product.a.address, product.b.address, product.c].map(alignment),
        }
    }
}

/// A shape's descriptors and its algorithm. The library's matrices lie by columns, so it is given the transpose of all: it
/// multiplies our right side, as its left one, with our left side.
struct Prepared {
    product: sys::cublasLtMatmulDesc_t,
    left: sys::cublasLtMatrixLayout_t,
    right: sys::cublasLtMatrixLayout_t,
    result: sys::cublasLtMatrixLayout_t,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// The library, with what it was asked.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    prepared: Mutex<HashMap<Key, Prepared>>,
}

// SAFETY: the library's handle may be used by several threads, and what was prepared is behind a lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl Products {
    pub fn new(stream: &Arc<CudaStream>) -> Result<Self> {
        let handle = said(result::create_handle())?;
        // SAFETY: it is scratch memory: nobody reads what they did not write.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.w()?;
        Ok(Self { handle, workspace, prepared: Mutex::default() })
    }

    /// The library's version, on which the bits hang.
    pub fn version(&self) -> usize {
        // SAFETY: it asks nothing and changes nothing.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// # Safety
    /// As [`Machine::multiply`](super::Machine::multiply).
    pub unsafe fn multiply(&self, stream: &Arc<CudaStream>, product: &Product) -> Result<()> {
        let key = Key::of(product);
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = match prepared.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(self.prepare(key)?),
        };
        let (one, before) = (1f32, if product.add { 1f32 } else { 0f32 });
        let number = |number: &f32| from_ref(number).cast::<c_void>();
        let memory = |address: u64| address as *mut c_void;
        // SAFETY: the descriptors are alive as long as `self`, the matrices are as large as they say by the caller's word, and
        // the workspace is used by one product after the other, in the order of the stream.
        let outcome = unsafe {
            result::matmul(
                self.handle,
                ready.product,
                number(&one),
                number(&before),
                memory(product.b.address),
                ready.left,
                memory(product.a.address),
                ready.right,
                memory(product.c),
                ready.result,
                memory(product.c),
                ready.result,
                &raw const ready.algorithm,
                memory(self.workspace.device_ptr(stream).0),
                WORKSPACE,
                stream.cu_stream().cast(),
            )
        };
        said(outcome)
    }

    fn prepare(&self, key: Key) -> Result<Prepared> {
        let [m, n, k] = key.shape.map(|size| size as u64);
        let [a_transposed, b_transposed] = key.transposed;
        let [sides, to] = [kind(key.types[0])?, kind(key.types[1])?];
        let product = said(result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType::CUDA_R_32F,
        ))?;
        let operation = |transposed: bool| match transposed {
            true => cublasOperation_t::CUBLAS_OP_T,
            false => cublasOperation_t::CUBLAS_OP_N,
        };
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        set(product, Attribute::CUBLASLT_MATMUL_DESC_TRANSA, operation(b_transposed))?;
        set(product, Attribute::CUBLASLT_MATMUL_DESC_TRANSB, operation(a_transposed))?;
        // What lies by rows as (rows, columns) lies by columns as (columns, rows).
        let by_columns = |kind, rows: u64, columns: u64, transposed: bool| {
            let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
            said(result::create_matrix_layout(kind, columns, rows, columns as i64))
        };
        let left = by_columns(sides, k, n, b_transposed)?;
        let right = by_columns(sides, m, k, a_transposed)?;
        let into = by_columns(to, m, n, false)?;
        let algorithm = self.fastest(product, [left, right, into], key.alignments)?;
        Ok(Prepared { product, left, right, result: into, algorithm })
    }

    fn fastest(
        &self,
        product: sys::cublasLtMatmulDesc_t,
        [left, right, into]: [sys::cublasLtMatrixLayout_t; 3],
        [a, b, c]: [u32; 3],
    ) -> Result<sys::cublasLtMatmulAlgo_t> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let wish = said(result::create_matmul_pref())?;
        let prefer = |attribute, value: *const c_void, size| {
            // SAFETY: the preference is alive until the end of this function, and the value is of that size.
            said(unsafe { result::set_matmul_pref_attribute(wish, attribute, value, size) })
        };
        let workspace = WORKSPACE;
        prefer(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            from_ref(&workspace).cast(),
            size_of_val(&workspace),
        )?;
        for (attribute, alignment) in [
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c),
        ] {
            prefer(attribute, from_ref(&alignment).cast(), size_of_val(&alignment))?;
        }
        // SAFETY: all of these are alive.
        let found =
            unsafe { result::get_matmul_algo_heuristic(self.handle, product, left, right, into, into, wish) };
        // SAFETY: made above, and not used again.
        said(unsafe { result::destroy_matmul_pref(wish) })?;
        Ok(said(found)?.algo)
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        let prepared = self.prepared.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, Prepared { product, left, right, result: into, .. }) in prepared.drain() {
            // SAFETY: made in `prepare`, and not used again. What the library says to that is nobody's concern any more.
            unsafe {
                let _ = result::destroy_matmul_desc(product);
                for layout in [left, right, into] {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
        }
        // SAFETY: made in `new`, and not used again.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Sets an attribute of a product.
fn set(
    product: sys::cublasLtMatmulDesc_t,
    attribute: sys::cublasLtMatmulDescAttributes_t,
    value: cublasOperation_t,
) -> Result<()> {
    // SAFETY: the product was just made, and these attributes are operations.
    said(unsafe {
        result::set_matmul_desc_attribute(product, attribute, from_ref(&value).cast(), size_of_val(&value))
    })
}

fn kind(dtype: DType) -> Result<sys::cudaDataType> {
    match dtype {
        DType::F32 => Ok(sys::cudaDataType::CUDA_R_32F),
        DType::BF16 => Ok(sys::cudaDataType::CUDA_R_16BF),
        other => bail!("there is no product of {other:?}"),
    }
}

/// The library's word, as an error of candle's.
fn said<T>(outcome: std::result::Result<T, result::CublasError>) -> Result<T> {
    outcome.map_err(|error| Error::Cuda(Box::new(error)))
}
