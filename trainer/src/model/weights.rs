//! Weights by the names of HF transformers: new ones, and to and from safetensors.
//!
//! New weights hang on the seed and the tensor's name alone, so that they do not change with the order in which
//! tensors are made, nor with the number of threads: each name has a ChaCha20 stream of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, Var};
use memmap2::Mmap;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::Config;

/// The trainable tensors of a model, in byte order of their names.
#[derive(Debug, Clone)]
pub struct Weights {
    variables: BTreeMap<String, Var>,
}

/// Why weights cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor of the model is in no file.
    #[error("{path}: has no tensor `{name}`, which the model's config.json asks for")]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor that the model does not have.
    #[error("{path}: holds a tensor `{name}` that the model's config.json does not ask for")]
    Unknown {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the model's.
    #[error(
        "{path}: tensor `{name}` has the shape {found:?}, but the model's config.json asks for {expected:?}"
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The model's.
        expected: Vec<usize>,
    },
    /// A tensor has a dtype that cannot be read.
    #[error("{path}: tensor `{name}` has the dtype {found}, but F32, F16 or BF16 was expected")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its dtype.
        found: String,
    },
    /// candle refused.
    #[error("the weights cannot be held: {0}")]
    Candle(#[from] candle_core::Error),
}

impl Weights {
    /// New weights: normal(0, `initializer_range`) for matrices and embeddings, ones for norms.
    pub fn new(config: &Config, seed: u64, dtype: DType, device: &Device) -> Result<Self, WeightsError> {
        let variables = config.tensors().into_par_iter().map(|(name, shape)| {
            let count = shape.iter().product();
            let values = match shape.len() {
                1 => vec![1f32; count],
                _ => normal(seed, &name, count, config.initializer_range),
            };
            Ok((name, Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?))
        });
        // Threads make the numbers, and one of them talks to the device.
        let variables = variables.collect::<Result<Vec<_>, WeightsError>>()?.into_iter();
        let on_device =
            variables.map(|(name, tensor)| Ok((name, Var::from_tensor(&tensor.to_device(device)?)?)));
        Ok(Self { variables: on_device.collect::<Result<_, WeightsError>>()? })
    }

    /// The weights of an HF folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
    /// Half precision is widened to f32.
    pub fn read_folder(config: &Config, folder: &Path, device: &Device) -> Result<Self, WeightsError> {
        let index = folder.join("model.safetensors.index.json");
        let files = if index.exists() { shards(&index)? } else { vec![folder.join("model.safetensors")] };
        let mut found = BTreeMap::new();
        for file in files {
            found.extend(read_tensors(&file, device)?);
        }
        Self::from_tensors(config, folder, found)
    }

    /// The tensors of a model, out of those that were found in a file or folder.
    fn from_tensors(
        config: &Config,
        path: &Path,
        mut found: BTreeMap<String, Tensor>,
    ) -> Result<Self, WeightsError> {
        let mut variables = BTreeMap::new();
        for (name, expected) in config.tensors() {
            let tensor = found
                .remove(&name)
                .ok_or_else(|| WeightsError::Missing { path: path.to_owned(), name: name.clone() })?;
            if tensor.dims() != expected {
                let found = tensor.dims().to_vec();
                return Err(WeightsError::Shape { path: path.to_owned(), name, found, expected });
            }
            variables.insert(name, Var::from_tensor(&tensor.to_dtype(DType::F32)?)?);
        }
        // Some files hold the tied head once more, and older ones the rotary tables.
        let known =
            |name: &str| (config.tied && name == "lm_head.weight") || name.ends_with("rotary_emb.inv_freq");
        match found.into_keys().find(|name| !known(name)) {
            Some(name) => Err(WeightsError::Unknown { path: path.to_owned(), name }),
            None => Ok(Self { variables }),
        }
    }

    /// Where they are.
    pub fn device(&self) -> &Device {
        self.variables.values().next().map_or(&Device::Cpu, |variable| variable.device())
    }

    /// Every tensor with its name, in byte order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.variables.iter().map(|(name, variable)| (name.as_str(), variable))
    }

    /// The tensors as the model computes with them, with gradients.
    pub fn tracked(&self) -> BTreeMap<String, Tensor> {
        self.variables.iter().map(|(name, variable)| (name.clone(), variable.as_tensor().clone())).collect()
    }

    /// The tensors as the model computes with them, without gradients.
    pub fn detached(&self) -> BTreeMap<String, Tensor> {
        self.variables.iter().map(|(name, variable)| (name.clone(), variable.as_detached_tensor())).collect()
    }

    /// Trainable parameters.
    pub fn parameters(&self) -> u64 {
        self.variables.values().map(|variable| variable.elem_count() as u64).sum()
    }
}

/// `count` numbers from normal(0, `deviation`).
///
/// The stream is ChaCha20 with nonce 0, its key the BLAKE3 of the seed (u64, little-endian) and the name. Each pair of
/// u64 `a`, `b` gives two numbers by Box and Muller: with `u = ((a >> 11) + 1) / 2^53` in (0, 1] and
/// `v = (b >> 11) / 2^53`, `r = sqrt(-2 ln u)`: `r cos(2 pi v)`, then `r sin(2 pi v)`, scaled in f64, rounded to f32.
pub(super) fn normal(seed: u64, name: &str, count: usize, deviation: f64) -> Vec<f32> {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    let mut key = blake3::Hasher::new();
    key.update(&seed.to_le_bytes()).update(name.as_bytes());
    let mut stream = ChaCha20Rng::from_seed(*key.finalize().as_bytes());
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let u = ((stream.next_u64() >> 11) + 1) as f64 * UNIT;
        let v = (stream.next_u64() >> 11) as f64 * UNIT;
        let radius = (-2.0 * libm::log(u)).sqrt() * deviation;
        let angle = 2.0 * std::f64::consts::PI * v;
        values.push((radius * libm::cos(angle)) as f32);
        values.push((radius * libm::sin(angle)) as f32);
    }
    values.truncate(count);
    values
}

/// The files that an index names, each once.
fn shards(index: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let unreadable = |source| WeightsError::Unreadable { path: index.to_owned(), source };
    let malformed = |reason| WeightsError::Malformed { path: index.to_owned(), reason };
    let text = std::fs::read_to_string(index).map_err(unreadable)?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let folder = index.parent().unwrap_or(Path::new("."));
    names
        .into_iter()
        .map(|name| match Path::new(&name).file_name() {
            Some(file) if file == name.as_str() => Ok(folder.join(name)),
            _ => Err(malformed(format!("the shard `{name}` is not a file of this folder"))),
        })
        .collect()
}

/// All tensors of a safetensors file, widened to f32.
pub(crate) fn read_tensors(path: &Path, device: &Device) -> Result<BTreeMap<String, Tensor>, WeightsError> {
    let unreadable = |source| WeightsError::Unreadable { path: path.to_owned(), source };
    let malformed = |error: safetensors::SafeTensorError| WeightsError::Malformed {
        path: path.to_owned(),
        reason: format!("is not a sound safetensors file: {error}"),
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    // SAFETY: the file is only read, and copied before this function returns; files of checkpoints and models are
    // written under another name and never changed in place.
    let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
    let tensors = SafeTensors::deserialize(&map).map_err(malformed)?;
    let mut all = BTreeMap::new();
    for (name, view) in tensors.tensors() {
        let tensor = widen(&view, device)?.ok_or_else(|| WeightsError::Dtype {
            path: path.to_owned(),
            name: name.clone(),
            found: format!("{:?}", view.dtype()),
        })?;
        all.insert(name, tensor);
    }
    Ok(all)
}

/// A tensor in f32; `None` where the dtype is not a known one.
fn widen(view: &TensorView<'_>, device: &Device) -> Result<Option<Tensor>, candle_core::Error> {
    let dtype = match view.dtype() {
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::BF16 => DType::BF16,
        _ => return Ok(None),
    };
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), device)?.to_dtype(DType::F32).map(Some)
}

#[cfg(test)]
mod tests;
