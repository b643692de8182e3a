//! Sums over the GPUs of a slot, by NCCL.
//!
//! They are taken on a stream of their own, beside the backward pass, which has the gradients of other layers still to find. A
//! GPU whose peer has ended would wait for it for ever, and so would a host that waits in the library: nothing here blocks,
//! and whoever waits can look for the peers meanwhile, and abort.

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::{Device, Result, bail};

use super::{AllReduce, Run};

/// What adds up over the GPUs of a slot. The bindings look for it under other names than the one it has, so it is opened here.
const LIBRARY: &str = "libnccl.so.2";

/// The oldest version that has what is used here, as the library numbers it: 2.18.0.
const OLDEST: c_int = 2_18_00;

/// How long a sum's start is waited for, which takes a small part of that: the host is far ahead of the GPU. At first, while the
/// library connects, it takes longer.
const SOON: Duration = Duration::from_millis(1);

/// What the first rank makes and all join by.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Id(pub [u8; 128]);

type Outcome = c_int;
const SUCCESS: Outcome = 0;
const IN_PROGRESS: Outcome = 7;
const FLOAT32: c_int = 7;
const SUM: c_int = 0;

/// What a group is known to the library by.
type Handle = *mut c_void;

/// `ncclConfig_t` of version 2.17; later libraries take what they have beside it for not given.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    const VERSION: u32 = 2_17_00;
    const MAGIC: u32 = 0xcafe_beef;
    const NOT_GIVEN: c_int = c_int::MIN;

    /// With calls that return before they are done.
    fn without_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: Self::MAGIC,
            version: Self::VERSION,
            blocking: 0,
            cga_cluster_size: Self::NOT_GIVEN,
            min_ctas: Self::NOT_GIVEN,
            max_ctas: Self::NOT_GIVEN,
            net_name: null(),
            split_share: Self::NOT_GIVEN,
        }
    }
}

/// The library's functions, as nccl.h has them.
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut Id) -> Outcome,
    comm_init_rank_config: unsafe extern "C" fn(*mut Handle, c_int, Id, c_int, *mut Config) -> Outcome,
    comm_get_async_error: unsafe extern "C" fn(Handle, *mut Outcome) -> Outcome,
    comm_abort: unsafe extern "C" fn(Handle) -> Outcome,
    group_start: unsafe extern "C" fn() -> Outcome,
    group_end: unsafe extern "C" fn() -> Outcome,
    all_reduce:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, *mut c_void) -> Outcome,
    get_last_error: unsafe extern "C" fn(Handle) -> *const c_char,
}

/// The library, loaded.
pub struct Library {
    functions: Functions,
    version: c_int,
}

impl Library {
    /// Loads it, for the life of the process.
    ///
    /// # Errors
    /// In words: it is not there, or too old.
    pub fn load() -> std::result::Result<Self, String> {
        // SAFETY: what a library of CUDA does when it is loaded is what any program that uses it asks for.
        let library = unsafe { libloading::Library::new(LIBRARY) }.map_err(|error| {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("{LIBRARY} cannot be loaded ({why})")
        })?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the function has the type that nccl.h gives it.
                *unsafe { library.get($name) }
                    .map_err(|_| format!("{LIBRARY} has no {}", String::from_utf8_lossy($name)))?
            };
        }
        let get_version: unsafe extern "C" fn(*mut c_int) -> Outcome = function!(b"ncclGetVersion");
        let mut version = 0;
        // SAFETY: writes one number.
        unsafe { get_version(&raw mut version) };
        if version < OLDEST {
            return Err(format!("NCCL {version} is older than {OLDEST}"));
        }
        let functions = Functions {
            get_unique_id: function!(b"ncclGetUniqueId"),
            comm_init_rank_config: function!(b"ncclCommInitRankConfig"),
            comm_get_async_error: function!(b"ncclCommGetAsyncError"),
            comm_abort: function!(b"ncclCommAbort"),
            group_start: function!(b"ncclGroupStart"),
            group_end: function!(b"ncclGroupEnd"),
            all_reduce: function!(b"ncclAllReduce"),
            get_last_error: function!(b"ncclGetLastError"),
        };
        // Its functions are called as long as the process lives.
        std::mem::forget(library);
        Ok(Self { functions, version })
    }

    /// A new group's identity.
    ///
    /// # Errors
    /// The library finds no way between processes of this machine.
    pub fn id(&self) -> Result<Id> {
        let mut id = Id([0; 128]);
        // SAFETY: writes the bytes of one.
        self.said(unsafe { (self.functions.get_unique_id)(&raw mut id) }, null_mut())?;
        Ok(id)
    }

    /// The library's word, as an error of candle's. That it is not done yet is none.
    fn said(&self, outcome: Outcome, handle: Handle) -> Result<()> {
        if matches!(outcome, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        // SAFETY: the library's own words, which stay as long as it is loaded; it takes null for no handle.
        let words = unsafe { (self.functions.get_last_error)(handle) };
        let words = match words.is_null() {
            true => String::new(),
            // SAFETY: it ends with a zero.
            false => unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned(),
        };
        bail!("NCCL error {outcome}: {words}")
    }
}

/// One rank's place in a group.
pub struct Nccl {
    group: Mutex<Group>,
    /// That of the tensors.
    work: Arc<CudaStream>,
    /// That of the sums.
    sums: Arc<CudaStream>,
    version: c_int,
}

struct Group {
    library: Library,
    /// Null once it was aborted.
    handle: Handle,
    /// What the library was not ready for yet, as it is at first, while it connects: to be added up once the work before it is done.
    waiting: VecDeque<(CudaEvent, Vec<Run>)>,
    /// Whether the library may still be about to put the last sums on their stream, so that nothing stands behind them there.
    is_starting: bool,
    /// Behind the last sums.
    last: Option<CudaEvent>,
}

// SAFETY: the library's handle may be used by any thread, by one at a time: it is behind a lock.
unsafe impl Send for Group {}

impl Nccl {
    /// Begins to join a group of `count` ranks, all of which must. It is done when [`AllReduce::is_done`] says so.
    ///
    /// # Errors
    /// The device is no GPU, or it cannot begin.
    pub fn begin(library: Library, device: &Device, id: Id, rank: u32, count: u32) -> Result<Self> {
        let work = device.as_cuda_device()?.cuda_stream();
        let sums = work.context().new_stream().w()?;
        let (mut config, mut handle) = (Config::without_blocking(), null_mut());
        let (rank, count) = (rank.cast_signed(), count.cast_signed());
        // SAFETY: writes a handle; the configuration is read before it returns.
        let outcome = unsafe {
            (library.functions.comm_init_rank_config)(&raw mut handle, count, id, rank, &raw mut config)
        };
        library.said(outcome, null_mut())?;
        let version = library.version;
        let group = Group { library, handle, waiting: VecDeque::new(), is_starting: false, last: None };
        Ok(Self { group: Mutex::new(group), work, sums, version })
    }

    fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the library what it is ready for. Whether it has put all on its stream.
    fn advance(&self, group: &mut Group) -> Result<bool> {
        while group.is_ready()? {
            if std::mem::take(&mut group.is_starting) {
                group.last = Some(self.sums.record_event(None).w()?);
            }
            let Some((before, runs)) = group.waiting.pop_front() else { break };
            self.sums.wait(&before).w()?;
            group.add_up(&runs, &self.sums)?;
            group.is_starting = true;
        }
        Ok(group.waiting.is_empty() && !group.is_starting)
    }
}

impl Group {
    /// Whether the library has done what it was asked last: not the sums, but to take them on.
    fn is_ready(&self) -> Result<bool> {
        if self.handle.is_null() {
            bail!("the sums over the ranks were given up");
        }
        let mut outcome = SUCCESS;
        // SAFETY: the handle is alive; writes one number.
        let asked = unsafe { (self.library.functions.comm_get_async_error)(self.handle, &raw mut outcome) };
        self.library.said(asked, self.handle)?;
        self.library.said(outcome, self.handle)?;
        Ok(outcome == SUCCESS)
    }

    /// As one call: the library starts one kernel for them.
    fn add_up(&self, runs: &[Run], stream: &CudaStream) -> Result<()> {
        let Self { library, handle, .. } = self;
        // SAFETY: it changes how this thread's calls are taken, up to the end below.
        library.said(unsafe { (library.functions.group_start)() }, *handle)?;
        let started = runs.iter().try_for_each(|run| {
            let memory = run.address as *mut c_void;
            let stream = stream.cu_stream().cast();
            // SAFETY: so many numbers are there by the word of `AllReduce::start`'s caller, and nobody else touches them before
            // the sums are done.
            let outcome = unsafe {
                (library.functions.all_reduce)(memory, memory, run.count, FLOAT32, SUM, *handle, stream)
            };
            library.said(outcome, *handle)
        });
        // SAFETY: the end of what was begun above.
        let ended = library.said(unsafe { (library.functions.group_end)() }, *handle);
        started.and(ended)
    }
}

impl AllReduce for Nccl {
    fn name(&self) -> String {
        format!("nccl{}", self.version)
    }

    unsafe fn start(&self, runs: Vec<Run>) -> Result<()> {
        let before = self.work.record_event(None).w()?;
        let group = &mut *self.group();
        group.waiting.push_back((before, runs));
        let began = Instant::now();
        while !self.advance(group)? && began.elapsed() < SOON {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn is_done(&self) -> Result<bool> {
        let group = &mut *self.group();
        if !self.advance(group)? || !group.is_ready()? {
            return Ok(false);
        }
        group.last.as_ref().map_or(Ok(true), |last| last.try_is_complete().w())
    }

    fn abort(&self) {
        let mut group = self.group();
        let handle = std::mem::replace(&mut group.handle, null_mut());
        if !handle.is_null() {
            // SAFETY: the handle is alive, and not used again. What the library says to that is nobody's concern any more.
            unsafe { (group.library.functions.comm_abort)(handle) };
        }
    }
}

impl Drop for Nccl {
    /// Not the friendlier ways to end, which wait for ranks that may have ended.
    fn drop(&mut self) {
        self.abort();
    }
}
