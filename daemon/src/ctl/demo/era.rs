//! The demo's text: speeches in the order of their years, in four eras.

use std::path::{Path, PathBuf};

/// Eras of the demo, one increment each.
pub const ERAS: usize = 4;

/// A folder that holds no speeches.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// It cannot be read.
    #[error("the speeches in {folder} cannot be read: {cause}", folder = folder.display())]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// There are too few.
    #[error(
        "{folder} holds {found} files named `<year>_<president>.txt`, too few for {ERAS} eras: `make demo` fetches them",
        folder = folder.display()
    )]
    TooFew {
        /// The folder.
        folder: PathBuf,
        /// Files found.
        found: usize,
    },
}

/// The speeches of one era.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Era {
    /// First and last year, as people write them.
    pub years: String,
    /// The files, oldest first.
    pub speeches: Vec<PathBuf>,
}

/// Splits the speeches of a folder into eras with equally many of them.
///
/// # Errors
/// The folder cannot be read, or holds too few speeches.
pub fn eras(folder: &Path) -> Result<Vec<Era>, CorpusError> {
    let unreadable = |cause| CorpusError::Unreadable { folder: folder.to_owned(), cause };
    let mut speeches = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "txt") && year(&path).is_some() {
            speeches.push(path);
        }
    }
    speeches.sort();
    if speeches.len() < 2 * ERAS {
        return Err(CorpusError::TooFew { folder: folder.to_owned(), found: speeches.len() });
    }
    let ends = (0..=ERAS).map(|era| era * speeches.len() / ERAS).collect::<Vec<_>>();
    Ok(ends.windows(2).filter_map(|bounds| era(speeches.get(bounds[0]..bounds[1])?)).collect())
}

fn era(speeches: &[PathBuf]) -> Option<Era> {
    let years = format!("{}-{}", year(speeches.first()?)?, year(speeches.last()?)?);
    Some(Era { years, speeches: speeches.to_vec() })
}

fn year(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.split('_').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeches_are_split_by_their_years() {
        let folder = tempfile::tempdir().unwrap();
        for year in 1790..1806 {
            std::fs::write(folder.path().join(format!("{year}_somebody_n.txt")), "text").unwrap();
        }
        std::fs::write(folder.path().join("index.json"), "{}").unwrap();
        let eras = eras(folder.path()).unwrap();
        let years: Vec<&str> = eras.iter().map(|era| era.years.as_str()).collect();
        assert_eq!(years, ["1790-1793", "1794-1797", "1798-1801", "1802-1805"]);
        assert!(eras.iter().all(|era| era.speeches.len() == 4));
    }

    #[test]
    fn an_empty_folder_is_said_to_be_empty() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(eras(folder.path()), Err(CorpusError::TooFew { found: 0, .. })));
    }
}
