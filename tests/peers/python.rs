//! The peers' own programs, run with the Python that has them.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

/// What `train.py` says of a run.
#[derive(Deserialize)]
pub struct Run {
    pub steps: Vec<Step>,
    pub held_out: Vec<HeldOut>,
}

/// A step of a run.
#[derive(Deserialize)]
pub struct Step {
    pub loss: f64,
    pub grad_norm: f64,
}

/// The held-out loss of an increment.
#[derive(Deserialize)]
pub struct HeldOut {
    pub increment: u32,
    pub loss: f64,
    pub tokens: u64,
}

/// Runs a script of this folder and takes the JSON that it prints.
pub fn ask(script: &str, arguments: &[&str]) -> Value {
    serde_json::from_slice(&run(script, arguments)).unwrap_or_else(|error| panic!("{script}: {error}"))
}

/// Runs a script of this folder.
pub fn run(script: &str, arguments: &[&str]) -> Vec<u8> {
    let python = std::env::var_os("LRPATH_PYTHON").expect(
        "LRPATH_PYTHON names no Python with torch and transformers: run `make peers`, which installs them",
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let output = Command::new(python)
        .arg(&script)
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HF_HUB_OFFLINE", "1")
        .env("OMP_NUM_THREADS", "2")
        .output()
        .unwrap_or_else(|error| panic!("LRPATH_PYTHON does not start ({error}): run `make peers`"));
    assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}
