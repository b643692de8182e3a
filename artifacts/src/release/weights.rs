//! The weights of a release: one file, or several where one would be too large for others to handle.
//!
//! The weights are copied as bytes, never read as numbers: what a checkpoint holds is what is published. A split
//! follows the convention of HF transformers, in which an index names the file of each tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{INDEX, WEIGHTS};
use crate::storage::{self, Hindrance, Output, Storage, Written};

/// Bytes of tensors above which the weights are split, and that no file exceeds unless one tensor does.
pub const SPLIT_ABOVE: u64 = 5_000_000_000;

/// Longest header of a safetensors file, as the format's own library has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes of the number in front of the header.
const LENGTH: u64 = 8;

/// Bytes that are copied at once.
const COPY: usize = 1 << 20;

/// Why the weights could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Writing failed.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The system would not give the source.
    #[error("cannot read `{}`: {cause}", path.display())]
    Unreadable {
        /// The source.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The source is no safetensors file.
    #[error("`{}` is no sound safetensors file: {why}", path.display())]
    Malformed {
        /// The source.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// What stood in the way, where that passes when the machine is mended.
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Storage(error) => error.hindrance(),
            Self::Unreadable { cause, .. } => Hindrance::of(cause),
            Self::Malformed { .. } => None,
        }
    }
}

/// The header of a safetensors file.
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default, skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    /// First byte, and one past the last, behind the header.
    data_offsets: [u64; 2],
}

impl Tensor {
    fn bytes(&self) -> u64 {
        self.data_offsets[1] - self.data_offsets[0]
    }
}

/// Which file holds which tensor, as HF transformers reads it.
#[derive(Serialize)]
struct Index<'h> {
    metadata: Total,
    weight_map: BTreeMap<&'h str, &'h str>,
}

#[derive(Serialize)]
struct Total {
    total_size: u64,
}

/// A tensor and its name.
type Named<'h> = (&'h str, &'h Tensor);

/// Copies the weights of a checkpoint into a release's folder, and says what was written: `model.safetensors`, byte for
/// byte, or, where the tensors exceed `split_above` bytes, several files and their index.
pub fn write_weights(
    storage: &dyn Storage,
    source: &Path,
    folder: &Path,
    split_above: u64,
) -> Result<Vec<(String, Written)>, Error> {
    let source = Weights::open(source)?;
    let parts = source.header.split(split_above);
    if parts.len() <= 1 {
        let mut output = Output::create(storage, &folder.join(WEIGHTS))?;
        source.copy(0..source.size, &mut output)?;
        return Ok(vec![(WEIGHTS.to_owned(), output.finish()?)]);
    }
    let names: Vec<String> =
        (1..=parts.len()).map(|part| format!("model-{part:05}-of-{:05}.safetensors", parts.len())).collect();
    let mut written = Vec::new();
    let mut index = Index { metadata: Total { total_size: 0 }, weight_map: BTreeMap::new() };
    for (name, part) in names.iter().zip(&parts) {
        let mut output = Output::create(storage, &folder.join(name))?;
        source.write_part(part, &mut output)?;
        written.push((name.clone(), output.finish()?));
        index.metadata.total_size += part.iter().map(|(_, tensor)| tensor.bytes()).sum::<u64>();
        index.weight_map.extend(part.iter().map(|(tensor, _)| (*tensor, name.as_str())));
    }
    let mut output = Output::create(storage, &folder.join(INDEX))?;
    let json = serde_json::to_writer_pretty(&mut output, &index).map_err(io::Error::from);
    json.map_err(|cause| output.failure(cause))?;
    output.write(b"\n")?;
    written.push((INDEX.to_owned(), output.finish()?));
    Ok(written)
}

impl Header {
    /// The tensors in the order of their bytes, in parts of at most `limit` bytes; a larger tensor is alone.
    fn split(&self, limit: u64) -> Vec<Vec<Named<'_>>> {
        let mut tensors: Vec<Named> =
            self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        tensors.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let mut parts: Vec<Vec<Named>> = Vec::new();
        let mut room = 0;
        for tensor in tensors {
            let bytes = tensor.1.bytes();
            match parts.last_mut() {
                Some(part) if bytes <= room => {
                    part.push(tensor);
                    room -= bytes;
                }
                _ => {
                    parts.push(vec![tensor]);
                    room = limit.saturating_sub(bytes);
                }
            }
        }
        parts
    }
}

/// A safetensors file whose header was read and checked.
pub(super) struct Weights {
    path: PathBuf,
    header: Header,
    /// Bytes before the first tensor.
    data: u64,
    size: u64,
}

/// A tensor in its file.
pub(super) struct Place<'w> {
    /// Its name.
    pub name: &'w str,
    /// The word for its numbers.
    pub dtype: &'w str,
    /// Its first byte in the file.
    pub first: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Weights {
    /// All tensors, in the order of their bytes.
    pub(super) fn tensors(&self) -> Vec<Place<'_>> {
        let place = |(name, tensor)| {
            let (name, tensor): (&String, &Tensor) = (name, tensor);
            let first = self.data + tensor.data_offsets[0];
            Place { name, dtype: &tensor.dtype, first, bytes: tensor.bytes() }
        };
        let mut places: Vec<Place<'_>> = self.header.tensors.iter().map(place).collect();
        places.sort_by_key(|place| place.first);
        places
    }

    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause };
        let malformed = |why: String| Error::Malformed { path: path.to_owned(), why };
        let mut file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let mut length = [0; LENGTH as usize];
        if size < LENGTH {
            return Err(malformed(format!("it has {size} bytes")));
        }
        file.read_exact(&mut length).map_err(unreadable)?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER.min(size - LENGTH) {
            return Err(malformed(format!("its header would have {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes).map_err(unreadable)?;
        let header: Header = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let data = LENGTH + length;
        for (name, tensor) in &header.tensors {
            let [first, end] = tensor.data_offsets;
            if first > end || end > size - data {
                return Err(malformed(format!(
                    "tensor `{name}` would lie at bytes {first} to {end} of {}",
                    size - data
                )));
            }
        }
        Ok(Self { path: path.to_owned(), header, data, size })
    }

    /// Writes some tensors as a safetensors file of their own.
    fn write_part(&self, part: &[Named], output: &mut Output) -> Result<(), Error> {
        let mut at = 0;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in part {
            let data_offsets = [at, at + tensor.bytes()];
            at = data_offsets[1];
            tensors.insert((*name).to_owned(), Tensor { data_offsets, ..(*tensor).clone() });
        }
        let header = Header { metadata: self.header.metadata.clone(), tensors };
        let mut json = serde_json::to_vec(&header)
            .map_err(|error| Error::Malformed { path: self.path.clone(), why: error.to_string() })?;
        // The format asks for tensors that start at multiples of 8.
        json.resize(json.len().next_multiple_of(LENGTH as usize), b' ');
        output.write(&(json.len() as u64).to_le_bytes())?;
        output.write(&json)?;
        for (_, tensor) in part {
            let [first, end] = tensor.data_offsets;
            self.copy(self.data + first..self.data + end, output)?;
        }
        Ok(())
    }

    fn copy(&self, range: std::ops::Range<u64>, output: &mut Output) -> Result<(), Error> {
        let unreadable = |cause| Error::Unreadable { path: self.path.clone(), cause };
        let mut file = File::open(&self.path).map_err(unreadable)?;
        file.seek(SeekFrom::Start(range.start)).map_err(unreadable)?;
        let mut left = range.end - range.start;
        let mut buffer = vec![0; left.min(COPY as u64) as usize];
        while left > 0 {
            let chunk = &mut buffer[..left.min(COPY as u64) as usize];
            file.read_exact(chunk).map_err(unreadable)?;
            output.write(chunk)?;
            left -= chunk.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

    use super::*;
    use crate::Digest;
    use crate::storage::Disk;

    type Tensors = BTreeMap<String, Vec<u8>>;

    fn file(tensors: &Tensors) -> Vec<u8> {
        let views = tensors
            .iter()
            .map(|(name, bytes)| (name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).unwrap()));
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        serialize(views, Some(metadata)).unwrap()
    }

    fn release(bytes: &[u8], split_above: u64) -> (tempfile::TempDir, Result<Vec<(String, Written)>, Error>) {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        std::fs::write(&source, bytes).unwrap();
        let written = write_weights(&Disk, &source, folder.path(), split_above);
        (folder, written)
    }

    fn tensors(counts: &[usize]) -> Tensors {
        let bytes = |count: usize| (0..4 * count).map(|i| (i * 31 + count) as u8).collect();
        counts.iter().enumerate().map(|(i, count)| (format!("layer.{i}"), bytes(*count))).collect()
    }

    /// A daemon with too few descriptors told of a version that "could not be published", as if it were the version's
    /// fault, and `status` said nothing: the weights are mapped, which no storage does, and their errors were no hindrance.
    #[test]
    fn weights_that_cannot_be_opened_now_are_a_hindrance() {
        let refused = |errno: rustix::io::Errno| {
            Error::Unreadable { path: PathBuf::from("model.safetensors"), cause: errno.into() }.hindrance()
        };
        assert_eq!(refused(rustix::io::Errno::MFILE), Some(Hindrance::Files));
        assert_eq!(refused(rustix::io::Errno::NOMEM), Some(Hindrance::Memory));
        assert_eq!(refused(rustix::io::Errno::NOENT), None);
    }

    #[test]
    fn small_weights_are_copied_byte_for_byte() {
        let bytes = file(&tensors(&[400_000, 1]));
        let (folder, written) = release(&bytes, SPLIT_ABOVE);
        let expected = Written { size: bytes.len() as u64, digest: Digest::of(&bytes) };
        assert_eq!(written.unwrap(), [(WEIGHTS.to_owned(), expected)]);
        assert_eq!(std::fs::read(folder.path().join(WEIGHTS)).unwrap(), bytes);
        assert!(!folder.path().join(INDEX).exists());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn split_weights_are_the_same_tensors(
            counts in prop::collection::vec(0usize..40, 1..12),
            split_above in 0u64..300,
        ) {
            let tensors = tensors(&counts);
            let (folder, written) = release(&file(&tensors), split_above);
            let written = written.unwrap();
            let mut found = Tensors::new();
            let parts = written.iter().filter(|(name, _)| name != INDEX);
            for (name, facts) in parts.clone() {
                let bytes = std::fs::read(folder.path().join(name)).unwrap();
                prop_assert_eq!(facts.digest, Digest::of(&bytes));
                let part = SafeTensors::deserialize(&bytes).unwrap();
                let size: usize = part.iter().map(|(_, view)| view.data().len()).sum();
                let with_bytes = part.iter().filter(|(_, view)| !view.data().is_empty()).count();
                prop_assert!(size as u64 <= split_above || with_bytes == 1);
                let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
                prop_assert_eq!(length % 8, 0, "tensors start at multiples of 8");
                prop_assert_eq!(&header.metadata().as_ref().unwrap()["format"], "pt");
                found.extend(part.iter().map(|(name, view)| (name.to_owned(), view.data().to_vec())));
            }
            prop_assert_eq!(&found, &tensors);
            let total: usize = tensors.values().map(Vec::len).sum();
            prop_assert_eq!(parts.clone().count() > 1, folder.path().join(INDEX).exists());
            if parts.clone().count() > 1 {
                let index = std::fs::read(folder.path().join(INDEX)).unwrap();
                let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
                prop_assert_eq!(index["metadata"]["total_size"].as_u64(), Some(total as u64));
                let map = index["weight_map"].as_object().unwrap();
                prop_assert!(map.keys().eq(tensors.keys()));
                prop_assert!(map.values().all(|name| folder.path().join(name.as_str().unwrap()).exists()));
            } else {
                prop_assert_eq!(&parts.clone().next().unwrap().0, WEIGHTS);
            }
        }

        #[test]
        fn no_bytes_make_the_copy_panic(
            head in prop::collection::vec(any::<u8>(), 0..4),
            body in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = [head, vec![0; 5], body].concat();
            let _ = release(&bytes, 10);
        }
    }

    #[test]
    fn what_is_no_safetensors_file_is_refused() {
        let why = |bytes: &[u8]| release(bytes, 10).1.unwrap_err().to_string();
        assert!(why(b"abc").contains("it has 3 bytes"));
        assert!(why(&[255; 20]).contains("its header would have"));
        assert!(why(b"\x02\0\0\0\0\0\0\0[]").contains("no sound safetensors file"));
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let cut = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 3]].concat();
        assert!(why(&cut).contains("tensor `a` would lie at bytes 0 to 4 of 3"));
    }
}
