//! The names of training paths and of the checkpoints on them.
//!
//! A checkpoint is known by paradigm, path, generation and step, and by nothing else: who needs one asks for exactly
//! that key, and two that were written under the same key hold the same bits.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use paradigm::Paradigm;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Number of a version, from 1; also the number of its increment.
pub type Version = u32;
/// Count of optimizer updates; also the number of the next step.
pub type Step = u64;

/// Which trajectory of a paradigm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trajectory {
    /// The main path of path switching.
    Main,
    /// The run that makes this version.
    Version(Version),
    /// What this version is measured on when somebody asks for it: no step is trained there.
    Evaluation(Version),
}

/// One path: a sequence of steps, each of which has one set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Whose path.
    pub paradigm: Paradigm,
    /// Its life between two rewinds of the main path, from 1.
    pub generation: u32,
    /// Which one.
    pub trajectory: Trajectory,
}

/// A checkpoint's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointKey {
    /// The path that it lies on.
    pub path: Path,
    /// Updates done.
    pub step: Step,
}

/// Text that names no path or checkpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` names no path: `<paradigm>.main.g<generation>`, or `v<version>` or `e<version>` in the middle, was expected"
)]
pub struct NoSuchName(pub String);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.trajectory {
            Trajectory::Main => write!(f, "{}.main.g{}", self.paradigm, self.generation),
            Trajectory::Version(version) => write!(f, "{}.v{version}.g{}", self.paradigm, self.generation),
            Trajectory::Evaluation(version) => write!(f, "{}.e{version}.g{}", self.paradigm, self.generation),
        }
    }
}

impl FromStr for Path {
    type Err = NoSuchName;

    fn from_str(text: &str) -> Result<Self, NoSuchName> {
        let parse = || {
            let mut parts = text.split('.');
            let paradigm = parts.next()?.parse().ok()?;
            let trajectory = match parts.next()? {
                "main" => Trajectory::Main,
                name => match name.split_at_checked(1)? {
                    ("v", version) => Trajectory::Version(version.parse().ok()?),
                    ("e", version) => Trajectory::Evaluation(version.parse().ok()?),
                    _ => return None,
                },
            };
            let generation = parts.next()?.strip_prefix('g')?.parse().ok()?;
            parts.next().is_none().then_some(Path { paradigm, generation, trajectory })
        };
        parse().filter(|path| path.to_string() == text).ok_or_else(|| NoSuchName(text.to_owned()))
    }
}

impl fmt::Display for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&artifacts::checkpoint::name(&self.path.to_string(), self.step))
    }
}

impl FromStr for CheckpointKey {
    type Err = NoSuchName;

    fn from_str(text: &str) -> Result<Self, NoSuchName> {
        let (path, step) = text.rsplit_once(".s").ok_or_else(|| NoSuchName(text.to_owned()))?;
        let key = Self { path: path.parse()?, step: step.parse().map_err(|_| NoSuchName(text.to_owned()))? };
        if key.to_string() == text { Ok(key) } else { Err(NoSuchName(text.to_owned())) }
    }
}

macro_rules! as_text {
    ($name:ident, $says:literal) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $says })
            }
        }
    };
}
as_text!(Path, "A path: `<paradigm>.main.g<generation>`, or `v<version>` or `e<version>` in the middle.");
as_text!(CheckpointKey, "A checkpoint: its path, and `.s<updates done>`.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for text in ["path-switching.main.g1", "from-scratch.v12.g3", "continual.v1.g1", "continual.e7.g2"] {
            assert_eq!(text.parse::<Path>().unwrap().to_string(), text);
        }
        let key: CheckpointKey = "path-switching.v3.g1.s300".parse().unwrap();
        assert_eq!(key.step, 300);
        assert_eq!(key.path.trajectory, Trajectory::Version(3));
    }

    #[test]
    fn a_name_has_one_spelling() {
        for text in
            ["path-switching.main", "main.g1", "continual.v01.g1", "continual.v1.g1.x", "continual.v+1.g1"]
        {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
        assert!("path-switching.main.g1.s007".parse::<CheckpointKey>().is_err());
    }
}
