//! Learning-rate path switching as pure arithmetic: schedules, increments, and the three plans.
//!
//! A version's bits depend on these numbers, and people decide on budgets by them, so they are computed in one place
//! only: the daemon, the command line and the planner all call this crate, natively and as WebAssembly, and get the same
//! integers and the same learning rates. Hence no I/O, no clock, no randomness, and `libm` instead of the platform's
//! `cos`, `exp` and `pow`. The method is that of arXiv 2410.04103.
//!
//! [`settings`], [`decay`] and [`schedule`] say which rate each step runs at, [`increments`] where a branch leaves the
//! main path, [`plan`] which segments each paradigm trains, [`fit`] whether the warm-up fits into them, and [`report`] is
//! all of it as a document and as rows. [`model`] says how large a model is and what a token of its training costs,
//! [`memory`] how many bytes a step of our trainer takes on the CPU, and [`footprint`] what a device of a cluster must hold.
//! [`mod@device`] lists devices, [`published`] runs that are over and what would have been predicted of them, [`band`] is a
//! number with its range, [`cost`] goes from steps to money and energy, [`disk`] to what stays on the disk, and [`timeline`]
//! says who trains when and how soon a version is there. [`loss_law`] predicts losses from learning rates, and
//! [`alpha`] holds them against what they cost.
#![forbid(unsafe_code)]

pub mod alpha;
pub mod band;
pub mod cost;
pub mod decay;
pub mod device;
pub mod disk;
pub mod fit;
pub mod footprint;
pub mod increments;
pub mod loss_law;
pub mod memory;
pub mod model;
pub mod plan;
pub mod published;
pub mod report;
pub mod schedule;
pub mod settings;
pub mod timeline;
pub mod units;

#[cfg(test)]
mod vectors;

pub use decay::Decay;
pub use increments::{Increment, Increments};
pub use model::Model;
pub use plan::{Paradigm, Plan, Segment, SegmentKind};
pub use report::{Report, Row};
pub use schedule::Schedule;
pub use settings::Settings;
