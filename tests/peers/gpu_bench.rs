//! The script that measures a GPU against torch, on the CPU: that it works, and what it says where there is no GPU.

use std::path::Path;
use std::process::{Command, Output};

use harness::program;
use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    let python = std::env::var_os("LRPATH_PYTHON").expect("LRPATH_PYTHON: run `make peers`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/cuda/bench.py");
    let mut command = Command::new(python);
    command.arg(script).arg("--program").arg(program("lrpath-train"));
    // No GPU of this machine is looked at.
    command.args(arguments).env("CUDA_VISIBLE_DEVICES", "").output().unwrap()
}

#[test]
fn both_train_the_same_steps() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("figures.json");
    let few = ["--warm-up", "1", "--steps", "2", "--rounds", "1", "--race", "8"];
    let output = bench(&[&["--device", "cpu", "--out", out.to_str().unwrap()], &few[..]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("| tiny (4 M) |") && said.contains("tiny: attention backward"), "{said}");
    let figures: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    assert!(figures["speeds"][0]["ratio"].as_f64().unwrap() > 0.0);
    let race = &figures["race"];
    let losses = |who: &str| {
        let all = race["losses"][who].as_array().unwrap();
        all.iter().map(|loss| loss.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let (ours, theirs) = (losses("ours"), losses("f32"));
    assert_eq!((ours.len(), theirs.len()), (8, 8));
    // The same weights and tokens, and they learn.
    assert!((ours[0] - theirs[0]).abs() < 1e-4 * theirs[0] && ours[7] < ours[0], "{ours:?} {theirs:?}");
    assert!(race["distance"]["ours"].as_f64() <= race["distance"]["bf16"].as_f64(), "{said}");
}

#[test]
fn without_a_gpu_it_says_so_and_is_skipped() {
    let output = bench(&[]);
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("skipped: torch finds no GPU"));
}
