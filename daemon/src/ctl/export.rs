//! `lrpathctl export`: what a project has done and what it cost, for the planner and for other programs.
//!
//! It is read from the journal, so it needs no daemon and disturbs none. Only attempts that have ended are counted: what a
//! running one has done so far is in no journal yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path as FilePath;

use paradigm::cost::Batch;
use paradigm::{Decay, Paradigm, Report, SegmentKind};
use schemars::JsonSchema;
use serde::Serialize;

use super::offline;
use crate::config::Config;
use crate::edge::failure::Failure;
use crate::ledger::path::{Step, Version};
use crate::ledger::transition::{Increment, IncrementPlan, JobNumber, Millis};
use crate::ledger::tree::{Job, Tree, VersionState};

/// What the document is, for whoever opens it.
const FORMAT: &str = "lrpath-export";
/// Version of the format.
const VERSION: u32 = 1;

/// A project.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Exported {
    /// `lrpath-export`.
    pub format: &'static str,
    /// Version of the format.
    pub version: u32,
    /// Version of the program that wrote it.
    pub program: &'static str,
    /// Place in the journal.
    pub position: u64,
    /// The model's `config.json`.
    pub model: serde_json::Value,
    /// What a step is.
    pub batch: ExportedBatch,
    /// What the next increments are closed with.
    pub schedule: ExportedSchedule,
    /// The paradigms, the first of which owns `releases/v<k>`.
    pub paradigms: Vec<Paradigm>,
    /// Tokens after which an increment is closed.
    pub every_tokens: Option<u64>,
    /// Branch points that are kept.
    pub branch_points: u32,
    /// How many jobs run side by side.
    pub slots: usize,
    /// The increments that the next version is made of, in their order.
    pub increments: Vec<ExportedIncrement>,
    /// What each paradigm takes for these increments, at the alpha of the next one; none before the first.
    pub plan: Option<Report>,
    /// The jobs, without those that only measure.
    pub jobs: Vec<ExportedJob>,
    /// What they took together.
    pub spent: Spent,
    /// Tokens a second of a job, all of its time counted; none before one has ended.
    pub tokens_per_second: Option<f64>,
}

/// What a step is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportedBatch {
    /// Tokens that a sequence predicts.
    pub sequence_length: u64,
    /// Sequences of a step.
    pub sequences_per_step: u64,
}

/// Learning rates.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportedSchedule {
    /// Highest rate.
    pub peak: f64,
    /// Lowest rate.
    pub min: f64,
    /// W: warm-up steps.
    pub warmup_steps: Step,
    /// R: steps of a later continual version's re-warm-up.
    pub rewarmup_steps: Step,
    /// Shape of every decay.
    pub decay: Decay,
    /// Share of a whole schedule that stays at peak; the shape's own if none.
    pub hold: Option<f64>,
    /// Share of an increment that its branch covers.
    pub alpha: f64,
}

/// An increment.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportedIncrement {
    /// Its number, and that of its version.
    pub version: Version,
    /// Name of the version.
    pub name: String,
    /// T: its steps.
    pub steps: Step,
    /// Tokens of these steps.
    pub tokens: u64,
    /// S: all steps up to its end.
    pub end: Step,
    /// The numbers of each paradigm.
    pub plans: BTreeMap<Paradigm, IncrementPlan>,
    /// How far its version is in each paradigm.
    pub states: BTreeMap<Paradigm, VersionState>,
    /// Whether the first paradigm has published its version.
    pub released: bool,
}

/// A job.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ExportedJob {
    /// Its number.
    pub job: JobNumber,
    /// Its paradigm.
    pub paradigm: Paradigm,
    /// What it does to the learning rate.
    pub segment: SegmentKind,
    /// The version that needs it; none on the main path ahead.
    pub version: Option<Version>,
    /// First step.
    pub from: Step,
    /// One past the last step.
    pub to: Step,
    /// What its attempts that have ended took.
    pub spent: Spent,
}

/// What was taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Spent {
    /// Steps, repeated ones included.
    pub steps: Step,
    /// Tokens of these steps.
    pub tokens: u64,
    /// Milliseconds.
    pub time: Millis,
}

/// The project of a state, as JSON.
///
/// # Errors
/// There is no state, its journal is damaged, or its configuration is refused.
pub fn of_state(state: &FilePath, config: &FilePath) -> Result<Exported, Failure> {
    let tree = offline::tree_of_known_format(state)?;
    let fixed = tree.fixed().ok_or_else(|| Failure::new("the state says nothing of its sequences"))?;
    let (config, _) = Config::load_of_state(config, fixed)?;
    let schedule = &config.schedule;
    let batch = Batch {
        sequence_length: u64::from(fixed.sequence_length),
        sequences_per_step: u64::from(fixed.sequences_per_step),
    };
    let tokens_per_step = batch.sequence_length * batch.sequences_per_step;
    let paradigms = tree.paradigms().to_vec();
    let increments: Vec<ExportedIncrement> = tree
        .made_of(tree.open_version())
        .map(|increment| exported(&tree, &paradigms, increment, tokens_per_step))
        .collect();
    let sizes: Vec<u64> = increments.iter().map(|increment| increment.steps).collect();
    let jobs: Vec<ExportedJob> =
        tree.jobs().iter().filter_map(|(number, job)| spent_on(*number, job, tokens_per_step)).collect();
    let spent = jobs.iter().fold(Spent::default(), |sum, job| Spent {
        steps: sum.steps + job.spent.steps,
        tokens: sum.tokens + job.spent.tokens,
        time: sum.time + job.spent.time,
    });
    Ok(Exported {
        format: FORMAT,
        version: VERSION,
        program: env!("CARGO_PKG_VERSION"),
        position: tree.position(),
        model: fixed.model.clone(),
        batch: ExportedBatch {
            sequence_length: batch.sequence_length,
            sequences_per_step: batch.sequences_per_step,
        },
        schedule: ExportedSchedule {
            peak: fixed.peak,
            min: fixed.min,
            warmup_steps: fixed.warmup_steps,
            rewarmup_steps: schedule.rewarmup_steps,
            decay: schedule.decay,
            hold: schedule.hold,
            alpha: schedule.alpha,
        },
        paradigms,
        every_tokens: config.cut.every_tokens,
        branch_points: config.retention.branch_points,
        slots: config.slots.len(),
        plan: (!sizes.is_empty()).then(|| Report::new(&sizes, schedule.alpha)).transpose().map_err(
            |error| {
                Failure::new("the increments give no plan at the alpha of the configuration").because(error)
            },
        )?,
        increments,
        jobs,
        tokens_per_second: (spent.steps > 0 && spent.time > 0)
            .then(|| spent.tokens as f64 / (spent.time as f64 / 1000.0)),
        spent,
    })
}

/// Writes the document, whole.
///
/// # Errors
/// The file cannot be written.
pub fn write(exported: &Exported, file: &FilePath) -> Result<(), Failure> {
    let text =
        serde_json::to_vec_pretty(exported).map_err(|error| Failure::new("it is no JSON").because(error))?;
    fs::write(file, text)
        .map_err(|error| Failure::new(format!("`{}` cannot be written", file.display())).because(error))
}

fn exported(
    tree: &Tree,
    paradigms: &[Paradigm],
    increment: &Increment,
    tokens_per_step: u64,
) -> ExportedIncrement {
    let version = increment.version;
    let first = paradigms.first().copied().unwrap_or_default();
    ExportedIncrement {
        version,
        name: increment.name.clone(),
        steps: increment.steps,
        tokens: increment.steps * tokens_per_step,
        end: increment.end,
        plans: increment.plans.clone(),
        states: paradigms.iter().map(|one| (*one, tree.version_state(*one, version))).collect(),
        released: tree.releases().contains_key(&(first, version)),
    }
}

fn spent_on(number: JobNumber, job: &Job, tokens_per_step: u64) -> Option<ExportedJob> {
    let start = &job.attempts.last()?.start;
    let (steps, time) = job.spent();
    (!start.is_evaluation()).then(|| ExportedJob {
        job: number,
        paradigm: start.path.paradigm,
        segment: start.segment,
        version: start.version,
        from: start.from,
        to: start.to,
        spent: Spent { steps, tokens: steps * tokens_per_step, time },
    })
}
