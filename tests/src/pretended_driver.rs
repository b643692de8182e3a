//! A driver with GPUs that are not there, for machines without one.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, compiled, and how its GPUs are.
pub struct PretendedDriver(tempfile::TempDir);

/// How they are; the letters are those of `pretended_driver/nvml.c`.
#[derive(Debug, Clone, Copy)]
pub enum Gpus {
    /// Both answer.
    Good,
    /// The second has fallen off the bus.
    SecondLost,
    /// The driver does not answer.
    Hanging,
    /// The driver was unloaded.
    Unloaded,
}

impl PretendedDriver {
    /// Two GPUs that answer.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("pretended_driver/nvml.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]);
        compiler.arg(folder.path().join("libnvidia-ml.so.1")).arg(source);
        assert!(compiler.status().expect("cc").success());
        let driver = Self(folder);
        driver.are(Gpus::Good);
        driver
    }

    /// From now on they are so.
    pub fn are(&self, gpus: Gpus) {
        let letter = match gpus {
            Gpus::Good => "g",
            Gpus::SecondLost => "l",
            Gpus::Hanging => "h",
            Gpus::Unloaded => "u",
        };
        let unfinished = self.0.path().join("gpus~");
        std::fs::write(&unfinished, format!("{letter}{}", std::process::id())).unwrap();
        std::fs::rename(unfinished, self.gpus()).unwrap();
    }

    /// The name of its own that a GPU has, by its number.
    pub fn uuid(&self, index: u32) -> String {
        format!("GPU-{:08}-0000-0000-0000-00000000000{}", std::process::id(), index + 1)
    }

    /// What a program that is to find them is started by.
    pub fn by(&self) -> Vec<String> {
        vec![
            "env".to_owned(),
            format!("LD_LIBRARY_PATH={}", self.0.path().display()),
            format!("LRPATH_PRETENDED_GPUS={}", self.gpus().display()),
        ]
    }

    fn gpus(&self) -> PathBuf {
        self.0.path().join("gpus")
    }
}

impl Default for PretendedDriver {
    fn default() -> Self {
        Self::new()
    }
}
