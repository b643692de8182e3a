//! Versions, shards, jobs and what `check` found, as tables and sentences.

use super::table::{Field, Table};
use super::units::{bytes, count, counted, duration, moment};
use super::{Look, Paint, paint_of, saw_withdrawn, title};
use crate::api::types::{AttemptDetail, JobDetail, Shards, VersionDetail};
use crate::ctl::check::Findings;
use crate::ledger::transition::Outcome;

/// All versions, by paradigm, with their perplexity on the held-out blocks of each increment.
pub fn versions(versions: &[VersionDetail], look: &Look) -> String {
    if versions.is_empty() {
        return "no version is cut yet\n".to_owned();
    }
    let mut text = String::new();
    for of_paradigm in versions.chunk_by(|one, other| one.paradigm == other.paradigm) {
        if !text.is_empty() {
            text.push('\n');
        }
        let paradigm = of_paradigm.first().map_or("", |version| version.paradigm.name());
        text.push_str(&format!("{}\n", look.paint(Paint::Strong, paradigm)));
        text.push_str(&table_of(of_paradigm, look));
    }
    for version in versions {
        let failed = version.failed.as_ref().map(|reason| format!("failed: {reason}"));
        for remark in failed.into_iter().chain(saw_withdrawn(version)) {
            let line = format!("version {} of {} {remark}", version.number, version.paradigm);
            text.push_str(&format!("{}\n", look.paint(Paint::Bad, &line)));
        }
    }
    text
}

fn table_of(versions: &[VersionDetail], look: &Look) -> String {
    let mut table = Table::new(look, &["version", "state", "steps", "perplexity*", "release*"]);
    for version in versions {
        let mut losses: Vec<_> = version.evaluations.iter().collect();
        losses.sort_by_key(|evaluation| evaluation.increment);
        let losses: Vec<String> =
            losses.iter().map(|evaluation| format!("{:.1}", evaluation.perplexity)).collect();
        let release = version.release.as_ref().map_or("", |release| release.folder.as_str());
        table.row([
            Field::text(look.short(&title(version))),
            Field::text(version.state.to_string()).paint(paint_of(version.state)),
            Field::number(format!("{} -> {}", count(version.branch_point), count(version.end))),
            Field::text(losses.join(" ")),
            Field::text(release),
        ]);
    }
    table.draw()
}

/// All files.
pub fn shards(shards: &Shards, look: &Look) -> String {
    let mut text = String::new();
    if !shards.waiting.is_empty() {
        let mut table = Table::new(look, &["waiting*", "size", "why*"]);
        for file in &shards.waiting {
            let changes = match file.changes {
                0 => String::new(),
                changes => {
                    format!("; it changed while it was read, {}", counted(changes.into(), "time", "times"))
                }
            };
            table.row([
                Field::text(&file.name),
                Field::number(bytes(file.bytes)),
                Field::text(format!("{}{changes}", file.why)).paint(if file.blocked {
                    Paint::Bad
                } else {
                    Paint::Calm
                }),
            ]);
        }
        text.push_str(&table.draw());
        text.push('\n');
    }
    if !shards.rejected.is_empty() {
        let mut table = Table::new(look, &["rejected*", "size", "reason*"]);
        for file in &shards.rejected {
            table.row([
                Field::text(&file.name),
                Field::number(bytes(file.bytes)),
                Field::text(&file.reason).paint(Paint::Bad),
            ]);
        }
        text.push_str(&table.draw());
        text.push('\n');
    }
    if !shards.accepted.is_empty() {
        let mut table = Table::new(look, &["accepted*", "size", "tokens", "held out", "digest", "when"]);
        for shard in &shards.accepted {
            let of = |number: fn(&crate::ledger::transition::ShardTokens) -> u64| {
                shard.tokens.as_ref().map_or_else(|| "-".to_owned(), |tokens| count(number(tokens)))
            };
            table.row([
                Field::text(&shard.name),
                Field::number(bytes(shard.bytes)),
                match shard.withdrawn {
                    Some(_) => Field::text("withdrawn").paint(Paint::Calm),
                    None => Field::number(of(|tokens| tokens.stream)),
                },
                Field::number(of(|tokens| tokens.held_out)),
                Field::text(shard.digest.short()),
                Field::text(moment(shard.at)).paint(Paint::Faint),
            ]);
        }
        text.push_str(&table.draw());
        text.push('\n');
    }
    let duplicates = match shards.duplicates.len() as u64 {
        0 => String::new(),
        number => format!(", {}", counted(number, "duplicate", "duplicates")),
    };
    let withdrawn = shards.accepted.iter().filter(|shard| shard.withdrawn.is_some()).count() as u64;
    let less = if withdrawn > 0 { format!(", {} withdrawn", count(withdrawn)) } else { String::new() };
    text.push_str(&format!(
        "{} accepted, {} waiting, {} rejected{duplicates}{less}\n",
        counted(shards.accepted.len() as u64 - withdrawn, "shard", "shards"),
        count(shards.waiting.len() as u64),
        count(shards.rejected.len() as u64),
    ));
    text
}

/// All jobs, an attempt a line.
pub fn jobs(jobs: &[JobDetail], look: &Look) -> String {
    if jobs.is_empty() {
        return "no job was started yet\n".to_owned();
    }
    let mut table = Table::new(look, &["job", "path*", "for", "steps", "reached", "took", "end"]);
    let mut remarks = String::new();
    for job in jobs {
        for attempt in &job.attempts {
            let number = match job.attempts.len() {
                1 => job.job.to_string(),
                _ => format!("{}-{}", job.job, attempt.attempt),
            };
            let took = attempt.ended_at.map(|end| duration(end.saturating_sub(attempt.started_at)));
            let (end, remark) = end(attempt);
            if let Some(remark) = remark {
                let remark = format!("job {number} ended at step {}: {remark}", count(attempt.reached));
                remarks.push_str(&format!("{}\n", look.paint(Paint::Bad, &remark)));
            }
            table.row([
                Field::number(number),
                Field::text(job.path.to_string()),
                Field::text(job.version.map_or_else(|| "ahead".to_owned(), |version| format!("v{version}"))),
                Field::number(format!("{} -> {}", count(attempt.first_step), count(job.to))),
                Field::number(count(attempt.reached)),
                Field::number(took.unwrap_or_default()),
                end,
            ]);
        }
    }
    table.draw() + &remarks
}

/// A word for the end of an attempt, and what there is to say of it.
fn end(attempt: &AttemptDetail) -> (Field, Option<String>) {
    match &attempt.outcome {
        None => (Field::text("runs").paint(Paint::Busy), None),
        Some(Outcome::Finished) => (Field::text("finished").paint(Paint::Good), None),
        Some(Outcome::Stopped) => (Field::text("stopped").paint(Paint::Calm), None),
        Some(Outcome::Failed { failure, message, .. }) => {
            (Field::text("failed").paint(Paint::Bad), Some(format!("{failure}: {message}")))
        }
        Some(Outcome::Hindered { message }) => {
            (Field::text("hindered").paint(Paint::Calm), Some(message.clone()))
        }
        Some(Outcome::Crashed { message }) => {
            (Field::text("crashed").paint(Paint::Bad), Some(message.clone()))
        }
    }
}

/// What `check` found.
pub fn findings(findings: &Findings, look: &Look) -> String {
    let mut text = format!("the journal is sound, with {}\n", counted(findings.records, "record", "records"));
    match &findings.ledger {
        Some(report) => text.push_str(&format!("it makes the tree {}\n", report.tree.short())),
        None => text.push_str("a daemon has the state: the tree's copy in sled was not looked at\n"),
    }
    for sentence in &findings.mended {
        text.push_str(&format!("{} {sentence}\n", look.paint(Paint::Calm, "note:")));
    }
    for damage in &findings.damage {
        let (word, paint) = match damage.repaired {
            Some(_) => ("repaired:", Paint::Good),
            None => ("damage:", Paint::Bad),
        };
        text.push_str(&format!("{} {}: {}\n", look.paint(paint, word), damage.file, damage.what));
        text.push_str(&format!("  {}\n", damage.repaired.as_ref().unwrap_or(&damage.hint)));
    }
    let looked = format!(
        "{}, {} and {} were looked at",
        counted(findings.checkpoints, "checkpoint", "checkpoints"),
        counted(findings.shards, "shard", "shards"),
        counted(findings.releases, "release", "releases")
    );
    let repaired = (findings.damage.len() - findings.left()) as u64;
    let verdict = match (findings.left() as u64, repaired) {
        (0, 0) => look.paint(Paint::Good, "nothing is damaged"),
        (0, number) => {
            look.paint(Paint::Good, &format!("{} repaired", counted(number, "thing is", "things are")))
        }
        (number, _) => {
            look.paint(Paint::Bad, &format!("{} damaged", counted(number, "thing is", "things are")))
        }
    };
    text.push_str(&format!("{looked}: {verdict}\n"));
    text
}
