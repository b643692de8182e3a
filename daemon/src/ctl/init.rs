//! `lrpathctl init`: a state folder out of a configuration.
//!
//! A state is one from the moment at which its journal has its first record; that is written last. Before it, a mark
//! says that somebody is at it, so that a run that was interrupted is known, and done again from its beginning: every
//! file is put in place as a whole, or not at all.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use artifacts::storage::{self, Disk, Storage};
use schemars::JsonSchema;
use serde::Serialize;

use super::flags::Init;
use super::layout::{JOURNAL, UNFINISHED, is_unfinished};
use crate::config::{Config, DEFAULT_MODEL, DEFAULT_TOML, FILE, Given, differences, point_at};
use crate::edge::failure::{Exit, Failure};
use crate::ledger::lock::StateLock;
use crate::ledger::transition::{Fixed, Transition};
use crate::ledger::{Ledger, SystemClock};

/// Folders of a state beside the watched one and those that appear by themselves.
pub(super) const FOLDERS: [&str; 8] =
    [JOURNAL, "model", "tokens", "sources", "rejected", "checkpoints", "jobs", "releases"];
/// Mode of all folders.
const MODE: u32 = 0o750;
/// The model's `config.json` in a state.
const MODEL: &str = "model/config.json";
/// The tokenizer in a state.
const TOKENIZER: &str = "tokenizer.json";
/// Longest file that is copied.
const LONGEST: u64 = 256 << 20;

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Made {
    /// The state folder.
    pub state: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// The watched folder.
    pub data: PathBuf,
    /// What is fixed from here on.
    pub fixed: Fixed,
}

/// Makes a state.
///
/// # Errors
/// There is one already; the configuration, the model or the tokenizer is refused; the folder cannot be written.
pub fn run(state: &Path, asked: &Init) -> Result<Made, Failure> {
    let was_there = state.exists();
    if state.join(JOURNAL).exists() && !is_unfinished(state) {
        let failure = Failure::new(format!("`{}` is a state already", state.display()));
        return Err(failure.hint("name another folder; a state is made once, and what it fixes stays"));
    }
    let source = Source::find(state, asked)?;
    // Everything that can be refused is looked at before anything is written.
    source.check()?;
    make_folder(state)?;
    let _lock = StateLock::take(state)?;
    let fixed = source.write(state).and_then(|config| begin(state, &config));
    let (config, fixed) = fixed.map_err(|failure| match was_there {
        true => failure,
        false => {
            failure.hint(format!("`lrpathctl init` again; what is in `{}` is taken up", state.display()))
        }
    })?;
    Ok(Made {
        state: state.to_owned(),
        config: state.join(FILE),
        data: state.join(&config.data.folder),
        fixed,
    })
}

/// Where the configuration comes from.
enum Source {
    /// A file, of the state itself or another one.
    File { path: PathBuf, config: Box<Config>, text: String },
    /// The default one, with a model and a tokenizer that were named.
    Default { model: Option<PathBuf>, tokenizer: Option<PathBuf> },
}

impl Source {
    fn find(state: &Path, asked: &Init) -> Result<Self, Failure> {
        let own = state.join(FILE);
        let given = asked.config.clone().or_else(|| own.is_file().then(|| own.clone()));
        let Some(path) = given else {
            return Ok(Self::Default { model: asked.model.clone(), tokenizer: asked.tokenizer.clone() });
        };
        let is_other = asked.config.is_some() && own.exists() && !is_unfinished(state);
        if is_other && same_file(&path, &own) != Some(true) {
            let failure = Failure::new(format!("`{}` has a {FILE} of its own", state.display()));
            return Err(failure.hint("leave --config out to take that one, or move it away"));
        }
        if asked.model.is_some() || asked.tokenizer.is_some() {
            let failure =
                Failure::new(format!("`{}` says which model and tokenizer are meant", path.display()));
            return Err(failure.hint("set model.config and tokenizer.file there, and leave the flags out"));
        }
        let (config, _) = Config::load_with_files(&path)?;
        let text = String::from_utf8(read(&path)?).map_err(Failure::new)?;
        Ok(Self::File { path, config: Box::new(config), text })
    }

    /// Whether the result will be a configuration that can be used: tried in a folder of its own.
    fn check(&self) -> Result<(), Failure> {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::new("no temporary folder can be made").because(error))?;
        DirBuilder::new().create(folder.path().join("model")).map_err(Failure::new)?;
        self.write_files(folder.path())?;
        Config::load(&folder.path().join(FILE)).map(|_| ()).map_err(|error| {
            let told = error.to_string().replace(&folder.path().display().to_string(), "the new state");
            Failure::new("no state can be made of this")
                .because(told)
                .exit(Exit::Configuration)
                .hint("mend the configuration, or name a model and a tokenizer that fit each other")
        })
    }

    fn write(&self, state: &Path) -> Result<Config, Failure> {
        storage::replace(&Disk, &state.join(UNFINISHED), b"`lrpathctl init` makes a state here.\n")?;
        for folder in FOLDERS {
            make_folder(&state.join(folder))?;
        }
        self.write_files(state)?;
        let config = Config::load(&state.join(FILE))?;
        let data = state.join(&config.data.folder);
        make_folder(&data)?;
        storage::sweep(&Disk, state)?;
        Ok(config)
    }

    fn write_files(&self, state: &Path) -> Result<(), Failure> {
        let text = match self {
            Self::File { path, config, text } => {
                let model = read(&config.model_file(path))?;
                put(&state.join(MODEL), &model)?;
                if let Some(tokenizer) = config.tokenizer_file(path) {
                    put(&state.join(TOKENIZER), &read(&tokenizer)?)?;
                }
                let weights = config.weights_folder(path).map(|folder| {
                    let folder = std::path::absolute(&folder).unwrap_or(folder);
                    folder.to_string_lossy().into_owned()
                });
                let mut keys = vec![("model.config", MODEL), ("tokenizer.file", TOKENIZER)];
                keys.extend(weights.as_deref().map(|folder| ("model.weights", folder)));
                point_at(text, &keys)
                    .ok_or_else(|| Failure::new(format!("`{}` changed while it was read", path.display())))?
            }
            Self::Default { model, tokenizer } => {
                let model = model.as_deref().map_or_else(|| Ok(DEFAULT_MODEL.into()), read)?;
                put(&state.join(MODEL), &model)?;
                match tokenizer {
                    None => DEFAULT_TOML.to_owned(),
                    Some(tokenizer) => {
                        put(&state.join(TOKENIZER), &read(tokenizer)?)?;
                        DEFAULT_TOML.replace("#file = \"tokenizer.json\"", "file = \"tokenizer.json\"")
                    }
                }
            }
        };
        put(&state.join(FILE), text.as_bytes())
    }
}

/// Journals what is fixed, and takes the mark away.
fn begin(state: &Path, config: &Config) -> Result<(Config, Fixed), Failure> {
    let file = state.join(FILE);
    let (_, given): (Config, Given) = Config::load_with_files(&file)?;
    let fixed = config.fixed(&given);
    let ledger = Ledger::open(state, Arc::new(Disk), Arc::new(SystemClock))?;
    let (_, before) = ledger.commit_with(|tree| match tree.fixed() {
        Some(before) => (Vec::new(), Some(before.clone())),
        None => (vec![Transition::Initialized(Box::new(fixed.clone()))], None),
    })?;
    ledger.close();
    let others = before.map(|before| differences(&before, &fixed)).unwrap_or_default();
    if let Some(other) = others.first() {
        let failure = Failure::new(format!("`{}` was begun with another configuration", state.display()))
            .because(other)
            .exit(Exit::Configuration);
        return Err(failure.hint("remove the folder, or take the configuration that it has"));
    }
    Disk.sync_folder(state)?;
    Disk.remove_file(&state.join(UNFINISHED))?;
    Disk.sync_folder(state)?;
    Ok((config.clone(), fixed))
}

fn same_file(one: &Path, other: &Path) -> Option<bool> {
    Some(one.canonicalize().ok()? == other.canonicalize().ok()?)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    Ok(Disk.read(path, LONGEST)?)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    Ok(storage::replace(&Disk, path, bytes)?)
}

/// Makes a folder, with those above it, that nobody but the owner and the group may look into.
pub(super) fn make_folder(folder: &Path) -> Result<(), Failure> {
    let cannot = |error: io::Error| {
        Failure::new(format!("cannot make the folder `{}`", folder.display())).because(error)
    };
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(MODE).create(folder).map_err(cannot)?;
    std::fs::set_permissions(folder, Permissions::from_mode(MODE)).map_err(cannot)?;
    Ok(Disk.sync_folder(storage::parent(folder))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn asked(config: Option<&Path>) -> Init {
        Init { config: config.map(Path::to_owned), model: None, tokenizer: None, output: Default::default() }
    }

    fn fixed(state: &Path) -> Option<Fixed> {
        let ledger = Ledger::open(state, Arc::new(Disk), Arc::new(SystemClock)).unwrap();
        ledger.read(|tree| tree.fixed().cloned())
    }

    #[test]
    fn a_bare_init_makes_a_state_with_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("deep/state");
        let made = run(&state, &asked(None)).unwrap();
        assert_eq!(std::fs::read_to_string(state.join(FILE)).unwrap(), DEFAULT_TOML);
        assert_eq!(std::fs::read_to_string(state.join(MODEL)).unwrap(), DEFAULT_MODEL);
        for folder in FOLDERS.iter().chain(&["", "data"]) {
            let mode = state.join(folder).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, MODE, "{folder}");
        }
        assert!(!is_unfinished(&state));
        assert_eq!(fixed(&state), Some(made.fixed));
    }

    #[test]
    fn a_state_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), &asked(None)).unwrap();
        let told = run(folder.path(), &asked(None)).unwrap_err();
        assert!(told.message.ends_with("is a state already"), "{told}");
    }

    #[test]
    fn a_given_configuration_is_copied_with_what_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given.toml");
        let text = "# ours\nseed = 5\n[model]\nconfig = \"small.json\"\n[data]\nsequence_length = 64\nfolder = \"in\"\n";
        std::fs::write(&given, text).unwrap();
        std::fs::write(folder.path().join("small.json"), DEFAULT_MODEL).unwrap();
        let state = folder.path().join("state");
        let made = run(&state, &asked(Some(&given))).unwrap();
        assert_eq!(
            std::fs::read_to_string(state.join(FILE)).unwrap(),
            text.replace("small.json", "model/config.json")
        );
        assert_eq!((made.fixed.seed, made.fixed.sequence_length), (5, 64));
        assert!(state.join("in").is_dir());
        Config::load(&state.join(FILE)).unwrap();
    }

    #[test]
    fn a_refused_configuration_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given.toml");
        std::fs::write(&given, "[model]\nconfig = \"nowhere.json\"\n").unwrap();
        let state = folder.path().join("state");
        let told = run(&state, &asked(Some(&given))).unwrap_err();
        assert!(told.message.contains("model.config"), "{told}");
        assert!(!state.exists());
    }

    #[test]
    fn a_model_that_does_not_fit_the_defaults_is_told_as_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("small.json");
        std::fs::write(&model, DEFAULT_MODEL.replace("8192", "100")).unwrap();
        let state = folder.path().join("state");
        let told = run(&state, &Init { model: Some(model), ..asked(None) }).unwrap_err();
        assert_eq!((told.message.as_str(), told.exit), ("no state can be made of this", Exit::Configuration));
        assert!(told.cause.unwrap().0.contains("vocab_size of 100") && told.hint.is_some());
        assert!(!state.exists());
    }

    #[test]
    fn a_folder_with_its_own_configuration_becomes_a_state_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        std::fs::write(state.join(FILE), "seed = 8\n[model]\nconfig = \"mine.json\"\n").unwrap();
        std::fs::write(state.join("mine.json"), DEFAULT_MODEL).unwrap();
        let made = run(state, &asked(None)).unwrap();
        assert_eq!(made.fixed.seed, 8);
        let text = std::fs::read_to_string(state.join(FILE)).unwrap();
        assert_eq!(text, "seed = 8\n[model]\nconfig = \"model/config.json\"\n");
    }

    #[test]
    fn an_interrupted_init_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        // Interrupted before the journal, and again after its first record.
        std::fs::write(state.join(UNFINISHED), "").unwrap();
        std::fs::write(state.join(FILE), "half of a conf").unwrap();
        let given = tempfile::NamedTempFile::new().unwrap();
        let model = given.path().with_file_name("model-of-a-test.json");
        std::fs::write(&model, DEFAULT_MODEL).unwrap();
        std::fs::write(given.path(), format!("[model]\nconfig = {model:?}\n")).unwrap();
        let made = run(state, &asked(Some(given.path()))).unwrap();
        std::fs::write(state.join(UNFINISHED), "").unwrap();
        let again = run(state, &asked(Some(given.path()))).unwrap();
        assert_eq!(again.fixed, made.fixed);
        assert!(!is_unfinished(state));

        std::fs::write(state.join(UNFINISHED), "").unwrap();
        std::fs::write(given.path(), format!("seed = 3\n[model]\nconfig = {model:?}\n")).unwrap();
        let told = run(state, &asked(Some(given.path()))).unwrap_err();
        assert!(told.message.contains("was begun with another configuration"), "{told}");
        assert_eq!(told.exit, Exit::Configuration);
        std::fs::remove_file(model).unwrap();
    }
}
