//! The models that the trainer is measured with, and compared with other programs.

use std::path::{Path, PathBuf};

use artifacts::job::Start;
use serde_json::{Value, json};

use crate::by_hand;

/// A model, and the steps that are measured.
pub struct Size {
    /// Its name.
    pub name: &'static str,
    /// Settings of its config.json, over transformers' own.
    pub model: &'static str,
    /// Targets of a sequence.
    pub length: u32,
    /// Sequences of a step.
    pub sequences: u32,
    /// Steps of one run.
    pub steps: usize,
}

/// The smallest first.
pub const SIZES: [Size; 3] = [
    Size {
        name: "tiny",
        model: r#"{"vocab_size": 4096, "hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5, "initializer_range": 0.02}"#,
        length: 256,
        sequences: 8,
        steps: 6,
    },
    Size {
        name: "small",
        model: r#"{"vocab_size": 8192, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6,
            "num_attention_heads": 6, "num_key_value_heads": 6, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5, "initializer_range": 0.02}"#,
        length: 512,
        sequences: 4,
        steps: 2,
    },
    Size {
        name: "medium",
        model: r#"{"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12,
            "num_attention_heads": 12, "num_key_value_heads": 12, "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5, "initializer_range": 0.02}"#,
        length: 512,
        sequences: 2,
        steps: 1,
    },
];

impl Size {
    /// The one of this name.
    pub fn named(name: &str) -> &'static Self {
        SIZES.iter().find(|size| size.name == name).unwrap()
    }

    /// Its config.json, for sequences of `positions` tokens.
    fn config(&self, positions: u32) -> Value {
        let mut config: Value = serde_json::from_str(self.model).unwrap();
        config["model_type"] = json!("llama");
        config["max_position_embeddings"] = json!(positions);
        config["tie_word_embeddings"] = json!(false);
        config
    }

    /// Writes a job that trains new weights of it on all cores, on tokens that mean nothing.
    pub fn job(&self, folder: &Path, length: u32, sequences: u32, steps: u64, every: Option<u64>) -> PathBuf {
        std::fs::create_dir_all(folder.join("model")).unwrap();
        std::fs::write(folder.join("model/config.json"), self.config(length).to_string()).unwrap();
        let mut job = by_hand::job(steps, length, sequences);
        (job.start, job.threads, job.checkpoints.every) = (Start::New { seed: 1 }, None, every);
        let count = steps as u32 * sequences * (length + 1);
        let tokens: Vec<u32> = (0..count).map(|i| i.wrapping_mul(2_654_435_761) >> 20).collect();
        by_hand::write_tokens(&folder.join("tokens.u32"), &tokens);
        let pieces = by_hand::in_order(&job);
        by_hand::write(folder, &job, &vec![1e-3; steps as usize], &pieces)
    }
}
