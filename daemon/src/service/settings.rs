//! What each actor goes by, out of the configuration and what is fixed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Settings, SlotConfig, TokenWidth};
use crate::devices::{Device, Devices};
use crate::edge::lrpathd::READ_SHARD;
use crate::inbox::InboxSettings;
use crate::inbox::reader::{Limits, Reading};
use crate::ledger::transition::Fixed;
use crate::retention;
use crate::scheduler::SchedulerSettings;
use crate::scheduler::cut::Rules;
use crate::scheduler::decide::{MicroBatch, Slot};
use crate::tokenizer;

/// A driver that nobody holds open takes seconds to begin.
const SLOWEST_DRIVER: Duration = Duration::from_secs(30);

/// What the inbox goes by.
pub fn inbox(state: &Path, program: &Path, settings: &Settings, fixed: &Fixed) -> InboxSettings {
    InboxSettings {
        folder: settings.data.clone(),
        state: state.to_owned(),
        reading: Reading {
            tokens: state.join("tokens"),
            tokenizer: state.join(tokenizer::FILE),
            field: settings.jsonl_field.clone(),
            wide: settings.token_width == TokenWidth::Uint32,
            vocabulary: vocabulary(fixed),
            longest_document: settings.longest_document,
            end_of_text: fixed.end_of_text.clone(),
            seed: fixed.seed,
            block: fixed.held_out_block,
            share: fixed.held_out_share,
        },
        limits: Limits {
            command: vec![program.to_owned(), PathBuf::from(READ_SHARD)],
            memory: settings.reader_memory,
            time: Duration::from_secs(settings.reader_seconds),
        },
        still: millis(settings.settle),
        scan_every: settings.scan,
        quiet: settings.quiet,
        train_bytes: settings.train_bytes,
        tokens_of_a_step: u64::from(fixed.sequence_length) * u64::from(fixed.sequences_per_step) + 1,
    }
}

/// Where jobs run: in the slots that are listed, or in one for each GPU that is found. None where none is.
pub fn slots(settings: &Settings, devices: &Devices) -> Vec<SlotConfig> {
    if !settings.gpu_slots {
        return settings.slots.clone();
    }
    let slot = |device: Device| SlotConfig {
        name: format!("gpu{}", device.index),
        devices: vec![device.uuid],
        shared: false,
    };
    devices.look_for(SLOWEST_DRIVER).into_iter().map(slot).collect()
}

/// What the scheduler goes by.
pub fn scheduler(settings: &Settings, slots: &[SlotConfig]) -> SchedulerSettings {
    let slot = |slot: &SlotConfig| Slot {
        name: slot.name.clone(),
        devices: slot.devices.clone(),
        shared: slot.shared,
    };
    SchedulerSettings {
        rules: Rules {
            every_steps: settings.every_steps,
            quiet: settings.quiet,
            alpha: settings.alpha,
            rates: settings.rates,
        },
        ahead_steps: settings.ahead_steps,
        slots: slots.iter().map(slot).collect(),
        micro_batch: MicroBatch {
            wanted: settings.micro_batch,
            shrinks_within: settings.shrinks_micro_batch.then_some(settings.sequences_per_step),
        },
    }
}

/// What the retention goes by.
pub fn retention(settings: &Settings) -> retention::judge::Rules {
    retention::judge::Rules { branch_points: settings.branch_points, alpha: settings.alpha }
}

/// Tokens of the model: `init` made sure that they are there.
fn vocabulary(fixed: &Fixed) -> u32 {
    fixed
        .model
        .get("vocab_size")
        .and_then(serde_json::Value::as_u64)
        .and_then(|v| u32::try_from(v).ok())
        .unwrap_or(0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
