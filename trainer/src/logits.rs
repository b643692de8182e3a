//! A model's logits as a file: what another program's are compared with.

use std::collections::HashMap;
use std::path::Path;

use artifacts::storage;
use artifacts::tokens::Tokens;
use candle_core::Tensor;
use safetensors::tensor::TensorView;

use crate::data::DataError;
use crate::failure::{Failure, Kind};
use crate::kernels::Kernels;
use crate::model::{Config, Decoder, Weights};

/// Writes the logits after every token of the file `tokens`, one sequence, to the safetensors file `out`.
pub fn write(
    config: &Config,
    weights: &Weights,
    kernels: &dyn Kernels,
    tokens: &Path,
    out: &Path,
) -> Result<(), Failure> {
    let sequence = Tokens::open(tokens).map_err(DataError::from)?;
    if sequence.is_empty() || sequence.len() > config.positions {
        let message = format!(
            "`{}` holds {} tokens; from 1 to {} were expected (max_position_embeddings)",
            tokens.display(),
            sequence.len(),
            config.positions
        );
        return Err(Failure::new(Kind::Data, message));
    }
    if let Some(index) = sequence.iter().position(|token| *token as usize >= config.vocabulary) {
        let (path, vocabulary) = (tokens.to_owned(), config.vocabulary);
        let error = DataError::Token { path, index: index as u64, token: sequence[index], vocabulary };
        return Err(error.into());
    }
    let decoder = Decoder::new(config, kernels, &weights.detached(), sequence.len())?;
    let inputs = Tensor::new(&sequence[..], decoder.device())?.unsqueeze(0)?;
    let logits = decoder.logits(&inputs)?.squeeze(0)?;
    let shape = logits.dims().to_vec();
    let bytes: Vec<u8> =
        logits.flatten_all()?.to_vec1::<f32>()?.iter().flat_map(|value| value.to_le_bytes()).collect();
    let wrong = |error: safetensors::SafeTensorError| Failure::new(Kind::Software, error);
    let view = TensorView::new(safetensors::Dtype::F32, shape, &bytes).map_err(wrong)?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = safetensors::serialize([("logits", view)], Some(metadata)).map_err(wrong)?;
    storage::replace(&storage::Disk, out, &file).map_err(|error| {
        Failure::new(if error.is_full() { Kind::NoSpace } else { Kind::CannotCreate }, error)
    })
}
