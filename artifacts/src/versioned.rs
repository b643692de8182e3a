//! JSON files that carry the version of their format.
//!
//! A file of a newer format is refused before anything else of it is read: what an unknown field means to the program
//! that wrote it is not for this one to guess.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a file could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system would not give its bytes: this says nothing of what they are.
    #[error("cannot read `{}`: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("`{}` is damaged or was not written by this program: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with line and column where there is one.
        why: String,
    },
    /// A newer program wrote it.
    #[error(
        "`{}` has format {found}, and this program knows formats up to {newest}: it was written by a newer program; \
         use that one, or a newer one still",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest format that this program reads.
        newest: u32,
    },
}

/// The field that every such file has.
#[derive(Deserialize)]
struct Format {
    format: u64,
}

/// Reads a file of at most `longest` bytes and of a format up to `newest`.
pub fn read<T: DeserializeOwned>(path: &Path, newest: u32, longest: u64) -> Result<T, Error> {
    let unreadable = |cause| Error::Unreadable { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(longest.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > longest {
        let why = format!("it is longer than {longest} bytes");
        return Err(Error::Malformed { path: path.to_owned(), why });
    }
    parse(path, &bytes, newest)
}

/// What the bytes of a file stand for, if its format is one up to `newest`.
pub fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8], newest: u32) -> Result<T, Error> {
    let malformed =
        |error: serde_json::Error| Error::Malformed { path: path.to_owned(), why: error.to_string() };
    let Format { format } = serde_json::from_slice(bytes).map_err(malformed)?;
    if format > u64::from(newest) {
        return Err(Error::Newer { path: path.to_owned(), found: format, newest });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        format: u32,
        value: u32,
    }

    fn parsed(text: &str) -> Result<Small, String> {
        parse(Path::new("small.json"), text.as_bytes(), 1).map_err(|error| error.to_string())
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_is_in_it() {
        assert_eq!(parsed(r#"{"format": 1, "value": 7}"#), Ok(Small { format: 1, value: 7 }));
        let refusal = parsed(r#"{"format": 2, "values": [7], "more": {}}"#).unwrap_err();
        assert!(
            refusal.starts_with("`small.json` has format 2, and this program knows formats up to 1"),
            "{refusal}"
        );
    }

    #[test]
    fn damage_is_named() {
        let refusal = parsed(r#"{"format": 1, "value": -7}"#).unwrap_err();
        assert!(refusal.contains("line 1 column"), "{refusal}");
        assert!(parsed("{}").unwrap_err().contains("missing field `format`"));
        let missing = read::<Small>(Path::new("/nonexistent/small.json"), 1, 10).unwrap_err();
        assert!(matches!(missing, Error::Unreadable { .. }));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.json");
        std::fs::write(&path, r#"{"format": 1, "value": 7}"#).unwrap();
        assert_eq!(read::<Small>(&path, 1, 100).unwrap().value, 7);
        assert!(read::<Small>(&path, 1, 5).unwrap_err().to_string().contains("longer than 5 bytes"));
    }
}
