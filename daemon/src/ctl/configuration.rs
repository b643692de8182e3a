//! `lrpathctl config check`: every value that a configuration stands for, and what follows from it.

use std::path::Path;

use paradigm::Settings as Rates;
use schemars::JsonSchema;
use serde::Serialize;

use super::draw::units::{bytes, count, counted};
use super::layout::{JOURNAL, is_unfinished};
use super::offline;
use crate::config::{Config, Given, Machine, is_unchanged};
use crate::edge::failure::Failure;
use crate::edge::look::{Look, Paint};
use crate::ledger::tree::Tree;

/// What a configuration stands for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checked {
    /// Every key, with its default where the file says nothing.
    pub config: Config,
    /// What follows from it, a sentence each.
    pub notes: Vec<String>,
}

/// Checks a configuration; one that belongs to a state is held against what the state was made with. As the daemon does,
/// the state's format is looked at first: a newer version has keys that this one does not know.
///
/// # Errors
/// The configuration is refused, or says something else than what is fixed; the state is damaged, or of a newer version.
pub fn check(file: &Path, state: Option<&Path>) -> Result<Checked, Failure> {
    let tree = match state.filter(|state| state.join(JOURNAL).exists() && !is_unfinished(state)) {
        Some(state) => Some(offline::tree_of_known_format(state)?),
        None => None,
    };
    let (mut config, given) = match tree.as_ref().and_then(Tree::fixed) {
        None => Config::load_with_files(file)?,
        Some(fixed) => {
            let (config, given) = Config::load_of_state(file, fixed)?;
            is_unchanged(fixed, &config.fixed(&given), file)?;
            (config, given)
        }
    };
    let notes = notes(&config, file);
    fill_in(&mut config, &given, artifacts::storage::parent(file));
    Ok(Checked { config, notes })
}

/// Writes down the defaults that hang on other keys or on the machine.
fn fill_in(config: &mut Config, given: &Given, folder: &Path) {
    if config.tokenizer.file.is_none() {
        config.tokenizer.vocabulary.get_or_insert(given.vocabulary);
    }
    config.schedule.hold.get_or_insert(config.schedule.decay.default_hold());
    let Ok(settings) = config.settings(folder, &Machine::this()) else { return };
    config.eager.min_steps = config.eager.min_steps.or(settings.ahead_steps);
    config.trainer.threads = Some(settings.trainer.threads);
    config.trainer.micro_batch = Some(settings.micro_batch);
    let words = settings.trainer.command.iter().map(|word| word.to_string_lossy().into_owned());
    config.trainer.command = Some(words.collect());
}

fn notes(config: &Config, file: &Path) -> Vec<String> {
    let tokens = u64::from(config.data.sequence_length) * u64::from(config.data.sequences_per_step);
    let mut notes = vec![format!("one step trains {}", counted(tokens, "token", "tokens"))];
    let schedule = &config.schedule;
    let rates = Rates {
        peak: schedule.peak,
        min: schedule.min,
        warmup_steps: schedule.warmup_steps,
        rewarmup_steps: schedule.rewarmup_steps,
        decay: schedule.decay,
        hold: schedule.hold,
    };
    for paradigm in config.paradigm.list() {
        match paradigm.smallest_increment(&rates, true, schedule.alpha) {
            Ok(Some(steps)) if steps > 1 => notes.push(format!(
                "{paradigm}: the first increment needs at least {}, {} tokens, for its warm-up to fit",
                counted(steps, "step", "steps"),
                count(steps.saturating_mul(tokens))
            )),
            Ok(None) => notes.push(format!(
                "{paradigm}: no first increment is large enough for the warm-up: lower schedule.alpha or \
                 schedule.warmup_steps"
            )),
            Ok(Some(_)) | Err(_) => {}
        }
    }
    match (config.cut.every_tokens, config.cut.quiet_seconds) {
        (None, None) => notes.push("increments are closed by markers and `lrpathctl cut` alone".to_owned()),
        (Some(every), _) => {
            let steps = every / tokens.max(1);
            notes.push(format!("an increment is closed every {}", counted(steps, "step", "steps")));
        }
        (None, Some(_)) => {}
    }
    let folder = artifacts::storage::parent(file);
    match config.settings(folder, &Machine::this()) {
        Ok(settings) if config.tokenizer.file.is_none() => {
            notes.push(format!(
                "a tokenizer is trained on the first {} of shards",
                bytes(settings.train_bytes)
            ));
        }
        Ok(_) => {}
        Err(missing) => notes.push(missing.to_string()),
    }
    notes
}

/// As people read it: TOML, which could be the file itself.
///
/// # Errors
/// None for a configuration that was read.
pub fn draw(checked: &Checked, look: &Look) -> Result<String, Failure> {
    let mut text = toml::to_string(&checked.config).map_err(Failure::new)?;
    text.push('\n');
    for note in &checked.notes {
        let sign = look.paint(Paint::Faint, "#");
        text.push_str(&look.wrapped_behind(&sign, &format!("{sign} {note}\n")));
    }
    Ok(text)
}
