//! `lrpathd.toml`: what a person settles about a run.
//!
//! A file passes through four rooms: `keys` says which keys there are, `read` finds each in the text so that an error
//! can point at it, `check` holds the values against each other and against the arithmetic of the plan, and `files`
//! looks at the model and the tokenizer that the file names. All that is wrong is said at once. What comes out is split
//! in two: [`Fixed`], which is settled for the life of a state because bits hang on
//! it, and [`Settings`], which may change from the next cut on.

mod check;
mod device;
mod files;
mod fixed;
mod keys;
mod nearest;
mod objection;
mod outside;
mod read;
mod settings;
mod template;

use std::io;
use std::path::Path;

use artifacts::Digest;

use crate::ledger::transition::Fixed;

pub use device::{DeviceName, NoDevice};
pub use files::{Given, weights_digest};
pub use fixed::{Changed, Difference, FORMAT, Newer, differences, format_is_known, is_unchanged};
pub use keys::*;
pub use read::{ConfigError, Fault};
pub(crate) use settings::SOCKET;
pub use settings::{HookSettings, Machine, NoTrainer, Settings, TcpSettings, TrainerSettings};
pub use template::{DEFAULT_MODEL, DEFAULT_TOML, point_at};

pub(crate) use nearest::nearest;

/// Name of the configuration in a state folder.
pub const FILE: &str = "lrpathd.toml";

impl Config {
    /// Reads a configuration, checks it, and looks at the model and the tokenizer that it names, not at its weights.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line, key and value, and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::look(path, false, |_| Ok(None)).map(|(config, _)| config)
    }

    /// Like [`Config::load`], with what was found in the files that it names. Weights are read to their last byte.
    ///
    /// # Errors
    /// As there.
    pub fn load_with_files(path: &Path) -> Result<(Self, Given), ConfigError> {
        Self::look(path, false, |folder| weights_digest(folder).map(Some))
    }

    /// Like [`Config::load_with_files`], for a state that is made. Weights that it was made with are not read again: they
    /// are gigabytes, whatever starts from them reads them first, and what goes on from a checkpoint needs them no more.
    ///
    /// # Errors
    /// As there.
    pub fn load_of_state(path: &Path, fixed: &Fixed) -> Result<(Self, Given), ConfigError> {
        Self::look(path, true, |folder| fixed.weights.map_or_else(|| weights_digest(folder), Ok).map(Some))
    }

    fn look(
        path: &Path,
        is_known: bool,
        weights: impl FnOnce(&Path) -> io::Result<Option<Digest>>,
    ) -> Result<(Self, Given), ConfigError> {
        let source = read::Source::open(path)?;
        let config = source.config()?;
        let mut objections = check::check(&config);
        let given =
            files::look(&config, path, is_known, weights).map_err(|found| objections.extend(found)).ok();
        if let Some(given) = &given {
            objections.extend(check::check_with(&config, given));
        }
        match given.filter(|_| objections.is_empty()) {
            Some(given) => Ok((config, given)),
            None => Err(source.refuse(&config, objections)),
        }
    }
}

#[cfg(test)]
mod tests;
