//! What this process asks of the machine before it computes.
//!
//! Two defaults cost candle half of its speed on a CPU, where it generates text and is the reference. The allocator gives
//! every large buffer back to the kernel and takes fresh pages, which must be zeroed, for the next one; and candle's own
//! thread pool spins while it waits. So freed memory is kept, and only rayon's threads work.

use std::num::NonZero;

use rustix::time::{ClockId, clock_gettime};

use crate::failure::{Failure, Kind};

/// Keeps freed memory in the process. glibc only; elsewhere nothing is done.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const LARGEST_ON_HEAP: libc::c_int = 1 << 30;
        const TOP_PAD: libc::c_int = 64 << 20;
        // SAFETY: mallopt only stores a setting of the allocator. A setting that is refused leaves the default, which
        // is slower and nothing else.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGEST_ON_HEAP);
            libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
            libc::mallopt(libc::M_TOP_PAD, TOP_PAD);
            // One heap for all threads: the others are cut into pieces of 64 MB, which are given back when free.
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

/// How many threads to compute with: as asked for, else one for each core that this process may use.
pub fn threads(asked: Option<u32>) -> usize {
    match asked {
        Some(threads) => threads as usize,
        None => std::thread::available_parallelism().map_or(1, NonZero::get),
    }
}

/// How NCCL is to add up over the ranks of one machine, where nobody has said otherwise: on rings, whose order never changes, which
/// that of a switch that adds by itself may; and finding each other by the loopback, the one way out that a service is sure to have.
const OF_NCCL: [(&str, &str); 2] = [("NCCL_ALGO", "Ring"), ("NCCL_SOCKET_IFNAME", "=lo")];

/// Starts the threads. The calling one is among them: it computes, where it would only wait for the others, and what one
/// operation leaves in its core's cache is there for the next.
///
/// # Safety
///
/// No other thread may run: the environment is changed, which is where candle and NCCL look for what they are to do.
pub unsafe fn start_threads(threads: usize) -> Result<(), Failure> {
    // SAFETY: the caller says that this is the only thread.
    unsafe {
        std::env::set_var("CANDLE_NUM_THREADS", "1");
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
        for (name, value) in OF_NCCL.into_iter().filter(|(name, _)| std::env::var_os(name).is_none()) {
            std::env::set_var(name, value);
        }
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .use_current_thread()
        .build_global()
        .map_err(|error| Failure::new(Kind::Os, format!("cannot start {threads} threads: {error}")))
}

/// Seconds on a clock of the system.
pub fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
