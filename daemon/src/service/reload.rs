//! Reads the configuration again while the daemon runs.
//!
//! All that may change takes hold at once: the parts of the daemon are ended and begun anew around the open ledger, while
//! trainers go on by themselves. What is wrong, or fixed for the life of a state, is told, and everything stays as it was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

use super::ServiceError;
use crate::api::types::{ChangedSetting, Refusal, ReloadAnswer};
use crate::api::{Reload, Token};
use crate::config::{self, Config, Machine, Settings};
use crate::edge::failure::Failure;
use crate::ledger::transition::Fixed;

/// What a program sees of a configuration that cannot hold.
const NOT_RELOADED: &str = "not-reloaded";

/// A configuration that was read and found sound.
#[derive(Debug, Clone)]
pub struct Settled {
    /// As it is written.
    pub config: Config,
    /// With every default filled in.
    pub settings: Settings,
    /// The folder of weights that the run starts from, if it does.
    pub weights: Option<PathBuf>,
}

impl Settled {
    /// Reads the configuration of a state.
    ///
    /// # Errors
    /// What is wrong with it, or is not as it was fixed.
    pub fn read(state: &std::path::Path, fixed: &Fixed) -> Result<Self, ServiceError> {
        let file = state.join(config::FILE);
        let (config, given) = Config::load_of_state(&file, fixed)?;
        config::is_unchanged(fixed, &config.fixed(&given), &file)?;
        let settings = config.settings(state, &Machine::this())?;
        if let Some(token) = settings.tcp.as_ref().and_then(|tcp| tcp.token_file.as_deref()) {
            Token::read(token)?;
        }
        let weights = config.weights_folder(&file);
        Ok(Self { config, settings, weights })
    }
}

/// Reads it again for whoever asks.
pub struct Reloading {
    state: PathBuf,
    fixed: Fixed,
    /// What holds, or is about to.
    current: Mutex<Settled>,
    wanted: Notify,
    /// How often one took hold.
    shifts: AtomicU64,
}

impl Reloading {
    /// For a state whose daemon goes by a configuration.
    pub fn new(state: PathBuf, fixed: Fixed, current: Settled) -> Self {
        Self { state, fixed, current: Mutex::new(current), wanted: Notify::new(), shifts: AtomicU64::new(0) }
    }

    /// Waits until somebody had it read, and it was sound.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A shift begins; says its number, from 1.
    pub fn begun(&self) -> u64 {
        self.shifts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What holds from now on.
    pub fn current(&self) -> Settled {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes back what cannot hold after all.
    pub fn back_to(&self, before: Settled) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = before;
    }
}

impl Reload for Reloading {
    fn reload(&self) -> Result<ReloadAnswer, Refusal> {
        let next = Settled::read(&self.state, &self.fixed).map_err(refusal)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if next.settings.socket != current.settings.socket {
            let error = "`control.socket` holds from the next start on: whoever asks would not find the daemon any more";
            return Err(Refusal {
                error: error.to_owned(),
                cause: None,
                hint: Some("put it back and reload, or restart the daemon".to_owned()),
                code: NOT_RELOADED.to_owned(),
            });
        }
        let changed = changes(&current.config, &next.config);
        for ChangedSetting { key, before, now } in &changed {
            let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
            tracing::info!(key, before = word(before), now = word(now), "reloaded");
        }
        *current = next;
        drop(current);
        // Also where nothing was changed: a token may be another, or a program stand where there was none.
        self.wanted.notify_one();
        Ok(ReloadAnswer { shift: self.shifts.load(Ordering::Relaxed) + 1, changed })
    }
}

fn refusal(error: ServiceError) -> Refusal {
    let Failure { message, cause, hint, .. } = Failure::from(error);
    Refusal {
        error: message,
        cause: cause.map(|cause| cause.to_string()),
        hint,
        code: NOT_RELOADED.to_owned(),
    }
}

/// What two configurations say otherwise, by key.
fn changes(before: &Config, now: &Config) -> Vec<ChangedSetting> {
    let leaves = |config: &Config| {
        let mut leaves = BTreeMap::new();
        collect(&serde_json::to_value(config).unwrap_or_default(), "", &mut leaves);
        leaves
    };
    let (mut before, mut now) = (leaves(before), leaves(now));
    let keys: std::collections::BTreeSet<String> = before.keys().chain(now.keys()).cloned().collect();
    let change = |key: String| {
        let (before, now) = (before.remove(&key), now.remove(&key));
        (before != now).then_some(ChangedSetting { key, before, now })
    };
    keys.into_iter().filter_map(change).collect()
}

fn collect(value: &Value, key: &str, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(table) => {
            for (name, inner) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect(inner, &key, leaves);
            }
        }
        other => _ = leaves.insert(key.to_owned(), other.to_string()),
    }
}
