//! Compiles the GPU's kernels where they are wanted, one module for the GPUs of `CUDA_COMPUTE_CAP`, and newer ones; and beside
//! them what calls cuDNN's frontend, whose headers are looked for in `CUDA_HOME` and `CUDNN_HOME`, and what stands in for cuRAND.
//!
//! A kernel whose numbers do not fit into a multiprocessor's registers is a failure and no warning: it would be slow, and nothing
//! else would tell.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a build fails by panicking")]

use std::env;
use std::path::Path;
use std::process::Command;

const SOURCES: &str = "src/kernels/cuda/source";
const ATTENTION: &str = "src/kernels/cuda/cudnn/attention.cpp";
const CURAND: &str = "src/device/curand.c";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    if env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.ends_with("clippy-driver")) {
        // Whoever only looks at the sources links nothing.
        for name in ["kernels.fatbin", "curand.so"] {
            std::fs::write(Path::new(&env::var_os("OUT_DIR").unwrap()).join(name), []).unwrap();
        }
        return;
    }
    println!("cargo::rerun-if-changed={SOURCES}");
    println!("cargo::rerun-if-env-changed=NVCC");
    println!("cargo::rerun-if-env-changed=CUDA_COMPUTE_CAP");
    let compiler = env::var("NVCC").unwrap_or_else(|_| "nvcc".to_owned());
    let generation = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "90".to_owned());
    let module = Path::new(&env::var_os("OUT_DIR").unwrap()).join("kernels.fatbin");
    let output = Command::new(&compiler)
        .args(["-fatbin", "-std=c++17", "-O3", "-Xptxas", "-v,-warn-spills"])
        .arg(format!("-gencode=arch=compute_{generation},code=[sm_{generation},compute_{generation}]"))
        .arg(Path::new(SOURCES).join("all.cu"))
        .arg("-o")
        .arg(&module)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} cannot be started: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler}: {said}");
    if let Some(spills) = spills(&said) {
        panic!("a kernel does not fit into its registers:\n{spills}");
    }
    compile_attention();
    compile_curand();
}

/// A library by the name of one that candle opens.
fn compile_curand() {
    println!("cargo::rerun-if-changed={CURAND}");
    let library = Path::new(&env::var_os("OUT_DIR").unwrap()).join("curand.so");
    let mut compiler = cc::Build::new().get_compiler().to_command();
    compiler
        .args(["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libcurand.so.10", CURAND, "-o"])
        .arg(library);
    assert!(compiler.status().unwrap().success());
}

fn compile_attention() {
    println!("cargo::rerun-if-changed={ATTENTION}");
    let mut compiler = cc::Build::new();
    for home in ["CUDNN_HOME", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={home}");
        if let Some(home) = env::var_os(home) {
            // As system headers, so that their warnings are not ours.
            compiler.flag("-isystem").flag(Path::new(&home).join("include"));
        }
    }
    compiler
        .cpp(true)
        .std("c++17")
        // It calls a library; what would be faster than that is not here.
        .opt_level(1)
        .define("NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING", None)
        .define("CUDNN_FRONTEND_SKIP_JSON_LIB", None)
        .file(ATTENTION)
        .compile("attention");
}

/// What the assembler says of kernels that keep numbers in memory for want of registers.
fn spills(said: &str) -> Option<String> {
    let mut kernel = "";
    let mut found = Vec::new();
    for line in said.lines() {
        if let Some(name) = line.split("Function properties for ").nth(1) {
            kernel = name;
        }
        if line.contains("bytes spill stores") && !line.contains(" 0 bytes spill stores, 0 bytes spill loads")
        {
            found.push(format!("{kernel}: {}", line.trim()));
        }
    }
    (!found.is_empty()).then(|| found.join("\n"))
}
