//! NVIDIA's driver and libraries with a GPU that is this machine's CPU, for programs that were built with CUDA: all of theirs
//! runs, and the kernels run thread by thread, as in the trainer's own tests.

#[path = "../../trainer/tests/emulated_gpu/compiled.rs"]
mod compiled;

use std::env;
use std::os::unix::fs::symlink;
use std::path::Path;

/// What the driver and the libraries are called.
pub const DRIVER: &str = "libcuda.so.1";
/// Not cuRAND: the trainer does without it.
const LIBRARIES: [&str; 2] = ["libcublas.so.13", "libcublasLt.so.13"];
const NCCL: &str = "libnccl.so.2";

/// A folder with libraries, where programs are to look for them.
pub struct EmulatedDriver(tempfile::TempDir);

impl EmulatedDriver {
    /// With all libraries.
    pub fn new() -> Self {
        let driver = Self::without_nccl();
        driver.add(NCCL);
        driver
    }

    /// With all but NCCL.
    pub fn without_nccl() -> Self {
        let driver = Self::alone();
        LIBRARIES.iter().for_each(|name| driver.add(name));
        driver
    }

    /// Without any library.
    pub fn alone() -> Self {
        let driver = Self::nowhere();
        driver.add(DRIVER);
        driver
    }

    /// An empty folder.
    pub fn nowhere() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn add(&self, name: &str) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let test = env::current_exe().expect("a test has a path");
        let into = test.parent().expect("tests lie in <profile>/deps");
        let own = here.join("emulated_driver");
        let library = compiled::compiled("emulated-driver", &here.join("../trainer"), Some(&own), into);
        symlink(library, self.0.path().join(name)).unwrap();
    }

    /// The environment of a program that is to find it, and its GPUs to be so: words of `emulated_driver/driver.cpp`.
    pub fn environment(&self, words: &str) -> [(&'static str, String); 2] {
        [
            ("LD_LIBRARY_PATH", self.0.path().to_str().unwrap().to_owned()),
            ("LRPATH_EMULATED_GPU", words.to_owned()),
        ]
    }
}

impl Default for EmulatedDriver {
    fn default() -> Self {
        Self::new()
    }
}
