//! `lrpathctl status` for people.

use super::table::{Field, Table};
use super::units::{bytes, count, counted, duration, percent, rate};
use super::{Look, Paint, paint_of};
use crate::api::types::{
    Device, ParadigmStatus, RefusedMarker, RunningJob, Status, Steps, VersionLine, Waiting,
};
use crate::ledger::path::Trajectory;
use crate::ledger::transition::Millis;

/// Cells of a progress bar.
const BAR: u64 = 16;
/// Names of files that are listed; more are counted.
const MOST_NAMES: usize = 3;

/// The status.
pub fn draw(status: &Status, look: &Look) -> String {
    let mut lines = vec![
        format!(
            "{} {}",
            look.paint(Paint::Strong, "lrpathd"),
            look.paint(Paint::Faint, &format!("{} on {}", status.program, status.state))
        ),
        look.fit(&format!("{}{}", status.doing, left(status.until, status.at)), 0),
    ];
    lines.extend(status.hindrances.iter().map(|waiting| hindered(waiting, status.at, look)));
    lines.extend(status.jobs.iter().map(|job| self::job(job, status.at, look)));
    if let Some(cut) = &status.waiting_cut
        && cut.waits_for.len() > 1
    {
        let shown = cut.waits_for.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match cut.waits_for.len().saturating_sub(MOST_NAMES) {
            0 => String::new(),
            more => format!(", and {} more", count(more as u64)),
        };
        lines.push(look.fit(&format!("  {shown}{more}"), 0));
    }
    lines.extend(status.refused_markers.iter().map(|marker| refused(marker, look)));
    lines.extend(blocked(status, look));
    for (paradigm, of_paradigm) in &status.paradigms {
        lines.push(String::new());
        lines.push(look.paint(Paint::Strong, paradigm.name()));
        lines.extend(paradigm_lines(of_paradigm, look));
    }
    lines.push(String::new());
    let shards = &status.shards;
    let rejected = counted(shards.rejected, "rejected", "rejected");
    let rejected = if shards.rejected > 0 { look.paint(Paint::Bad, &rejected) } else { rejected };
    let withdrawn = match shards.withdrawn {
        0 => String::new(),
        number => format!(", {} withdrawn", count(number)),
    };
    lines.push(format!(
        "shards  {} accepted, {} waiting, {rejected}{withdrawn}",
        count(shards.accepted),
        count(shards.waiting)
    ));
    let slots = status.slots.iter().map(|slot| match slot.job {
        Some(job) => format!("{} has job {job}", slot.name),
        None if slot.missing.is_some() => format!("{} waits", slot.name),
        None => format!("{} is free", slot.name),
    });
    lines.push(format!("slots   {}", slots.collect::<Vec<_>>().join(", ")));
    let missing = status.slots.iter().filter_map(|slot| Some((&slot.name, slot.missing.as_ref()?)));
    lines.extend(missing.map(|(name, why)| look.paint(Paint::Bad, &format!("        {name}: {why}"))));
    lines.extend(status.devices.iter().map(|device| look.fit(&self::device(device), 0)));
    let disk = &status.disk;
    lines.push(format!(
        "disk    {} free, {} in checkpoints, {} in releases",
        disk.free.map_or_else(|| "?".to_owned(), bytes),
        bytes(disk.checkpoints),
        bytes(disk.releases)
    ));
    lines.join("\n") + "\n"
}

/// What cannot be taken now: somebody must do something.
fn blocked(status: &Status, look: &Look) -> Vec<String> {
    if status.blocked.first.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(look, &["cannot be taken now*", "why*"]);
    for file in status.blocked.first.iter().take(MOST_NAMES) {
        table.row([Field::text(&file.name), Field::text(&file.why).paint(Paint::Bad)]);
    }
    let mut lines = vec![String::new(), table.draw().trim_end().to_owned()];
    match status.blocked.count.saturating_sub(MOST_NAMES as u64) {
        0 => {}
        more => lines.push(format!("and {} more: `lrpathctl shards` lists them", count(more))),
    }
    lines
}

/// How long it still takes, as the end of a sentence.
pub fn left(until: Option<Millis>, now: Millis) -> String {
    until.map_or_else(String::new, |until| format!(", {} left", duration(until.saturating_sub(now))))
}

/// `gpu 0   NVIDIA H200, 12.3 GB of 151 GB, 87 % busy`, as far as its driver tells.
fn device(device: &Device) -> String {
    let memory = device.memory.zip(device.memory_used);
    let memory = memory.map(|(all, used)| format!(", {} of {} in use", bytes(used), bytes(all)));
    let busy = device.utilisation.map(|share| format!(", {:.0} % busy", share * 100.0));
    let label = format!("gpu {}", device.index);
    format!("{label:<8}{}{}{}", device.name, memory.unwrap_or_default(), busy.unwrap_or_default())
}

/// Nothing is shortened here: somebody must mend it.
fn hindered(waiting: &Waiting, now: Millis, look: &Look) -> String {
    let since = duration(now.saturating_sub(waiting.since));
    look.paint(Paint::Bad, &format!("{} waits for {since} now:\n  {}", waiting.what, waiting.why))
}

/// Nothing is shortened here: a marker has no other place to say what is wrong with it.
fn refused(marker: &RefusedMarker, look: &Look) -> String {
    look.paint(Paint::Bad, &format!("the marker {} was refused: {}", marker.file, marker.reason))
}

/// `job 7 branch v3 ███░░░ 43 %  2,600 of 6,000  29 min left`, and more where there is room.
fn job(job: &RunningJob, now: Millis, look: &Look) -> String {
    if let Trajectory::Evaluation(version) = job.path.trajectory {
        return format!("  job {} evaluates v{version}", job.job);
    }
    let (done, all) = (job.step.saturating_sub(job.from), job.to.saturating_sub(job.from));
    let filled = done.saturating_mul(BAR).checked_div(all).unwrap_or(BAR).min(BAR);
    let bar = format!(
        "{}{}",
        look.paint(Paint::Busy, &"█".repeat(filled as usize)),
        look.paint(Paint::Faint, &"░".repeat((BAR - filled) as usize))
    );
    let whom = job.version.map_or_else(|| "ahead".to_owned(), |version| format!("v{version}"));
    let attempt = if job.attempt > 1 { format!(", attempt {}", job.attempt) } else { String::new() };
    let begins = format!("  job {} {} {whom}{attempt}", job.job, job.segment);
    let mut facts = format!("{}  {} of {}", percent(done, all), count(done), count(all));
    if let Some(until) = job.until {
        facts.push_str(&format!("  {} left", duration(until.saturating_sub(now))));
    }
    let more = [
        job.loss.map(|loss| format!("  loss {loss:.3}")),
        job.tokens_per_second.map(|speed| format!("  {} tokens/s", rate(speed))),
    ];
    for fact in more.into_iter().flatten() {
        let used = begins.chars().count() + facts.chars().count() + fact.chars().count() + BAR as usize + 2;
        if !look.terminal || used <= look.width {
            facts.push_str(&fact);
        }
    }
    let warning = job.warning.as_ref().map_or_else(String::new, |warning| {
        format!("\n    {}", look.paint(Paint::Calm, &format!("warning: {warning}")))
    });
    format!("{begins} {bar} {facts}{warning}")
}

fn paradigm_lines(status: &ParadigmStatus, look: &Look) -> Vec<String> {
    let mut lines = vec![format!("  {}", steps(&status.steps))];
    lines.extend(ratio(&status.steps).map(|text| format!("  {text}")));
    let titles: Vec<String> = status.versions.iter().map(|version| look.short(&title(version))).collect();
    let width = titles.iter().map(|title| title.chars().count()).max().unwrap_or(0);
    lines.extend(
        status
            .versions
            .iter()
            .zip(titles)
            .map(|(line, title)| version(line, &format!("{title:<width$}"), look)),
    );
    lines
}

fn steps(steps: &Steps) -> String {
    let parts = [
        ("main", steps.main),
        ("branch", steps.branch),
        ("scratch", steps.scratch),
        ("continual", steps.continual),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, steps)| format!("{} {name}", count(*steps)))
        .collect();
    let sum = if parts.len() > 1 { format!(" ({})", parts.join(" + ")) } else { String::new() };
    format!(
        "{} executed{sum}, {} repeated, {} ahead",
        counted(steps.executed, "step", "steps"),
        count(steps.repeated),
        count(steps.ahead)
    )
}

fn ratio(steps: &Steps) -> Option<String> {
    let (ratio, from_scratch) = (steps.ratio?, steps.from_scratch?);
    Some(format!("released at {ratio:.2} of the {} from scratch", counted(from_scratch, "step", "steps")))
}

fn title(version: &VersionLine) -> String {
    let number = format!("v{}", version.number);
    match version.name.as_ref().filter(|name| **name != number) {
        Some(name) => format!("{number} {name}"),
        None => number,
    }
}

fn version(line: &VersionLine, title: &str, look: &Look) -> String {
    let word = line.state.to_string();
    let state = look.paint(paint_of(line.state), &word);
    if line.branch_point.is_none() {
        return format!("  {title}  {state}");
    }
    let pad = " ".repeat(10_usize.saturating_sub(word.len()));
    let plan = match (line.branch_point, line.decay_steps) {
        (Some(from), Some(steps)) => format!("{} -> {}", count(from), count(from + steps)),
        _ => String::new(),
    };
    let marked = if line.saw_withdrawn.is_empty() { "" } else { "saw withdrawn data  " };
    let used = title.chars().count() + 10 + plan.chars().count() + 6 + marked.len();
    let release = line
        .release
        .as_deref()
        .filter(|release| !look.terminal || used + release.chars().count() <= look.width);
    let marked = look.paint(Paint::Bad, marked);
    format!("  {title}  {state}{pad} {plan}  {marked}{}", release.unwrap_or_default()).trim_end().to_owned()
}
