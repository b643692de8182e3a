//! Every file that the tree names, held against what is known of it.

use std::fs;
use std::path::Path;

use artifacts::release::{TOKENIZER, WEIGHTS};
use artifacts::{Digest, checkpoint, manifest};

use super::{Damage, Depth, Findings, Mend};
use crate::alias::links;
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::Release;
use crate::ledger::tree::{Checkpoint, Shard, Tree};
use crate::publish::mark::{self, Unmarked};

/// What to do about what lies nowhere else.
const FROM_A_BACKUP: &str = "copy it out of a backup of this state";

/// Looks at all that a tree needs.
pub fn look(state: &Path, tree: &Tree, depth: Depth, findings: &mut Findings) {
    let mut look = Look { state, tree, depth, findings };
    look.at_tokenizer();
    for shard in tree.shards() {
        look.at_shard(shard);
    }
    for (key, checkpoint) in tree.checkpoints().iter().filter(|(_, checkpoint)| checkpoint.is_usable()) {
        look.at_checkpoint(*key, checkpoint);
    }
    look.at_releases();
    look.at_links();
}

struct Look<'a> {
    state: &'a Path,
    tree: &'a Tree,
    depth: Depth,
    findings: &'a mut Findings,
}

impl Look<'_> {
    fn damaged(&mut self, file: String, what: String, hint: &str, mend: Option<Mend>) {
        self.findings.damage.push(Damage { file, what, hint: hint.to_owned(), repaired: None, mend });
    }

    fn at_tokenizer(&mut self) {
        let Some(digest) = self.tree.tokenizer() else { return };
        if let Err(what) = self.file(TOKENIZER, digest) {
            self.same_bytes_elsewhere(TOKENIZER.to_owned(), what, digest);
        }
    }

    fn at_shard(&mut self, shard: &Shard) {
        if shard.withdrawn.is_some() {
            return;
        }
        self.findings.shards += 1;
        let digest = shard.digest.to_string();
        if shard.tokens.is_none() {
            let kept = fs::read_dir(self.state.join("sources")).into_iter().flatten().flatten();
            let mut names = kept.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let name = names.find(|name| name.starts_with(&digest)).unwrap_or(digest);
            let name = format!("sources/{name}");
            if let Err(what) = self.file(&name, shard.digest) {
                let hint = format!("{FROM_A_BACKUP}, or withdraw {} and drop it again", shard.name);
                self.damaged(name, what, &hint, None);
            }
            return;
        }
        let name = format!("tokens/{digest}");
        if let Err(what) = self.folder(&name) {
            let hint =
                format!("{FROM_A_BACKUP}: no step with tokens of {} can be done without it", shard.name);
            self.damaged(name, what, &hint, None);
        }
    }

    fn at_checkpoint(&mut self, key: CheckpointKey, known: &Checkpoint) {
        self.findings.checkpoints += 1;
        let name = format!("checkpoints/{key}");
        let what = match self.folder(&name) {
            Ok(digest) if digest == known.digest => return,
            Ok(digest) => format!("its manifest has digest {digest}; the journal says {}", known.digest),
            Err(what) => what,
        };
        let hint = "`--repair` sets it aside, as the daemon does when it is needed: its steps are done again";
        self.damaged(name, what, hint, Some(Mend::SetAside(key)));
    }

    fn at_releases(&mut self) {
        let tree = self.tree;
        for published in tree.releases().values() {
            let release = &published.release;
            self.findings.releases += 1;
            let unmarked = (!tree.is_marked(published)).then(|| Unmarked::of(tree, published));
            for (name, digest) in &release.files {
                let file = format!("{}/{name}", release.folder);
                let unmarked = unmarked.as_ref().filter(|_| mark::FILES.contains(&name.as_str()));
                let verified = match unmarked.filter(|_| self.depth > Depth::Structure) {
                    Some(unmarked) => unmarked_file(&self.state.join(&file), name, unmarked),
                    None => self.file(&file, *digest),
                };
                if let Err(what) = verified {
                    self.at_release_file(release, name, file, what, *digest);
                }
            }
        }
        for published in tree.unmarked() {
            let folder = &published.release.folder;
            self.findings
                .mended
                .push(format!("{folder} does not say yet that it saw withdrawn data, and will"));
        }
    }

    fn at_release_file(&mut self, release: &Release, name: &str, file: String, what: String, digest: Digest) {
        let of_checkpoint = format!("checkpoints/{}/{}", release.checkpoint, checkpoint::MODEL);
        if name == WEIGHTS
            && Digest::of_file(&self.state.join(&of_checkpoint)).is_ok_and(|found| found == digest)
        {
            let hint = format!("`--repair` copies it from {of_checkpoint}, which has the same bytes");
            return self.damaged(file, what, &hint, Some(Mend::CopyOf(of_checkpoint)));
        }
        self.same_bytes_elsewhere(file, what, digest);
    }

    /// Damage that is mended where another file has the bytes that this one should have.
    fn same_bytes_elsewhere(&mut self, file: String, what: String, digest: Digest) {
        let releases = self.tree.releases().values().map(|published| &published.release);
        let recorded = releases.flat_map(|release| {
            let same = release.files.iter().filter(|(_, recorded)| **recorded == digest);
            same.map(|(name, _)| format!("{}/{name}", release.folder))
        });
        let sound = |other: &String| {
            *other != file && Digest::of_file(&self.state.join(other)).is_ok_and(|found| found == digest)
        };
        let twin = std::iter::once(TOKENIZER.to_owned()).chain(recorded).find(sound);
        match twin {
            Some(twin) => {
                let hint = format!("`--repair` copies it from {twin}, which has the same bytes");
                self.damaged(file, what, &hint, Some(Mend::CopyOf(twin)));
            }
            None => self.damaged(file, what, FROM_A_BACKUP, None),
        }
    }

    fn at_links(&mut self) {
        for link in links::astray(self.tree, &self.state.join("releases")) {
            let link = link.strip_prefix(self.state).unwrap_or(&link).display().to_string();
            self.findings
                .mended
                .push(format!("`{link}` does not point to where it should, and will be switched"));
        }
    }

    fn file(&self, name: &str, digest: Digest) -> Result<(), String> {
        let file = self.state.join(name);
        if self.depth == Depth::Structure && file.is_file() {
            return Ok(());
        }
        match Digest::of_file(&file) {
            Ok(found) if found == digest => Ok(()),
            Ok(found) => Err(format!("it has digest {found}; the journal says {digest}")),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    }

    fn folder(&self, name: &str) -> Result<Digest, String> {
        let folder = self.state.join(name);
        let found = match self.depth {
            Depth::Structure => manifest::verify_structure(&folder),
            Depth::Digests | Depth::Everything => manifest::verify(&folder),
        };
        found.map_err(|damage| damage.to_string())
    }
}

/// A file that is on the way from one content to the other.
fn unmarked_file(file: &Path, name: &str, unmarked: &Unmarked) -> Result<(), String> {
    let bytes = fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
    match unmarked.content(name, &bytes) {
        Some(_) => Ok(()),
        None => Err("it is not what was published".to_owned()),
    }
}
