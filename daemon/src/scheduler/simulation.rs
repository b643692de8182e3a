//! A world in a test: random data, cuts, slots, crashes, stops and damage around the real tree and the real decisions.
//!
//! Each world ends when every version of every paradigm is public; what must hold on the way is asserted at each
//! start, and at the end the steps are compared with the plan's.

use std::collections::{BTreeMap, BTreeSet};

use artifacts::Digest;
use paradigm::{Paradigm, SegmentKind};
use proptest::prelude::*;

use super::cut::{self, Data, Rules};
use super::decide::{Decisions, Situation, Slot, decide};
use crate::ledger::path::{CheckpointKey, Path, Step};
use crate::ledger::transition::*;
use crate::ledger::tree::{Tree, VersionState};

/// What a world is made of.
#[derive(Debug, Clone)]
struct Plan {
    paradigms: Vec<Paradigm>,
    increments: Vec<Step>,
    alpha: f64,
    slots: usize,
    grid: Step,
    ahead: Option<Step>,
    known_ends: bool,
    trouble: u8,
    seed: u64,
}

struct World {
    plan: Plan,
    tree: Tree,
    now: Millis,
    random: fastrand::Rng,
    whole_steps: Step,
    requested: usize,
    slots: Vec<Slot>,
    /// Steps done by each running attempt.
    running: BTreeMap<JobNumber, Step>,
    stopping: BTreeSet<JobNumber>,
    distinct: BTreeMap<Path, BTreeSet<Step>>,
    ran: BTreeMap<Path, u64>,
}

impl World {
    fn new(plan: Plan) -> Self {
        let slots = (0..plan.slots)
            .map(|i| Slot { name: format!("slot{i}"), devices: vec!["cpu".to_owned()] })
            .collect();
        let mut world = Self {
            tree: Tree::default(),
            now: 1,
            random: fastrand::Rng::with_seed(plan.seed),
            whole_steps: 0,
            requested: 0,
            slots,
            running: BTreeMap::new(),
            stopping: BTreeSet::new(),
            distinct: BTreeMap::new(),
            ran: BTreeMap::new(),
            plan,
        };
        world.commit(Transition::Initialized(Box::new(fixed(&world.plan.paradigms))));
        world
    }

    fn commit(&mut self, transition: Transition) {
        let record = Record { position: self.tree.position() + 1, at: self.now, transition };
        self.tree.apply(&record).unwrap();
    }

    fn rules(&self) -> Rules {
        let rates = paradigm::Settings { warmup_steps: 0, ..paradigm::Settings::default() };
        Rules { every_steps: None, quiet: None, alpha: self.plan.alpha, rates }
    }

    fn look(&mut self) {
        let data = Data {
            whole_steps: self.whole_steps,
            shards: 0,
            is_tokenised: true,
            is_quiet: true,
            tokens_of_a_step: 0,
        };
        while let Some(transition) = cut::judge(&self.tree, &data, &self.rules(), self.now).transition {
            assert!(matches!(transition, Transition::IncrementCut(_)), "{transition:?}");
            self.commit(transition);
        }
        let next_branch_point =
            self.plan.increments.get(self.tree.increments().len()).filter(|_| self.plan.known_ends);
        let next_branch_point = next_branch_point.map(|steps| {
            let version = self.tree.increments().len() as u32 + 1;
            paradigm::Increment::cut(version, self.tree.end(), *steps, self.plan.alpha).unwrap().branch_point
        });
        let situation = Situation {
            whole_steps: self.whole_steps,
            next_branch_point,
            ahead_steps: self.plan.ahead,
            slots: &self.slots,
            micro_batch: 1,
            stopping: &self.stopping,
            now: self.now,
        };
        let Decisions { start, stop, wake: _ } = decide(&self.tree, &situation);
        for start in start {
            self.assert_sound(&start);
            self.running.insert(start.job, start.first_step());
            self.commit(Transition::JobStarted(Box::new(start)));
        }
        self.stopping.extend(stop);
    }

    fn assert_sound(&self, start: &JobStart) {
        let slots: BTreeSet<&str> = self.tree.running().map(|(_, a)| a.start.slot.as_str()).collect();
        assert!(!slots.contains(start.slot.as_str()), "slot {} is taken twice", start.slot);
        assert!(start.to <= self.whole_steps, "job {} has no data at its end", start.job);
        assert!(start.from <= start.first_step() && start.first_step() <= start.to);
        if let (SegmentKind::Branch, Some(version)) = (start.segment, start.version) {
            let increment = self.tree.increment(version).unwrap();
            let branch_point = increment.plans[&Paradigm::PathSwitching].branch_point;
            assert_eq!(start.to, increment.end);
            let begins = start.start.filter(|key| key.path == self.tree.main_path());
            assert!(begins.is_none_or(|key| key.step == branch_point), "a branch starts at B_i");
            assert!(start.start.is_some() || branch_point == 0);
        }
    }

    /// Something happens to a running job.
    fn tick(&mut self) {
        self.now += 1;
        let jobs: Vec<JobNumber> = self.running.keys().copied().collect();
        let Some(job) = self.random.choice(jobs) else { return };
        let start = self.tree.attempt(job).unwrap().start.clone();
        let mut step = self.running[&job];
        if self.random.u8(..100) < self.plan.trouble {
            return self.end(job, Outcome::Crashed { message: "the world is bad".to_owned() });
        }
        let until = (step + self.random.u64(1..=5)).min(start.to);
        while step < until {
            self.distinct.entry(start.path).or_default().insert(step);
            *self.ran.entry(start.path).or_default() += 1;
            step += 1;
            self.running.insert(job, step);
            if step.is_multiple_of(self.plan.grid) || step == start.to {
                self.save(start.path, step);
            }
        }
        if self.stopping.contains(&job) && step < start.to {
            self.save(start.path, step);
            self.end(job, Outcome::Stopped);
        } else if step == start.to && self.random.bool() {
            self.save(start.path, step);
            self.end(job, Outcome::Finished);
        }
    }

    fn save(&mut self, path: Path, step: Step) {
        let checkpoint = CheckpointKey { path, step };
        self.commit(Transition::CheckpointSaved { checkpoint, digest: Digest::of(b""), bytes: 1, job: None });
    }

    fn end(&mut self, job: JobNumber, outcome: Outcome) {
        let reached = self.running.remove(&job).unwrap();
        self.stopping.remove(&job);
        let attempt = self.tree.attempt(job).unwrap().start.attempt;
        let retry_at = matches!(outcome, Outcome::Crashed { .. }).then_some(self.now);
        self.commit(Transition::JobEnded { job, attempt, outcome, reached, retry_at });
    }

    /// A checkpoint that no running job began with is found damaged.
    fn damage(&mut self) {
        let used: BTreeSet<_> = self.tree.running().filter_map(|(_, attempt)| attempt.start.start).collect();
        let sound =
            self.tree.checkpoints().iter().filter(|(key, c)| c.set_aside.is_none() && !used.contains(key));
        let sound: Vec<_> = sound.map(|(key, _)| *key).collect();
        if let Some(checkpoint) = self.random.choice(sound) {
            self.commit(Transition::CheckpointSetAside { checkpoint, reason: "a bit".to_owned() });
        }
    }

    fn publish(&mut self) {
        for version in 1..=self.tree.increments().len() as u32 {
            for paradigm in self.plan.paradigms.clone() {
                if self.tree.version_state(paradigm, version) == VersionState::Publishing
                    && self.random.bool()
                {
                    let path = self.tree.version_path(paradigm, version);
                    let checkpoint = CheckpointKey { path, step: self.tree.increment(version).unwrap().end };
                    let folder = format!("releases/v{version}");
                    let release = Release {
                        paradigm,
                        version,
                        checkpoint,
                        folder,
                        files: BTreeMap::new(),
                        latest: true,
                    };
                    self.commit(Transition::Released(Box::new(release)));
                }
            }
        }
    }

    /// Data trickles in; where an increment's steps are there, it is cut.
    fn feed(&mut self) {
        let Some(steps) = self.plan.increments.get(self.requested).copied() else { return };
        let due: Step = self.plan.increments[..self.requested].iter().sum::<Step>() + steps;
        if self.whole_steps < due {
            self.whole_steps = due.min(self.whole_steps + self.random.u64(1..=steps));
        } else if self.tree.waiting_cut().is_none() {
            self.requested += 1;
            self.commit(Transition::CutRequested {
                name: None,
                source: CutSource::Command,
                waits_for: Vec::new(),
            });
        }
    }

    fn is_done(&self) -> bool {
        self.tree.releases().len() == self.plan.increments.len() * self.plan.paradigms.len()
    }

    fn live(mut self) -> Self {
        for _ in 0..200_000 {
            if self.random.u8(..10) == 0 {
                self.feed();
            }
            if self.random.u8(..200) < self.plan.trouble {
                self.damage();
            }
            self.look();
            self.tick();
            self.publish();
            if self.is_done() {
                return self;
            }
        }
        panic!("the versions were not made in time: {:?}", self.tree);
    }
}

pub(super) fn fixed(paradigms: &[Paradigm]) -> Fixed {
    Fixed {
        format: 1,
        paradigms: paradigms.to_vec(),
        model: serde_json::Value::Null,
        weights: None,
        tokenizer: TokenizerSource::Given { digest: Digest::of(b"") },
        end_of_text: None,
        mask_documents: false,
        seed: 1,
        sequence_length: 8,
        sequences_per_step: 1,
        held_out_share: 0.0,
        held_out_block: 8,
        peak: 1e-3,
        min: 1e-4,
        warmup_steps: 0,
        optimizer: artifacts::job::Optimizer {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
        },
        precision: artifacts::job::Precision::F32,
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let paradigms = proptest::sample::subsequence(Paradigm::ALL.to_vec(), 1..=3).prop_shuffle();
    let ahead = proptest::option::of(1u64..20);
    let increments = proptest::collection::vec(1u64..40, 1..5);
    (paradigms, increments, 0.05f64..=1.0, 1usize..4, 1u64..30, ahead, any::<bool>(), 0u8..8, any::<u64>())
        .prop_map(|(paradigms, increments, alpha, slots, grid, ahead, known_ends, trouble, seed)| Plan {
            paradigms,
            increments,
            alpha,
            slots,
            grid,
            ahead,
            known_ends,
            trouble,
            seed,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_world_ends_with_all_versions_on_exactly_their_steps(plan in plans()) {
        let world = World::new(plan).live();
        let increments = paradigm::Increments::new(&world.plan.increments, world.plan.alpha).unwrap();
        for paradigm in &world.plan.paradigms {
            for increment in increments.as_slice() {
                let from = match paradigm {
                    Paradigm::PathSwitching => increment.branch_point,
                    Paradigm::FromScratch => 0,
                    Paradigm::Continual => increment.start(),
                };
                let own = &world.distinct[&world.tree.version_path(*paradigm, increment.version)];
                prop_assert!(own.iter().copied().eq(from..increment.end), "version {}", increment.version);
            }
        }
        for (path, state) in world.tree.paths() {
            let running = world.tree.running().filter(|(_, a)| a.start.path == *path);
            let live: Step = running.map(|(job, a)| world.running[&job] - a.start.first_step()).sum();
            prop_assert_eq!(state.ran + live, world.ran.get(path).copied().unwrap_or(0), "{}", path);
        }
        if world.plan.paradigms.contains(&Paradigm::PathSwitching) {
            let last = increments.as_slice().last().unwrap().branch_point;
            let main = world.distinct.get(&world.tree.main_path()).cloned().unwrap_or_default();
            prop_assert!(main.iter().copied().eq(0..main.len() as Step), "the main path has no holes");
            prop_assert!(main.len() as Step >= last);
            if world.plan.ahead.is_none() {
                prop_assert_eq!(main.len() as Step, last, "a lazy main path goes no further than the last branch");
            }
        }
    }

    #[test]
    fn an_undisturbed_lazy_world_executes_the_plan_and_repeats_nothing(plan in plans()) {
        let world = World::new(Plan { ahead: None, trouble: 0, ..plan }).live();
        let increments = paradigm::Increments::new(&world.plan.increments, world.plan.alpha).unwrap();
        for paradigm in &world.plan.paradigms {
            let planned = paradigm::Plan::new(*paradigm, &increments).unwrap().steps;
            let ran: u64 = world.ran.iter().filter(|(path, _)| path.paradigm == *paradigm).map(|(_, ran)| ran).sum();
            prop_assert_eq!(ran, planned);
        }
    }
}
