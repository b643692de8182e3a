//! `check` and `rebuild`: what can be said of a state without asking its daemon.
//!
//! The journal is verified first: it is the truth, and names every checkpoint and release that there should be. Each of
//! these is then held against its digests. Nothing is changed, so all of it can be done beside a daemon that runs; only
//! the copy in sled is then left out, which the daemon has open.

use std::path::Path;

use artifacts::manifest;
use artifacts::release::LATEST;
use artifacts::storage::Disk;
use artifacts::{Digest, storage};
use serde::Serialize;

use super::layout::{JOURNAL, is_unfinished};
use crate::config::format_is_known;
use crate::edge::failure::Failure;
use crate::ledger::LedgerError;
use crate::ledger::journal::{JournalError, Torn, verify};
use crate::ledger::lock::LockError;
use crate::ledger::offline::{self, Report, Standing};
use crate::ledger::path::CheckpointKey;
use crate::ledger::probe::Probe;
use crate::ledger::transition::Release;
use crate::ledger::tree::{Checkpoint, Tree};
use crate::publish::mark::{self, Unmarked};

/// What a look at a state found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    /// Journal, tree and its copy in sled; none while a daemon has the state.
    pub ledger: Option<Report>,
    /// Records in the journal.
    pub records: u64,
    /// Checkpoints that were looked at.
    pub checkpoints: u64,
    /// Releases that were looked at.
    pub releases: u64,
    /// What is damaged or missing, a sentence each.
    pub damage: Vec<String>,
    /// What the daemon mends by itself, a sentence each.
    pub mended: Vec<String>,
}

/// Looks at a state; quickly, at names and sizes alone.
///
/// # Errors
/// There is no state, or its journal is damaged.
pub fn check(state: &Path, quick: bool) -> Result<Findings, Failure> {
    if is_unfinished(state) {
        let failure =
            Failure::new(format!("`{}` is half-made: `lrpathctl init` was interrupted", state.display()));
        return Err(failure.hint("run `lrpathctl init` again"));
    }
    let ledger = match offline::check(state, &Probe::None) {
        Ok(report) => Some(report),
        Err(LedgerError::Lock(LockError::Held { .. })) => None,
        Err(error) => return Err(error.into()),
    };
    let tree = tree_of_known_format(state)?;
    let mut findings = Findings {
        ledger,
        records: tree.position(),
        checkpoints: 0,
        releases: 0,
        damage: Vec::new(),
        mended: Vec::new(),
    };
    findings.look_at_ledger();
    findings.look_at_checkpoints(state, &tree, quick);
    findings.look_at_releases(state, &tree, quick);
    Ok(findings)
}

/// The tree that the journal makes, if this program knows its format.
///
/// # Errors
/// The journal is damaged, a newer version of the program made it, or `init` never finished it.
pub(super) fn tree_of_known_format(state: &Path) -> Result<Tree, Failure> {
    let (tree, _) = replay(state)?;
    let Some(fixed) = tree.fixed() else {
        let failure = Failure::new("the journal has no first record: the state was never finished");
        return Err(failure.hint("run `lrpathctl init` again"));
    };
    format_is_known(state, fixed)?;
    Ok(tree)
}

/// The tree that a state's journal makes, and what is half-written at the journal's end.
///
/// # Errors
/// The journal is damaged.
pub(super) fn replay(state: &Path) -> Result<(Tree, Option<Torn>), Failure> {
    let mut tree = Tree::default();
    let visited = verify(&Disk, &state.join(JOURNAL), |records, _| {
        for record in &records {
            tree.apply(record).map_err(LedgerError::Replay)?;
        }
        Ok::<(), LedgerError>(())
    });
    let (_, _, torn) = visited?;
    Ok((tree, torn))
}

impl Findings {
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

    fn look_at_checkpoints(&mut self, state: &Path, tree: &Tree, quick: bool) {
        let usable = tree.checkpoints().iter().filter(|(_, checkpoint)| checkpoint.is_usable());
        for (key, checkpoint) in usable {
            self.checkpoints += 1;
            if let Err(what) = verify_checkpoint(state, *key, checkpoint, quick) {
                self.damage.push(format!(
                    "checkpoint {key}: {what}. It will be set aside when it is needed, and its steps done again"
                ));
            }
        }
    }

    fn look_at_releases(&mut self, state: &Path, tree: &Tree, quick: bool) {
        for published in tree.releases().values() {
            let release = &published.release;
            self.releases += 1;
            let unmarked = (!tree.is_marked(published)).then(|| Unmarked::of(tree, published));
            for (name, digest) in &release.files {
                let file = state.join(&release.folder).join(name);
                let unmarked = unmarked.as_ref().filter(|_| mark::FILES.contains(&name.as_str()));
                let verified = match unmarked.filter(|_| !quick) {
                    Some(unmarked) => verify_unmarked(&file, name, unmarked),
                    None => verify_file(&file, *digest, quick),
                };
                if let Err(what) = verified {
                    self.damage.push(format!("release {}: {what}", release.folder));
                }
            }
        }
        for published in tree.unmarked() {
            let folder = &published.release.folder;
            self.mended.push(format!("{folder} does not say yet that it saw withdrawn data, and will"));
        }
        for paradigm in tree.paradigms() {
            let mut releases = tree.releases().values().map(|published| &published.release);
            let newest = releases.rfind(|release| release.paradigm == *paradigm && release.latest);
            if let Some(release) = newest {
                self.look_at_latest(state, release);
            }
        }
    }

    fn look_at_latest(&mut self, state: &Path, release: &Release) {
        let folder = state.join(&release.folder);
        let alias = storage::parent(&folder).join(LATEST);
        let points = std::fs::read_link(&alias).ok();
        if points.as_deref().and_then(Path::file_name) != folder.file_name() {
            let alias = alias.strip_prefix(state).unwrap_or(&alias).display();
            self.mended.push(format!("`{alias}` does not point to {} and will be switched", release.folder));
        }
    }
}

fn verify_checkpoint(
    state: &Path,
    key: CheckpointKey,
    checkpoint: &Checkpoint,
    quick: bool,
) -> Result<(), String> {
    let folder = state.join("checkpoints").join(key.to_string());
    let found = if quick { manifest::verify_structure(&folder) } else { manifest::verify(&folder) };
    match found {
        Ok(digest) if digest == checkpoint.digest => Ok(()),
        Ok(digest) => {
            Err(format!("its manifest has digest {digest}; the journal says {}", checkpoint.digest))
        }
        Err(damage) => Err(damage.to_string()),
    }
}

/// A file that is on the way from one content to the other.
fn verify_unmarked(file: &Path, name: &str, unmarked: &Unmarked) -> Result<(), String> {
    let bytes =
        std::fs::read(file).map_err(|error| format!("`{}` cannot be read: {error}", file.display()))?;
    match unmarked.content(name, &bytes) {
        Some(_) => Ok(()),
        None => Err(format!("`{}` is not what was published", file.display())),
    }
}

fn verify_file(file: &Path, digest: Digest, quick: bool) -> Result<(), String> {
    if quick && file.is_file() {
        return Ok(());
    }
    match Digest::of_file(file) {
        Ok(found) if found == digest => Ok(()),
        Ok(found) => Err(format!("`{}` has digest {found}; the journal says {digest}", file.display())),
        Err(error) => Err(format!("`{}` cannot be read: {error}", file.display())),
    }
}

/// Makes the tree's copy in sled anew out of the journal.
///
/// # Errors
/// A daemon has the state; there is none; its journal is damaged.
pub fn rebuild(state: &Path) -> Result<Report, Failure> {
    offline::rebuild(state).map_err(|error| match error {
        LedgerError::Lock(LockError::Held { .. }) => Failure::from(error)
            .hint("a running daemon needs no rebuild: it makes a damaged copy anew when it starts"),
        error => error.into(),
    })
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        LedgerError::from(error).into()
    }
}
