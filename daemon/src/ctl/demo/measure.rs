//! What the published folders can do: held-out perplexity on every era, and a piece of text.

use std::path::Path;
use std::process::Command;

use artifacts::event::{Event, Line};

use super::machine::Machine;
use crate::edge::failure::Failure;

/// Held-out perplexity of a published version on each increment of a job, by increment.
///
/// # Errors
/// The trainer cannot be run, or refuses.
pub fn perplexities(machine: &Machine, release: &Path, job: &Path) -> Result<Vec<f64>, Failure> {
    let output = run(machine.trainer().arg("evaluate").arg("--model").arg(release).arg("--job").arg(job))?;
    let mut measured: Vec<(u32, f64)> = output
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .filter_map(|line| match line.event {
            Event::Evaluation { increment, perplexity, .. } => Some((increment, perplexity)),
            _ => None,
        })
        .collect();
    measured.sort_by_key(|(increment, _)| *increment);
    Ok(measured.into_iter().map(|(_, perplexity)| perplexity).collect())
}

/// Text that a published version writes.
///
/// # Errors
/// The trainer cannot be run, or refuses.
pub fn text(machine: &Machine, release: &Path, prompt: &str, tokens: u32) -> Result<String, Failure> {
    let mut command = machine.trainer();
    command.arg("generate").arg("--model").arg(release).args([
        "--prompt",
        prompt,
        "--temperature",
        "0.7",
        "--seed",
        "1",
    ]);
    run(command.args(["--tokens", &tokens.to_string()]))
}

fn run(command: &mut Command) -> Result<String, Failure> {
    let failed = |cause: String| Failure::new("a published version could not be measured").because(cause);
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
