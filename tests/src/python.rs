//! The peers' own programs, run with the Python that has torch and transformers.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Runs a script of `tests/peers` and takes the JSON that it prints.
pub fn ask(script: &str, arguments: &[&str]) -> Value {
    serde_json::from_slice(&run(script, arguments)).unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// Runs a script of `tests/peers`, and gives what it prints.
pub fn run(script: &str, arguments: &[&str]) -> Vec<u8> {
    let output = command(script, 2).args(arguments).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A script of `tests/peers` that computes on so many threads.
pub fn command(script: &str, threads: u32) -> Command {
    let python = PathBuf::from(std::env::var_os("LRPATH_PYTHON").expect(
        "LRPATH_PYTHON names no Python with torch and transformers: run `make peers` or `make bench`, which install them",
    ));
    assert!(python.is_file(), "LRPATH_PYTHON is no file: {}", python.display());
    let mut command = Command::new(python);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HF_HUB_OFFLINE", "1")
        .env("OMP_NUM_THREADS", threads.to_string());
    command
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
