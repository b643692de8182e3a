//! NVIDIA's driver and libraries with a GPU that is this machine's CPU, for programs that were built with CUDA: all of theirs
//! runs, and the kernels run thread by thread, as in the trainer's own tests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

/// What the driver and the libraries are called.
pub const DRIVER: &str = "libcuda.so.1";
const LIBRARIES: [&str; 3] = ["libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"];
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
        symlink(compiled(), self.0.path().join(name)).unwrap();
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

/// The compiled driver. It is compiled anew where a source has changed.
fn compiled() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = here.join("emulated_driver");
    let emulator = here.join("../trainer/tests/emulated_gpu");
    let kernels = here.join("../trainer/src/kernels/cuda/source");
    let mut hasher = DefaultHasher::new();
    let mut sources = vec![emulator.join("emulator.cpp")];
    for folder in [&own, &emulator, &kernels] {
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().for_each(|file| fs::read(file).unwrap().hash(&mut hasher));
        sources.extend(
            files.into_iter().filter(|file| {
                *folder == own && file.extension().is_some_and(|extension| extension == "cpp")
            }),
        );
    }
    let test = env::current_exe().expect("a test has a path");
    let folder = test.parent().expect("tests lie in <profile>/deps");
    let library = folder.join(format!("emulated-driver-{:016x}.so", hasher.finish()));
    if !library.exists() {
        let fresh = folder.join(format!("emulated-driver-{}.so", process::id()));
        let compiler = env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Wno-unknown-pragmas"])
            .arg("-DEMULATED")
            .args([&own, &emulator, &kernels].map(|folder| format!("-I{}", folder.display())))
            .args(&sources)
            .arg("-o")
            .arg(&fresh)
            .output()
            .unwrap_or_else(|error| panic!("{compiler}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(fresh, &library).unwrap();
    }
    library
}
