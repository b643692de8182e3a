//! The losses of twenty steps, in full precision, on every way through the kernels that this machine has.
//!
//! A change of a last bit is a change of every run that goes on after an update: it must be meant. Then
//! `UPDATE_GOLDEN=1` writes the files of this machine's ways anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod learnable;

use std::ops::Range;
use std::path::{Path, PathBuf};

use artifacts::checkpoint::{self, State};
use artifacts::job::{self, Precision, Recompute};
use artifacts::storage::Disk;
use candle_core::{DType, Device};
use half::bf16;
use learnable::batch;
use trainer::bench::Size;
use trainer::kernels::cpu::element::Element;
use trainer::kernels::cpu::isa::Isa;
use trainer::model::{Config, Weights};
use trainer::optimizer::Optimizer;
use trainer::state::{Snapshot, load};
use trainer::step::{self, Plan, Scheduled, Step};

const STEPS: u64 = 20;
const LENGTH: usize = 256;
const SEQUENCES: usize = 8;

/// Trains from new weights, with a peak of 1e-3 after ten steps; says the name of the arithmetic too. After ten steps all
/// is saved and loaded, so that what is golden is also exact resume.
fn losses<E: Element>(isa: Isa) -> (String, Vec<f64>) {
    let config = Config::parse(Path::new("config.json"), &Size::ALL[0].config()).unwrap();
    let settings = job::Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 };
    let weights = Weights::new(&config, 1, DType::F32, &Device::Cpu).unwrap();
    let mut optimizer = Optimizer::new(settings.clone(), &weights).unwrap();
    let (name, mut losses) = train::<E>(isa, &config, &weights, &mut optimizer, 0..STEPS / 2);

    let folder = tempfile::tempdir().unwrap();
    let state = State {
        format: checkpoint::FORMAT,
        path: "path-switching.main.g1".to_owned(),
        step: STEPS / 2,
        precision: Precision::F32,
        kernels: name.clone(),
        micro_batch: SEQUENCES as u32,
        skipped: Vec::new(),
        norms: Vec::new(),
    };
    let snapshot = Snapshot::take(&weights, &optimizer, state).unwrap();
    let saved = snapshot.write(&Disk, folder.path()).unwrap();
    let loaded = load(&folder.path().join(saved.name), saved.digest, &config, &Device::Cpu).unwrap();
    let updates = loaded.updates();
    let mut optimizer = Optimizer::resumed(settings, loaded.moments, updates);
    let (_, rest) = train::<E>(isa, &config, &loaded.weights, &mut optimizer, STEPS / 2..STEPS);
    losses.extend(rest);
    (name, losses)
}

fn train<E: Element>(
    isa: Isa,
    config: &Config,
    weights: &Weights,
    optimizer: &mut Optimizer,
    steps: Range<u64>,
) -> (String, Vec<f64>) {
    let plan = Plan { length: LENGTH, micro_batch: SEQUENCES, recompute: Recompute::Selective };
    let mut scheduled = Scheduled::<E>::new(isa, config, plan).unwrap();
    let losses = steps.map(|number| {
        let loss = scheduled.differentiate(weights, &batch(number, SEQUENCES, LENGTH)).unwrap();
        let norm = step::norm(&scheduled).unwrap();
        let rate = 1e-3 * (number + 1).min(10) as f64 / 10.0;
        optimizer.update(scheduled.passes(), weights, scheduled.gradient(), norm, rate).unwrap();
        loss
    });
    let losses = losses.collect();
    (scheduled.name(), losses)
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"))
}

fn recorded(name: &str) -> Option<Vec<f64>> {
    let text = std::fs::read_to_string(file(name)).ok()?;
    Some(text.lines().map(|line| line.parse().unwrap()).collect())
}

#[track_caller]
fn are_golden((name, losses): (String, Vec<f64>)) {
    assert!(losses[19] < losses[0] - 1.0, "{name} learns: {losses:?}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = losses.iter().map(|loss| format!("{loss:?}\n")).collect();
        std::fs::write(file(&name), text).unwrap();
    }
    let golden = recorded(&name).unwrap_or_else(|| panic!("there is no {}", file(&name).display()));
    assert_eq!(losses, golden, "{name}");
}

#[test]
fn the_portable_losses_are_golden() {
    are_golden(losses::<f32>(Isa::PORTABLE));
}

#[test]
fn the_losses_of_this_machines_instructions_are_golden() {
    for isa in Isa::available().into_iter().skip(1) {
        are_golden(losses::<f32>(isa));
    }
}

#[test]
fn avx2_and_avx_512_have_one_record() {
    assert_eq!(recorded("cpu-avx2"), recorded("cpu-avx512"));
}

#[test]
fn the_losses_of_bf16_by_f32_are_golden() {
    are_golden(losses::<bf16>(Isa::PORTABLE));
}

/// How far two runs are from each other at most, relative.
fn distance(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| (one - other).abs() / other).fold(0.0, f64::max)
}

#[test]
fn all_ways_are_the_same_run() {
    let portable = recorded("cpu-portable").unwrap();
    assert!(distance(&recorded("cpu-avx2").unwrap(), &portable) < 1e-5);
    let in_bf16 = recorded("cpu-portable-bf16-by-f32").unwrap();
    assert!((1e-7..5e-3).contains(&distance(&in_bf16, &portable)));
}

/// What the instruction rounds inside is its maker's affair, so each maker that was seen has a record of its own.
#[test]
fn the_losses_of_this_machines_bf16_are_golden() {
    let isa = Isa::best();
    if !isa.multiplies_bf16() {
        println!("skipped: this CPU has no AVX-512-BF16");
        return;
    }
    let (name, losses) = losses::<bf16>(isa);
    let by_f32 = recorded("cpu-portable-bf16-by-f32").unwrap();
    assert!(distance(&losses, &by_f32) < 2e-3, "{name}: {losses:?}");
    if recorded(&name).is_some() || std::env::var_os("UPDATE_GOLDEN").is_some() {
        are_golden((name, losses));
    } else {
        println!("{name} has no record yet: UPDATE_GOLDEN=1 writes it");
    }
}
