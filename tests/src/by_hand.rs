//! A job for the trainer by itself, made without a daemon.

use std::path::{Path, PathBuf};

use artifacts::job::{
    self, Checkpoints, Device, Evaluation, Job, Optimizer, Piece, Precision, Recompute, Start,
};

/// A job that trains the weights of the HF folder `model` on `tokens.u32`, in f32 on two threads, evaluates nothing and
/// saves nothing before its end. What a test wants otherwise it changes.
pub fn job(steps: u64, sequence_length: u32, sequences_per_step: u32) -> Job {
    Job {
        format: job::FORMAT,
        job: 1,
        attempt: 1,
        path: "path-switching.main.g1".to_owned(),
        model: "model/config.json".into(),
        start: Start::Folder { path: "model".into() },
        from: 0,
        to: steps,
        sequence_length,
        sequences_per_step,
        micro_batch: sequences_per_step,
        mask_documents_at: None,
        precision: Precision::F32,
        device: Device::Cpu,
        ranks: 1,
        recompute: Recompute::default(),
        learning_rates: "learning_rates".into(),
        sequences: "sequences".into(),
        token_files: vec!["tokens.u32".into()],
        skip: Vec::new(),
        spikes: None,
        optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
        checkpoints: Checkpoints { folder: "checkpoints".into(), every: None, at_end: true, wait: 0 },
        evaluation: Evaluation { every: None, at_end: false, increments: Vec::new() },
        threads: Some(2),
    }
}

/// The sequences of a job, each after the other in its first token file.
pub fn in_order(job: &Job) -> Vec<Piece> {
    let count = job.sequence_length + 1;
    let sequences = (job.to - job.from) * u64::from(job.sequences_per_step);
    (0..sequences).map(|sequence| Piece { file: 0, count, first: sequence * u64::from(count) }).collect()
}

/// Writes a token file.
pub fn write_tokens(path: &Path, tokens: &[u32]) {
    let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}

/// Writes a job and the two files beside it, and gives the path of its `job.json`.
pub fn write(folder: &Path, job: &Job, rates: &[f64], pieces: &[Piece]) -> PathBuf {
    let pieces: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_bytes()).collect();
    std::fs::write(folder.join(&job.sequences), pieces).unwrap();
    let rates: Vec<u8> = rates.iter().flat_map(|rate| rate.to_le_bytes()).collect();
    std::fs::write(folder.join(&job.learning_rates), rates).unwrap();
    std::fs::create_dir_all(folder.join(&job.checkpoints.folder)).unwrap();
    let path = folder.join("job.json");
    std::fs::write(&path, serde_json::to_vec(job).unwrap()).unwrap();
    path
}
