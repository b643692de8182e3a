//! A trainer that was built with CUDA, where there is no GPU: what can be seen of it there. `make cuda-check` builds it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod emulated;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::emulated_driver::EmulatedDriver;
use harness::sizes::Size;
use serde_json::{Value, json};

/// The trainer with CUDA.
fn with_cuda() -> PathBuf {
    let folder = std::env::var_os("LRPATH_CUDA_BIN").expect("LRPATH_CUDA_BIN: run `make cuda-check`");
    PathBuf::from(folder).join("lrpath-train")
}

/// Two steps of a small model on a device, in a folder.
fn trained(program: &Path, folder: &Path, device: &str, environment: &[(&str, String)]) -> Output {
    let path = Size::named("tiny").job(folder, 32, 2, 2, None);
    let mut job: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    job["device"] = json!(device);
    fs::write(&path, job.to_string()).unwrap();
    let mut command = Command::new(program);
    command.arg("--job").arg(&path).envs(environment.iter().cloned()).output().unwrap()
}

fn events_of(output: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What a job on a GPU is told where there is such a driver.
fn refused(driver: &EmulatedDriver, words: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let [libraries, world] = driver.environment(words);
    let environment = [libraries, world, ("CUDA_VISIBLE_DEVICES", "GPU-that-is-gone".to_owned())];
    let output = trained(&with_cuda(), folder.path(), "cuda", &environment);
    let events = events_of(&output.stdout);
    assert_eq!(output.status.code(), Some(71), "{output:?}");
    assert_eq!(
        (events.len(), &events[0]["event"], &events[0]["kind"]),
        (1, &json!("failed"), &json!("device"))
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    events[0]["message"].as_str().unwrap().to_owned()
}

#[test]
fn the_same_program_trains_on_the_cpu_to_the_same_bits() {
    let digests = [with_cuda(), harness::program("lrpath-train")].map(|program| {
        let folder = tempfile::tempdir().unwrap();
        let output = trained(&program, folder.path(), "cpu", &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let events = events_of(&output.stdout);
        events.iter().find(|event| event["event"] == "checkpoint").unwrap()["digest"].clone()
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn what_is_missing_for_a_gpu_is_told_in_a_sentence() {
    // A machine with a driver of its own tells something else.
    let alone = refused(&EmulatedDriver::nowhere(), "");
    assert!(
        alone.contains("the job asks for a GPU, but NVIDIA's driver cannot be loaded (libcuda.so.1"),
        "{alone}"
    );
    let driver = EmulatedDriver::alone();
    for (world, words) in [
        ("version=12040", "NVIDIA's driver here is for CUDA up to 12.4, and this program needs 13.0"),
        ("init=803", "NVIDIA's driver cannot be started: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ("gpus=0", "and the driver shows 0: CUDA_VISIBLE_DEVICES is \"GPU-that-is-gone\""),
        ("", "CUDA's libcublas.so.13 cannot be loaded"),
    ] {
        let told = refused(&driver, world);
        assert!(told.contains(words), "{world}: {told}");
    }
}

#[test]
fn a_trainer_without_cuda_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = trained(&harness::program("lrpath-train"), folder.path(), "cuda", &[]);
    assert_eq!(output.status.code(), Some(71));
    assert!(events_of(&output.stdout)[0]["message"].as_str().unwrap().contains("make build-cuda"));
}
