//! What a job computes on: the CPU, or a GPU that this process may see, one for each of its ranks.
//!
//! CUDA is looked for when a job asks for it and not before, so that one program runs where there is none. The bindings
//! panic where a library is missing: each is asked for first, and what is not there is told in a sentence.

use artifacts::job;
use candle_core::Device;

use crate::failure::{Failure, Kind};
use crate::kernels::cuda::Operations;
use crate::parallel::Ranks;

/// The device that a job asks for, for one of its ranks.
///
/// # Errors
/// Of the kind `device`: this program, or this machine, has none.
pub fn open(asked: job::Device, rank: u32) -> Result<Device, Failure> {
    match asked {
        job::Device::Cpu => Ok(Device::Cpu),
        job::Device::Cuda => gpu(rank),
    }
}

/// The kernels of a device, where it has its own.
///
/// # Errors
/// Of the kind `device`: they are not for it, or do not load.
pub fn operations(device: &Device) -> Result<Option<Operations>, Failure> {
    match device {
        Device::Cpu => Ok(None),
        _ => kernels(device).map(Some),
    }
}

/// The kernels of one rank of several: they add up over the ranks themselves where NCCL is there. Where it is not, that is said,
/// and gradients go through the host's memory.
///
/// # Errors
/// Another rank has ended, or NCCL is there and fails.
pub fn together(gpu: Operations, device: &Device, ranks: &mut Ranks) -> Result<Operations, Failure> {
    match device {
        Device::Cpu => Ok(gpu),
        _ => with_sums(gpu, device, ranks),
    }
}

/// Bytes of a device's own memory that are free, where it has one and says so.
pub fn available(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => None,
        _ => memory().map(|(free, _)| free),
    }
}

/// Bytes of a device's own memory that are in use, by whomever, where it has one and says so.
pub fn used(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => None,
        _ => memory().map(|(free, total)| total - free),
    }
}

fn refuse<T>(reason: String) -> Result<T, Failure> {
    Err(Failure::new(Kind::Device, reason))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: u32) -> Result<Device, Failure> {
    refuse(
        "the job asks for a GPU, but this program was built without CUDA: build it with `make build-cuda`"
            .to_owned(),
    )
}

#[cfg(not(feature = "cuda"))]
fn memory() -> Option<(u64, u64)> {
    None
}

#[cfg(not(feature = "cuda"))]
fn with_sums(_: Operations, device: &Device, _: &mut Ranks) -> Result<Operations, Failure> {
    kernels(device)
}

#[cfg(not(feature = "cuda"))]
fn kernels(_: &Device) -> Result<Operations, Failure> {
    refuse("this program was built without CUDA".to_owned())
}

#[cfg(feature = "cuda")]
use cuda::{gpu, kernels, memory, with_sums};

#[cfg(feature = "cuda")]
mod cuda {
    use std::error::Error;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    use rustix::fs::MemfdFlags;

    use super::refuse;
    use crate::failure::Failure;
    use crate::kernels::cuda::nccl::{self, Id, Nccl};
    use crate::kernels::cuda::{AllReduce, Gpu, Operations};
    use crate::parallel::Ranks;

    /// What this program was compiled against, as drivers number it: 13000 is 13.0.
    const VERSION: i32 = sys::CUDA_VERSION as i32;

    /// Bindings that are linked to CUDA's libraries have no such function, and a program with them starts nowhere else: they end
    /// the build. `make build-cuda` has them look for libraries when they are asked for.
    const _: unsafe fn() -> bool = sys::is_culib_present;

    const DRIVER: &str = "libcuda.so.1";
    /// What candle calls, beside the driver, with the versions that this program was compiled against.
    const LIBRARIES: [&str; 2] = ["libcublas.so.13", "libcublasLt.so.13"];
    /// What candle opens and nobody calls. PyTorch does not bring it any more.
    const CURAND: &str = "libcurand.so.10";
    /// What stands in for it, by the same name.
    const INSTEAD_OF_CURAND: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/curand.so"));

    pub fn gpu(rank: u32) -> Result<Device, Failure> {
        driver(rank)?;
        libraries()?;
        let device = Device::new_cuda_with_stream(rank as usize)
            .or_else(|error| refuse(format!("the GPU cannot be used: {error}")))?;
        keep_memory(rank);
        if let Ok(gpu) = device.as_cuda_device() {
            // SAFETY: there is one stream for all threads, on which work is done in the order in which it is asked for: no
            // memory is read before it was written, or given back before it was read.
            unsafe { gpu.disable_event_tracking() };
        }
        Ok(device)
    }

    pub fn kernels(device: &Device) -> Result<Operations, Failure> {
        match Gpu::new(device) {
            Ok(gpu) => Ok(Operations::new(Arc::new(gpu))),
            Err(error) => refuse(format!(
                "the GPU cannot run this program's kernels, which are for compute capability 9.0 and newer: {error}"
            )),
        }
    }

    pub fn with_sums(gpu: Operations, device: &Device, ranks: &mut Ranks) -> Result<Operations, Failure> {
        // Each rank has an identity to give, so that all know whether all can; the first one's is taken.
        let library = nccl::Library::load()
            .and_then(|library| library.id().map(|id| (library, id)).map_err(|error| error.to_string()));
        let missing = ranks.sum_of(f64::from(u8::from(library.is_err())))?;
        let (library, Id(id)) = match library {
            Ok(found) if missing == 0.0 => found,
            Ok(_) => return Ok(gpu),
            Err(why) => {
                if ranks.rank() == 0 {
                    // That it cannot be written is no reason to fail.
                    let _ = writeln!(
                        std::io::stderr(),
                        "{why}: the ranks add their gradients up in the host's memory, which is slower"
                    );
                }
                return Ok(gpu);
            }
        };
        let id = Id(ranks.from_first(id)?);
        let nccl = Nccl::begin(library, device, id, ranks.rank(), ranks.count())?;
        ranks.wait(|| Ok(nccl.is_done()?))?;
        Ok(gpu.with_sums(Arc::new(nccl)))
    }

    /// Bytes that are free, and all, of the device that was opened last.
    pub fn memory() -> Option<(u64, u64)> {
        result::mem_get_info().ok().map(|(free, total)| (free as u64, total as u64))
    }

    /// Has the driver keep what is given back for the next one who asks: by itself it takes all of it at each wait.
    fn keep_memory(rank: u32) {
        let (mut pool, threshold) = (std::ptr::null_mut(), u64::MAX);
        let keep = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: writes a handle that the driver owns, and reads one number of the type that the attribute has.
        unsafe {
            if sys::cuDeviceGetDefaultMemPool(&raw mut pool, rank.cast_signed()).result().is_ok() {
                // Without it all is well, and slower.
                let _ = sys::cuMemPoolSetAttribute(pool, keep, (&raw const threshold).cast_mut().cast());
            }
        }
    }

    fn libraries() -> Result<(), Failure> {
        for name in LIBRARIES {
            if let Err(error) = library(name) {
                return refuse(format!(
                    "the job asks for a GPU, but CUDA's {name} cannot be loaded ({error}): install the libraries of CUDA \
                     {}, or name their folder in LD_LIBRARY_PATH (PyTorch brings them, in nvidia/cu13/lib)",
                    VERSION / 1000
                ));
            }
        }
        if library(CURAND).is_err()
            && let Err(error) = stand_in()
        {
            return refuse(format!(
                "the job asks for a GPU, but CUDA's {CURAND} is not there, and nothing can stand in for it ({error}): \
                 install it"
            ));
        }
        Ok(())
    }

    /// Loads what stands in for cuRAND, out of memory: whoever opens cuRAND then gets that, by its name.
    fn stand_in() -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let memory =
            rustix::fs::memfd_create("curand", MemfdFlags::CLOEXEC).map_err(|error| failed(&error))?;
        let mut memory = File::from(memory);
        memory.write_all(INSTEAD_OF_CURAND).map_err(|error| failed(&error))?;
        library(&format!("/proc/self/fd/{}", memory.as_raw_fd()))
    }

    /// Loads a library, for the life of the process.
    fn library(name: &str) -> Result<(), String> {
        // SAFETY: what a library of CUDA does when it is loaded is what it does for the bindings a moment later.
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => {
                std::mem::forget(library);
                Ok(())
            }
            // The words are the loader's own.
            Err(error) => Err(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
        }
    }

    /// The driver, started; new enough; with a GPU for this rank.
    fn driver(rank: u32) -> Result<(), Failure> {
        if let Err(error) = library(DRIVER) {
            return refuse(format!(
                "the job asks for a GPU, but NVIDIA's driver cannot be loaded ({error}): install it, or let the slot have \
                 the device \"cpu\""
            ));
        }
        let mut version = 0;
        // SAFETY: writes one number.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        if asked.result().is_ok() && version / 1000 < VERSION / 1000 {
            return refuse(format!(
                "NVIDIA's driver here is for CUDA up to {}.{}, and this program needs {}.{}: install a newer driver",
                version / 1000,
                version % 1000 / 10,
                VERSION / 1000,
                VERSION % 1000 / 10
            ));
        }
        if let Err(error) = result::init() {
            return refuse(format!("NVIDIA's driver cannot be started: {:?}", error.0));
        }
        match result::device::get_count() {
            Ok(count) if i64::from(count) <= i64::from(rank) => {
                let seen = std::env::var("CUDA_VISIBLE_DEVICES");
                let seen = seen.map_or_else(|_| "not set".to_owned(), |value| format!("\"{value}\""));
                refuse(format!(
                    "the job asks for GPU {rank} of those that this process may see, and the driver shows {count}: \
                     CUDA_VISIBLE_DEVICES is {seen}"
                ))
            }
            Ok(_) => Ok(()),
            Err(error) => {
                refuse(format!("NVIDIA's driver does not say how many GPUs there are: {:?}", error.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        assert!(open(job::Device::Cpu, 0).unwrap().is_cpu());
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_program_without_cuda_says_how_to_get_one() {
        let failure = open(job::Device::Cuda, 0).unwrap_err();
        assert_eq!(failure.kind, Kind::Device);
        assert!(failure.message.contains("make build-cuda"), "{failure}");
    }
}
