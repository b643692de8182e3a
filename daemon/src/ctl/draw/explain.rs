//! Why something is as it is, told from the top: what it is, what it is made of, what it cost.

use super::losses;
use super::table::{Field, Table};
use super::units::{bytes, count, counted, duration, moment};
use super::{Look, Paint, paint_of, saw_withdrawn, title};
use crate::api::types::{
    CheckpointExplained, CheckpointSeen, Explained, ShardExplained, VersionCost, VersionExplained,
};
use crate::withdrawal::list;

/// Shards of a version that are listed; `--json` lists all.
const MOST_SHARDS: usize = 20;

/// What was asked for.
pub fn draw(explained: &Explained, look: &Look) -> String {
    match explained {
        Explained::Version(version) => of_version(version, look),
        Explained::Shard(shard) => of_shard(shard, look),
        Explained::Checkpoint(checkpoint) => of_checkpoint(checkpoint, look),
    }
}

/// Facts with a word before each.
struct Facts<'a> {
    look: &'a Look,
    table: Table<'a>,
}

impl<'a> Facts<'a> {
    fn new(look: &'a Look) -> Self {
        Self { look, table: Table::new(look, &["", "*"]) }
    }

    fn add(&mut self, word: &str, fact: impl Into<String>) {
        self.table.row([Field::text(word).paint(Paint::Faint), Field::text(fact)]);
    }

    fn paint(&mut self, word: &str, fact: &str, paint: Paint) {
        self.table.row([Field::text(word).paint(Paint::Faint), Field::text(fact).paint(paint)]);
    }

    fn draw(self, heading: &str) -> String {
        format!("{}\n{}", self.look.paint(Paint::Strong, heading), self.table.draw())
    }
}

fn of_version(explained: &VersionExplained, look: &Look) -> String {
    let version = &explained.version;
    let mut facts = Facts::new(look);
    facts.paint("state", &version.state.to_string(), paint_of(version.state));
    for remark in version.failed.iter().cloned().chain(saw_withdrawn(version)) {
        facts.paint("", &remark, Paint::Bad);
    }
    let follows = explained.follows.map_or_else(String::new, |before| format!(", after v{before}"));
    facts.add(
        "data",
        format!(
            "{}, up to step {}{follows}; closed because {}",
            counted(version.steps, "step", "steps"),
            count(version.end),
            explained.cut
        ),
    );
    facts.add("branch", why_there(explained));
    let warmup = match (explained.warmup_steps, explained.follows) {
        (0, _) => String::new(),
        (steps, _) => format!(", warmed up over {}", counted(steps, "step", "steps")),
    };
    facts.add("rates", format!("{} from {} to {}{warmup}", version.decay, version.peak, version.min));
    facts.add("begins", begins(explained));
    if !explained.skipped.is_empty() {
        let steps: Vec<String> = explained.skipped.iter().map(|step| count(*step)).collect();
        facts.add("skipped", format!("steps without an update: {}", steps.join(", ")));
    }
    facts.add("cost", cost(&explained.cost, explained));
    if let Some(release) = &version.release {
        let names = match explained.aliases.as_slice() {
            [] => String::new(),
            names => format!(", also {}", names.join(", ")),
        };
        facts.add("release", format!("{}{names}, {}", release.folder, moment(release.at)));
    }
    let mut text = facts.draw(&format!("{} of {}", title(version), version.paradigm));
    text.push_str(&losses(explained, look));
    text.push_str(&jobs(explained, look));
    text.push_str(&shards(explained, look));
    text
}

/// Why a branch starts where it starts: the numbers of its cut, filled in.
fn why_there(explained: &VersionExplained) -> String {
    let version = &explained.version;
    let (point, steps, end) = (count(version.branch_point), count(version.decay_steps), count(version.end));
    match version.alpha {
        Some(alpha) => format!(
            "it covers alpha = {alpha} of the {} steps, D = {steps}, and ends with the data: it leaves the main path at \
             B = {end} - {steps} = {point}",
            count(version.steps)
        ),
        None => format!("its own run from step {point} to {end}, {steps} steps"),
    }
}

fn begins(explained: &VersionExplained) -> String {
    match (&explained.begins, explained.version.branch_point) {
        (Some(seen), _) => checkpoint_line(seen),
        (None, 0) => "with new weights".to_owned(),
        (None, point) => format!("at step {}, which is not trained yet", count(point)),
    }
}

fn checkpoint_line(seen: &CheckpointSeen) -> String {
    let gone = seen.gone.as_ref().map_or_else(String::new, |gone| format!(", {gone}"));
    format!("{} ({}){gone}", seen.checkpoint, seen.digest.short())
}

fn cost(cost: &VersionCost, explained: &VersionExplained) -> String {
    let VersionCost { main, own, from_scratch, continual } = *cost;
    let all = main.saturating_add(own);
    #[expect(clippy::cast_precision_loss, reason = "a share to be read by people")]
    let share = all as f64 / from_scratch.max(1) as f64;
    let parts = match main {
        0 => counted(own, "step", "steps"),
        main => format!(
            "{} of the main path + {} of its own = {}",
            count(main),
            count(own),
            counted(all, "step", "steps")
        ),
    };
    let time: u64 = explained.jobs.iter().map(|job| job.time).sum();
    let took = if time > 0 { format!(", {}", duration(time)) } else { String::new() };
    format!(
        "{parts}{took}; from scratch it would take {} (this is {share:.2} of that), going on from the version before {}",
        count(from_scratch),
        count(continual)
    )
}

fn losses(explained: &VersionExplained, look: &Look) -> String {
    if explained.version.evaluations.is_empty() {
        return String::new();
    }
    format!("\n{}", losses::draw(&explained.version.evaluations, look))
}

fn jobs(explained: &VersionExplained, look: &Look) -> String {
    if explained.jobs.is_empty() {
        return String::new();
    }
    let mut table = Table::new(look, &["job", "path*", "steps", "attempts", "done", "took"]);
    for job in &explained.jobs {
        table.row([
            Field::number(job.job.to_string()),
            Field::text(job.path.to_string()),
            Field::number(format!("{} -> {}", count(job.from), count(job.to))),
            Field::number(job.attempts.to_string()),
            Field::number(count(job.ran)),
            Field::number(duration(job.time)),
        ]);
    }
    format!("\n{}", table.draw())
}

fn shards(explained: &VersionExplained, look: &Look) -> String {
    let mut table = Table::new(look, &["shard*", "tokens", "from step", "digest"]);
    for shard in explained.shards.iter().take(MOST_SHARDS) {
        table.row([
            Field::text(&shard.name),
            Field::number(count(shard.tokens)),
            Field::number(count(shard.first_step)),
            Field::text(shard.digest.short()),
        ]);
    }
    let more = match explained.shards.len().saturating_sub(MOST_SHARDS) {
        0 => String::new(),
        more => format!("and {} more: `--json` lists all\n", count(more as u64)),
    };
    format!("\n{}{more}", table.draw())
}

fn of_shard(shard: &ShardExplained, look: &Look) -> String {
    let mut facts = Facts::new(look);
    let unpacked = shard.unpacked.map_or_else(String::new, |size| format!(", {} unpacked", bytes(size)));
    facts.add("file", format!("{}{unpacked}, taken {}", bytes(shard.bytes), moment(shard.at)));
    facts.add("digest", shard.digest.to_string());
    facts.add("place", format!("{} in the order of acceptance, from 0", shard.order));
    if let Some(at) = shard.withdrawn {
        facts.paint("withdrawn", &moment(at), Paint::Bad);
    }
    match &shard.tokens {
        None => facts.add("tokens", "none yet: it waits to be tokenised"),
        Some(tokens) => facts.add(
            "tokens",
            format!("{} to train on, {} held out", count(tokens.stream), count(tokens.held_out)),
        ),
    }
    facts.add(
        "steps",
        shard.first_step.map_or_else(
            || "none has one of its tokens now".to_owned(),
            |step| format!("its tokens come from step {} on", count(step)),
        ),
    );
    facts.add(
        "seen by",
        match shard.seen_by.as_slice() {
            [] => "no version".to_owned(),
            versions => list(versions),
        },
    );
    if shard.trained_tokenizer {
        facts.add("tokenizer", "trained on it among others");
    }
    facts.draw(&shard.name)
}

fn of_checkpoint(explained: &CheckpointExplained, look: &Look) -> String {
    let seen = &explained.checkpoint;
    let mut facts = Facts::new(look);
    match &seen.gone {
        Some(gone) => facts.paint("gone", gone, Paint::Calm),
        None => facts.add("size", bytes(explained.bytes)),
    }
    let by = explained.job.map_or_else(|| "found after a crash".to_owned(), |job| format!("by job {job}"));
    facts.add("saved", format!("{by}, {}", moment(explained.at)));
    facts.add("digest", seen.digest.to_string());
    for (place, need) in explained.needs.iter().enumerate() {
        facts.add(if place == 0 { "needed" } else { "" }, need.clone());
    }
    if let Some(why) = &explained.why_not {
        facts.add("not needed", why.clone());
    }
    let started: Vec<String> =
        explained.started.iter().map(|(job, attempt)| format!("job {job} (attempt {attempt})")).collect();
    if !started.is_empty() {
        facts.add("began", started.join(", "));
    }
    if let Some(release) = &explained.release {
        facts.add("release", release.clone());
    }
    facts.draw(&seen.checkpoint.to_string())
}
