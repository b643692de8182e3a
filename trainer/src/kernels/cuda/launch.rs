//! A GPU that runs the kernels.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaModule, CudaStream, DevicePtr, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Result, Storage, Tensor, bail};
use half::bf16;

use super::cudnn::{Cudnn, Refusal};
use super::matmul::Products;
use super::{AttentionLibrary, Launch, Machine, Product, Shape};

/// The kernels, compiled.
const MODULE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// Shared memory that every kernel may have; more must be asked for.
const SHARED: u32 = 48 << 10;

/// A GPU, with the kernels loaded. All work goes to the stream of candle's device, so candle's own and ours are done in the
/// order in which they were asked for.
pub struct Gpu {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    products: Products,
    /// Compute capability, as 90 for 9.0.
    generation: i32,
    /// Made once for each shape that was asked for.
    attention: Mutex<HashMap<Shape, Option<Arc<dyn AttentionLibrary>>>>,
    name: String,
}

impl Gpu {
    /// The GPU that tensors of a device are on.
    ///
    /// # Errors
    /// It is none, or not one that the kernels were compiled for.
    pub fn new(device: &Device) -> Result<Self> {
        let device: &CudaDevice = device.as_cuda_device()?;
        let stream = device.cuda_stream();
        let (major, minor) = stream.context().compute_capability().w()?;
        let module = stream.context().load_module(Ptx::from_binary(MODULE.to_vec())).w()?;
        let products = Products::new(&stream)?;
        let name = format!("cuda-sm{major}{minor}-lt{}", products.version());
        let generation = 10 * major + minor;
        Ok(Self {
            stream,
            module,
            functions: Mutex::default(),
            products,
            generation,
            attention: Mutex::default(),
            name,
        })
    }

    /// cuDNN's attention of a shape. Where there is none it is said why.
    fn cudnn(&self, shape: Shape) -> Result<Option<Arc<dyn AttentionLibrary>>> {
        match Cudnn::new(&self.stream, self.generation, shape) {
            Ok(made) => Ok(Some(Arc::new(made))),
            Err(Refusal::Failed(error)) => Err(error),
            Err(Refusal::Declined(why)) => {
                // That it cannot be written is no reason to fail.
                let _ = writeln!(std::io::stderr(), "attention goes without cuDNN: {why}");
                Ok(None)
            }
        }
    }

    fn function(&self, name: &str, shared: u32) -> Result<CudaFunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let function = match functions.get(name) {
            Some(function) => function.clone(),
            None => {
                let function = self.module.load_function(name).w()?;
                functions.insert(name.to_owned(), function.clone());
                function
            }
        };
        if shared > SHARED {
            let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(most, shared.cast_signed()).w()?;
        }
        Ok(function)
    }

    /// The address of a storage's first element.
    fn first(&self, storage: &CudaStorage, dtype: DType) -> Result<u64> {
        let stream = &self.stream;
        Ok(match dtype {
            DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(stream).0,
            DType::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(stream).0,
            DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(stream).0,
            DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(stream).0,
            DType::I64 => storage.as_cuda_slice::<i64>()?.device_ptr(stream).0,
            other => bail!("no kernel takes {other:?}"),
        })
    }
}

impl Machine for Gpu {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn address(&self, tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else { bail!("a tensor on the GPU was expected") };
        let before = layout.start_offset() * tensor.dtype().size_in_bytes();
        Ok(self.first(storage, tensor.dtype())? + before as u64)
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let function = self.function(launch.kernel, launch.shared)?;
        let mut call = self.stream.launch_builder(&function);
        for argument in launch.arguments {
            // A kernel reads of each word what its parameter has: the low bytes come first.
            call.arg(argument);
        }
        let config = LaunchConfig {
            grid_dim: (launch.blocks.0, launch.blocks.1, 1),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: launch.shared,
        };
        // SAFETY: the caller's word; tensors that are given back meanwhile are given back behind it on the same stream.
        unsafe { call.launch(config) }.w()?;
        Ok(())
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        // SAFETY: the caller's word.
        unsafe { self.products.multiply(&self.stream, product) }
    }

    fn attention_library(&self, shape: Shape) -> Result<Option<Arc<dyn AttentionLibrary>>> {
        let mut made = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(&shape) {
            return Ok(known.clone());
        }
        let library = self.cudnn(shape)?;
        made.insert(shape, library.clone());
        Ok(library)
    }

    fn wait(&self) -> Result<()> {
        self.stream.synchronize().w()
    }
}
