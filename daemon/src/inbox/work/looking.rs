//! Looking at the folder: what is there, what is gone, who asks for a cut.

use std::collections::{BTreeMap, HashSet};
use std::fs::Metadata;
use std::path::Path;
use std::time::Duration;

use super::{BREATH, NO_FOLDER, POLL, Work};
use crate::inbox::scan::{self, CutMarker, Named, Scan, Seen, named};
use crate::inbox::settle::{Blocker, Look};
use crate::inbox::{CutError, cuts};
use crate::ledger::LedgerError;
use crate::ledger::transition::{CutNumber, FileFacts, Transition};
use crate::ledger::tree::{CutOutcome, Tree};

impl Work<'_> {
    pub(super) fn is_scan_due(&self) -> bool {
        self.next_scan() <= self.now()
    }

    pub(super) fn next_scan(&self) -> Duration {
        let Some(last) = self.scans.last else { return Duration::ZERO };
        let every = match (self.scans.has_folder, self.watch.polls()) {
            (false, _) => NO_FOLDER,
            (true, Some(_)) => POLL.min(self.inbox.settings.scan_every),
            (true, None) => self.inbox.settings.scan_every,
        };
        // However many hints there are, most of the time is for other work.
        let breath = BREATH.max(self.scans.took * 2);
        last + if self.scans.is_asked { breath.min(every) } else { every.max(breath) }
    }

    /// Scans the folder, and takes down what is there and what is gone.
    pub(super) fn scan(&mut self) -> Result<(), LedgerError> {
        let start = self.now();
        let mut entered = HashSet::new();
        let (watch, known, shown) = (&mut self.watch, &self.known, &self.inbox.shown);
        let enter = |folder: &Path, metadata: &Metadata| {
            watch.enter(folder, metadata);
            entered.insert(folder.to_owned());
        };
        let is_settled = |name: &str, facts: &FileFacts| {
            let is_known = known.has(name, facts);
            if is_known {
                let mut settle = shown.settle();
                if !settle.is_taken(name) {
                    settle.forget(name);
                }
            }
            is_known
        };
        let scanned = scan::scan(&self.root, enter, is_settled);
        self.scans.is_asked = false;
        let scanned = match scanned {
            Ok(scanned) => {
                self.scans.has_folder = true;
                Some(scanned)
            }
            Err(error) => {
                if self.scans.has_folder || self.scans.last.is_none() {
                    tracing::error!(folder = %self.root.display(), %error, "the watched folder cannot be read");
                }
                self.scans.has_folder = false;
                None
            }
        };
        if let Some(scanned) = &scanned {
            if scanned.unseen.is_empty() {
                self.watch.keep(|folder| entered.contains(folder));
            }
            self.take_down(scanned)?;
        }
        let now = self.now();
        self.scans.took = now.saturating_sub(start);
        self.scans.last = Some(now);
        Ok(())
    }

    fn take_down(&mut self, scanned: &Scan) -> Result<(), LedgerError> {
        let now = self.now();
        for (name, why) in &scanned.refused {
            if self.refused.get(name) != Some(why) {
                tracing::warn!(name, why, "something in the watched folder is left alone");
            }
        }
        self.refused = scanned.refused.iter().cloned().collect();
        for why in &scanned.unseen {
            tracing::warn!(why, "something in the watched folder cannot be seen");
        }
        let mut open = HashSet::new();
        let mut settle = self.inbox.shown.settle();
        for file in &scanned.files {
            open.insert(file.name.as_str());
            let marked = scanned.is_marked(file);
            settle.look(now, &file.name, Look { facts: file.facts, moved_in: false, marked });
        }
        let is_gone = |name: &str| scanned.unseen.is_empty() && !open.contains(name);
        let gone: Vec<String> = settle
            .names()
            .filter(|name| is_gone(name) && !settle.is_taken(name))
            .map(str::to_owned)
            .collect();
        gone.iter().for_each(|name| settle.forget(name));
        let taken = |name: &str| settle.is_taken(name);
        let missing: Vec<String> = self.ledger().read(|tree| {
            let files = undecided(tree).flat_map(|cut| tree.cut_files(cut));
            files.filter(|name| is_gone(name) && !taken(name)).map(str::to_owned).collect()
        });
        drop(settle);
        self.gone(&missing)?;
        self.inbox.shown.markers().clone_from(&scanned.cuts);
        self.count_markers(&scanned.cuts)
    }

    /// Journals that files are gone for which cuts wait.
    fn gone(&mut self, names: &[String]) -> Result<(), LedgerError> {
        if names.is_empty() {
            return Ok(());
        }
        if let Some((_, files)) = &mut self.allowed {
            names.iter().for_each(|name| _ = files.remove(name));
        }
        let gone = self.ledger().commit_with(|tree| {
            let mut cuts: BTreeMap<&str, CutNumber> = BTreeMap::new();
            for cut in undecided(tree) {
                let waited_for: HashSet<&str> = tree.cut_files(cut).collect();
                for name in names.iter().filter(|name| waited_for.contains(name.as_str())) {
                    cuts.entry(name).or_insert(cut);
                }
            }
            let gone =
                cuts.into_iter().map(|(name, cut)| Transition::CutFileGone { cut, name: name.to_owned() });
            (gone.collect(), ())
        });
        unless_hindered(gone.map(drop))
    }

    /// Journals markers that were not counted yet, with the files that lie there now.
    fn count_markers(&mut self, markers: &[CutMarker]) -> Result<(), LedgerError> {
        let new = self.ledger().read(|tree| {
            let new = markers.iter().filter(|marker| !cuts::is_known(tree, marker));
            new.cloned().collect::<Vec<CutMarker>>()
        });
        for marker in new {
            let files = self.waits_for();
            unless_hindered(cuts::marker(self.ledger(), &marker, files))?;
        }
        Ok(())
    }

    fn waits_for(&self) -> Vec<String> {
        self.inbox.shown.settle().names().map(str::to_owned).collect()
    }

    /// A cut of what lies in the folder at this moment.
    pub(super) fn cut(&mut self, name: Option<String>) -> Result<CutNumber, CutError> {
        self.scan()?;
        if !self.scans.has_folder {
            return Err(CutError::Folder(self.root.display().to_string()));
        }
        cuts::command(self.ledger(), name, self.waits_for())
    }

    pub(super) fn look_at_due(&mut self) -> Result<(), LedgerError> {
        let due = self.inbox.shown.settle().due(self.now());
        due.iter().try_for_each(|name| self.look_at(name, false))
    }

    pub(super) fn look_at_path(&mut self, path: &Path, moved_in: bool) -> Result<(), LedgerError> {
        match scan::name_of(&self.root, path).map(str::to_owned) {
            Some(name) => {
                self.inbox.shown.settle().hurry(&name);
                self.look_at(&name, moved_in)
            }
            None => {
                self.scans.is_asked = true;
                Ok(())
            }
        }
    }

    /// Looks at one file.
    pub(super) fn look_at(&mut self, name: &str, moved_in: bool) -> Result<(), LedgerError> {
        let now = self.now();
        let name = match named(name) {
            Named::LeftAlone => return Ok(()),
            Named::Cut(_) => {
                self.scans.is_asked = true;
                return Ok(());
            }
            Named::Marker(of) => of,
            Named::Shard => name,
        };
        let path = self.root.join(name);
        let seen = scan::look(&self.root, &path);
        let mut settle = self.inbox.shown.settle();
        if settle.is_taken(name) {
            return Ok(());
        }
        match seen {
            Seen::File(facts) if self.known.has(name, &facts) => settle.forget(name),
            Seen::File(facts) => {
                let marked = scan::is_marked(&path, &facts);
                settle.look(now, name, Look { facts, moved_in, marked });
            }
            Seen::Gone => {
                settle.forget(name);
                drop(settle);
                self.gone(&[name.to_owned()])?;
            }
            Seen::Unseen(why) => {
                settle.block(now, name, Blocker::Unseen, why);
            }
            Seen::Folder | Seen::Refused(_) => {
                settle.forget(name);
                self.scans.is_asked = true;
            }
        }
        Ok(())
    }
}

/// Cuts that are not decided.
fn undecided(tree: &Tree) -> impl Iterator<Item = CutNumber> {
    let waiting = tree.cuts().iter().rev().take_while(|(_, cut)| cut.outcome == CutOutcome::Waiting);
    waiting.map(|(cut, _)| *cut)
}

/// What cannot be journalled now is found again at the next scan.
fn unless_hindered(result: Result<(), LedgerError>) -> Result<(), LedgerError> {
    match result {
        Err(error) if error.hindrance().is_some() => Ok(()),
        other => other,
    }
}
