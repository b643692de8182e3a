//! A journal carries numbers: no rate that is fixed elsewhere, and no formula, is asked again when it is replayed.

use std::collections::BTreeMap;

use paradigm::{Decay, Paradigm, SegmentKind};

use super::*;
use crate::ledger::path::CheckpointKey;
use crate::ledger::transition::{
    CutReason, Fixed, Increment, IncrementPlan, JobStart, Outcome, Release, Transition,
};
use crate::ledger::tree::Node;

/// Numbers that follow from nothing: no alpha gives this branch, no state has these rates.
fn plan(version: u32) -> IncrementPlan {
    IncrementPlan {
        alpha: Some(0.6),
        branch_point: u64::from(version) * 10 - 9,
        decay_steps: 9,
        decay: Decay::Knee,
        hold: 0.125,
        peak: 0.5 / f64::from(version),
        min: 0.25 / f64::from(version),
        warmup_steps: 77,
        rewarmup_steps: 5,
    }
}

/// What is journalled of two versions, of which the first is published.
fn history(fixed: Fixed) -> Vec<Transition> {
    let path = Tree::default().version_path(Paradigm::PathSwitching, 1);
    let increment = |version: u32| {
        Transition::IncrementCut(Box::new(Increment {
            version,
            name: format!("v{version}"),
            reason: CutReason::Tokens,
            steps: 10,
            end: u64::from(version) * 10,
            shards: 0,
            plans: BTreeMap::from([(Paradigm::PathSwitching, plan(version))]),
        }))
    };
    let checkpoint = CheckpointKey { path, step: 10 };
    let start = JobStart {
        job: 1,
        attempt: 1,
        path,
        segment: SegmentKind::Branch,
        version: Some(1),
        from: 1,
        to: 10,
        start: None,
        slot: "cpu".to_owned(),
        devices: vec!["cpu".to_owned()],
        ranks: 1,
        micro_batch: 1,
    };
    let release = Release {
        paradigm: Paradigm::PathSwitching,
        version: 1,
        checkpoint,
        folder: "releases/v1".to_owned(),
        files: BTreeMap::new(),
        latest: true,
    };
    let digest = artifacts::Digest::of(b"manifest");
    vec![
        Transition::Initialized(Box::new(fixed)),
        increment(1),
        Transition::JobStarted(Box::new(start)),
        Transition::CheckpointSaved { checkpoint, digest, bytes: 8, job: Some(1), took: None },
        Transition::JobEnded { job: 1, attempt: 1, outcome: Outcome::Finished, reached: 10, retry_at: None },
        Transition::Released(Box::new(release)),
        increment(2),
    ]
}

/// The tree that comes out of a journal with this history, read from the disk.
fn replayed(fixed: Fixed) -> Tree {
    let disk = Arc::new(CrashDisk::new());
    let options = Options { view: false, ..Options::default() };
    let open = || Ledger::open_with(Path::new("/"), disk.clone(), Arc::new(Midnight), &options).unwrap();
    open().commit_all(history(fixed)).unwrap();
    open().read(Tree::clone)
}

#[test]
fn a_journal_replayed_with_other_rates_fixed_keeps_every_number() {
    let Transition::Initialized(fixed) = sample(1) else { panic!("the first record says what is fixed") };
    let own = replayed(*fixed.clone());
    let expected = [1, 2].map(|version| BTreeMap::from([(Paradigm::PathSwitching, plan(version))]));
    assert!(own.increments().iter().map(|increment| &increment.plans).eq(&expected));

    let changes: [fn(&mut Fixed); 4] = [
        |fixed| fixed.peak = 0.05,
        |fixed| fixed.min = 0.0,
        |fixed| fixed.warmup_steps = 9,
        |fixed| (fixed.peak, fixed.min, fixed.warmup_steps) = (1.0, 1.0, 1_000),
    ];
    for change in changes {
        let mut others = *fixed.clone();
        change(&mut others);
        let other = replayed(others.clone());
        assert_eq!(other.fixed(), Some(&others));
        let history =
            |tree: &Tree| tree.nodes().filter(|node| !matches!(node, Node::Run(_))).collect::<Vec<_>>();
        assert_eq!(history(&other), history(&own));
    }
}
