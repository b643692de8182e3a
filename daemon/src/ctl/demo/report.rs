//! What the demo prints at its end.

use std::path::{Path, PathBuf};
use std::time::Instant;

use paradigm::Paradigm;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::draw::table::{Field, Table};
use super::super::draw::units::{count, duration};
use super::era::Era;
use super::machine::Machine;
use super::recount::{self, Steps};
use super::{measure, steps_of_an_increment};
use crate::api::types::{TreeView, VersionDetail};
use crate::edge::failure::Failure;
use crate::edge::look::{Look, Paint};

const PROMPT: &str = "The Congress of the United States";
const SAMPLE_TOKENS: u32 = 120;

/// Measured things.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DemoReport")]
pub struct Report {
    /// The eras' years.
    pub eras: Vec<String>,
    /// T: steps of an increment.
    pub increment: u64,
    /// Steps, recounted from the trainers' events.
    pub steps: StepTable,
    /// Held-out perplexity: for each version, on each era.
    pub perplexity: Vec<Vec<f64>>,
    /// What the last version writes.
    pub sample: String,
    /// Seconds from the first line to this one.
    pub seconds: f64,
}

/// Steps by what they were trained for.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StepTable {
    /// Distinct steps of the main path.
    pub main: u64,
    /// Distinct steps of each branch.
    pub branches: Vec<u64>,
    /// All step events of all trainers.
    pub events: u64,
    /// The same versions from scratch.
    pub from_scratch: u64,
    /// `events / from_scratch`.
    pub ratio: f64,
}

/// Counts and measures.
///
/// # Errors
/// A published version cannot be measured.
pub fn make(
    state: &Path,
    machine: &Machine,
    eras: &[Era],
    view: &TreeView,
    began: Instant,
) -> Result<Report, Failure> {
    let own = view.paradigms.iter().find(|branches| branches.paradigm == Paradigm::PathSwitching);
    let versions: &[VersionDetail] = own.map_or(&[], |branches| &branches.versions);
    let steps = recount::recount(&state.join("jobs"));
    let from_scratch: u64 = versions.iter().map(|version| version.end).sum();
    let job = last_job(&state.join("jobs"), versions.len())?;
    let mut perplexity = Vec::new();
    for version in versions {
        let release = state.join("releases").join(format!("v{}", version.number));
        perplexity.push(measure::perplexities(machine, &release, &job)?);
    }
    let last = state.join("releases").join(format!("v{}", versions.len()));
    Ok(Report {
        eras: eras.iter().map(|era| era.years.clone()).collect(),
        increment: steps_of_an_increment().unwrap_or(0),
        steps: table(steps, from_scratch),
        perplexity,
        sample: measure::text(machine, &last, PROMPT, SAMPLE_TOKENS)?,
        seconds: began.elapsed().as_secs_f64(),
    })
}

#[expect(clippy::cast_precision_loss, reason = "step counts stay below 2^53")]
fn table(steps: Steps, from_scratch: u64) -> StepTable {
    StepTable {
        main: steps.main,
        branches: steps.branches.values().copied().collect(),
        events: steps.events,
        from_scratch,
        ratio: steps.events as f64 / from_scratch as f64,
    }
}

/// The job of the last version's branch: it names the held-out blocks of every era.
fn last_job(jobs: &Path, version: usize) -> Result<PathBuf, Failure> {
    let wanted = format!("v{version}.");
    let folders =
        std::fs::read_dir(jobs).into_iter().flatten().flatten().map(|entry| entry.path().join("job.json"));
    let is_wanted = |path: &PathBuf| artifacts::job::read(path).is_ok_and(|job| job.path.contains(&wanted));
    folders
        .into_iter()
        .find(is_wanted)
        .ok_or_else(|| Failure::new("the job of the last version is not there"))
}

impl Report {
    /// For people.
    pub fn draw(&self, look: &Look) -> String {
        let mut text = format!("{}\n", look.paint(Paint::Strong, "Steps, counted from the trainers' events"));
        text += &self.draw_steps(look);
        text +=
            &format!("\n{}\n", look.paint(Paint::Strong, "Held-out perplexity of each version on each era"));
        text += &self.draw_perplexity(look);
        let version = self.perplexity.len();
        text += &format!("\n{}\n", look.paint(Paint::Strong, &format!("v{version} writes")));
        text += &format!("{}\n", self.sample.trim_end());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast from float saturates"
        )]
        let elapsed = (self.seconds * 1000.0) as u64;
        text += &format!("\nAll of it took {}.\n", duration(elapsed));
        text
    }

    fn draw_steps(&self, look: &Look) -> String {
        let mut table = Table::new(look, &["", "steps"]);
        table.row([Field::text("main path"), Field::number(count(self.steps.main))]);
        for (version, steps) in (1..).zip(&self.steps.branches) {
            table.row([Field::text(format!("branch of v{version}")), Field::number(count(*steps))]);
        }
        table.row([Field::text("trained"), Field::number(count(self.steps.events))]);
        table.row([Field::text("from scratch it would be"), Field::number(count(self.steps.from_scratch))]);
        table.row([Field::text("ratio"), Field::number(format!("{:.4}", self.steps.ratio))]);
        table.draw()
    }

    fn draw_perplexity(&self, look: &Look) -> String {
        let mut headings = vec![""];
        headings.extend(self.eras.iter().map(String::as_str));
        let mut table = Table::new(look, &headings);
        for (version, row) in (1..).zip(&self.perplexity) {
            let mut fields = vec![Field::text(format!("v{version}"))];
            fields.extend(row.iter().map(|perplexity| Field::number(format!("{perplexity:.1}"))));
            table.row(fields);
        }
        table.draw()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::super::draw::tree;
    use super::super::Shown;
    use super::*;
    use crate::api::answers;
    use crate::api::fixture::World;

    const PIPE: Look = Look { terminal: false, colour: false, width: 80 };

    /// What the daemon tells when four increments of 200 steps have become four versions.
    fn view() -> TreeView {
        let mut world = World::new(&[Paradigm::PathSwitching]);
        for version in 1..=4 {
            world.cut(200, &format!("v{version}"));
            world.make(Paradigm::PathSwitching, version);
        }
        world.ledger.read(|tree| TreeView {
            position: tree.position(),
            digest: tree.digest(),
            paradigms: answers::branches(tree, &BTreeMap::new()),
        })
    }

    fn report() -> Report {
        let branches = (1..=4).map(|version| (version, 120)).collect();
        Report {
            eras: ["1790-1847", "1848-1905", "1906-1963", "1964-2021"].map(str::to_owned).to_vec(),
            increment: 200,
            steps: table(Steps { main: 680, branches, events: 1160 }, 2000),
            perplexity: (0..4)
                .map(|version| vec![95.25 - f64::from(version), 101.0, 120.04, 133.3])
                .collect(),
            sample: "The Congress of the United States has\nbeen asked.\n\n".to_owned(),
            seconds: 171.2,
        }
    }

    #[test]
    fn the_demo_ends_with_the_tree_the_steps_the_perplexities_and_a_text() {
        let (view, report) = (view(), report());
        let draw = |look: &Look| format!("{}\n{}", tree::draw(&view, look), report.draw(look));
        insta::assert_snapshot!("for_people", draw(&PIPE));
        assert_eq!(draw(&Look { terminal: true, ..PIPE }), draw(&PIPE), "it fits a terminal of 80 columns");
    }

    #[test]
    fn programs_get_the_same_figures() {
        let shown = Shown { state: PathBuf::from("/tmp/lrpath-demo/state"), report: report() };
        insta::assert_snapshot!("for_a_program", serde_json::to_string_pretty(&shown).unwrap());
    }
}
