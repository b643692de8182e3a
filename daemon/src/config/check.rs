//! What a configuration may say, beyond the type of each value.
//!
//! Rules that the arithmetic knows already (is this an alpha, does this warm-up fit) are asked there; this file only
//! says which key is meant. A rule about two keys names the one first that a person would change.

use std::collections::BTreeSet;

use artifacts::job::{MOST_RANKS, MOST_THREADS};
use artifacts::stream::Stream;
use artifacts::tokens::Cutting;
use paradigm::settings::SettingsError;
use paradigm::{Paradigm, Settings as Rates};

use super::device::DeviceName;
use super::files::Given;
use super::keys::{Config, EndOfTextConfig, SlotConfig, default_slots};
use super::objection::Objection;
use super::outside;
use crate::ledger::transition::EndOfText;

/// The special token and a token for each byte.
const SMALLEST_VOCABULARY: u32 = 257;
/// Least memory of the child that reads shards.
const LEAST_READER_MEMORY: u64 = 64 << 20;
/// Longest time that a duration may be: a hundred years, in seconds.
const LONGEST_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

/// All that is wrong, as far as the file alone shows.
pub(super) fn check(config: &Config) -> Vec<Objection> {
    let mut found = Vec::new();
    paradigms(config, &mut found);
    tokenizer(config, &mut found);
    data(config, &mut found);
    if schedule(config, &mut found) {
        cut(config, &mut found);
    }
    optimizer(config, &mut found);
    trainer(config, &mut found);
    slots(config, &mut found);
    at_least_one(config, &mut found);
    durations(config, &mut found);
    outside::check(config, &mut found);
    found
}

/// All that is wrong in view of the model and the tokenizer.
pub(super) fn check_with(config: &Config, given: &Given) -> Vec<Objection> {
    let mut found = Vec::new();
    let model = given.vocabulary;
    if let Some(vocabulary) = config.tokenizer.vocabulary.filter(|tokens| *tokens > model) {
        let what =
            format!("is more than the model's vocab_size of {model}: {vocabulary} tokens need a row each");
        let help = format!("ask for at most {model}, or take a model with a larger vocab_size");
        found.push(Objection::new("tokenizer.vocabulary", what, help).and("model.config"));
    } else if config.tokenizer.file.is_none()
        && config.tokenizer.vocabulary.is_none()
        && model < SMALLEST_VOCABULARY
    {
        let what = format!("has a vocab_size of {model}, too few for a tokenizer that is trained on bytes");
        let help =
            format!("give a tokenizer, or a model with a vocab_size of at least {SMALLEST_VOCABULARY}");
        found.push(Objection::new("model.config", what, help));
    }
    if let Some(largest) = given.largest_token.filter(|token| *token >= model) {
        let what = format!("has token {largest}, outside the model's vocab_size of {model}");
        let help = "take the tokenizer and the config.json of the same model".to_owned();
        found.push(Objection::new("tokenizer.file", what, help).and("model.config"));
    }
    if let EndOfTextConfig::Token(EndOfText::Number(token)) = config.tokenizer.end_of_text
        && token >= model
    {
        let what = format!("is outside the model's vocab_size of {model}");
        found.push(Objection::new("tokenizer.end_of_text", what, "give a token of the vocabulary"));
    }
    if let (EndOfTextConfig::Token(EndOfText::Text(text)), Some(false)) =
        (&config.tokenizer.end_of_text, given.knows_end_of_text)
    {
        let what = format!("is no token of the given tokenizer: it does not know {text}");
        let help = "give the text of a token that it knows, its number, or false for none".to_owned();
        found.push(Objection::new("tokenizer.end_of_text", what, help).and("tokenizer.file"));
    }
    if let Some(positions) = given.positions.filter(|most| *most < u64::from(config.data.sequence_length)) {
        let what = format!("is longer than the model's max_position_embeddings of {positions}");
        let help = "train on shorter sequences, or raise max_position_embeddings in the model's config.json";
        found.push(Objection::new("data.sequence_length", what, help).and("model.config"));
    }
    found
}

fn paradigms(config: &Config, found: &mut Vec<Objection>) {
    let list = config.paradigm.list();
    if list.is_empty() {
        let help = "name path-switching, from-scratch or continual, or several of them";
        found.push(Objection::new("paradigm", "names nothing to do", help));
    }
    let twice = list.iter().enumerate().find(|(place, paradigm)| list[..*place].contains(paradigm));
    if let Some((_, paradigm)) = twice {
        found.push(Objection::new("paradigm", format!("names {paradigm} twice"), "name each only once"));
    }
}

fn tokenizer(config: &Config, found: &mut Vec<Objection>) {
    let tokenizer = &config.tokenizer;
    if tokenizer.file.is_some() && tokenizer.vocabulary.is_some() {
        let help =
            "remove it, or `tokenizer.file`: only a tokenizer that is trained here has a size to choose";
        let what = "has no meaning beside a given tokenizer";
        found.push(Objection::new("tokenizer.vocabulary", what, help));
    }
    if tokenizer.vocabulary.is_some_and(|tokens| tokens < SMALLEST_VOCABULARY) {
        let what = "is too small: there is a token for each of 256 bytes, and a special one";
        let help = format!("ask for at least {SMALLEST_VOCABULARY}");
        found.push(Objection::new("tokenizer.vocabulary", what, help));
    }
    if tokenizer.train_bytes == 0 {
        let help = "give the bytes of text that are enough; 100000000 is the default";
        found.push(Objection::new("tokenizer.train_bytes", "leaves nothing to train on", help));
    }
    match &tokenizer.end_of_text {
        EndOfTextConfig::Switch(true) => {
            let help = "give the token's text or number; or false for none";
            found.push(Objection::new("tokenizer.end_of_text", "names no token", help));
        }
        EndOfTextConfig::Switch(false) if config.data.mask_documents => {
            let what = "needs a token between documents, and tokenizer.end_of_text is false";
            let help = "name that token, or let attention cross documents";
            let objection = Objection::new("data.mask_documents", what, help);
            found.push(objection.and("tokenizer.end_of_text"));
        }
        EndOfTextConfig::Token(EndOfText::Number(_)) if tokenizer.file.is_none() => {
            let what = "names a token by its number before there is a tokenizer";
            let help = "give its text: the tokenizer that is trained here will have it";
            found.push(Objection::new("tokenizer.end_of_text", what, help));
        }
        EndOfTextConfig::Token(EndOfText::Text(text)) if text.is_empty() => {
            let help = "give the token's text or number; or false for none";
            found.push(Objection::new("tokenizer.end_of_text", "is empty", help));
        }
        _ => {}
    }
}

fn data(config: &Config, found: &mut Vec<Objection>) {
    let data = &config.data;
    for (key, value) in
        [("data.sequence_length", data.sequence_length), ("data.sequences_per_step", data.sequences_per_step)]
    {
        if value == 0 {
            found.push(Objection::new(key, "makes no step", "give at least 1"));
        }
    }
    let shape = data.sequence_length > 0 && data.sequences_per_step > 0;
    if shape && Stream::new(config.seed, data.sequence_length, data.sequences_per_step).is_err() {
        let what = "makes steps of 2^53 tokens or more with data.sequence_length";
        found.push(Objection::new("data.sequences_per_step", what, "give fewer"));
    }
    if Cutting::new(config.seed, None, data.held_out_block, 0.0).is_err() {
        let help = format!("give 1 to {} tokens; 1024 is the default", artifacts::tokens::LONGEST_BLOCK);
        found.push(Objection::new("data.held_out_block", "is no length of a block", help));
    }
    if Cutting::new(config.seed, None, 1, data.held_out_share).is_err() {
        let help = "give a share of at least 0 and below 1; 0.01 is the default";
        found.push(Objection::new(
            "data.held_out_share",
            "is no share that leaves something to train on",
            help,
        ));
    }
    if data.jsonl_field.is_empty() {
        found.push(Objection::new("data.jsonl_field", "names no field", "`text` is the default"));
    }
    if data.longest_document == 0 {
        found.push(Objection::new("data.longest_document", "lets no document in", "give a size in bytes"));
    }
    if data.reader_memory < LEAST_READER_MEMORY {
        let help = format!("give at least {LEAST_READER_MEMORY} bytes");
        found.push(Objection::new("data.reader_memory", "is too little to read anything in", help));
    }
    if data.reader_seconds == 0 {
        found.push(Objection::new("data.reader_seconds", "leaves no time to read", "give at least 1"));
    }
}

/// The learning rates that the file asks for.
pub(super) fn rates(config: &Config) -> Rates {
    let schedule = &config.schedule;
    Rates {
        peak: schedule.peak,
        min: schedule.min,
        warmup_steps: schedule.warmup_steps,
        rewarmup_steps: schedule.rewarmup_steps,
        decay: schedule.decay,
        hold: schedule.hold,
    }
}

/// Whether the schedule alone is sound.
fn schedule(config: &Config, found: &mut Vec<Objection>) -> bool {
    let before = found.len();
    if paradigm::increments::check_alpha(config.schedule.alpha).is_err() {
        let what = "is no share of an increment";
        found.push(Objection::new(
            "schedule.alpha",
            what,
            "give a number above 0 and at most 1; 0.6 is the default",
        ));
    }
    if let Err(error) = rates(config).validate() {
        let peak = config.schedule.peak;
        found.push(match error {
            SettingsError::Peak { .. } => {
                Objection::new("schedule.peak", "is no learning rate", "give a finite number above 0")
            }
            SettingsError::Min { .. } => {
                let what = "is no lowest learning rate under this peak";
                Objection::new(
                    "schedule.min",
                    what,
                    format!("give at least 0 and at most schedule.peak, which is {peak}"),
                )
                .and("schedule.peak")
            }
            SettingsError::ExponentialToZero => {
                let what = "is never reached by an exponential decay";
                Objection::new(
                    "schedule.min",
                    what,
                    "give a number above 0, or choose another schedule.decay",
                )
                .and("schedule.decay")
            }
            SettingsError::Hold { .. } => {
                Objection::new("schedule.hold", "is no share of a schedule", "give a number from 0 to 1")
            }
            SettingsError::TooLarge(too_large) => {
                let key = if config.schedule.warmup_steps > config.schedule.rewarmup_steps {
                    "schedule.warmup_steps"
                } else {
                    "schedule.rewarmup_steps"
                };
                Objection::new(key, format!("cannot be counted: {too_large}"), "give fewer steps")
            }
        });
    }
    found.len() == before
}

/// A rule that counts tokens must be able to pass: for the first version and for those after it.
fn cut(config: &Config, found: &mut Vec<Objection>) {
    let Some(every_tokens) = config.cut.every_tokens else { return };
    let Some(steps) = every_tokens.checked_div(tokens_of_a_step(config)) else { return };
    if every_tokens >= paradigm::units::COUNT_LIMIT {
        let what = "is too large to be counted";
        found.push(Objection::new("cut.every_tokens", what, "give less than 2^53"));
        return;
    }
    let mut smallest = 1;
    let mut reasons = Vec::new();
    for paradigm in config.paradigm.list() {
        for version in [1, 2] {
            match too_few(*paradigm, config, version, steps) {
                Ok(()) => {}
                Err((reason, None)) => {
                    let help = "lower schedule.alpha, or shorten the warm-up";
                    let what = format!("could never close an increment: {paradigm}: {reason}");
                    found.push(Objection::new("cut.every_tokens", what, help).and("schedule.alpha"));
                    return;
                }
                Err((reason, Some(enough))) => {
                    smallest = smallest.max(enough);
                    reasons.push(format!("{paradigm}: {reason}"));
                }
            }
        }
    }
    if steps < smallest {
        let tokens = tokens_of_a_step(config);
        let why = match reasons.first() {
            Some(reason) if steps > 0 => reason.clone(),
            _ => format!("one step takes {tokens} tokens"),
        };
        let enough = smallest.saturating_mul(tokens);
        let help = format!("give at least {enough}, which is {smallest} {}", steps_of(smallest));
        let what = format!("could never close an increment: {why}");
        found.push(Objection::new("cut.every_tokens", what, help).and("schedule.warmup_steps"));
    }
}

/// Why an increment of this size cannot be cut for a version, and the smallest that could.
fn too_few(
    paradigm: Paradigm,
    config: &Config,
    version: u32,
    steps: u64,
) -> Result<(), (String, Option<u64>)> {
    let (rates, alpha) = (rates(config), config.schedule.alpha);
    let smallest = paradigm.smallest_increment(&rates, version == 1, alpha).unwrap_or(None);
    if smallest.is_some_and(|smallest| smallest <= steps) {
        return Ok(());
    }
    let end = if version == 1 { 0 } else { 1 };
    let reason = match paradigm::Increment::cut(version, end, steps, alpha) {
        Ok(increment) => match paradigm.check_increment(&rates, &increment) {
            Ok(()) => return Ok(()),
            Err(reason) => reason.to_string(),
        },
        Err(error) => error.to_string(),
    };
    Err((reason, smallest))
}

fn steps_of(count: u64) -> &'static str {
    if count == 1 { "step" } else { "steps" }
}

/// Tokens that one step trains.
pub(super) fn tokens_of_a_step(config: &Config) -> u64 {
    u64::from(config.data.sequence_length).saturating_mul(u64::from(config.data.sequences_per_step))
}

fn optimizer(config: &Config, found: &mut Vec<Objection>) {
    let optimizer = &config.optimizer;
    for (key, beta) in [("optimizer.beta1", optimizer.beta1), ("optimizer.beta2", optimizer.beta2)] {
        if !(0.0..1.0).contains(&beta) {
            found.push(Objection::new(key, "is no decay of a moment", "give at least 0 and below 1"));
        }
    }
    for (key, value) in [("optimizer.eps", optimizer.eps), ("optimizer.clip", optimizer.clip)] {
        if !(value > 0.0 && value.is_finite()) {
            found.push(Objection::new(key, "is not above 0", "give a finite number above 0"));
        }
    }
    if !(optimizer.weight_decay >= 0.0 && optimizer.weight_decay.is_finite()) {
        let help = "give a finite number of at least 0";
        found.push(Objection::new("optimizer.weight_decay", "is no weight decay", help));
    }
}

fn trainer(config: &Config, found: &mut Vec<Objection>) {
    let trainer = &config.trainer;
    if trainer.command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
        let help = "give the program and its arguments as a list, or remove the key for lrpath-train";
        found.push(Objection::new("trainer.command", "names no program", help));
    }
    let sequences = config.data.sequences_per_step;
    if let Some(micro_batch) = trainer.micro_batch
        && sequences > 0
        && sequences.checked_rem(micro_batch) != Some(0)
    {
        let what = format!("does not divide data.sequences_per_step, which is {sequences}");
        let below =
            (1..=micro_batch.min(sequences)).rev().find(|size| sequences.is_multiple_of(*size)).unwrap_or(1);
        found.push(Objection::new("trainer.micro_batch", what, format!("{below} would do")));
    }
    if trainer.longest_backoff_seconds < trainer.backoff_seconds {
        let what = "is shorter than the first wait, trainer.backoff_seconds";
        let objection = Objection::new("trainer.longest_backoff_seconds", what, "give at least as much");
        found.push(objection.and("trainer.backoff_seconds"));
    }
}

fn slots(config: &Config, found: &mut Vec<Objection>) {
    if config.gpu_slots && config.slots != default_slots() {
        let what = "makes a slot of each GPU, and slots are listed too";
        found.push(Objection::new("gpu_slots", what, "remove it, or the list of slots"));
    }
    if config.slots.is_empty() {
        let help = "give at least one, or remove the key for one slot with the CPU";
        found.push(Objection::new("slots", "leaves nowhere to train", help));
    }
    for (place, slot) in config.slots.iter().enumerate() {
        let key = |leaf: &str| format!("slots[{place}].{leaf}");
        let is_word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        if slot.name.is_empty() || !is_word(&slot.name) {
            let help = "give letters, digits, `-`, `_` and `.`";
            found.push(Objection::new(&key("name"), "is no name of a slot", help));
        }
        let before = &config.slots[..place];
        if before.iter().any(|other| other.name == slot.name) {
            found.push(Objection::new(&key("name"), "is the name of two slots", "give each its own"));
        }
        devices(slot, before, &key("devices"), found);
        ranks(config, slot, &key("devices"), found);
    }
}

/// What a slot names must be devices, all of a kind, and nobody else's.
fn devices(slot: &SlotConfig, before: &[SlotConfig], key: &str, found: &mut Vec<Objection>) {
    let mut gpus = BTreeSet::new();
    for device in &slot.devices {
        match device.parse() {
            Err(no) => {
                let what = format!("names {device}, which {no}");
                found.push(Objection::new(key, what, "name one of the three"));
                return;
            }
            Ok(DeviceName::Cpu) => continue,
            Ok(DeviceName::Numbered(_) | DeviceName::Named(_)) => {}
        }
        if !gpus.insert(device) {
            let what = format!("names {device} twice");
            found.push(Objection::new(key, what, "give each process a GPU of its own"));
        }
        let is_theirs =
            |other: &&SlotConfig| other.devices.contains(device) && !(other.shared && slot.shared);
        if before.iter().any(|other| is_theirs(&other)) {
            let what = format!("names {device}, which another slot has");
            let help = "give each slot its own, or set `shared = true` in both: then two jobs use it at once";
            found.push(Objection::new(key, what, help));
        }
    }
    if !gpus.is_empty() && slot.devices.iter().any(|device| !gpus.contains(device)) {
        found.push(Objection::new(key, "names the CPU and a GPU", "a job computes on devices of one kind"));
    }
}

/// A job has a process for each device of its slot, and each process an equal share of every step.
fn ranks(config: &Config, slot: &SlotConfig, key: &str, found: &mut Vec<Objection>) {
    let (count, sequences) = (slot.devices.len(), config.data.sequences_per_step);
    if count == 0 || count > MOST_RANKS as usize {
        let what = format!("lists {count} devices");
        found.push(Objection::new(key, what, format!("give 1 to {MOST_RANKS}: a job takes all of them")));
        return;
    }
    let micro_batch = config.micro_batch();
    if count > 1 && !u64::from(sequences).is_multiple_of(u64::from(micro_batch) * count as u64) {
        let what = format!(
            "lists {count} devices, and {sequences} sequences of a step do not fall into as many equal shares of whole \
             micro batches ({micro_batch} sequences each)"
        );
        let help = format!(
            "choose a data.sequences_per_step that {count} divides, and a trainer.micro_batch that divides the share"
        );
        found.push(Objection::new(key, what, help).and("trainer.micro_batch"));
    }
}

fn at_least_one(config: &Config, found: &mut Vec<Objection>) {
    let counts = [
        ("eager.min_steps", config.eager.min_steps),
        ("checkpoints.every", Some(config.checkpoints.every)),
        ("evaluate.every", config.evaluate.every),
        ("evaluate.max_tokens", Some(config.evaluate.max_tokens)),
        ("trainer.attempts", Some(u64::from(config.trainer.attempts))),
        ("trainer.threads", config.trainer.threads.map(u64::from)),
    ];
    for (key, count) in counts {
        if count == Some(0) {
            found.push(Objection::new(key, "is not possible", "give at least 1"));
        }
    }
    if config.trainer.threads.is_some_and(|threads| threads > MOST_THREADS) {
        let what = format!("is more than {MOST_THREADS}, and than any machine has cores");
        found.push(Objection::new("trainer.threads", what, "leave it out for the machine's cores"));
    }
}

fn durations(config: &Config, found: &mut Vec<Objection>) {
    let trainer = &config.trainer;
    let may_be_zero = [
        ("data.settle_seconds", config.data.settle_seconds),
        ("trainer.stop_seconds", trainer.stop_seconds),
        ("trainer.backoff_seconds", trainer.backoff_seconds),
        ("trainer.longest_backoff_seconds", trainer.longest_backoff_seconds),
    ];
    let above_zero = [
        ("data.scan_seconds", config.data.scan_seconds),
        ("trainer.silent_seconds", trainer.silent_seconds),
        ("cut.quiet_seconds", config.cut.quiet_seconds.unwrap_or(1.0)),
    ];
    for (key, seconds) in may_be_zero {
        if !(0.0..=LONGEST_SECONDS).contains(&seconds) {
            found.push(Objection::new(key, "is no time", "give seconds, at least 0"));
        }
    }
    for (key, seconds) in above_zero {
        if !(seconds > 0.0 && seconds <= LONGEST_SECONDS) {
            found.push(Objection::new(key, "is no time", "give seconds, more than 0"));
        }
    }
}
