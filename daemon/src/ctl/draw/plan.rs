//! A plan for people: what each paradigm costs, and the segments of each version.

use paradigm::{Paradigm, Report, SegmentKind};

use super::table::{Field, Table};
use super::units::{count, counted};
use super::{Look, Paint};

/// The plan.
pub fn draw(report: &Report, look: &Look) -> String {
    let total: u64 = report.increments.iter().sum();
    let mut text = format!(
        "{} of {} in all, alpha {}\n\n",
        counted(report.increments.len() as u64, "increment", "increments"),
        counted(total, "step", "steps"),
        report.alpha
    );
    let mut costs = Table::new(look, &["paradigm", "steps", "of from-scratch"]);
    for paradigm in Paradigm::ALL {
        let part = report.part(paradigm);
        costs.row([
            Field::text(paradigm.name()),
            Field::number(count(part.steps)),
            Field::number(format!("{:.4}", part.ratio)),
        ]);
    }
    text.push_str(&costs.draw());
    text.push('\n');
    let mut versions = Table::new(look, &["version", "increment", "main path", "branch", "decay", "scratch"]);
    let mut end = 0;
    for (version, steps) in (1..).zip(&report.increments) {
        end += steps;
        let of = |kind: SegmentKind| {
            let segments = &report.paradigms.path_switching.segments;
            segments.iter().find(move |segment| segment.kind == kind && segment.version == version)
        };
        let range = |kind| {
            of(kind).map_or_else(|| "-".to_owned(), |s| format!("{} -> {}", count(s.from), count(s.to)))
        };
        versions.row([
            Field::text(format!("v{version}")),
            Field::number(count(*steps)),
            Field::number(range(SegmentKind::Main)),
            Field::number(range(SegmentKind::Branch)),
            Field::number(of(SegmentKind::Branch).map_or_else(String::new, |segment| count(segment.steps()))),
            Field::number(count(end)).paint(Paint::Faint),
        ]);
    }
    text.push_str(&versions.draw());
    text
}
