//! The names that docs/architecture.md uses are those of the sources.
//!
//! A page that tells where things happen is worse than none when the things have moved: every code span that reads like
//! a path or a type is looked up.

use std::path::Path;

use crate::floors::CRATES;
use crate::source::{self, Sources};
use crate::workspace;

/// The code spans of a page, tables and lists included, code blocks not.
fn spans(page: &str) -> Vec<(usize, &str)> {
    let mut is_block = false;
    let mut spans = Vec::new();
    for (number, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if !is_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number + 1, span)));
        }
    }
    spans
}

/// The segments of a span that names something in the sources; none where it is a file's name, a command, a formula.
fn path(span: &str) -> Option<Vec<&str>> {
    let segments: Vec<&str> = span.split("::").collect();
    let is_name =
        |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_type = span.starts_with(char::is_uppercase) && span.contains(char::is_lowercase);
    (segments.iter().all(is_name) && (segments.len() > 1 || is_type)).then_some(segments)
}

/// Whether the names behind the longest beginning that is a module stand in that module or below it.
fn is_real(workspace: &Path, sources: &[Sources], segments: &[&str]) -> bool {
    let modules = || sources.iter().flat_map(|sources| sources.modules.values());
    // A type stands anywhere; a path starts with a module.
    let shortest = usize::from(segments[0].starts_with(char::is_lowercase));
    (shortest..=segments.len()).rev().any(|length| {
        let (module, names) = segments.split_at(length);
        let inside = modules().filter(|candidate| {
            let below = |start: usize| {
                let end = start + module.len();
                candidate.path.get(start..end).is_some_and(|part| part.iter().eq(module))
            };
            // From the crate, or from its top.
            below(0) || below(1)
        });
        let mut texts = inside.map(|module| std::fs::read_to_string(workspace.join(&module.file)).unwrap());
        texts.any(|text| names.iter().all(|name| has_word(&text, name)))
    })
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|found| found == word)
}

#[test]
fn the_page_on_architecture_uses_real_names() {
    let workspace = workspace();
    let page = std::fs::read_to_string(workspace.join("docs/architecture.md")).unwrap();
    let sources: Vec<Sources> = CRATES.iter().map(|(name, _)| source::read(&workspace, name)).collect();
    let named: Vec<(usize, &str, Vec<&str>)> =
        spans(&page).into_iter().filter_map(|(line, span)| Some((line, span, path(span)?))).collect();
    assert!(named.len() > 50, "{} names: is the page still read?", named.len());
    let unknown: Vec<String> = named
        .iter()
        .filter(|(_, _, segments)| !is_real(&workspace, &sources, segments))
        .map(|(line, span, _)| format!("docs/architecture.md:{line}: `{span}`"))
        .collect();
    assert!(unknown.is_empty(), "these are in no source:\n{}", unknown.join("\n"));
    assert!(!is_real(&workspace, &sources, &["ledger", "tree", "Shrub"]));
    assert!(!is_real(&workspace, &sources, &["attic", "Tree"]));
}
