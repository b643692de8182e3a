//! From text to values, with a place for each: line and column of every key, so that an error can point at it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::objection::Objection;
use super::{Config, nearest};

/// Longest configuration that is read, in bytes.
const LONGEST: u64 = 1 << 20;
/// Characters of a value that an error shows.
const SHOWN: usize = 60;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something in it is wrong; all of it.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Fault>),
}

/// One thing that is wrong in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Line and column, from 1; none where the file does not have the key.
    pub place: Option<(usize, usize)>,
    /// The key, and its value where it is known: `schedule.alpha = 1.5`.
    pub setting: String,
    /// What is wrong, as it follows the setting.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.setting.is_empty() {
            write!(f, ": `{}`", self.setting)?;
        }
        let colon = if self.setting.is_empty() { ": " } else { " " };
        write!(f, "{colon}{}: {}", self.what, self.help)
    }
}

/// The text of a configuration and where its keys stand in it.
pub(super) struct Source {
    path: PathBuf,
    text: String,
    /// Where key and value of a dotted name stand.
    places: BTreeMap<String, (Range<usize>, Range<usize>)>,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
        let mut text = String::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(LONGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > LONGEST {
            let cause = std::io::Error::other(format!("it is longer than {LONGEST} bytes"));
            return Err(unreadable(cause));
        }
        Self::new(path, text)
    }

    pub(super) fn new(path: &Path, text: String) -> Result<Self, ConfigError> {
        let mut source = Self { path: path.to_owned(), text, places: BTreeMap::new() };
        let mut places = BTreeMap::new();
        match DeTable::parse(&source.text) {
            Ok(table) => walk(table.get_ref(), "", &mut places),
            Err(error) => {
                let what = format!("this is no TOML, {}", error.message());
                let help = "mend the line, or begin again with what `lrpathctl init` writes".to_owned();
                return Err(ConfigError::Refused(vec![source.fault(
                    error.span(),
                    String::new(),
                    what,
                    help,
                )]));
            }
        }
        source.places = places;
        Ok(source)
    }

    /// The values, if every key is known and has a value of its type.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let unknown = self.unknown_keys();
        if !unknown.is_empty() {
            return Err(ConfigError::Refused(unknown));
        }
        toml::from_str(&self.text).map_err(|error| ConfigError::Refused(vec![self.misread(&error)]))
    }

    /// What the parser of values says, in the words of people who know no `u64`.
    fn misread(&self, error: &toml::de::Error) -> Fault {
        let message = error.message().trim().replace('\n', " ");
        if let Some(key) = message.strip_prefix("missing field ") {
            let help = "see docs/operating.md, or begin with what `lrpathctl init` writes".to_owned();
            return self.fault(None, String::new(), format!("{key} is missing"), help);
        }
        let key = error.span().as_ref().and_then(|span| self.innermost(span));
        let setting = key.map_or_else(String::new, |key| self.setting(key, &Value::Null));
        let (what, help) = match message.split_once(", expected ") {
            Some((_, "u64" | "u32")) => {
                ("is no count".to_owned(), "a whole number, at least 0, was expected".to_owned())
            }
            Some((_, "f64")) => ("is no number".to_owned(), "a number was expected".to_owned()),
            Some((_, expected)) => ("is not possible".to_owned(), format!("{expected} was expected")),
            None => ("is not possible".to_owned(), message),
        };
        self.fault(error.span(), setting, what, help)
    }

    /// What the checks object to, each at its place.
    pub(super) fn refuse(&self, config: &Config, objections: Vec<Objection>) -> ConfigError {
        let values = serde_json::to_value(config).unwrap_or(Value::Null);
        let faults = objections.into_iter().map(|objection| {
            let Objection { keys, what, help } = objection;
            let stands = keys.iter().find(|key| self.places.contains_key(*key)).or(keys.first());
            let span = stands.and_then(|key| self.places.get(key)).map(|(_, value)| value.clone());
            let setting = keys.first().map_or_else(String::new, |key| self.setting(key, &values));
            self.fault(span, setting, what, help)
        });
        ConfigError::Refused(faults.collect())
    }

    /// `key = value`: as the file has it, else the default.
    fn setting(&self, key: &str, defaults: &Value) -> String {
        let shown = match self.places.get(key).and_then(|(_, value)| self.text.get(value.clone())) {
            Some(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            None => match key.split('.').try_fold(defaults, |table, part| table.get(part)) {
                Some(Value::Null) | None => return key.to_owned(),
                Some(value) => format!("{value} (the default)"),
            },
        };
        let long = shown.chars().count() > SHOWN;
        let shown: String = shown.chars().take(SHOWN).collect();
        format!("{key} = {shown}{}", if long { "..." } else { "" })
    }

    fn fault(&self, span: Option<Range<usize>>, setting: String, what: String, help: String) -> Fault {
        let place = span.and_then(|span| self.text.get(..span.start)).map(|before| {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            (line, column)
        });
        Fault { path: self.path.clone(), place, setting, what, help }
    }

    /// The key whose value holds this place and nothing smaller does.
    fn innermost(&self, span: &Range<usize>) -> Option<&str> {
        let holds = |place: &Range<usize>| place.start <= span.start && span.end <= place.end;
        self.places
            .iter()
            .filter(|(_, (key, value))| holds(key) || holds(value))
            .min_by_key(|(_, (_, value))| value.len())
            .map(|(name, _)| name.as_str())
    }

    fn unknown_keys(&self) -> Vec<Fault> {
        let known = known_keys();
        let is_below_unknown = |name: &str| {
            let table = name.rsplit_once('.').map_or("", |(table, _)| table);
            !table.is_empty() && !known.contains(&generic(table))
        };
        let unknown = self.places.iter().filter(|(name, _)| {
            !known.contains(&generic(name)) && !name.ends_with(']') && !is_below_unknown(name)
        });
        unknown
            .map(|(name, (key, _))| {
                let help = help_for(&generic(name), &known);
                self.fault(Some(key.clone()), name.clone(), "is no key of this file".to_owned(), help)
            })
            .collect()
    }
}

/// What an unknown key may have been meant for.
fn help_for(name: &str, known: &BTreeSet<String>) -> String {
    let (table, leaf) = name.rsplit_once('.').unwrap_or(("", name));
    let split = |key: &'_ str| -> (String, String) {
        let (table, leaf) = key.rsplit_once('.').unwrap_or(("", key));
        (table.to_owned(), leaf.to_owned())
    };
    let siblings: Vec<String> =
        known.iter().map(|key| split(key)).filter(|(of, _)| of == table).map(|(_, leaf)| leaf).collect();
    if let Some(meant) = nearest(leaf, siblings.iter().map(String::as_str)) {
        let meant = if table.is_empty() { meant.to_owned() } else { format!("{table}.{meant}") };
        return format!("`{meant}` was probably meant");
    }
    if let Some(elsewhere) = known.iter().find(|key| split(key).1 == leaf) {
        return format!("`{elsewhere}` was probably meant");
    }
    let place = if table.is_empty() { "at the top".to_owned() } else { format!("in [{table}]") };
    format!("remove it; the keys {place} are {}", siblings.join(", "))
}

/// `slots[3].name` as `slots.name`.
fn generic(name: &str) -> String {
    name.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

/// All keys, dotted, out of the schema of the types: so that a new one cannot be forgotten here.
pub(super) fn known_keys() -> BTreeSet<String> {
    let schema = schemars::schema_for!(Config).to_value();
    let mut known = BTreeSet::new();
    collect(&schema, &schema, "", &mut known);
    known
}

fn collect(root: &Value, schema: &Value, prefix: &str, known: &mut BTreeSet<String>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
        return collect(root, &root["$defs"][name], prefix, known);
    }
    if let Some(items) = schema.get("items") {
        return collect(root, items, prefix, known);
    }
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        collect(root, inner, &name, known);
        known.insert(name);
    }
}

fn walk(table: &DeTable<'_>, prefix: &str, places: &mut BTreeMap<String, (Range<usize>, Range<usize>)>) {
    for (key, value) in table {
        let name =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        places.insert(name.clone(), (key.span(), value.span()));
        walk_value(value.get_ref(), &name, places);
    }
}

fn walk_value(value: &DeValue<'_>, name: &str, places: &mut BTreeMap<String, (Range<usize>, Range<usize>)>) {
    match value {
        DeValue::Table(table) => walk(table, name, places),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let name = format!("{name}[{index}]");
                places.insert(name.clone(), (item.span(), item.span()));
                walk_value(item.get_ref(), &name, places);
            }
        }
        _ => {}
    }
}
