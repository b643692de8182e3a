//! The version tree, drawn with lines from the first step down to the last.
//!
//! Steps grow downwards. The main path is the line at the left; its checkpoints lie on it, a branch leaves it to the
//! right, at its branch point, and ends in a version. Long runs of checkpoints are folded. Versions that a rewind has
//! left behind stand below.

use super::units::{count, counted, percent};
use super::{Look, Paint, paint_of, saw_withdrawn, title};
use crate::api::types::{Branches, CheckpointLine, GenerationLine, TreeView, Trunk, VersionDetail};
use crate::ledger::path::Step;
use crate::ledger::tree::VersionState;
use paradigm::Paradigm;

/// A longer run of checkpoints is shown by its first and last one.
const LONGEST_RUN: usize = 3;

/// The tree.
pub fn draw(view: &TreeView, look: &Look) -> String {
    let mut text = String::new();
    for (place, branches) in view.paradigms.iter().enumerate() {
        if place > 0 {
            text.push('\n');
        }
        for line in Drawing::new(branches, look).lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

struct Drawing<'a> {
    branches: &'a Branches,
    look: &'a Look,
    /// Columns of a step.
    step: usize,
    /// Columns of a version's number and name.
    name: usize,
}

impl<'a> Drawing<'a> {
    fn new(branches: &'a Branches, look: &'a Look) -> Self {
        let ends = branches.versions.iter().map(|version| version.end);
        let furthest = ends.chain(branches.main.iter().map(|main| main.reached)).max().unwrap_or(0);
        let name = branches
            .versions
            .iter()
            .map(|version| look.short(&title(version)).chars().count())
            .max()
            .unwrap_or(0);
        Self { branches, look, step: count(furthest).len().max(5), name }
    }

    fn lines(&self) -> Vec<String> {
        let paradigm = self.branches.paradigm;
        let mut lines = vec![self.look.paint(Paint::Strong, paradigm.name())];
        match (&self.branches.main, paradigm) {
            (Some(main), _) => lines.extend(self.switching(main)),
            (None, Paradigm::Continual) => {
                lines.push(format!("  ○ {:>1$}  new weights", 0, self.step));
                lines.extend(self.standing().into_iter().flat_map(|version| self.link(version)));
            }
            (None, _) => {
                let versions = self.standing();
                lines.extend(versions.iter().enumerate().flat_map(|(place, version)| {
                    let is_last = place + 1 == versions.len();
                    self.branch(version, if is_last { "└" } else { "├" }, if is_last { " " } else { "│" })
                }));
            }
        }
        if self.branches.versions.is_empty() {
            lines.push(self.look.paint(Paint::Faint, "  no version is cut yet"));
        }
        let left_behind: Vec<_> = self.branches.versions.iter().filter(|version| !version.stands).collect();
        if !left_behind.is_empty() {
            lines.push("  left behind, since they saw what was withdrawn:".to_owned());
            lines.extend(left_behind.into_iter().flat_map(|version| self.branch(version, "┄", " ")));
        }
        lines
    }

    fn standing(&self) -> Vec<&'a VersionDetail> {
        self.branches.versions.iter().filter(|version| version.stands).collect()
    }

    /// The main path with its branches.
    fn switching(&self, main: &Trunk) -> Vec<String> {
        let mut lines = vec![format!("  ○ {:>1$}  new weights", 0, self.step)];
        let versions = self.standing();
        let points: Vec<Step> = versions.iter().map(|version| version.branch_point).collect();
        let mut from = 0;
        for version in versions {
            let point = version.branch_point;
            if point > main.reached && from <= main.reached {
                lines.extend(self.checkpoints(main, &points, from, main.reached));
                lines.extend(self.head(main));
                from = main.reached + 1;
            }
            lines.extend(self.checkpoints(main, &points, from, point));
            from = from.max(point + 1);
            lines.extend(self.branch(version, "├", "│"));
        }
        if from <= main.reached {
            lines.extend(self.checkpoints(main, &points, from, main.reached));
            lines.extend(self.head(main));
            from = main.reached + 1;
        }
        lines.extend(self.checkpoints(main, &points, from, Step::MAX));
        lines
    }

    /// What lies on the main path in a range of steps: checkpoints, without those at which a branch leaves, and rewinds.
    fn checkpoints(&self, main: &Trunk, points: &[Step], from: Step, to: Step) -> Vec<String> {
        let here = main.checkpoints.iter().filter(|checkpoint| (from..=to).contains(&checkpoint.step));
        let rewinds = self.rewinds().into_iter().filter(|rewind| (from..=to).contains(&rewind.step));
        let mut rewinds = rewinds.peekable();
        let mut lines = Vec::new();
        let mut run: Vec<&CheckpointLine> = Vec::new();
        for checkpoint in here {
            while let Some(rewind) = rewinds.next_if(|rewind| rewind.step < checkpoint.step) {
                lines.extend(self.run(&std::mem::take(&mut run)));
                lines.push(self.rewind(rewind));
            }
            match &checkpoint.set_aside {
                None if points.contains(&checkpoint.step) => {}
                None => run.push(checkpoint),
                Some(reason) => {
                    lines.extend(self.run(&std::mem::take(&mut run)));
                    let text = format!("  ✗ {:>1$}  set aside: {reason}", count(checkpoint.step), self.step);
                    lines.push(self.look.paint(Paint::Bad, &self.look.fit(&text, 0)));
                }
            }
        }
        lines.extend(self.run(&run));
        lines.extend(rewinds.map(|rewind| self.rewind(rewind)));
        lines
    }

    /// The rewinds that the present main path has gone through, by step: one to a later step than the next is undone by it.
    fn rewinds(&self) -> Vec<&'a GenerationLine> {
        let mut earliest = Step::MAX;
        let is_on_line = |rewind: &&GenerationLine| {
            let is_earlier = rewind.step <= earliest;
            earliest = earliest.min(rewind.step);
            is_earlier
        };
        let mut rewinds: Vec<_> = self.branches.generations.iter().rev().filter(is_on_line).collect();
        rewinds.reverse();
        rewinds
    }

    fn rewind(&self, rewind: &GenerationLine) -> String {
        let GenerationLine { number, shard, step, .. } = rewind;
        let text = format!("  ↶ {:>1$}  generation {number}: {shard} was withdrawn", count(*step), self.step);
        self.look.paint(Paint::Calm, &self.look.fit(&text, 0))
    }

    fn run(&self, run: &[&CheckpointLine]) -> Vec<String> {
        let line = |step: Step| format!("  ● {:>1$}  checkpoint", count(step), self.step);
        match run {
            [first, between @ .., last] if run.len() > LONGEST_RUN => {
                let folded =
                    format!("  ┊ {:>1$}  {2}", "", self.step, counted(between.len() as u64, "more", "more"));
                vec![line(first.step), self.look.paint(Paint::Faint, &folded), line(last.step)]
            }
            _ => run.iter().map(|checkpoint| line(checkpoint.step)).collect(),
        }
    }

    /// Where the main path is now.
    fn head(&self, main: &Trunk) -> Vec<String> {
        if main.reached == 0 && main.running.is_none() && main.failed.is_none() {
            return Vec::new();
        }
        let mut what = vec!["the main path is here".to_owned()];
        what.extend(main.running.map(|job| format!("job {job} trains it")));
        let mark = format!("  ▼ {:>1$}  {2}", count(main.reached), self.step, what.join(", "));
        let mut lines = vec![self.look.paint(Paint::Busy, &mark)];
        lines.extend(main.failed.as_ref().map(|reason| {
            self.look.paint(Paint::Bad, &self.look.fit(&format!("  ✗ the main path failed: {reason}"), 0))
        }));
        lines
    }

    /// A version's own run, from where it leaves the line to its end.
    fn branch(&self, version: &VersionDetail, joint: &str, line: &str) -> Vec<String> {
        let has_point = self.branches.main.as_ref().filter(|_| version.stands).is_none_or(|main| {
            let usable = main.checkpoints.iter().filter(|checkpoint| checkpoint.set_aside.is_none());
            version.branch_point == 0
                // What was made of it needs it no more.
                || version.state == VersionState::Released
                || usable.map(|checkpoint| checkpoint.step).any(|at| at == version.branch_point)
        });
        let mark = if has_point { "●" } else { "○" };
        let steps = counted(version.decay_steps, "step", "steps");
        let begins = format!("{:>1$}", count(version.branch_point), self.step);
        let ends = format!("{:>1$}", count(version.end), self.step);
        let arrow = format!("{joint}─{mark} {begins} ── {steps:>0$} ─▶ {ends}", self.step + 6);
        let mut lines = vec![format!("  {arrow}  {}", self.version(version, arrow.chars().count() + 4))];
        lines.extend(self.remarks(version, line));
        lines
    }

    /// A version of the chain.
    fn link(&self, version: &VersionDetail) -> Vec<String> {
        let mark = if version.state == VersionState::Released { "●" } else { "○" };
        let steps = counted(version.decay_steps, "step", "steps");
        let ends = format!("{:>1$}", count(version.end), self.step);
        let mut lines = vec![
            format!("  │ {:>1$}  {2}", "", self.step, self.look.paint(Paint::Faint, &steps)),
            format!("  {mark} {ends}  {}", self.version(version, self.step + 6)),
        ];
        lines.extend(self.remarks(version, "│"));
        lines
    }

    fn version(&self, version: &VersionDetail, used: usize) -> String {
        let state = match version.state {
            VersionState::Training => {
                let done = version.reached.map_or(0, |at| at.saturating_sub(version.branch_point));
                match version.running {
                    Some(_) => format!("training {}", percent(done, version.decay_steps)),
                    None => "training".to_owned(),
                }
            }
            state => state.to_string(),
        };
        let title = format!("{:<1$}", self.look.short(&title(version)), self.name);
        let used = used + title.chars().count() + 2 + state.chars().count();
        let release = version.release.as_ref().map_or_else(String::new, |release| {
            let latest = if release.latest { ", latest" } else { "" };
            let whole = format!("{latest}  {}", release.folder);
            let fits = !self.look.terminal || used + whole.chars().count() <= self.look.width;
            if fits { whole } else { latest.to_owned() }
        });
        format!("{title}  {}{release}", self.look.paint(paint_of(version.state), &state))
    }

    /// What went wrong with it.
    fn remarks(&self, version: &VersionDetail, line: &str) -> Vec<String> {
        let failed = version.failed.as_ref().map(|reason| format!("failed: {reason}"));
        let aside = version.checkpoints.iter().filter_map(|checkpoint| {
            let reason = checkpoint.set_aside.as_ref()?;
            Some(format!("checkpoint {} set aside: {reason}", count(checkpoint.step)))
        });
        failed
            .into_iter()
            .chain(aside)
            .chain(saw_withdrawn(version))
            .map(|remark| {
                let remark = self.look.fit(&format!("✗ {remark}"), 6);
                format!("  {line}   {}", self.look.paint(Paint::Bad, &remark))
            })
            .collect()
    }
}
