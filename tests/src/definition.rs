//! The stream, written down once more: which tokens every step trains, out of nothing but the shards' own bytes.
//!
//! This follows the definition word by word and shares no code with the programs, so that the two can be held against
//! each other. It keeps everything in memory, and is slow.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the stream hangs on beside the shards.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Seed of hold-out and order.
    pub seed: u64,
    /// Tokens that a sequence predicts.
    pub sequence_length: usize,
    /// Sequences of a step.
    pub sequences_per_step: usize,
    /// Share of blocks that are held out.
    pub held_out_share: f64,
    /// Tokens of a block.
    pub held_out_block: usize,
    /// The token between documents.
    pub end_of_text: Option<u32>,
}

/// A shard.
#[derive(Debug, Clone)]
pub struct Shard {
    /// BLAKE3 of its bytes.
    pub digest: [u8; 32],
    /// Its documents as they stand in the file: end-of-text tokens inside separate more of them.
    pub documents: Vec<Vec<u32>>,
}

/// A text in tokens of [`crate::state::tokenizer`]: each byte is a token, and so is `<|endoftext|>`.
pub fn tokens_of_text(text: &str) -> Vec<u32> {
    let mut parts = text.split("<|endoftext|>");
    let bytes = |part: &str| part.bytes().map(u32::from).collect::<Vec<u32>>();
    let mut tokens = bytes(parts.next().unwrap());
    for part in parts {
        tokens.push(crate::state::END_OF_TEXT);
        tokens.extend(bytes(part));
    }
    tokens
}

impl Shard {
    /// A file of tokens of so many bytes each.
    pub fn of_tokens(file: &[u8], width: usize) -> Self {
        let token = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |token, byte| token << 8 | u32::from(*byte));
        let tokens = file.chunks(width).map(token).collect();
        Self { digest: *blake3::hash(file).as_bytes(), documents: vec![tokens] }
    }

    /// A file of text, of which each byte is a token.
    pub fn of_text(file: &str) -> Self {
        Self { digest: *blake3::hash(file.as_bytes()).as_bytes(), documents: vec![tokens_of_text(file)] }
    }

    /// A file with a JSON object on each line, whose field `text` is a document.
    pub fn of_json_lines(file: &str) -> Self {
        let document = |line: &str| {
            let object: Value = serde_json::from_str(line).unwrap();
            tokens_of_text(object["text"].as_str().unwrap())
        };
        let documents = file.lines().map(document).collect();
        Self { digest: *blake3::hash(file.as_bytes()).as_bytes(), documents }
    }

    /// The same documents in another file: packed, or behind a header.
    pub fn within(self, file: &[u8]) -> Self {
        Self { digest: *blake3::hash(file).as_bytes(), ..self }
    }
}

impl Rules {
    /// The sequences of some shards, in the order in which they are trained.
    fn sequences(&self, shards: &[Shard]) -> Vec<Vec<u32>> {
        let mut stream: Vec<u32> = Vec::new();
        let mut order = Vec::new();
        for shard in shards {
            let before = self.complete(stream.len());
            for document in &shard.documents {
                for document in document.split(|token| Some(*token) == self.end_of_text) {
                    self.take(document, &mut stream);
                }
            }
            let mut own: Vec<(blake3::Hash, usize)> = (before..self.complete(stream.len()))
                .map(|sequence| (self.key(shard, (sequence - before) as u64), sequence))
                .collect();
            own.sort_by_key(|(key, _)| *key.as_bytes());
            order.extend(own.into_iter().map(|(_, sequence)| sequence));
        }
        let length = self.sequence_length;
        order.into_iter().map(|g| stream[g * length..=(g + 1) * length].to_vec()).collect()
    }

    /// Sequences that are complete after so many tokens.
    fn complete(&self, tokens: usize) -> usize {
        tokens.saturating_sub(1) / self.sequence_length
    }

    /// What orders the sequences that a shard completes.
    fn key(&self, shard: &Shard, index: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&shard.digest).update(&index.to_le_bytes());
        hasher.finalize()
    }

    fn take(&self, document: &[u32], stream: &mut Vec<u32>) {
        let before = stream.len();
        let kept = document.chunks(self.held_out_block).filter(|block| !self.is_held_out(block));
        kept.for_each(|block| stream.extend(block));
        if stream.len() > before {
            stream.extend(self.end_of_text);
        }
    }

    fn is_held_out(&self, block: &[u32]) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&bytes(block));
        let first: [u8; 8] = hasher.finalize().as_bytes()[..8].try_into().unwrap();
        // share * 2^64 is exact, being a change of the exponent.
        u128::from(u64::from_be_bytes(first)) < (self.held_out_share * 2f64.powi(64)).ceil() as u128
    }

    /// The batch of every whole step that some shards give.
    pub fn batches(&self, shards: &[Shard]) -> Vec<String> {
        let digest = |batch: &[Vec<u32>]| {
            let mut hasher = blake3::Hasher::new();
            batch.iter().for_each(|sequence| _ = hasher.update(&bytes(sequence)));
            hasher.finalize().to_hex()[..16].to_owned()
        };
        self.sequences(shards).chunks_exact(self.sequences_per_step).map(digest).collect()
    }

    /// Holds every batch that was trained on any path against the definition.
    pub fn check(&self, shards: &[Shard], trained: &BTreeMap<String, crate::recount::PathSteps>) {
        let expected = self.batches(shards);
        for (path, steps) in trained {
            for (step, batch) in &steps.batches {
                let expected = expected.get(*step as usize);
                assert_eq!(Some(batch), expected, "step {step} of {path} was fed another batch");
            }
        }
    }
}

fn bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn the_golden_cases_come_out() {
        let cases: Vec<Value> =
            serde_json::from_str(include_str!("../../artifacts/vectors/stream.json")).unwrap();
        for case in &cases {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let rules = Rules {
                seed: case["seed"].as_u64().unwrap(),
                sequence_length: number("sequence_length"),
                sequences_per_step: number("sequences_per_step"),
                held_out_share: case["held_out_share"].as_f64().unwrap(),
                held_out_block: number("held_out_block"),
                end_of_text: list(&case["end_of_text"]),
            };
            let shard = |shard: &Value| Shard {
                digest: *blake3::Hash::from_hex(shard["digest"].as_str().unwrap()).unwrap().as_bytes(),
                documents: list(&shard["documents"]),
            };
            let shards: Vec<Shard> = case["shards"].as_array().unwrap().iter().map(shard).collect();
            assert_eq!(rules.batches(&shards), list::<Vec<String>>(&case["batches"]), "{rules:?}");
        }
        assert!(cases.len() >= 8);
    }

    #[test]
    fn files_become_documents() {
        assert_eq!(Shard::of_tokens(&[1, 0, 2, 1], 2).documents, [[1, 258]]);
        assert_eq!(Shard::of_tokens(&[1, 0, 2, 1], 4).documents, [[0x0102_0001]]);
        assert_eq!(Shard::of_text("a<|endoftext|>é").documents, [[97, 256, 0xc3, 0xa9]]);
        let lines = "{\"text\":\"a\"}\n{\"n\":1,\"text\":\"bc\"}\n";
        assert_eq!(Shard::of_json_lines(lines).documents, [vec![97], vec![98, 99]]);
    }
}
