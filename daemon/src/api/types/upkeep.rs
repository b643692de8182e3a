//! What is asked and answered where a state is kept in order: what goes, what is not wanted, what is called how.

use paradigm::Paradigm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ledger::path::Version;
use crate::ledger::transition::{CutNumber, Millis};

/// What `POST /v1/gc` takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcAsked {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What `POST /v1/gc` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GcAnswer {
    /// Whether it was only asked.
    pub dry_run: bool,
    /// Everything that was judged.
    pub things: Vec<ThingLine>,
    /// What was to go and could not be removed, a sentence each: it is tried again.
    #[serde(default)]
    pub left: Vec<String>,
}

/// Something that goes or stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThingLine {
    /// Its folder below the state.
    pub name: String,
    /// What it takes on the disk; of a job's folder, what goes with it.
    pub bytes: u64,
    /// Whether it goes.
    pub goes: bool,
    /// Why.
    pub why: String,
}

/// What `POST /v1/cancel` takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelAsked {
    /// Whose version; the run's first paradigm if not given.
    #[serde(default)]
    pub paradigm: Option<Paradigm>,
    /// The version that is not to be made; if not given, the request to cut that waits for files.
    #[serde(default)]
    pub version: Option<Version>,
}

/// What `POST /v1/cancel` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum CancelAnswer {
    /// A version is not made.
    Version {
        /// Whose.
        paradigm: Paradigm,
        /// Which.
        version: Version,
        /// Whether a job of it was running: it saves and stops.
        running: bool,
    },
    /// A request to cut does not wait any more.
    Cut {
        /// Its number.
        cut: CutNumber,
        /// The name that it would have given.
        name: Option<String>,
    },
}

/// What `POST /v1/alias` takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AliasAsked {
    /// Whose version; the run's first paradigm if not given.
    #[serde(default)]
    pub paradigm: Option<Paradigm>,
    /// The name.
    pub name: String,
    /// The version that it shall point to; if not given, the name is taken away.
    #[serde(default)]
    pub version: Option<Version>,
}

/// What `POST /v1/alias` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AliasAnswer {
    /// Whose version.
    pub paradigm: Paradigm,
    /// The name.
    pub name: String,
    /// The version that it points to.
    pub version: Option<Version>,
    /// The version that it pointed to before.
    pub before: Option<Version>,
    /// The link, as a path.
    pub link: String,
    /// Why the link has not moved yet: it does by itself as soon as it can.
    #[serde(default)]
    pub pending: Option<String>,
}

/// A name, as `GET /v1/alias` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AliasLine {
    /// Whose versions.
    pub paradigm: Paradigm,
    /// The name.
    pub name: String,
    /// The version that it points to; none where it was taken away.
    pub version: Option<Version>,
    /// Where it pointed from when on, the last one last; empty for `latest`, which follows the newest version.
    pub moves: Vec<MoveLine>,
}

/// A name that began to point somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MoveLine {
    /// The version; none where the name was taken away.
    pub version: Option<Version>,
    /// When.
    pub at: Millis,
}
