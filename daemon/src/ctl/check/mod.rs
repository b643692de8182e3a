//! `check`: what is wrong with a state, and what to do about each thing; with `--repair`, it is done.
//!
//! The journal is verified first: it is the truth, and names every checkpoint, every shard and every release that there
//! should be. Each of these is then held against its digests. Looking changes nothing, so it can be done beside a daemon
//! that runs; only the copy in sled is then left out, which the daemon has open. Mending needs the state for itself.

mod arithmetic;
mod look;
mod repair;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use super::layout::is_unfinished;
use super::offline::tree_of_known_format;
use crate::edge::failure::Failure;
use crate::ledger::LedgerError;
use crate::ledger::lock::LockError;
use crate::ledger::offline::{self, Report, Standing};
use crate::ledger::path::CheckpointKey;
use crate::ledger::tree::Tree;

/// How closely a state is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Whether every file is there, with its size where that is known.
    Structure,
    /// Every byte is read and compared with its digest.
    Digests,
    /// Also whether the journal's numbers are what the arithmetic makes of its data.
    Everything,
}

/// Something that is damaged or missing.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Damage {
    /// Its file or folder, below the state.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub hint: String,
    /// What was done, where it was to be repaired.
    pub repaired: Option<String>,
    #[serde(skip)]
    mend: Option<Mend>,
}

/// How something can be mended.
#[derive(Debug, Clone, PartialEq)]
enum Mend {
    /// It is set aside, and its steps are done again.
    SetAside(CheckpointKey),
    /// The same bytes lie elsewhere, in this file below the state.
    CopyOf(String),
}

/// What a look at a state found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Findings {
    /// Journal, tree and its copy in sled; none while a daemon has the state.
    pub ledger: Option<Report>,
    /// Records in the journal.
    pub records: u64,
    /// Checkpoints that were looked at.
    pub checkpoints: u64,
    /// Shards that were looked at.
    pub shards: u64,
    /// Releases that were looked at.
    pub releases: u64,
    /// What is damaged or missing.
    pub damage: Vec<Damage>,
    /// What the daemon mends by itself, a sentence each.
    pub mended: Vec<String>,
}

impl Findings {
    /// Things that are damaged and were not repaired.
    pub fn left(&self) -> usize {
        self.damage.iter().filter(|damage| damage.repaired.is_none()).count()
    }

    fn look_at_ledger(&mut self) {
        let Some(report) = &self.ledger else { return };
        if let Some(torn) = &report.torn {
            self.mended.push(format!("the journal's end is half-written and will be cut off: {torn}"));
        }
        match &report.view {
            Standing::Agrees => {}
            Standing::Behind { position } => self.mended.push(format!(
                "the tree's copy in sled is at position {position} and will be brought up to {}",
                report.records
            )),
            Standing::Unusable { why } => {
                self.mended.push(format!("the tree's copy in sled will be made again: {why}"));
            }
        }
    }
}

/// Looks at a state.
///
/// # Errors
/// There is no state, or its journal is damaged.
pub fn check(state: &Path, depth: Depth) -> Result<Findings, Failure> {
    let (findings, _) = findings(state, depth)?;
    Ok(findings)
}

/// Looks at a state, and mends what can be mended.
///
/// # Errors
/// There is no state, its journal is damaged, or a daemon has it.
pub fn repair(state: &Path, depth: Depth) -> Result<Findings, Failure> {
    let (mut findings, tree) = findings(state, depth)?;
    repair::repair(state, &tree, &mut findings)?;
    Ok(findings)
}

fn findings(state: &Path, depth: Depth) -> Result<(Findings, Tree), Failure> {
    if is_unfinished(state) {
        let failure =
            Failure::new(format!("`{}` is half-made: `lrpathctl init` was interrupted", state.display()));
        return Err(failure.hint("run `lrpathctl init` again"));
    }
    let ledger = match offline::check(state) {
        Ok(report) => Some(report),
        Err(LedgerError::Lock(LockError::Held { .. })) => None,
        Err(error) => return Err(error.into()),
    };
    let tree = tree_of_known_format(state)?;
    let mut findings = Findings {
        ledger,
        records: tree.position(),
        checkpoints: 0,
        shards: 0,
        releases: 0,
        damage: Vec::new(),
        mended: Vec::new(),
    };
    findings.look_at_ledger();
    look::look(state, &tree, depth, &mut findings);
    if depth == Depth::Everything {
        arithmetic::replay(&tree, &mut findings);
    }
    Ok((findings, tree))
}
