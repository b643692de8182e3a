//! `lrpathctl plan`: what versions will cost, out of the same arithmetic that the daemon goes by.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use paradigm::{Report, Settings};

use super::flags::Plan;
use crate::edge::failure::Failure;

/// The report, once its learning rates are known to exist.
///
/// # Errors
/// Sizes, alpha or rates that give no plan; a warm-up that does not fit; a CSV file that cannot be written.
pub fn run(asked: &Plan) -> Result<Report, Failure> {
    let settings = Settings {
        peak: asked.peak,
        min: asked.min,
        warmup_steps: asked.warmup_steps.unwrap_or(Settings::default().warmup_steps),
        rewarmup_steps: asked.rewarmup_steps,
        decay: asked.decay,
        hold: asked.hold,
    };
    fn refused(error: impl std::fmt::Display) -> Failure {
        Failure::new("there is no such plan").because(error)
    }
    let report = Report::new(&asked.increments, asked.alpha).map_err(refused)?;
    settings.validate().map_err(refused)?;
    // Counts alone need no warm-up: one that nobody asked for refuses no plan.
    if asked.warmup_steps.is_some() || asked.rewarmup_steps > 0 || asked.schedule_csv.is_some() {
        report.check(&settings).map_err(refused)?;
    }
    if let Some(file) = &asked.schedule_csv {
        let written = File::create(file).and_then(|file| write(&report, &settings, BufWriter::new(file)));
        written.map_err(|error| unwritten(file, &error))?;
    }
    Ok(report)
}

fn unwritten(file: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("the schedule cannot be written to `{}`", file.display())).because(error)
}

/// One row for each step of each segment: `paradigm,version,segment,step,lr`.
fn write(report: &Report, settings: &Settings, to: impl Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(to);
    for row in report.rows(settings).map_err(io::Error::other)? {
        csv.serialize(row).map_err(io::Error::other)?;
    }
    csv.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_csv_has_a_row_for_each_step_and_reads_back_exactly() {
        let settings = Settings { warmup_steps: 2, ..Settings::default() };
        let report = Report::new(&[10, 5], 0.6).unwrap();
        let mut text = Vec::new();
        write(&report, &settings, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("paradigm,version,segment,step,lr"));
        assert_eq!(lines.next(), Some("path-switching,1,main,0,0.00015"));
        let rates: Vec<f64> = lines.map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect();
        let expected: Vec<f64> = report.rows(&settings).unwrap().skip(1).map(|row| row.lr).collect();
        assert_eq!(rates, expected);
        assert!(text.lines().any(|line| line.starts_with("continual,2,continual,14,")));
    }
}
