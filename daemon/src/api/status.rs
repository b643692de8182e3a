//! What the daemon does and how far everything is, at one moment.

use std::path::{Path, PathBuf};

use artifacts::storage;

use super::types::{BlockedFiles, Disk, ShardCounts, Status, WaitingFile};
use super::{Backend, answers};
use crate::config::SlotConfig;
use crate::ledger::tree::Tree;

/// Blocked files of which a status tells at most; it counts all.
const MOST_BLOCKED: usize = 16;

/// The status. Blocks for the reading of files.
pub(super) fn of(backend: &Backend) -> Status {
    let files = backend.live.waiting();
    let waiting = files.len() as u64;
    let blocked: Vec<WaitingFile> = files.into_iter().filter(|file| file.blocked).collect();
    let blocked =
        BlockedFiles { count: blocked.len() as u64, first: blocked.into_iter().take(MOST_BLOCKED).collect() };
    let markers = backend.live.markers();
    let now = backend.clock.now();
    let hindrances = backend.ledger.hindrances();
    let devices = backend.devices.look();
    let missing = |slot: &SlotConfig| Some(backend.devices.missing(&slot.devices, slot.shared)?.to_string());
    let missing: Vec<_> = backend.slots.iter().map(missing).collect();
    let (mut status, releases) = backend.at_one_moment(|tree, progress| {
        let jobs = answers::running(tree, progress, now);
        let (doing, until) = answers::doing(tree, &jobs, waiting, now, hindrances.holds_jobs());
        let status = Status {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            shift: backend.shift,
            state: backend.state.display().to_string(),
            position: tree.position(),
            at: now,
            doing,
            until,
            paused: tree.run().paused,
            draining: tree.run().draining,
            hindrances: hindrances.all(),
            paradigms: answers::paradigms(tree, progress),
            jobs,
            shards: ShardCounts {
                waiting,
                accepted: tree.shards().len() as u64 - u64::from(tree.withdrawals()),
                rejected: tree.rejected().len() as u64,
                withdrawn: tree.withdrawals().into(),
            },
            slots: answers::slots(tree, &backend.slots, &missing),
            devices: devices.clone(),
            disk: Disk { free: None, checkpoints: checkpoint_bytes(tree), releases: 0 },
            waiting_cut: answers::waiting_cut(tree),
            refused_markers: answers::refused_markers(tree, &markers),
            blocked: blocked.clone(),
        };
        (status, release_files(tree))
    });
    status.disk.free = storage::free_bytes(&backend.state);
    status.disk.releases = releases.iter().map(|file| file_bytes(&backend.state.join(file))).sum();
    status
}

fn checkpoint_bytes(tree: &Tree) -> u64 {
    let usable = tree.checkpoints().values().filter(|checkpoint| checkpoint.is_usable());
    usable.map(|checkpoint| checkpoint.bytes).sum()
}

fn release_files(tree: &Tree) -> Vec<PathBuf> {
    let releases = tree.releases().values().map(|published| &published.release);
    releases
        .flat_map(|release| release.files.keys().map(|file| Path::new(&release.folder).join(file)))
        .collect()
}

fn file_bytes(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |metadata| metadata.len())
}
