//! A machine that runs the GPU's kernels on this CPU, thread by thread: `emulator.cpp` with the very sources.

mod compiled;
pub mod library;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, DType, Result, Storage, Tensor, bail};
use libloading::Library;
use trainer::kernels::cuda::{AttentionLibrary, Launch, Machine, Product, Shape, Side};

/// In which order the threads of a block take their turns, and the blocks of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Forwards,
    Backwards,
    Mixed,
}

impl Order {
    pub const ALL: [Self; 3] = [Self::Forwards, Self::Backwards, Self::Mixed];
}

/// The emulated GPU.
pub struct Emulated {
    library: Library,
    order: Order,
    /// Whether it has a library for attention, of every shape.
    pub has_attention: bool,
}

/// There is one emulated GPU in a process.
static TURN: Mutex<()> = Mutex::new(());

impl Emulated {
    pub fn new(order: Order) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let compiled = compiled::compiled("emulated-gpu", here, None, Path::new(env!("CARGO_TARGET_TMPDIR")));
        // SAFETY: it is our own, and does nothing but name its kernels when it is loaded.
        let library = unsafe { Library::new(compiled) }.unwrap();
        Self { library, order, has_attention: false }
    }
}

type LaunchFn = unsafe extern "C" fn(*const i8, u32, u32, u32, usize, *const u64, u32, u32) -> i32;
type ProductFn = unsafe extern "C" fn(u64, i32, u64, i32, u64, usize, usize, usize, i32, i32, i32);

impl Machine for Emulated {
    fn name(&self) -> String {
        "emulated".to_owned()
    }

    fn address(&self, tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        let first = match &*storage {
            Storage::Cpu(CpuStorage::F32(all)) => all.as_ptr() as u64,
            Storage::Cpu(CpuStorage::BF16(all)) => all.as_ptr() as u64,
            Storage::Cpu(CpuStorage::F64(all)) => all.as_ptr() as u64,
            Storage::Cpu(CpuStorage::U32(all)) => all.as_ptr() as u64,
            Storage::Cpu(CpuStorage::I64(all)) => all.as_ptr() as u64,
            _ => bail!("the emulated GPU has no {:?}", tensor.dtype()),
        };
        Ok(first + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
    }

    unsafe fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let name = std::ffi::CString::new(launch.kernel).map_err(candle_core::Error::wrap)?;
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the emulator has it, with these arguments; what the kernel does is the caller's word.
        let outcome = unsafe {
            let run = self.library.get::<LaunchFn>(b"emulated_launch").unwrap();
            run(
                name.as_ptr(),
                launch.blocks.0,
                launch.blocks.1,
                launch.threads,
                launch.shared as usize,
                launch.arguments.as_ptr(),
                launch.arguments.len() as u32,
                self.order as u32,
            )
        };
        match outcome {
            0 => Ok(()),
            1 => bail!("there is no kernel {}", launch.kernel),
            2 => bail!("{} does not take {} arguments", launch.kernel, launch.arguments.len()),
            3 => bail!("{}: blocks of {} threads", launch.kernel, launch.threads),
            4 => bail!("{}: its threads wait for each other for ever", launch.kernel),
            5 => bail!("{} wrote behind its shared memory", launch.kernel),
            other => bail!("{}: outcome {other}", launch.kernel),
        }
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        let Product { a, b, c, m, n, k, sides, result, add } = *product;
        let side = |side: Side| (side.address, i32::from(side.transposed));
        let (a, b) = (side(a), side(b));
        let is_bf16 = |dtype: DType| i32::from(dtype == DType::BF16);
        // SAFETY: the emulator has it, with these arguments; sizes are the caller's word.
        unsafe {
            let run = self.library.get::<ProductFn>(b"emulated_product").unwrap();
            run(a.0, a.1, b.0, b.1, c, m, n, k, is_bf16(sides), is_bf16(result), i32::from(add));
        }
        Ok(())
    }

    fn attention_library(&self, shape: Shape) -> Result<Option<Arc<dyn AttentionLibrary>>> {
        let library = || Arc::new(library::Plain(shape)) as Arc<dyn AttentionLibrary>;
        Ok(self.has_attention.then(library))
    }

    fn wait(&self) -> Result<()> {
        // All work is done at once.
        Ok(())
    }
}
