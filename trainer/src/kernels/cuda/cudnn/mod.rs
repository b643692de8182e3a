//! Attention by cuDNN, where it is installed.
//!
//! It is loaded when a job wants it, by the library's own frontend, which is C++ (`attention.cpp`). A plan is made for one shape,
//! which takes seconds: the one that a job trains with. What has another shape, documents that are told apart, or a GPU that the
//! library does not know, goes through the kernels here.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use candle_core::{Error, Result, bail};

use super::{AttentionLibrary, PASSED, Shape};

/// What the library is called, whole and without the kernels that come compiled.
const LIBRARIES: [&str; 2] = ["libcudnn.so.9", "libcudnn_graph.so.9"];

/// The variable by which it is not used, to compare, or where it is at fault.
const SWITCH: &str = "LRPATH_CUDNN";

/// The oldest version whose backward pass adds in a fixed order on every GPU that the kernels here are for, as the library numbers
/// it: 9.13.0.
const OLDEST: usize = 9_13_00;

/// It may work in one part of the GPU's memory in so many.
const PART_OF_MEMORY: u64 = 16;

/// Room for what the library says.
const ROOM: usize = 1 << 10;

/// A shape as `attention.cpp` has it.
#[repr(C)]
struct Sizes([i64; 5]);

// `attention.cpp`, which says what each of them does. They tell failures in words.
unsafe extern "C" {
    fn lrpath_cudnn_use(library: *mut c_void) -> usize;
    fn lrpath_cudnn_open(
        handle: *mut *mut c_void,
        stream: *mut c_void,
        words: *mut c_char,
        room: usize,
    ) -> c_int;
    fn lrpath_cudnn_close(handle: *mut c_void);
    fn lrpath_cudnn_plan(
        handle: *mut c_void,
        description: *const c_char,
        generation: c_int,
        sizes: *const Sizes,
        is_backward: c_int,
        plan: *mut *mut c_void,
        workspace: *mut i64,
        words: *mut c_char,
        room: usize,
    ) -> c_int;
    fn lrpath_cudnn_run(
        handle: *mut c_void,
        plan: *mut c_void,
        addresses: *const u64,
        workspace: u64,
        words: *mut c_char,
        room: usize,
    ) -> c_int;
    fn lrpath_cudnn_free(plan: *mut c_void);
}

/// Calls a function that tells failures in words.
fn told(call: impl FnOnce(*mut c_char, usize) -> c_int) -> std::result::Result<(), String> {
    let mut words = [0u8; ROOM];
    match call(words.as_mut_ptr().cast(), ROOM) {
        0 => Ok(()),
        _ => {
            let words = CStr::from_bytes_until_nul(&words).map(CStr::to_string_lossy);
            Err(words.unwrap_or_default().into_owned())
        }
    }
}

/// The library, loaded for the life of the process.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    version: usize,
}

impl Library {
    /// Loads it.
    ///
    /// # Errors
    /// In words: it is not there, too old, or not wanted.
    pub fn load() -> std::result::Result<Self, String> {
        if std::env::var_os(SWITCH).is_some_and(|value| value == "off") {
            return Err(format!("{SWITCH} is off"));
        }
        // SAFETY: what the library does when it is loaded is what any program that uses it asks for.
        let open = |name: &str| unsafe { libloading::os::unix::Library::new(name) };
        let [whole, graphs] = LIBRARIES;
        let library = open(whole).or_else(|_| open(graphs)).map_err(|_| format!("{whole} is not there"))?;
        // SAFETY: the library stays open, since its handle is given away.
        let version = unsafe { lrpath_cudnn_use(library.into_raw()) };
        if version < OLDEST {
            return Err(format!("cuDNN {version} is older than {OLDEST}"));
        }
        Ok(Self { version })
    }

    /// The bytes that attention of a shape works in, on a GPU that is described as cuDNN does it, in JSON, and of a generation
    /// (90 is 9.0), which need not be there: its plans are made and dropped.
    ///
    /// # Errors
    /// In words: the library has no plan.
    pub fn forecast(
        self,
        shape: Shape,
        description: &CStr,
        generation: i32,
    ) -> std::result::Result<u64, String> {
        let of = |is_backward| Plan::new(null_mut(), description.as_ptr(), generation, shape, is_backward);
        Ok(of(false)?.workspace.max(of(true)?.workspace))
    }
}

/// One pass of attention.
struct Plan {
    raw: *mut c_void,
    workspace: u64,
}

impl Plan {
    fn new(
        handle: *mut c_void,
        description: *const c_char,
        generation: i32,
        shape: Shape,
        is_backward: bool,
    ) -> std::result::Result<Self, String> {
        let Shape { sequences, positions, heads, groups, width } = shape;
        let sizes = Sizes([sequences, positions, heads, groups, width].map(|size| size as i64));
        let (mut raw, mut workspace) = (null_mut(), 0);
        told(|words, room| {
            // SAFETY: the handle is one that was opened or null, the description ends with a zero or is null; a plan, the bytes
            // that it works in and words are written.
            unsafe {
                lrpath_cudnn_plan(
                    handle,
                    description,
                    generation,
                    &raw const sizes,
                    c_int::from(is_backward),
                    &raw mut raw,
                    &raw mut workspace,
                    words,
                    room,
                )
            }
        })?;
        Ok(Self { raw, workspace: workspace.cast_unsigned() })
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and not used again.
        unsafe { lrpath_cudnn_free(self.raw) };
    }
}

/// A GPU that the library has opened, for work on a stream.
struct Handle(*mut c_void);

impl Handle {
    fn open(stream: &CudaStream) -> std::result::Result<Self, String> {
        let mut handle = null_mut();
        told(|words, room| {
            // SAFETY: the GPU's context is the present one; a handle and words are written.
            unsafe { lrpath_cudnn_open(&raw mut handle, stream.cu_stream().cast(), words, room) }
        })?;
        Ok(Self(handle))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: opened in `open`, and not used again; plans do not need it.
        unsafe { lrpath_cudnn_close(self.0) };
    }
}

/// Why there is no attention by the library.
pub enum Refusal {
    /// In words: it is done without.
    Declined(String),
    /// There is no memory for it, or the GPU failed.
    Failed(Error),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Declined(why)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Attention of one shape.
pub struct Cudnn {
    handle: Handle,
    version: usize,
    shape: Shape,
    forward: Plan,
    backward: Plan,
    workspace: CudaSlice<u8>,
    stream: Arc<CudaStream>,
}

// SAFETY: the library's handle and its plans may be used by any thread, by one at a time: a step is a row of calls.
unsafe impl Send for Cudnn {}
// SAFETY: as above.
unsafe impl Sync for Cudnn {}

impl Cudnn {
    /// For a stream of a GPU of a generation, with memory to work in.
    ///
    /// # Errors
    /// The library has no plan for the shape there, or none that is content with a part of the GPU's memory: sums in a fixed order
    /// are many at once where sequences are long. Or there is not so much memory.
    pub fn new(
        stream: &Arc<CudaStream>,
        generation: i32,
        shape: Shape,
    ) -> std::result::Result<Self, Refusal> {
        let library = Library::load()?;
        let handle = Handle::open(stream)?;
        let of = |is_backward| Plan::new(handle.0, null(), generation, shape, is_backward);
        let (forward, backward) = (of(false)?, of(true)?);
        let bytes = forward.workspace.max(backward.workspace).max(1);
        let most = stream.context().total_mem().w()? as u64 / PART_OF_MEMORY;
        if bytes > most {
            let (bytes, most) = (bytes.div_ceil(1 << 20), most >> 20);
            return Err(format!("it would work in {bytes} MiB, and may take {most} MiB of this GPU").into());
        }
        // SAFETY: it is scratch memory: nobody reads what they did not write.
        let workspace = unsafe { stream.alloc::<u8>(bytes as usize) }.w()?;
        let (version, stream) = (library.version, stream.clone());
        Ok(Self { handle, version, shape, forward, backward, workspace, stream })
    }

    fn run(&self, plan: &Plan, addresses: &[u64]) -> Result<()> {
        let workspace = self.workspace.device_ptr(&self.stream).0;
        let done = told(|words, room| {
            // SAFETY: the plan is alive, and its tensors are as large as its shape says by the word of `AttentionLibrary`'s caller.
            unsafe { lrpath_cudnn_run(self.handle.0, plan.raw, addresses.as_ptr(), workspace, words, room) }
        });
        match done {
            Ok(()) => Ok(()),
            Err(words) => bail!("cuDNN error: {words}"),
        }
    }
}

impl AttentionLibrary for Cudnn {
    fn name(&self) -> String {
        format!("cudnn{}", self.version)
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    unsafe fn forward(&self, addresses: [u64; PASSED[0]]) -> Result<()> {
        self.run(&self.forward, &addresses)
    }

    unsafe fn backward(&self, addresses: [u64; PASSED[1]]) -> Result<()> {
        self.run(&self.backward, &addresses)
    }
}
