//! What a power cut may leave of a log of operations.

use std::collections::BTreeSet;

use super::tree::{Image, Node, Op, Tree};

/// With more unsynced names than this, not every subset is tried, but each prefix, each one missing, each one alone.
const ALL_SUBSETS: usize = 7;

/// With more files of unsynced bytes than this, all are torn in the same way.
const ALL_TEARS: usize = 2;

/// How far a file's unsynced writes came.
#[derive(Debug, Clone, Copy)]
enum Tear {
    None,
    All,
    Middle,
    LengthOnly,
}

/// Every image that a power cut after `log` may leave, where its first `from` operations are durable anyhow.
pub(super) fn images(log: &[Op], from: usize) -> BTreeSet<Image> {
    let names: Vec<usize> =
        (from..log.len()).filter(|&at| is_naming(&log[at]) && !names_are_synced(log, at)).collect();
    let dirty: Vec<Node> = (from..log.len())
        .filter(|&at| written(&log[at]).is_some_and(|node| !is_synced(log, at, node)))
        .filter_map(|at| written(&log[at]))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let tears = tears(dirty.len());
    let mut images = BTreeSet::new();
    for lost in lost_names(&names) {
        for tear in &tears {
            images.insert(image_after(log, from, &lost, &dirty, tear));
        }
    }
    images
}

fn image_after(log: &[Op], from: usize, lost: &BTreeSet<usize>, dirty: &[Node], tears: &[Tear]) -> Image {
    let mut tree = Tree::default();
    for (at, op) in log.iter().enumerate() {
        let torn = written(op).filter(|&node| at >= from && !is_synced(log, at, node));
        if lost.contains(&at) {
            continue;
        }
        match torn.and_then(|node| dirty.iter().position(|&other| other == node)).map(|index| tears[index]) {
            None | Some(Tear::All) => tree.apply(op),
            Some(Tear::None) => {}
            Some(Tear::Middle) => tree.apply(&halved(op, log, at)),
            Some(Tear::LengthOnly) => tree.apply(&zeroed(op)),
        }
    }
    tree.image()
}

/// The last write of a file, torn in its middle; an earlier one as it is.
fn halved(op: &Op, log: &[Op], at: usize) -> Op {
    match op {
        Op::Append { node, bytes } if !log[at + 1..].iter().any(|later| written(later) == Some(*node)) => {
            Op::Append { node: *node, bytes: bytes[..bytes.len() / 2].to_vec() }
        }
        other => other.clone(),
    }
}

/// A write of which only the length came to the disk.
fn zeroed(op: &Op) -> Op {
    match op {
        Op::Append { node, bytes } => Op::Append { node: *node, bytes: vec![0; bytes.len()] },
        other => other.clone(),
    }
}

fn is_naming(op: &Op) -> bool {
    matches!(op, Op::Link { .. } | Op::Unlink { .. } | Op::Rename { .. })
}

fn written(op: &Op) -> Option<Node> {
    match op {
        Op::Append { node, .. } | Op::Truncate { node, .. } => Some(*node),
        _ => None,
    }
}

fn is_synced(log: &[Op], at: usize, node: Node) -> bool {
    log[at..].iter().any(|op| matches!(op, Op::SyncFile { node: synced } if *synced == node))
}

fn names_are_synced(log: &[Op], at: usize) -> bool {
    let synced =
        |folder: Node| log[at..].iter().any(|op| matches!(op, Op::SyncFolder { folder: f } if *f == folder));
    match &log[at] {
        Op::Link { folder, .. } | Op::Unlink { folder, .. } => synced(*folder),
        Op::Rename { from, to, .. } => synced(from.0) && synced(to.0),
        _ => true,
    }
}

/// The sets of naming operations that may be lost.
fn lost_names(names: &[usize]) -> BTreeSet<BTreeSet<usize>> {
    if names.len() <= ALL_SUBSETS {
        return (0..1u32 << names.len())
            .map(|bits| {
                names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, at)| *at).collect()
            })
            .collect();
    }
    let mut sets = BTreeSet::new();
    for i in 0..=names.len() {
        sets.insert(names[i..].iter().copied().collect());
        sets.insert(names.iter().enumerate().filter(|(j, _)| *j == i).map(|(_, at)| *at).collect());
        sets.insert(names.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, at)| *at).collect());
    }
    sets
}

/// The ways in which so many files may be torn.
fn tears(files: usize) -> Vec<Vec<Tear>> {
    const WAYS: [Tear; 4] = [Tear::None, Tear::All, Tear::Middle, Tear::LengthOnly];
    if files > ALL_TEARS {
        return WAYS.iter().map(|way| vec![*way; files]).collect();
    }
    (0..files).fold(vec![Vec::new()], |sets, _| {
        sets.iter().flat_map(|set| WAYS.map(|way| [set.as_slice(), &[way]].concat())).collect()
    })
}
