//! What a trainer says: one JSON object a line on its standard output.
//!
//! The file that collects these lines is the record of an attempt: the daemon follows it while the trainer runs, reads
//! it again after a restart, and recounts its numbers from it. So a line is complete only with its line feed, and
//! nothing in it is ever a guess.

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;

/// The format of the events that this program writes.
pub const FORMAT: u32 = 1;

/// Longest line, in bytes, that is read; a longer one is rubbish.
pub const LONGEST_LINE: usize = 64 * 1024;

/// The JSON schema of one line.
pub fn schema() -> Schema {
    schema_for!(Line)
}

/// One line: an event and when it was said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// Seconds since the Unix epoch.
    pub time: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened in a trainer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first line: the trainer has read its job, its weights and its data.
    Started {
        /// Format of the events.
        format: u32,
        /// Number of the job.
        job: u64,
        /// The attempt.
        attempt: u32,
        /// The trainer's process.
        pid: u32,
        /// First step that this attempt trains.
        step: u64,
        /// Program and version.
        program: String,
        /// Name of the kernels behind the operations.
        kernels: String,
        /// Threads it computes with.
        threads: u32,
        /// Trainable parameters.
        parameters: u64,
    },
    /// One optimizer update is done.
    Step {
        /// Its number, from 0.
        step: u64,
        /// Sequences `[first, end)` in the order of the stream.
        sequences: [u64; 2],
        /// First 16 hex digits of the BLAKE3 of the step's sequences in order, each `sequence_length + 1` tokens as
        /// u32, little-endian, nothing between.
        batch: String,
        /// Mean nats a token, before the update; null where a skipped step has none.
        #[serde(serialize_with = "or_null", deserialize_with = "or_nan")]
        #[schemars(with = "Option<f64>")]
        loss: f64,
        /// The rate of the update.
        learning_rate: f64,
        /// Global gradient norm before clipping; null where a skipped step has none.
        #[serde(serialize_with = "or_null", deserialize_with = "or_nan")]
        #[schemars(with = "Option<f64>")]
        grad_norm: f64,
        /// Tokens trained so far on this path, this step included.
        tokens: u64,
        /// Tokens trained in a second, in this step.
        tokens_per_second: f64,
        /// The step was told to make no update.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        skipped: bool,
    },
    /// Held-out loss of one increment.
    Evaluation {
        /// Updates done.
        step: u64,
        /// The increment.
        increment: u32,
        /// Mean nats a target.
        loss: f64,
        /// `exp(loss)`.
        perplexity: f64,
        /// Bits a byte of text, where the bytes are known.
        bits_per_byte: Option<f64>,
        /// Targets.
        tokens: u64,
        /// Wall-clock seconds that it took.
        seconds: f64,
    },
    /// A checkpoint is safe on disk.
    Checkpoint {
        /// Name of its folder.
        path: String,
        /// Updates done.
        step: u64,
        /// Digest of its manifest.
        digest: Digest,
        /// Size of all its files.
        bytes: u64,
        /// Wall-clock seconds from its copy to the disk.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
        /// Of these, seconds in which no step was trained.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stalled_seconds: Option<f64>,
    },
    /// The job is done; its last checkpoint and evaluations stand before this line.
    Finished {
        /// Updates done: the job's `to`.
        step: u64,
    },
    /// The trainer was asked to stop, and saved.
    Stopped {
        /// Updates done: the step of the last checkpoint.
        step: u64,
    },
    /// The trainer cannot go on.
    Failed {
        /// Kind of failure, a word.
        kind: String,
        /// What happened, where, and what to do.
        message: String,
        /// The step that cannot be made, where its loss or its gradient is not finite.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
    },
}

/// JSON has no word for a number that is none.
fn or_null<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Some(*number).filter(|number| number.is_finite()).serialize(serializer)
}

fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_flat_object() {
        let text = r#"{"time":1.5,"event":"stopped","step":12}"#;
        let line = Line { time: 1.5, event: Event::Stopped { step: 12 } };
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
        assert_eq!(serde_json::from_str::<Line>(text).unwrap(), line);
    }

    #[test]
    fn a_loss_comes_back_to_the_last_bit() {
        for loss in [2.3978952727983707, 1e-300, 0.1 + 0.2, f64::MIN_POSITIVE] {
            let evaluation = Event::Evaluation {
                step: 1,
                increment: 1,
                loss,
                perplexity: loss.exp(),
                bits_per_byte: None,
                tokens: 3,
                seconds: 0.5,
            };
            let text = serde_json::to_string(&Line { time: 0.0, event: evaluation.clone() }).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap().event, evaluation);
        }
    }

    #[test]
    fn a_loss_that_is_none_is_null_and_comes_back() {
        let text = concat!(
            r#"{"time":0.0,"event":"step","step":3,"sequences":[6,8],"batch":"00","loss":null,"learning_rate":0.1,"#,
            r#""grad_norm":null,"tokens":8,"tokens_per_second":1.0,"skipped":true}"#
        );
        let line: Line = serde_json::from_str(text).unwrap();
        let Event::Step { loss, grad_norm, .. } = line.event else { panic!() };
        assert!(loss.is_nan() && grad_norm.is_nan());
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
    }

    #[test]
    fn the_committed_schema_is_current() {
        crate::committed_schema("event", &schema());
    }
}
