//! The tree taken apart into its nodes, put together again, and told from another one by a digest.

use std::collections::BTreeMap;

use artifacts::Digest;

use super::orders::Orders;
use super::{Contradiction, Tree};
use crate::ledger::node::*;

impl Tree {
    /// All nodes, in no particular order.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        let shards =
            (0..).zip(&self.shards).map(|(order, shard)| Node::Shard { order, shard: shard.clone() });
        let readings = self
            .readings
            .iter()
            .map(|(digest, reading)| Node::Reading { digest: *digest, reading: reading.clone() });
        let rejected = self
            .rejected
            .iter()
            .map(|(position, rejected)| Node::Rejected { position: *position, rejected: rejected.clone() });
        let duplicates = self
            .duplicates
            .iter()
            .map(|(name, duplicate)| Node::Duplicate { name: name.clone(), duplicate: duplicate.clone() });
        let cuts = self.cuts.iter().map(|(number, cut)| Node::Cut { number: *number, cut: cut.clone() });
        let cut_files = self.cut_files.iter().flat_map(|(number, files)| {
            files.iter().map(|name| Node::CutFile { number: *number, name: name.clone() })
        });
        let increments = self.increments.iter().cloned().map(Node::Increment);
        let generations = self.generations.iter().copied().map(Node::Generation);
        let paths = self.paths.iter().map(|(path, state)| Node::Path { path: *path, state: state.clone() });
        let checkpoints = self
            .checkpoints
            .iter()
            .map(|(key, checkpoint)| Node::Checkpoint { key: *key, checkpoint: checkpoint.clone() });
        let jobs = self.jobs.iter().map(|(number, job)| Node::Job { number: *number, job: job.clone() });
        let evaluations = self.evaluations.iter().map(|(path, step, evaluation)| Node::Evaluation {
            path,
            step,
            evaluation: *evaluation,
        });
        let releases = self.releases.values().cloned().map(Node::Release);
        let cancelled = self.cancelled.iter().map(|((paradigm, version), at)| Node::Cancelled {
            paradigm: *paradigm,
            version: *version,
            at: *at,
        });
        let vetoed = self.vetoed.iter().map(|((paradigm, version), veto)| Node::Vetoed {
            paradigm: *paradigm,
            version: *version,
            veto: veto.clone(),
        });
        let aliases = self.aliases.iter().map(|((paradigm, name), moves)| Node::Alias {
            paradigm: *paradigm,
            name: name.clone(),
            moves: moves.clone(),
        });
        let asked = self.asked.iter().map(|((paradigm, version), increments)| Node::Asked {
            paradigm: *paradigm,
            version: *version,
            increments: increments.clone(),
        });
        std::iter::once(Node::Run(self.run.clone()))
            .chain(shards)
            .chain(readings)
            .chain(rejected)
            .chain(duplicates)
            .chain(cuts)
            .chain(cut_files)
            .chain(increments)
            .chain(generations)
            .chain(paths)
            .chain(checkpoints)
            .chain(jobs)
            .chain(evaluations)
            .chain(releases)
            .chain(cancelled)
            .chain(vetoed)
            .chain(aliases)
            .chain(asked)
    }

    /// The tree that some nodes make.
    ///
    /// # Errors
    /// Shards, increments or generations with gaps.
    pub fn from_nodes(position: u64, nodes: impl IntoIterator<Item = Node>) -> Result<Self, Contradiction> {
        let mut tree = Self { position, ..Self::default() };
        let mut shards = BTreeMap::new();
        let mut increments = BTreeMap::new();
        let mut generations = BTreeMap::new();
        for node in nodes {
            match node {
                Node::Run(run) => tree.run = run,
                Node::Shard { order, shard } => _ = shards.insert(order, shard),
                Node::Reading { digest, reading } => _ = tree.readings.insert(digest, reading),
                Node::Rejected { position, rejected } => _ = tree.rejected.insert(position, rejected),
                Node::Duplicate { name, duplicate } => _ = tree.duplicates.insert(name, duplicate),
                Node::Cut { number, cut } => {
                    if cut.outcome == CutOutcome::Waiting {
                        tree.cut_files.entry(number).or_default();
                    }
                    tree.cuts.insert(number, cut);
                }
                Node::CutFile { number, name } => _ = tree.cut_files.entry(number).or_default().insert(name),
                Node::Increment(increment) => _ = increments.insert(increment.version, increment),
                Node::Generation(generation) => _ = generations.insert(generation.number, generation),
                Node::Path { path, state } => _ = tree.paths.insert(path, state),
                Node::Checkpoint { key, checkpoint } => _ = tree.checkpoints.insert(key, checkpoint),
                Node::Job { number, job } => {
                    if job.attempts.last().is_some_and(|attempt| attempt.end.is_none()) {
                        tree.running.insert(number);
                    }
                    tree.jobs.insert(number, job);
                }
                Node::Evaluation { path, step, evaluation } => {
                    tree.evaluations.put(path, step, evaluation);
                }
                Node::Release(published) => {
                    let key = (published.release.paradigm, published.release.version);
                    tree.releases.insert(key, published);
                }
                Node::Cancelled { paradigm, version, at } => {
                    tree.cancelled.insert((paradigm, version), at);
                }
                Node::Vetoed { paradigm, version, veto } => {
                    tree.vetoed.insert((paradigm, version), veto);
                }
                Node::Asked { paradigm, version, increments } => {
                    tree.asked.insert((paradigm, version), increments);
                }
                Node::Alias { paradigm, name, moves } => {
                    tree.aliases.insert((paradigm, name), moves);
                }
            }
        }
        let gap = |what: &str| Contradiction { position, what: format!("{what} are missing") };
        if !shards.keys().copied().eq(0..shards.len() as u32) {
            return Err(gap("shards"));
        }
        if !increments.keys().copied().eq((1..=increments.len() as u32).take(increments.len())) {
            return Err(gap("increments"));
        }
        if !generations.keys().copied().eq((2..).take(generations.len())) {
            return Err(gap("generations"));
        }
        tree.shards = shards.into_values().collect();
        tree.orders = Orders::of(&tree.shards);
        tree.withdrawals = tree.shards.iter().filter(|shard| shard.withdrawn.is_some()).count() as u32;
        for (order, shard) in (0..).zip(std::mem::take(&mut tree.shards)) {
            if let Some(withdrawn) = &shard.withdrawn {
                tree.mark(order, &withdrawn.seen_by);
            }
            tree.shards.push_back(shard);
        }
        // A rewind came before the increment was cut that was open then.
        let mut generations = generations.into_values().peekable();
        for increment in increments.values() {
            while let Some(generation) = generations.next_if(|one| one.open <= increment.version) {
                tree.rewind(generation);
            }
            tree.close(increment);
        }
        generations.for_each(|generation| tree.rewind(generation));
        Ok(tree)
    }

    /// BLAKE3 over all nodes in the order of their names: equal for equal trees, whatever way they came about.
    pub fn digest(&self) -> Digest {
        let mut nodes: Vec<(String, Node)> = self.nodes().map(|node| (node.key(), node)).collect();
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut hasher = blake3::Hasher::new();
        for (key, node) in nodes {
            #[expect(clippy::expect_used, reason = "nodes are plain data with string keys")]
            let value = serde_json::to_vec(&node).expect("invariant: every node can be written as JSON");
            for part in [key.as_bytes(), &value] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
        Digest(*hasher.finalize().as_bytes())
    }
}
