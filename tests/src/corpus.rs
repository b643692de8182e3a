//! The corpus of the demo: addresses in English, in the folder that `LRPATH_CORPUS` names.

use std::collections::HashMap;
use std::path::PathBuf;

/// Its files, in byte order of their names: the earliest first.
pub fn files() -> Vec<PathBuf> {
    let folder = std::env::var_os("LRPATH_CORPUS")
        .expect("LRPATH_CORPUS names no folder of texts: run `make peers` or `make bench`, which fetch them");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|file| file.extension().is_some_and(|end| end == "txt")).collect();
    files.sort();
    files
}

/// All of its text.
pub fn text() -> String {
    files().iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// A token for each word and each mark of a text: the commonest have the lowest numbers from 1, and those for which the
/// vocabulary has no room are token 0.
pub fn words(text: &str, vocabulary: u32) -> Vec<u32> {
    let words = || text.split_inclusive(|char: char| !char.is_alphanumeric()).flat_map(word_and_mark);
    let mut counts: HashMap<&str, u64> = HashMap::new();
    words().for_each(|word| *counts.entry(word).or_default() += 1);
    let mut ranked: Vec<(&str, u64)> = counts.into_iter().collect();
    ranked.sort_by(|(a, many), (b, few)| few.cmp(many).then(a.cmp(b)));
    let tokens: HashMap<&str, u32> = ranked.into_iter().map(|(word, _)| word).zip(1..vocabulary).collect();
    words().map(|word| tokens.get(word).copied().unwrap_or(0)).collect()
}

/// A word, and the mark behind it if it is no space.
fn word_and_mark(both: &str) -> impl Iterator<Item = &str> {
    let end = both.char_indices().next_back().filter(|(_, char)| !char.is_alphanumeric());
    let (word, mark) = both.split_at(end.map_or(both.len(), |(at, _)| at));
    [word, mark.trim()].into_iter().filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_marks_are_numbered_by_how_common_they_are() {
        let text = "one, two, two\n\nthree; two, one";
        // two and the comma three times, one twice, the others once: in byte order where they are equal.
        assert_eq!(words(text, 10), [3, 1, 2, 1, 2, 5, 4, 2, 1, 3]);
        assert_eq!(words(text, 4), [3, 1, 2, 1, 2, 0, 0, 2, 1, 3]);
    }
}
