//! A world in a test: random data, cuts, withdrawals, slots, crashes, stops and damage around the real tree and the real
//! decisions.
//!
//! Each world ends when every version of every paradigm that stands is public; what must hold on the way is asserted at
//! each start and at each checkpoint, and at the end the steps are compared with the plan's. Each checkpoint carries the
//! data of all steps on its way: equal data stand for equal bits.

use std::collections::{BTreeMap, BTreeSet};

use artifacts::Digest;
use paradigm::{Paradigm, SegmentKind};
use proptest::prelude::*;

use super::cut::{self, Data, Rules};
use super::decide::{Decisions, MicroBatch, Situation, Slot, decide};
use crate::ledger::path::{CheckpointKey, Path, Step, Trajectory, Version};
use crate::ledger::transition::*;
use crate::ledger::tree::{Tree, VersionState};
use crate::retention::judge::{self, Verdict};
use crate::run_stream::{RunLength, RunStream};
use crate::withdrawal;

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
    rewinds: usize,
    /// Versions, the last ones, whose branch points are kept; without it, no checkpoint is ever deleted.
    retention: Option<u32>,
    cancels: bool,
    /// Somebody asks for evaluations.
    asks: bool,
    seed: u64,
}

/// What a step was trained on: the digest of its sequence's pieces.
type Batch = Digest;

/// A running attempt.
struct Running {
    /// Steps done on its path.
    step: Step,
    /// What all steps before that were trained on.
    history: Vec<Batch>,
    /// What it was given at its start, for all steps up to its end.
    batches: Vec<Batch>,
}

struct World {
    plan: Plan,
    tree: Tree,
    now: Millis,
    random: fastrand::Rng,
    stream: RunStream,
    length: RunLength,
    requested: usize,
    slots: Vec<Slot>,
    running: BTreeMap<JobNumber, Running>,
    /// What the steps on the way to each checkpoint were trained on.
    histories: BTreeMap<CheckpointKey, Vec<Batch>>,
    /// What each version was to be trained on, when it was cut.
    expected: BTreeMap<Version, Vec<Batch>>,
    stopping: BTreeSet<JobNumber>,
    distinct: BTreeMap<Path, BTreeSet<Step>>,
    ran: BTreeMap<Path, u64>,
}

impl World {
    fn new(plan: Plan) -> Self {
        let slots = (0..plan.slots)
            .map(|i| Slot { name: format!("slot{i}"), devices: vec!["cpu".to_owned()], shared: false })
            .collect();
        let mut world = Self {
            tree: Tree::default(),
            now: 1,
            random: fastrand::Rng::with_seed(plan.seed),
            stream: RunStream::new(&fixed(&plan.paradigms)).unwrap(),
            length: RunLength::new(&fixed(&plan.paradigms)).unwrap(),
            requested: 0,
            slots,
            running: BTreeMap::new(),
            histories: BTreeMap::new(),
            expected: BTreeMap::new(),
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
        self.stream.follow(&self.tree).unwrap();
        self.length.follow(&self.tree).unwrap();
        let (stream, shards) = (self.stream.stream(), self.stream.shards().len());
        assert_eq!((self.length.whole_steps(), self.length.shards()), (stream.whole_steps(), shards));
    }

    fn whole_steps(&self) -> Step {
        self.length.whole_steps()
    }

    /// What the steps before `to` are trained on, as the stream is now.
    fn batches(&self, to: Step) -> Vec<Batch> {
        let stream = self.stream.stream();
        let of = |sequence: u64| {
            let pieces = stream.pieces(sequence).unwrap();
            let named = pieces.iter().map(|piece| (stream.shards()[piece.shard], piece.first, piece.count));
            Digest::of(format!("{:?}", named.collect::<Vec<_>>()).as_bytes())
        };
        stream.order(stream.places_of_steps(0..to)).unwrap().into_iter().map(of).collect()
    }

    fn rules(&self) -> Rules {
        let rates = paradigm::Settings { warmup_steps: 0, ..paradigm::Settings::default() };
        Rules { every_steps: None, quiet: None, alpha: self.plan.alpha, rates }
    }

    fn decisions(&self, next_branch_point: Option<Step>, slots: &[Slot]) -> Decisions {
        let situation = Situation {
            whole_steps: self.whole_steps(),
            next_branch_point,
            ahead_steps: self.plan.ahead,
            slots,
            micro_batch: MicroBatch { wanted: 1, shrinks_within: None },
            stopping: &self.stopping,
            holds_jobs: false,
            now: self.now,
        };
        decide(&self.tree, &situation)
    }

    fn look(&mut self) {
        let data = Data {
            whole_steps: self.whole_steps(),
            shards: self.tree.shards().len() as u32,
            is_tokenised: true,
            is_quiet: true,
            tokens_of_a_step: 0,
        };
        while let Some(transition) = cut::judge(&self.tree, &data, &self.rules(), self.now).transition {
            let Transition::IncrementCut(increment) = &transition else { panic!("{transition:?}") };
            self.expected.insert(increment.version, self.batches(increment.end));
            self.commit(transition);
        }
        let next_branch_point =
            self.plan.increments.get(self.tree.increments().len()).filter(|_| self.plan.known_ends);
        let next_branch_point = next_branch_point.map(|steps| {
            let version = self.tree.increments().len() as u32 + 1;
            paradigm::Increment::cut(version, self.tree.end(), *steps, self.plan.alpha).unwrap().branch_point
        });
        let Decisions { start, stop, wake: _ } = self.decisions(next_branch_point, &self.slots);
        for start in start {
            self.assert_sound(&start);
            if start.is_evaluation() {
                let running = Running { step: start.to, history: Vec::new(), batches: Vec::new() };
                self.running.insert(start.job, running);
                self.commit(Transition::JobStarted(Box::new(start)));
                continue;
            }
            let history = start.start.map_or_else(Vec::new, |key| self.histories[&key].clone());
            assert_eq!(history.len() as Step, start.first_step());
            let batches = self.batches(start.to);
            assert_eq!(history, batches[..history.len()], "job {} goes on from other data", start.job);
            self.running.insert(start.job, Running { step: start.first_step(), history, batches });
            self.commit(Transition::JobStarted(Box::new(start)));
        }
        self.stopping.extend(stop);
    }

    fn assert_sound(&self, start: &JobStart) {
        let slots: BTreeSet<&str> = self.tree.running().map(|(_, a)| a.start.slot.as_str()).collect();
        assert!(!slots.contains(start.slot.as_str()), "slot {} is taken twice", start.slot);
        if start.is_evaluation() {
            assert_eq!((start.from, start.first_step()), (start.to, start.to), "nothing is trained");
            return;
        }
        assert!(start.to <= self.whole_steps(), "job {} has no data at its end", start.job);
        assert!(start.from <= start.first_step() && start.first_step() <= start.to);
        if let (SegmentKind::Branch, Some(version)) = (start.segment, start.version) {
            let increment = self.tree.increment(version).unwrap();
            let branch_point = increment.plans[&Paradigm::PathSwitching].branch_point;
            assert_eq!(start.to, increment.end);
            let begins = start.start.filter(|key| key.path.trajectory == Trajectory::Main);
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
        let mut step = self.running[&job].step;
        if self.random.u8(..100) < self.plan.trouble {
            return self.end(job, Outcome::Crashed { message: "the world is bad".to_owned() });
        }
        if start.is_evaluation() {
            return self.evaluate(job, &start);
        }
        let until = (step + self.random.u64(1..=5)).min(start.to);
        while step < until {
            self.distinct.entry(start.path).or_default().insert(step);
            *self.ran.entry(start.path).or_default() += 1;
            if let Some(running) = self.running.get_mut(&job) {
                running.history.push(running.batches[step as usize]);
                running.step += 1;
            }
            step += 1;
            if step.is_multiple_of(self.plan.grid) || step == start.to {
                self.save(job, start.path);
            }
        }
        if self.stopping.contains(&job) && step < start.to {
            self.save(job, start.path);
            self.end(job, Outcome::Stopped);
        } else if step == start.to && self.random.bool() {
            self.save(job, start.path);
            self.end(job, Outcome::Finished);
        }
    }

    /// An evaluation says a loss, or that it has said all: of some increments there is none.
    fn evaluate(&mut self, job: JobNumber, start: &JobStart) {
        let (paradigm, version) = (start.path.paradigm, start.version.unwrap());
        let asked = self.tree.asked().get(&(paradigm, version)).cloned().unwrap_or_default();
        let path = self.tree.version_path(paradigm, version);
        match asked.first().filter(|increment| *increment % 3 != 0) {
            Some(increment) => {
                let evaluation = Evaluation {
                    increment: *increment,
                    loss: 1.0,
                    perplexity: 1.0_f64.exp(),
                    bits_per_byte: None,
                    tokens: 1,
                };
                self.commit(Transition::Evaluated { path, step: start.to, evaluation });
            }
            None => self.end(job, Outcome::Finished),
        }
    }

    /// Somebody wants to know how a public version does on all that stands.
    fn ask(&mut self) {
        let public: Vec<_> = self.tree.releases().keys().copied().collect();
        let increments: Vec<Version> = self.tree.standing().map(|increment| increment.version).collect();
        if let Some((paradigm, version)) = self.random.choice(public).filter(|_| !increments.is_empty()) {
            self.commit(Transition::EvaluationAsked { paradigm, version, increments });
        }
    }

    fn save(&mut self, job: JobNumber, path: Path) {
        let Running { step, history, .. } = &self.running[&job];
        let checkpoint = CheckpointKey { path, step: *step };
        let before = self.histories.insert(checkpoint, history.clone());
        assert!(
            before.is_none_or(|before| before == *history),
            "{checkpoint} was trained on other data before"
        );
        self.commit(Transition::CheckpointSaved {
            checkpoint,
            digest: Digest::of(b""),
            bytes: 1,
            job: None,
            took: None,
        });
    }

    fn end(&mut self, job: JobNumber, outcome: Outcome) {
        let reached = self.running.remove(&job).unwrap().step;
        self.stopping.remove(&job);
        let attempt = self.tree.attempt(job).unwrap().start.attempt;
        let retry_at = matches!(outcome, Outcome::Crashed { .. }).then_some(self.now);
        self.commit(Transition::JobEnded { job, attempt, outcome, reached, retry_at });
    }

    /// A checkpoint that no running job began with is found damaged.
    fn damage(&mut self) {
        let used: BTreeSet<_> = self.tree.running().filter_map(|(_, attempt)| attempt.start.start).collect();
        let sound = self.tree.checkpoints().iter().filter(|(key, c)| c.is_usable() && !used.contains(key));
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

    /// Deletes the checkpoints that nothing needs: whatever could be started before is started just the same after.
    fn collect(&mut self) {
        let Some(branch_points) = self.plan.retention else { return };
        let rules = judge::Rules { branch_points, alpha: self.plan.alpha };
        let judged = judge::checkpoints(&self.tree, &rules, self.whole_steps());
        let plenty: Vec<Slot> = (0..100)
            .map(|i| Slot { name: format!("more{i}"), devices: vec!["cpu".to_owned()], shared: false })
            .collect();
        // What is measured without its checkpoint is measured from its release.
        let needed = |mut decisions: Decisions| {
            decisions
                .start
                .iter_mut()
                .filter(|start| start.is_evaluation())
                .for_each(|start| start.start = None);
            decisions
        };
        let before = needed(self.decisions(None, &plenty));
        for (checkpoint, verdict) in judged {
            if let Verdict::Goes(reason) = verdict {
                let reason = reason.to_string();
                self.commit(Transition::CheckpointDeleted { checkpoint, reason });
            }
        }
        assert_eq!(needed(self.decisions(None, &plenty)), before, "a checkpoint was needed");
    }

    /// Somebody does not want a version, or does after all.
    fn change_mind(&mut self) {
        let mut wishes = Vec::new();
        for version in 1..=self.tree.increments().len() as u32 {
            for paradigm in self.plan.paradigms.clone() {
                let state = self.tree.version_state(paradigm, version);
                if state.is_to_be_made() && self.random.u8(..4) == 0 {
                    wishes.push(Transition::VersionCancelled { paradigm, version });
                } else if state == VersionState::Cancelled {
                    wishes.push(Transition::VersionRetried { paradigm, version });
                }
            }
        }
        if let Some(wish) = self.random.choice(wishes) {
            self.commit(wish);
        }
    }

    /// Data trickles in; where an increment's steps are there, it is cut.
    fn feed(&mut self) {
        let Some(steps) = self.plan.increments.get(self.requested).copied() else { return };
        let due = self.tree.end() + steps;
        if self.whole_steps() < due {
            let upto = due.min(self.whole_steps() + self.random.u64(1..=steps));
            self.accept(upto);
        } else {
            self.requested += 1;
            self.commit(Transition::CutRequested {
                name: None,
                source: CutSource::Command,
                waits_for: Vec::new(),
            });
        }
    }

    /// A shard comes that fills exactly the steps up to one.
    fn accept(&mut self, upto: Step) {
        let name = format!("shard {}", self.tree.shards().len());
        let stream = upto * u64::from(SEQUENCE_LENGTH) + 1 - self.stream.stream().tokens();
        self.commit(Transition::ShardAccepted {
            digest: Digest::of(name.as_bytes()),
            name,
            file: FileFacts { bytes: stream, inode: 1, mtime: 1 },
            tokens: Some(ShardTokens { stream, held_out: 0, held_out_blocks: 0, documents: 1 }),
            unpacked: None,
        });
    }

    /// Somebody finds that a file was wrong.
    fn withdraw(&mut self) {
        let present = self.tree.shards().iter().filter(|shard| shard.withdrawn.is_none());
        let names: Vec<String> = present.map(|shard| shard.name.clone()).collect();
        let Some(name) = self.random.choice(names) else { return };
        let withdrawal = withdrawal::judge(&self.tree, &name, true).unwrap();
        self.plan.rewinds -= 1;
        self.commit(withdrawal.transition());
    }

    fn is_done(&self) -> bool {
        let is_public = |increment: &Increment| {
            let of = |paradigm: &Paradigm| (*paradigm, increment.version);
            self.plan.paradigms.iter().all(|paradigm| self.tree.releases().contains_key(&of(paradigm)))
        };
        let is_made =
            self.tree.increments().len() == self.plan.increments.len() && self.tree.standing().all(is_public);
        is_made && self.tree.asked().is_empty()
    }

    fn live(mut self) -> Self {
        for _ in 0..200_000 {
            if self.random.u8(..10) == 0 {
                self.feed();
                self.look();
            }
            if self.plan.rewinds > 0 && self.random.u8(..100) == 0 {
                self.withdraw();
            }
            if self.random.u8(..200) < self.plan.trouble {
                self.damage();
            }
            self.look();
            self.tick();
            self.publish();
            if self.plan.cancels && self.random.u8(..50) == 0 {
                self.change_mind();
            }
            if self.plan.asks && self.random.u8(..30) == 0 {
                self.ask();
            }
            // Not by the world's own dice: with and without, the same happens.
            if self.now.is_multiple_of(3) {
                self.collect();
            }
            if self.is_done() {
                return self;
            }
        }
        panic!("the versions were not made in time: {:?}", self.tree);
    }
}

const SEQUENCE_LENGTH: u32 = 8;

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
        sequence_length: SEQUENCE_LENGTH,
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
            rewinds: 0,
            retention: None,
            cancels: false,
            asks: false,
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
            let live: Step = running.map(|(job, a)| world.running[&job].step - a.start.first_step()).sum();
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
    fn after_rewinds_each_version_has_seen_the_data_that_it_was_cut_from(plan in plans(), rewinds in 1usize..5) {
        let retention = (plan.seed % 4).checked_sub(1).map(|kept| kept as u32);
        let world = World::new(Plan { rewinds, retention, ..plan }).live();
        for (paradigm, version) in world.tree.releases().keys() {
            let end = world.tree.increment(*version).unwrap().end;
            let checkpoint = CheckpointKey { path: world.tree.version_path(*paradigm, *version), step: end };
            prop_assert_eq!(&world.histories[&checkpoint], &world.expected[version], "version {}", version);
            let is_present = world.batches(end.min(world.whole_steps())) == world.expected[version];
            prop_assert_eq!(is_present, world.tree.marks(*version).next().is_none(), "version {} is marked", version);
            prop_assert_eq!(is_present, world.tree.stands(*version));
        }
        for (path, limit) in world.tree.main_line() {
            let on_path = world.tree.checkpoints().keys().filter(|key| key.path == path && key.step <= limit);
            for key in on_path {
                prop_assert_eq!(&world.histories[key], &world.batches(key.step), "{} is part of the main path", key);
            }
        }
        let again = Tree::from_nodes(world.tree.position(), world.tree.nodes());
        prop_assert_eq!(again.as_ref(), Ok(&world.tree));
    }

    #[test]
    fn versions_that_were_cancelled_and_wanted_after_all_are_made_on_exactly_their_steps(plan in plans()) {
        let retention = (plan.seed % 4).checked_sub(1).map(|kept| kept as u32);
        let world = World::new(Plan { cancels: true, retention, ..plan }).live();
        for (paradigm, version) in world.tree.releases().keys() {
            let end = world.tree.increment(*version).unwrap().end;
            let checkpoint = CheckpointKey { path: world.tree.version_path(*paradigm, *version), step: end };
            prop_assert_eq!(&world.histories[&checkpoint], &world.expected[version], "version {}", version);
        }
        let again = Tree::from_nodes(world.tree.position(), world.tree.nodes());
        prop_assert_eq!(again.as_ref(), Ok(&world.tree));
    }

    #[test]
    fn what_is_asked_of_public_versions_is_answered_and_no_step_hangs_on_it(plan in plans(), rewinds in 0usize..3) {
        let retention = (plan.seed % 4).checked_sub(1).map(|kept| kept as u32);
        let world = World::new(Plan { asks: true, rewinds, retention, ..plan }).live();
        for (paradigm, version) in world.tree.releases().keys() {
            let end = world.tree.increment(*version).unwrap().end;
            let checkpoint = CheckpointKey { path: world.tree.version_path(*paradigm, *version), step: end };
            prop_assert_eq!(&world.histories[&checkpoint], &world.expected[version], "version {}", version);
        }
        let measuring = world.tree.paths().iter().filter(|(path, _)| matches!(path.trajectory, Trajectory::Evaluation(_)));
        for (path, state) in measuring {
            prop_assert_eq!(state.ran, 0, "{}", path);
        }
        let again = Tree::from_nodes(world.tree.position(), world.tree.nodes());
        prop_assert_eq!(again.as_ref(), Ok(&world.tree));
    }

    #[test]
    fn an_undisturbed_lazy_world_executes_the_plan_and_repeats_nothing(
        plan in plans(),
        retention in proptest::option::of(0u32..3),
    ) {
        let world = World::new(Plan { ahead: None, trouble: 0, retention, ..plan }).live();
        let increments = paradigm::Increments::new(&world.plan.increments, world.plan.alpha).unwrap();
        for paradigm in &world.plan.paradigms {
            let planned = paradigm::Plan::new(*paradigm, &increments).unwrap().steps;
            let ran: u64 = world.ran.iter().filter(|(path, _)| path.paradigm == *paradigm).map(|(_, ran)| ran).sum();
            prop_assert_eq!(ran, planned);
        }
    }
}
