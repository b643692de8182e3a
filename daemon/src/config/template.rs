//! The file that `init` writes, and the one change that it makes to a file that was given: paths.
//!
//! A state holds its own copies of the model's `config.json` and of a given tokenizer. So a configuration that came from
//! elsewhere is pointed at them; everything else in it, remarks included, stays as it was written.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A commented configuration that says nothing but the defaults.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// The model that it names: a small LLaMA.
pub const DEFAULT_MODEL: &str = include_str!("default_model.json");

/// A configuration in which each of these keys (`table.key`) that it has is set to a new text. Nothing else changes.
/// None if the text is no TOML.
pub fn point_at(text: &str, keys: &[(&str, &str)]) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    for (key, value) in keys {
        let (table_name, leaf) = key.split_once('.')?;
        let Some(DeValue::Table(inner)) = table.get_ref().get(table_name).map(|found| found.get_ref()) else {
            continue;
        };
        if let Some(found) = inner.get(leaf) {
            changes.push((found.span(), toml::Value::String((*value).to_owned()).to_string()));
        }
    }
    changes.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut changed = text.to_owned();
    for (span, value) in changes {
        changed.replace_range(span, &value);
    }
    Some(changed)
}
