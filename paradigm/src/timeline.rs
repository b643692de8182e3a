//! Which device trains what and when, and how long each version is waited for.
//!
//! Beside what it costs, path switching changes how soon a version is there: its branch is short, and the main path can go
//! on while nothing new has come. So segments are put on slots as the daemon puts them: a branch goes before the main path
//! that a version waits for, and that before the main path ahead. Data of an increment arrive all at once, which is also
//! when it is closed; nothing is interrupted.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use crate::increments::Increments;
use crate::plan::{Paradigm, Segment, SegmentKind};

/// Most slots that are drawn.
pub const MOST_SLOTS: usize = 64;

/// What a timeline is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Slots that train side by side.
    pub slots: usize,
    /// Hours of a step on one slot.
    pub hours_per_step: f64,
    /// Hours from the arrival of one increment's data to that of the next; the first arrive at 0.
    pub hours_between: f64,
    /// The main path trains what a version has not waited for yet as soon as a slot is free.
    pub ahead: bool,
}

/// Why there is no timeline.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PaceError {
    /// A number of slots that cannot be.
    #[error("slots: {0} is not possible, it must be from 1 to {MOST_SLOTS}")]
    Slots(usize),
    /// A time that cannot be.
    #[error("{what}: {value} is not possible, it must be a finite number of hours, {bounds}")]
    Hours {
        /// What it is.
        what: &'static str,
        /// The refused value.
        value: f64,
        /// What was expected.
        bounds: &'static str,
    },
}

/// Steps on a slot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Bar {
    /// What is trained.
    pub segment: Segment,
    /// Nobody waits for it yet.
    pub ahead: bool,
    /// The slot, from 0.
    pub slot: usize,
    /// Hours from the first arrival to its first step.
    pub begins: f64,
    /// Hours from the first arrival to its end.
    pub ends: f64,
}

/// A version that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Ready {
    /// Its number.
    pub version: u32,
    /// When its data arrived, in hours.
    pub arrives: f64,
    /// When its last step was done, in hours.
    pub ready: f64,
    /// Hours between the two.
    pub latency: f64,
}

/// What happens when.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Timeline {
    /// The steps, in the order in which they begin.
    pub bars: Vec<Bar>,
    /// The versions, by number.
    pub versions: Vec<Ready>,
}

/// Something to be trained.
struct Task {
    segment: Segment,
    ahead: bool,
    /// What goes first where several could: lower ones.
    rank: (u8, u32),
    /// When its data are there.
    arrives: f64,
    /// The task that must be done before it.
    after: Option<usize>,
    /// Whether it makes its version.
    is_last: bool,
}

impl Timeline {
    /// How one paradigm's segments go.
    ///
    /// # Errors
    /// A pace that cannot be.
    pub fn new(paradigm: Paradigm, increments: &Increments, pace: &Pace) -> Result<Self, PaceError> {
        pace.check()?;
        let tasks = tasks(paradigm, increments, pace);
        let mut followers: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
        // Tasks whose forerunner has its time, by when they can begin, and those of them that can begin now, by rank.
        let (mut known, mut ready) = (BinaryHeap::new(), BinaryHeap::new());
        for (place, task) in tasks.iter().enumerate() {
            match task.after {
                Some(before) => followers[before].push(place),
                None => known.push(Reverse((moment(task.arrives), place))),
            }
        }
        let mut free = vec![0.0; pace.slots];
        let (mut bars, mut trunk) = (Vec::new(), None);
        let mut versions: Vec<Option<Ready>> = vec![None; increments.as_slice().len()];
        let mut now = 0.0;
        loop {
            now = free.iter().copied().fold(f64::INFINITY, f64::min).max(now);
            if ready.is_empty() {
                let Some(Reverse((first, _))) = known.peek() else { break };
                now = f64::from_bits(*first).max(now);
            }
            while let Some(Reverse((can, place))) = known.peek().copied()
                && can <= moment(now)
            {
                known.pop();
                ready.push(Reverse((tasks[place].rank, place)));
            }
            let Some(Reverse((_, next))) = ready.pop() else { break };
            let task = &tasks[next];
            let is_main = task.segment.kind == SegmentKind::Main;
            // The main path stays where it is, as far as it can.
            let slot = trunk
                .filter(|slot| is_main && free[*slot] <= now)
                .or_else(|| {
                    (0..free.len()).find(|slot| free[*slot] <= now && (is_main || Some(*slot) != trunk))
                })
                .or_else(|| (0..free.len()).find(|slot| free[*slot] <= now))
                .unwrap_or(0);
            let end = now + task.segment.steps() as f64 * pace.hours_per_step;
            free[slot] = end;
            for follower in &followers[next] {
                known.push(Reverse((moment(tasks[*follower].arrives.max(end)), *follower)));
            }
            trunk = if is_main { Some(slot) } else { trunk };
            bars.push(Bar { segment: task.segment, ahead: task.ahead, slot, begins: now, ends: end });
            if task.is_last {
                let (version, arrives) = (task.segment.version, task.arrives);
                versions[version as usize - 1] =
                    Some(Ready { version, arrives, ready: end, latency: end - arrives });
            }
        }
        Ok(Self { bars, versions: versions.into_iter().flatten().collect() })
    }
}

/// A time as a key: of numbers that are not negative, the bits have the order of the numbers.
fn moment(hours: f64) -> u64 {
    hours.to_bits()
}

impl Pace {
    fn check(&self) -> Result<(), PaceError> {
        if !(1..=MOST_SLOTS).contains(&self.slots) {
            return Err(PaceError::Slots(self.slots));
        }
        let hours = |what, value: f64, is_fine, bounds| {
            if value.is_finite() && is_fine { Ok(()) } else { Err(PaceError::Hours { what, value, bounds }) }
        };
        hours("hours_per_step", self.hours_per_step, self.hours_per_step > 0.0, "above 0")?;
        hours("hours_between", self.hours_between, self.hours_between >= 0.0, "0 or more")
    }
}

/// All that is to be trained, each after what it follows.
fn tasks(paradigm: Paradigm, increments: &Increments, pace: &Pace) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let (mut branch_point, mut trunk) = (0, None);
    for (place, increment) in increments.as_slice().iter().enumerate() {
        let arrives = place as f64 * pace.hours_between;
        for segment in paradigm.segments(branch_point, increment) {
            let task = |segment, ahead, rank, after, is_last| {
                let arrives = if ahead { 0.0 } else { arrives };
                Task { segment, ahead, rank: (rank, increment.version), arrives, after, is_last }
            };
            match segment.kind {
                SegmentKind::Main => {
                    // Up to the end of the increment before, the data are there already.
                    let known = increment.start();
                    let [old, new] = [(segment.from, known), (known, segment.to)]
                        .map(|(from, to)| (from < to).then_some(Segment { from, to, ..segment }));
                    if pace.ahead {
                        for (part, ahead, rank) in [(old, true, 2), (new, false, 1)] {
                            let Some(part) = part else { continue };
                            tasks.push(task(part, ahead, rank, trunk, false));
                            trunk = Some(tasks.len() - 1);
                        }
                    } else {
                        tasks.push(task(segment, false, 1, trunk, false));
                        trunk = Some(tasks.len() - 1);
                    }
                }
                SegmentKind::Branch => tasks.push(task(segment, false, 0, trunk, true)),
                SegmentKind::Scratch | SegmentKind::Continual => {
                    let follows = (segment.kind == SegmentKind::Continual).then_some(trunk).flatten();
                    tasks.push(task(segment, false, 0, follows, true));
                    trunk = Some(tasks.len() - 1);
                }
            }
        }
        branch_point = increment.branch_point;
    }
    tasks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Plan;

    fn pace(slots: usize, hours_between: f64) -> Pace {
        Pace { slots, hours_per_step: 1.0, hours_between, ahead: true }
    }

    fn latencies(paradigm: Paradigm, sizes: &[u64], alpha: f64, pace: &Pace) -> Vec<f64> {
        let increments = Increments::new(sizes, alpha).unwrap();
        let timeline = Timeline::new(paradigm, &increments, pace).unwrap();
        timeline.versions.iter().map(|version| version.latency).collect()
    }

    /// Four increments of 10 steps, alpha 0.6, a step an hour, and more time between them than anything takes.
    #[test]
    fn a_version_is_waited_for_as_long_as_its_new_steps_take() {
        let sizes = [10; 4];
        let with = |paradigm, slots| latencies(paradigm, &sizes, 0.6, &pace(slots, 100.0));
        // Ahead, the main path has trained all data that were there: each version needs its own 10 steps.
        assert_eq!(with(Paradigm::PathSwitching, 1), [10.0; 4]);
        assert_eq!(with(Paradigm::FromScratch, 1), [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(with(Paradigm::Continual, 1), [10.0; 4]);
        let waits = Pace { ahead: false, ..pace(1, 100.0) };
        assert_eq!(latencies(Paradigm::PathSwitching, &sizes, 0.6, &waits), [10.0, 16.0, 16.0, 16.0]);
    }

    #[test]
    fn with_one_device_the_branch_goes_first() {
        let increments = Increments::new(&[10, 10], 0.6).unwrap();
        let timeline = Timeline::new(Paradigm::PathSwitching, &increments, &pace(1, 12.0)).unwrap();
        let told: Vec<(SegmentKind, u64, u64, f64, bool)> = timeline
            .bars
            .iter()
            .map(|bar| (bar.segment.kind, bar.segment.from, bar.segment.to, bar.begins, bar.ahead))
            .collect();
        use SegmentKind::{Branch, Main};
        assert_eq!(
            told,
            [
                (Main, 0, 4, 0.0, false),
                (Branch, 4, 10, 4.0, false),
                (Main, 4, 10, 10.0, true),
                (Main, 10, 14, 16.0, false),
                (Branch, 14, 20, 20.0, false),
            ]
        );
        assert_eq!(timeline.versions[1].latency, 26.0 - 12.0);
        let two = Timeline::new(Paradigm::PathSwitching, &increments, &pace(2, 12.0)).unwrap();
        assert_eq!(two.versions[1].latency, 10.0, "the main path goes on beside the branch");
        assert!(two.bars.iter().all(|bar| (bar.segment.kind == Main) == (bar.slot == 0)), "{two:?}");
    }

    prop_compose! {
        fn case()(
            sizes in prop::collection::vec(1..40_u64, 1..12), alpha in 0.05..=1.0_f64,
            (slots, hours_between, ahead) in (1..5_usize, 0.0..60.0_f64, any::<bool>()),
        ) -> (Vec<u64>, f64, Pace) {
            (sizes, alpha, Pace { slots, hours_per_step: 0.5, hours_between, ahead })
        }
    }

    proptest! {
            #[test]
            fn each_step_is_done_once_where_there_is_room_and_after_what_it_needs((sizes, alpha, pace) in case()) {
                let increments = Increments::new(&sizes, alpha).unwrap();
                for paradigm in Paradigm::ALL {
                    let timeline = Timeline::new(paradigm, &increments, &pace).unwrap();
                    let steps: u64 = timeline.bars.iter().map(|bar| bar.segment.steps()).sum();
                    prop_assert_eq!(steps, Plan::new(paradigm, &increments).unwrap().steps);
                    prop_assert_eq!(timeline.versions.len(), sizes.len());
                    for (place, bar) in timeline.bars.iter().enumerate() {
                        let took = bar.segment.steps() as f64 * pace.hours_per_step;
                        prop_assert!((bar.ends - bar.begins - took).abs() < 1e-9 && bar.slot < pace.slots);
                        for other in &timeline.bars[place + 1..] {
                            let apart = bar.ends <= other.begins + 1e-9 || other.ends <= bar.begins + 1e-9;
                            prop_assert!(bar.slot != other.slot || apart, "{bar:?}, {other:?}");
                        }
                        if !bar.ahead {
                            let arrives = f64::from(bar.segment.version - 1) * pace.hours_between;
                            prop_assert!(bar.begins + 1e-9 >= arrives);
                        }
                    }
                    for ready in &timeline.versions {
                        let own = increments.as_slice()[ready.version as usize - 1].steps as f64 * pace.hours_per_step;
    prop_assert!(ready.latency + 1e-9 >= own);
                    }
                    // A branch or a continual version begins where a path has come to.
                    for bar in timeline.bars.iter().filter(|bar| bar.segment.kind == SegmentKind::Branch) {
                        let main = timeline.bars.iter().filter(|main| main.segment.kind == SegmentKind::Main);
                        let mut before = main.filter(|main| main.segment.to <= bar.segment.from);
                        prop_assert!(before.all(|main| main.ends <= bar.begins + 1e-9));
                    }
                }
            }
        }

    #[test]
    fn a_pace_that_cannot_be_is_refused_with_its_name() {
        let increments = Increments::new(&[10], 0.6).unwrap();
        let refused =
            |pace: Pace| Timeline::new(Paradigm::Continual, &increments, &pace).unwrap_err().to_string();
        assert!(refused(pace(0, 1.0)).starts_with("slots: 0 "));
        assert!(refused(pace(MOST_SLOTS + 1, 1.0)).starts_with("slots: 65 "));
        assert!(refused(pace(1, -1.0)).starts_with("hours_between: -1 "));
        assert!(refused(pace(1, f64::NAN)).starts_with("hours_between: NaN "));
        assert!(refused(Pace { hours_per_step: 0.0, ..pace(1, 1.0) }).starts_with("hours_per_step: 0 "));
    }

    #[test]
    fn a_thousand_versions_are_put_on_slots_at_once() {
        let increments = Increments::new(&[10; 1000], 0.6).unwrap();
        for paradigm in Paradigm::ALL {
            let timeline = Timeline::new(paradigm, &increments, &pace(2, 1.0)).unwrap();
            assert_eq!(timeline.versions.len(), 1000);
        }
    }
}
