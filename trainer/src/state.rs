//! All that a checkpoint holds, saved beside training and not in its way.
//!
//! A checkpoint is taken in two halves. The snapshot copies every tensor while training waits: a memory copy. A thread
//! then writes, hashes and syncs the copy while the next steps run. Its folder has a temporary name until all of it is
//! on disk, so what stands under a checkpoint's name is whole.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use artifacts::checkpoint::{self, MODEL, OPTIMIZER, STATE, State};
use artifacts::manifest::{self, Damage, Manifest};
use artifacts::storage::{self, Hindrance, Output, Storage};
use artifacts::{Digest, versioned};
use candle_core::{Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::View;

use crate::kernels::{Moments, slices};
use crate::model::{Config, Weights, WeightsError, read_tensors};
use crate::optimizer::Optimizer;
use crate::patience::Patience;

/// Prefix of a first moment's name.
const EXP_AVG: &str = "exp_avg.";
/// Prefix of a second moment's name.
const EXP_AVG_SQ: &str = "exp_avg_sq.";

/// Bytes that are left to others beside a checkpoint: events, logs, a journal.
const SPARE: u64 = 1 << 20;

/// Why a checkpoint cannot be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Its folder is not what its manifest says.
    #[error("the checkpoint is damaged: {0}")]
    Damage(#[from] Damage),
    /// It is another checkpoint than the one that was asked for.
    #[error("{path}: is checkpoint {found}, but the job asks for {expected}")]
    Digest {
        /// Its folder.
        path: PathBuf,
        /// Digest of its manifest.
        found: Digest,
        /// The one that was asked for.
        expected: Digest,
    },
    /// Its `state.json` cannot be used.
    #[error(transparent)]
    State(#[from] versioned::Error),
    /// What it holds does not fit the job.
    #[error("{path}: {reason}")]
    Unfit {
        /// Its folder.
        path: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// Its tensors cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// It cannot be written.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A tensor cannot be put into a file.
    #[error("a tensor cannot be saved: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// The thread that writes cannot be started, or has panicked.
    #[error("the thread that writes checkpoints cannot work: {0}")]
    Thread(String),
}

impl StateError {
    /// What keeps it from being written, where that passes when the machine is mended.
    fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Storage(error) => error.hindrance(),
            _ => None,
        }
    }
}

impl From<candle_core::Error> for StateError {
    fn from(error: candle_core::Error) -> Self {
        Self::Weights(error.into())
    }
}

/// A checkpoint that is safe on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Name of its folder.
    pub name: String,
    /// Updates done.
    pub step: u64,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Size of all its files.
    pub bytes: u64,
}

/// A checkpoint that was written beside training, and what that took.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// The checkpoint.
    pub saved: Saved,
    /// Seconds from its copy to the disk.
    pub seconds: f64,
    /// Of these, seconds in which training waited: for the copy, and for what was not written yet when it had to be.
    pub stalled_seconds: f64,
}

/// A copy of all that a checkpoint holds.
pub struct Snapshot {
    begun: Instant,
    copied: Duration,
    model: Vec<(String, Copied)>,
    optimizer: Vec<(String, Copied)>,
    state: State,
}

/// A tensor's bytes, as they stand in a safetensors file.
struct Copied {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Copied {
    fn of(tensor: &Tensor) -> candle_core::Result<Self> {
        let tensor = tensor.to_device(&Device::Cpu)?;
        let values = slices::view(&tensor)?;
        let mut bytes = vec![0; size_of_val(&*values)];
        for (bytes, value) in bytes.chunks_exact_mut(size_of::<f32>()).zip(&*values) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        Ok(Self { shape: tensor.dims().to_vec(), bytes })
    }
}

impl View for &Copied {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Snapshot {
    /// Copies the weights and moments as they are now.
    pub fn take(weights: &Weights, optimizer: &Optimizer, state: State) -> candle_core::Result<Self> {
        let begun = Instant::now();
        let model = weights
            .iter()
            .map(|(name, variable)| Ok((name.to_owned(), Copied::of(variable)?)))
            .collect::<candle_core::Result<_>>()?;
        let mut moments = Vec::new();
        for (name, Moments { exp_avg, exp_avg_sq }) in optimizer.moments() {
            moments.push((format!("{EXP_AVG}{name}"), Copied::of(exp_avg)?));
            moments.push((format!("{EXP_AVG_SQ}{name}"), Copied::of(exp_avg_sq)?));
        }
        Ok(Self { begun, copied: begun.elapsed(), model, optimizer: moments, state })
    }

    /// Bytes of its tensors: all but a few of the checkpoint's.
    fn bytes(&self) -> u64 {
        self.model.iter().chain(&self.optimizer).map(|(_, tensor)| tensor.bytes.len() as u64).sum()
    }

    /// Writes the checkpoint into `folder`, under its name. Where a sound one has that name already it is kept: the
    /// same steps give the same bytes.
    pub fn write(&self, storage: &dyn Storage, folder: &Path) -> Result<Saved, StateError> {
        let step = self.state.step;
        let name = checkpoint::name(&self.state.path, step);
        let published = folder.join(&name);
        let saved = |digest, manifest: &Manifest| {
            let bytes = manifest.bytes() + manifest.to_bytes().len() as u64;
            Saved { name: name.clone(), step, digest, bytes }
        };
        match manifest::verify(&published) {
            Ok(digest) => return Ok(saved(digest, &Manifest::read(&published)?.0)),
            Err(Damage::NoManifest { .. }) => manifest::delete(storage, &published)?,
            Err(damage) => return Err(damage.into()),
        }
        let temporary = storage::temporary_folder(storage, &published)?;
        let written = self.write_files(storage, &temporary).and_then(|(digest, manifest)| {
            storage::publish_folder(storage, &temporary, &published)?;
            Ok(saved(digest, &manifest))
        });
        if written.is_err() {
            // What stays behind has a temporary name: harmless, and swept by whoever owns the folder.
            let _ = storage::remove_tree(storage, &temporary);
        }
        written
    }

    fn write_files(&self, storage: &dyn Storage, folder: &Path) -> Result<(Digest, Manifest), StateError> {
        let mut manifest = Manifest::new();
        let mut file = |name: &str, bytes: &[u8]| -> Result<(), StateError> {
            let mut output = Output::create(storage, &folder.join(name))?;
            output.write(bytes)?;
            manifest.insert(name, output.finish()?);
            Ok(())
        };
        file(MODEL, &safetensors(&self.model)?)?;
        file(OPTIMIZER, &safetensors(&self.optimizer)?)?;
        let mut state = serde_json::to_vec_pretty(&self.state)
            .map_err(|error| StateError::Unfit { path: folder.join(STATE), reason: error.to_string() })?;
        state.push(b'\n');
        file(STATE, &state)?;
        Ok((manifest.write(storage, folder)?, manifest))
    }
}

/// The bytes of a safetensors file, which hang on nothing but the tensors.
fn safetensors(tensors: &[(String, Copied)]) -> Result<Vec<u8>, StateError> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(tensors.iter().map(|(name, copied)| (name, copied)), Some(metadata))?)
}

/// What a checkpoint gave back.
pub struct Loaded {
    /// The weights.
    pub weights: Weights,
    /// The moments, by parameter.
    pub moments: BTreeMap<String, Moments>,
    /// What is not a tensor.
    pub state: State,
}

impl Loaded {
    /// Updates that made the moments.
    pub fn updates(&self) -> u64 {
        self.state.step - self.state.skipped.len() as u64
    }
}

/// Loads a checkpoint after its manifest and every digest in it were verified.
pub fn load(folder: &Path, expected: Digest, config: &Config, device: &Device) -> Result<Loaded, StateError> {
    let found = manifest::verify(folder)?;
    if found != expected {
        return Err(StateError::Digest { path: folder.to_owned(), found, expected });
    }
    let unfit = |reason: String| StateError::Unfit { path: folder.to_owned(), reason };
    let state = checkpoint::read_state(folder)?;
    if state.skipped.len() as u64 > state.step {
        return Err(unfit(format!("{} steps of {} were skipped", state.skipped.len(), state.step)));
    }
    let weights = Weights::read_folder(config, folder, device)?;
    let path = folder.join(OPTIMIZER);
    let mut tensors = read_tensors(&path, device)?;
    let mut moment = |prefix: &str, name: &str, like: &Tensor| {
        let name = format!("{prefix}{name}");
        match tensors.remove(&name) {
            Some(moment) if moment.dims() == like.dims() => Ok(moment),
            Some(_) => Err(unfit(format!("{OPTIMIZER}: `{name}` has not the shape of its parameter"))),
            None => Err(unfit(format!("{OPTIMIZER}: has no tensor `{name}`"))),
        }
    };
    let moments = weights
        .iter()
        .map(|(name, variable)| {
            let exp_avg = moment(EXP_AVG, name, variable)?;
            let exp_avg_sq = moment(EXP_AVG_SQ, name, variable)?;
            Ok((name.to_owned(), Moments { exp_avg, exp_avg_sq }))
        })
        .collect::<Result<_, StateError>>()?;
    Ok(Loaded { weights, moments, state })
}

/// The step of a checkpoint; `None` for a folder that is none, such as a release.
pub fn step_of(folder: &Path) -> Result<Option<u64>, StateError> {
    if !folder.join(STATE).exists() {
        return Ok(None);
    }
    Ok(Some(checkpoint::read_state(folder)?.step))
}

/// Writes snapshots in the background, one at a time.
pub struct Saver {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    patience: Patience,
    writing: Option<Writing>,
}

struct Writing {
    thread: JoinHandle<Result<(Saved, Duration), StateError>>,
    copied: Duration,
}

impl Saver {
    /// A saver of checkpoints into `folder`, with patience for a disk without room.
    pub fn new(storage: Arc<dyn Storage>, folder: PathBuf, patience: Patience) -> Self {
        Self { storage, folder, patience, writing: None }
    }

    /// Starts to write a snapshot. The one before it must have been finished.
    pub fn submit(&mut self, snapshot: Snapshot) -> Result<(), StateError> {
        assert!(self.writing.is_none(), "one snapshot is written at a time");
        let (storage, folder, patience) = (self.storage.clone(), self.folder.clone(), self.patience.clone());
        let (begun, copied) = (snapshot.begun, snapshot.copied);
        let write = move || {
            // Asked for before it is written: half of a checkpoint takes the room that others have.
            storage::room_for(&folder, snapshot.bytes().saturating_add(SPARE))?;
            snapshot.write(storage.as_ref(), &folder)
        };
        let insist = move || Ok((patience.insist(write, StateError::hindrance)?, begun.elapsed()));
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(insist);
        let thread = thread.map_err(|error: io::Error| StateError::Thread(error.to_string()))?;
        self.writing = Some(Writing { thread, copied });
        Ok(())
    }

    /// What was finished since the last call, without waiting.
    pub fn poll(&mut self) -> Result<Option<Written>, StateError> {
        match &self.writing {
            Some(writing) if writing.thread.is_finished() => self.finish(),
            _ => Ok(None),
        }
    }

    /// Waits for what is being written.
    pub fn finish(&mut self) -> Result<Option<Written>, StateError> {
        let Some(Writing { thread, copied }) = self.writing.take() else { return Ok(None) };
        let waits = Instant::now();
        let written = thread.join().map_err(|_| StateError::Thread("it panicked".to_owned()))?;
        let (saved, took) = written?;
        let stalled_seconds = (copied + waits.elapsed()).as_secs_f64();
        Ok(Some(Written { saved, seconds: took.as_secs_f64(), stalled_seconds }))
    }
}

impl Drop for Saver {
    /// Waits too: whoever ends, for whatever reason, leaves no checkpoint half written.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            // Its failure is not the one that is told.
            let _ = writing.thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
