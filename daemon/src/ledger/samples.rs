//! For tests: a journal of which every record is known by its position, so that one that is lost, invented, moved or
//! taken twice is seen at once.

use artifacts::Digest;
use artifacts::job::{Optimizer, Precision};
use artifacts::storage::Storage;
use artifacts::storage::crash::CrashDisk;
use paradigm::Paradigm;

use super::Clock;
use super::transition::{
    CutSource, FileFacts, Fixed, Millis, Record, ShardTokens, TokenizerSource, Transition,
};

/// A clock that stands still.
pub struct Midnight;

impl Clock for Midnight {
    fn now(&self) -> Millis {
        1_700_000_000_000
    }
}

/// A clock that is set by hand.
#[derive(Default)]
pub struct HandClock(std::sync::atomic::AtomicU64);

impl HandClock {
    /// It is now so late.
    pub fn set(&self, now: Millis) {
        self.0.store(now, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Millis {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// The transition at a position. All of them, in order, fit the tree, and touch nodes of many kinds.
pub fn sample(position: u64) -> Transition {
    let digest = |position: u64| Digest::of(&position.to_le_bytes());
    let file = FileFacts { bytes: position, inode: position, mtime: -1 };
    match position % 6 {
        _ if position == 1 => Transition::Initialized(Box::new(fixed())),
        0 => Transition::CutRequested {
            name: Some(format!("spring \"{position}\"\n")),
            source: CutSource::Command,
            waits_for: vec![format!("data/{position}"), "data/never".to_owned()],
        },
        1 => Transition::ReadingStarted { digest: digest(position), name: format!("ä/{position}") },
        2 => Transition::ShardAccepted {
            digest: digest(position - 1),
            name: format!("ä/{position}"),
            file,
            tokens: Some(ShardTokens { stream: position, held_out: 1, held_out_blocks: 1, documents: 1 }),
            unpacked: position.is_multiple_of(4).then_some(position),
        },
        3 => Transition::ShardDuplicate {
            digest: digest(position - 2),
            name: format!("again/{position}"),
            file,
        },
        4 => Transition::ShardRejected {
            digest: None,
            name: format!("data/{}", position - 4),
            bytes: position,
            reason: format!("line {position}: broken UTF-8"),
        },
        _ => Transition::Paused,
    }
}

/// The record at a position.
pub fn record(position: u64) -> Record {
    Record { position, at: Midnight.now(), transition: sample(position) }
}

/// The records of the positions in a range.
pub fn records(positions: impl IntoIterator<Item = u64>) -> Vec<Record> {
    positions.into_iter().map(record).collect()
}

/// A disk with these files, and the folder `/journal`.
pub fn disk_with<'a>(files: impl IntoIterator<Item = (&'a std::path::PathBuf, &'a Vec<u8>)>) -> CrashDisk {
    let disk = CrashDisk::new();
    disk.create_folder("/journal".as_ref()).unwrap();
    for (path, bytes) in files {
        disk.create(path).unwrap().append(bytes).unwrap();
    }
    disk
}

fn fixed() -> Fixed {
    Fixed {
        format: 1,
        paradigms: vec![Paradigm::PathSwitching],
        model: serde_json::json!({ "hidden_size": 64, "rms_norm_eps": 1e-6 }),
        weights: None,
        tokenizer: TokenizerSource::Given { digest: Digest::of(b"tokenizer") },
        end_of_text: None,
        mask_documents: false,
        seed: u64::MAX,
        sequence_length: 8,
        sequences_per_step: 1,
        held_out_share: 0.1,
        held_out_block: 8,
        peak: 3e-4,
        min: 3e-5,
        warmup_steps: 0,
        optimizer: Optimizer { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 },
        precision: Precision::F32,
    }
}
