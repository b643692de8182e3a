//! A small job on disk, for tests: 20 steps of a two-layer model on tokens that can be learned.

use std::fs;
use std::path::{Path, PathBuf};

use artifacts::job::{
    Block, Checkpoints, Device, Evaluation, FORMAT, HeldOut, Job, Optimizer, Piece, Precision, Recompute,
    Start,
};
use tempfile::TempDir;

/// Tokens of the small model's vocabulary.
pub const VOCABULARY: u32 = 31;

/// Targets of a sequence, sequences of a step, steps.
pub const LENGTH: u32 = 12;
pub const PER_STEP: u32 = 4;
pub const STEPS: u64 = 20;

/// A job and the folder that holds its files.
pub struct Fixture {
    pub folder: TempDir,
    pub job: Job,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::write(at.join("config.json"), config(false)).unwrap();
        fs::create_dir(at.join("checkpoints")).unwrap();
        let count = STEPS as u32 * PER_STEP * LENGTH + 1;
        write_tokens(&at.join("stream.u32"), &tokens(count, 1));
        write_tokens(&at.join("held_out.u32"), &tokens(100, 2));
        let rates = (0..STEPS).flat_map(|step| (1e-3 * (step + 1).min(4) as f64).to_le_bytes());
        fs::write(at.join("rates.f64"), rates.collect::<Vec<u8>>()).unwrap();
        // Each sequence in two pieces, as if it spanned two shards.
        let sequences = (0..STEPS * u64::from(PER_STEP)).flat_map(|sequence| {
            let first = sequence * u64::from(LENGTH);
            let pieces = [(first, 5), (first + 5, LENGTH + 1 - 5)];
            pieces.map(|(first, count)| Piece { file: 0, count, first }.to_bytes())
        });
        fs::write(at.join("sequences.bin"), sequences.flatten().collect::<Vec<u8>>()).unwrap();
        let block = |first, count, bytes| Block { piece: Piece { file: 1, count, first }, bytes };
        let job = Job {
            format: FORMAT,
            job: 1,
            attempt: 1,
            path: "path-switching.main.g1".to_owned(),
            model: PathBuf::from("config.json"),
            start: Start::New { seed: 7 },
            from: 0,
            to: STEPS,
            sequence_length: LENGTH,
            sequences_per_step: PER_STEP,
            micro_batch: 2,
            mask_documents_at: None,
            precision: Precision::F32,
            device: Device::Cpu,
            ranks: 1,
            recompute: Recompute::default(),
            learning_rates: PathBuf::from("rates.f64"),
            sequences: PathBuf::from("sequences.bin"),
            token_files: vec![PathBuf::from("stream.u32"), PathBuf::from("held_out.u32")],
            skip: Vec::new(),
            spikes: None,
            optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
            checkpoints: Checkpoints {
                folder: PathBuf::from("checkpoints"),
                every: Some(8),
                at_end: true,
                wait: 0,
            },
            evaluation: Evaluation {
                every: None,
                at_end: true,
                increments: vec![
                    HeldOut { increment: 1, blocks: vec![block(0, 40, Some(90)), block(40, 17, Some(40))] },
                    HeldOut { increment: 2, blocks: vec![block(57, 43, None)] },
                ],
            },
            threads: Some(1),
        };
        Self { folder, job }
    }

    /// Where the job's files are.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes `job.json` as it is now, and says where.
    pub fn write(&self) -> PathBuf {
        let path = self.path().join("job.json");
        fs::write(&path, serde_json::to_vec(&self.job).unwrap()).unwrap();
        path
    }
}

/// The `config.json` of the small model: two layers, four query heads on two groups, every tensor of 64 elements or
/// more.
pub fn config(tied: bool) -> String {
    serde_json::json!({
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 72,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "initializer_range": 0.1,
        "eos_token_id": 0,
    })
    .to_string()
}

/// Tokens of which each mostly follows from the one before.
pub fn tokens(count: u32, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut token = 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    (0..count)
        .map(|_| {
            token = if next() % 5 == 0 { next() % VOCABULARY } else { (token * 3 + 1) % VOCABULARY };
            token
        })
        .collect()
}

pub fn write_tokens(path: &Path, tokens: &[u32]) {
    fs::write(path, tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
}
