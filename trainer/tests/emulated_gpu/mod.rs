//! A machine that runs the GPU's kernels on this CPU, thread by thread: `emulator.cpp` with the very sources.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{env, fs, process};

use candle_core::{CpuStorage, DType, Result, Storage, Tensor, bail};
use libloading::Library;
use trainer::kernels::cuda::{Launch, Machine, Product, Side};

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
}

/// There is one emulated GPU in a process.
static TURN: Mutex<()> = Mutex::new(());

impl Emulated {
    pub fn new(order: Order) -> Self {
        // SAFETY: it is our own, and does nothing but name its kernels when it is loaded.
        let library = unsafe { Library::new(compiled()) }.unwrap();
        Self { library, order }
    }
}

/// The compiled emulator. It is compiled anew where a source has changed.
fn compiled() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (emulator, kernels) = (here.join("tests/emulated_gpu"), here.join("src/kernels/cuda/source"));
    let mut hasher = DefaultHasher::new();
    for folder in [&emulator, &kernels] {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().for_each(|file| fs::read(file).unwrap().hash(&mut hasher));
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = folder.join(format!("emulated-gpu-{:016x}.so", hasher.finish()));
    if !library.exists() {
        let fresh = folder.join(format!("emulated-gpu-{}.so", process::id()));
        let compiler = env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-unknown-pragmas"])
            .arg("-DEMULATED")
            .args(["-I".as_ref(), emulator.as_os_str(), "-I".as_ref(), kernels.as_os_str()])
            .arg(emulator.join("emulator.cpp"))
            .arg("-o")
            .arg(&fresh)
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(fresh, &library).unwrap();
    }
    library
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

    fn wait(&self) -> Result<()> {
        // All work is done at once.
        Ok(())
    }
}
