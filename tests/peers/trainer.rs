//! The trainer by itself: a job made by hand, and what the trainer says of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use artifacts::event::{Event, Line};
use artifacts::job::{Block, HeldOut, Piece, Precision};
use harness::{by_hand, corpus, program, python};
use tempfile::TempDir;

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

/// What a job does otherwise than others of its model.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// The learning rate of each step.
    pub rates: &'a [f64],
    /// Gradient norm above which gradients are scaled.
    pub clip: f64,
    /// Whether attention ends at [`END_OF_TEXT`].
    pub mask_documents: bool,
    /// Its arithmetic.
    pub precision: Precision,
}

/// The letters of the corpus as tokens, with its punctuation as the end of documents.
pub fn letters() -> Vec<u32> {
    let token = |byte: u8| if byte.is_ascii_punctuation() { END_OF_TEXT } else { byte.into() };
    corpus::text().bytes().map(token).collect()
}

/// Writes a job for one of the small models, on the letters of the corpus, and gives the path of its `job.json`.
/// Sequences lie in two token files, every third one across both; the held-out blocks have all kinds of lengths.
pub fn job(peer: &Peer, told: &Told<'_>) -> PathBuf {
    let folder = peer.path("");
    let mut job = by_hand::job(told.rates.len() as u64, LENGTH, SEQUENCES);
    let length = LENGTH + 1;
    let sequences = told.rates.len() as u32 * SEQUENCES;
    let letters = letters();
    for (file, letters) in ["a.u32", "b.u32"].iter().zip(letters.chunks(letters.len() / 2)) {
        by_hand::write_tokens(&folder.join(file), &letters[..(sequences * length) as usize]);
    }
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
    let block = |file, first, count| Block { piece: Piece { file, count, first }, bytes: None };
    let held_out = |increment, blocks| HeldOut { increment, blocks };
    job.micro_batch = 2;
    job.token_files = vec!["a.u32".into(), "b.u32".into()];
    job.mask_documents_at = told.mask_documents.then_some(END_OF_TEXT);
    job.precision = told.precision;
    job.optimizer.clip = told.clip;
    job.evaluation.at_end = true;
    job.evaluation.increments = vec![
        held_out(1, vec![block(0, 0, 130), block(1, 3, 49), block(1, 60, 1), block(0, 140, 2)]),
        held_out(2, vec![block(1, 70, 97)]),
    ];
    by_hand::write(&folder, &job, told.rates, &pieces)
}

/// Writes a job for the model `tiny` of [`SIZES`](harness::sizes::SIZES), 8 sequences of 256 words of the corpus a step.
pub fn tiny_job(peer: &Peer, told: &Told<'_>) -> PathBuf {
    let folder = peer.path("");
    let mut job = by_hand::job(told.rates.len() as u64, 256, 8);
    job.mask_documents_at = told.mask_documents.then_some(0);
    job.precision = told.precision;
    job.optimizer.clip = told.clip;
    by_hand::write_tokens(&folder.join(&job.token_files[0]), &corpus::words(&corpus::text(), 4096));
    by_hand::write(&folder, &job, told.rates, &by_hand::in_order(&job))
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
