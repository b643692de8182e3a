//! The trainer by itself: a job made by hand, and what the trainer says of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use artifacts::event::{Event, Line};
use artifacts::job::{
    self, Block, Checkpoints, Evaluation, HeldOut, Job, Optimizer, Piece, Precision, Start,
};
use harness::program;
use harness::text::Chance;
use tempfile::TempDir;

use crate::python;

const LENGTH: u32 = 48;
const SEQUENCES: u32 = 4;
const END_OF_TEXT: u32 = 7;

/// A small LLaMA that transformers makes, and a folder to work in.
pub struct Peer {
    folder: TempDir,
}

impl Peer {
    /// One for each of the settings (JSON over the defaults of `make_model.py`).
    pub fn all<const N: usize>(settings: [&str; N]) -> [Self; N] {
        let peers = settings.map(|_| Self { folder: tempfile::tempdir().unwrap() });
        let models = peers.each_ref().map(|peer| peer.path("model"));
        let arguments: Vec<&str> = models
            .iter()
            .zip(settings)
            .flat_map(|(model, settings)| [python::text(model), settings])
            .collect();
        python::run("make_model.py", &arguments);
        peers
    }

    /// A path in its folder; the model's own folder is `model`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Tokens with something in them to learn, as a file.
pub fn token_file(path: &Path, seed: u64, count: u64) {
    let mut chance = Chance(seed);
    let mut token = 0;
    let mut next = || {
        token = (token * 5 + chance.below(3)) % 40;
        token as u32
    };
    let bytes: Vec<u8> = (0..count).flat_map(|_| next().to_le_bytes()).collect();
    std::fs::write(path, bytes).unwrap();
}

/// Writes a job from a peer's model with a rate for each step, and gives the path of its `job.json`. Sequences lie in
/// two token files, every third one across both; the held-out blocks have all kinds of lengths.
pub fn job(peer: &Peer, rates: &[f64], clip: f64, mask_documents: bool) -> PathBuf {
    let folder = peer.folder.path();
    let length = LENGTH + 1;
    let sequences = rates.len() as u32 * SEQUENCES;
    token_file(&folder.join("a.u32"), 1, u64::from(sequences * length));
    token_file(&folder.join("b.u32"), 2, u64::from(sequences * length));
    let mut pieces = Vec::new();
    for sequence in 0..sequences {
        let first = u64::from(sequence * length);
        match sequence % 3 {
            0 => pieces.push(Piece { file: 0, count: length, first }),
            1 => pieces.push(Piece { file: 1, count: length, first }),
            _ => pieces
                .extend([Piece { file: 1, count: 20, first }, Piece { file: 0, count: length - 20, first }]),
        }
    }
    std::fs::write(
        folder.join("sequences"),
        pieces.iter().flat_map(|piece| piece.to_bytes()).collect::<Vec<_>>(),
    )
    .unwrap();
    let rates_file: Vec<u8> = rates.iter().flat_map(|rate| rate.to_le_bytes()).collect();
    std::fs::write(folder.join("learning_rates"), rates_file).unwrap();
    std::fs::create_dir_all(folder.join("checkpoints")).unwrap();
    let block = |file, first, count| Block { piece: Piece { file, count, first }, bytes: None };
    let held_out = |increment, blocks| HeldOut { increment, blocks };
    let job = Job {
        format: job::FORMAT,
        job: 1,
        attempt: 1,
        path: "path-switching.main.g1".to_owned(),
        model: "model/config.json".into(),
        start: Start::Folder { path: "model".into() },
        from: 0,
        to: rates.len() as u64,
        sequence_length: LENGTH,
        sequences_per_step: SEQUENCES,
        micro_batch: 2,
        mask_documents_at: mask_documents.then_some(END_OF_TEXT),
        precision: Precision::F32,
        learning_rates: "learning_rates".into(),
        sequences: "sequences".into(),
        token_files: vec!["a.u32".into(), "b.u32".into()],
        skip: Vec::new(),
        optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip },
        checkpoints: Checkpoints { folder: "checkpoints".into(), every: None },
        evaluation: Evaluation {
            every: None,
            at_end: true,
            increments: vec![
                held_out(1, vec![block(0, 0, 130), block(1, 3, 49), block(1, 60, 1), block(0, 140, 2)]),
                held_out(2, vec![block(1, 70, 97)]),
            ],
        },
        threads: Some(2),
    };
    let path = folder.join("job.json");
    std::fs::write(&path, serde_json::to_vec(&job).unwrap()).unwrap();
    path
}

/// Trains a job to its end.
pub fn train(job: &Path) -> Vec<Event> {
    let output = Command::new(program("lrpath-train")).arg("--job").arg(job).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(|line| serde_json::from_str::<Line>(line).unwrap().event).collect()
}

/// How far the trainer's logits after every token of a file are from transformers', relative to the largest one, for
/// each model.
pub fn logits_differences(models: &[PathBuf], tokens: &Path, scratch: &Path) -> Vec<f64> {
    let mut arguments = vec![python::text(tokens).to_owned()];
    for (number, model) in models.iter().enumerate() {
        let out = scratch.join(format!("{number}.safetensors"));
        let mut command = Command::new(program("lrpath-train"));
        command.args(["logits", "--threads", "2", "--model"]).arg(model);
        let output = command.arg("--tokens").arg(tokens).arg("--out").arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        arguments.extend([python::text(model).to_owned(), python::text(&out).to_owned()]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    serde_json::from_value(python::ask("logits.py", &arguments)).unwrap()
}

/// Loss and gradient norm of a step.
pub fn step(event: &Event) -> Option<(f64, f64)> {
    match event {
        Event::Step { loss, grad_norm, .. } => Some((*loss, *grad_norm)),
        _ => None,
    }
}

/// Increment, loss and targets of an evaluation.
pub fn evaluation(event: &Event) -> Option<(u32, f64, u64)> {
    match event {
        Event::Evaluation { increment, loss, tokens, .. } => Some((*increment, *loss, *tokens)),
        _ => None,
    }
}
