//! What was withdrawn, cancelled, removed and renamed.

use super::losses;
use super::table::{Field, Table};
use super::units::{bytes, count, moment};
use super::{Look, Paint};
use crate::api::types::{
    AliasAnswer, AliasLine, CancelAnswer, EvaluationAnswer, GcAnswer, ThingLine, WithdrawAnswer,
};
use crate::ledger::path::Version;
use crate::withdrawal::list;

/// What became of a wish not to have something.
pub fn cancelled(answer: &CancelAnswer) -> String {
    match answer {
        CancelAnswer::Version { paradigm, version, running } => {
            let job = if *running { ": its job saves and stops" } else { "" };
            format!(
                "version {version} of {paradigm} is cancelled{job}\n`lrpathctl retry {version}` makes it after all\n"
            )
        }
        CancelAnswer::Cut { name, .. } => {
            let name = name.as_ref().map_or_else(String::new, |name| format!(" for `{name}`"));
            format!(
                "the cut{name} is cancelled: the increment stays open, and later files do not wait any more\n"
            )
        }
    }
}

/// What is waited for.
pub fn evaluation_waits(answer: &EvaluationAnswer) -> String {
    let EvaluationAnswer { version, paradigm, pending, .. } = answer;
    format!("version {version} of {paradigm} is evaluated on {} as soon as a slot is free\n", list(pending))
}

/// What a version was measured on, and increments on which it could not be.
pub fn evaluated(answer: &EvaluationAnswer, nothing_on: &[Version], look: &Look) -> String {
    let mut text = match answer.evaluations.is_empty() {
        true => String::new(),
        false => losses::draw(&answer.evaluations, look),
    };
    if !nothing_on.is_empty() {
        let increments = list(nothing_on);
        text.push_str(&format!("no held-out block lies in {increments}: there is nothing to measure on\n"));
    }
    if !answer.pending.is_empty() {
        text.push_str(&evaluation_waits(answer));
    }
    text
}

/// What a withdrawal did.
pub fn withdrawn(answer: &WithdrawAnswer) -> String {
    let tokens =
        answer.tokens.map_or_else(String::new, |tokens| format!(" with its {} tokens", count(tokens)));
    let tokenizer = match answer.trained_tokenizer {
        true => "; the tokenizer, which was trained on it too, stays as it is",
        false => "",
    };
    let mut text = format!(
        "{} is withdrawn{tokens}: from step {} on, the stream is as if it had never been there{tokenizer}\n",
        answer.name,
        count(answer.step)
    );
    match answer.marked.as_slice() {
        [] => {}
        [one] => text.push_str(&format!("v{one} saw it: it stays as it is, and is marked\n")),
        several => {
            text.push_str(&format!("{} saw it: they stay as they are, and are marked\n", list(several)));
        }
    }
    if let Some(rewind) = &answer.rewind {
        if let Some(step) = rewind.to {
            let generation = rewind.generation;
            text.push_str(&format!(
                "the main path goes on from step {}, as generation {generation}\n",
                count(step)
            ));
        }
        if !rewind.unmade.is_empty() {
            let unmade = list(&rewind.unmade);
            text.push_str(&format!("what was not public yet of {unmade} saw it too, and is not made\n"));
        }
        if !rewind.versions.is_empty() {
            text.push_str(&format!("the next cut makes v{} of the other data\n", rewind.open));
        }
    }
    text
}

/// What goes or went, and, where it was only asked, what stays.
pub fn collected(answer: &GcAnswer, look: &Look) -> String {
    let (going, staying): (Vec<&ThingLine>, Vec<&ThingLine>) =
        answer.things.iter().partition(|thing| thing.goes);
    let mut text = String::new();
    let heading = if answer.dry_run { "would go*" } else { "went*" };
    text.push_str(&table(heading, &going, look));
    if answer.dry_run {
        text.push_str(&table("stays*", &staying, look));
    }
    let sum = |things: &[&ThingLine]| bytes(things.iter().map(|thing| thing.bytes).sum());
    let (verb, stay) = if answer.dry_run { ("would go", "would stay") } else { ("went", "stay") };
    text.push_str(&match going.len() {
        0 => format!("nothing {verb}, {} {stay}\n", sum(&staying)),
        _ => format!("{} {verb}, {} {stay}\n", sum(&going), sum(&staying)),
    });
    text
}

fn table(heading: &str, things: &[&ThingLine], look: &Look) -> String {
    if things.is_empty() {
        return String::new();
    }
    let mut table = Table::new(look, &[heading, "size", "why*"]);
    for thing in things {
        table.row([Field::text(&thing.name), Field::number(bytes(thing.bytes)), Field::text(&thing.why)]);
    }
    table.draw() + "\n"
}

/// A name that was moved.
pub fn moved(answer: &AliasAnswer) -> String {
    let AliasAnswer { paradigm, name, version, before, link, pending } = answer;
    let before = before
        .filter(|before| Some(*before) != *version)
        .map_or_else(String::new, |before| format!(", before version {before}"));
    let mut text = match version {
        Some(version) => format!("{name} points to version {version} of {paradigm}{before}\n{link}\n"),
        None => format!("{name} of {paradigm} points nowhere any more{before}\n"),
    };
    if let Some(pending) = pending {
        text.push_str(&format!("the link follows as soon as it can: {pending}\n"));
    }
    text
}

/// All names.
pub fn aliases(lines: &[AliasLine], look: &Look) -> String {
    if lines.is_empty() {
        return "no version is public yet, so none has a name\n".to_owned();
    }
    let mut table = Table::new(look, &["name*", "version", "paradigm", "since", "before*"]);
    for line in lines {
        let (last, earlier) =
            line.moves.split_last().map_or((None, &[][..]), |(last, earlier)| (Some(last), earlier));
        let before: Vec<String> =
            earlier.iter().rev().filter_map(|one| one.version).map(|version| format!("v{version}")).collect();
        table.row([
            Field::text(&line.name),
            Field::text(version(line.version)),
            Field::text(line.paradigm.name()),
            Field::text(last.map_or_else(|| "follows the newest".to_owned(), |last| moment(last.at)))
                .paint(Paint::Faint),
            Field::text(before.join(" ")),
        ]);
    }
    table.draw()
}

/// Where one name pointed, from the first time on.
pub fn history(lines: &[AliasLine], look: &Look) -> String {
    let mut text = String::new();
    for line in lines {
        if line.moves.is_empty() {
            text.push_str(&format!(
                "{} of {} follows the newest version: {}\n",
                line.name,
                line.paradigm,
                version(line.version)
            ));
            continue;
        }
        let mut table = Table::new(look, &["since", "version"]);
        for one in &line.moves {
            table.row([Field::text(moment(one.at)), Field::text(version(one.version))]);
        }
        text.push_str(&format!(
            "{} of {}\n{}",
            look.paint(Paint::Strong, &line.name),
            line.paradigm,
            table.draw()
        ));
    }
    text
}

fn version(version: Option<Version>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| format!("v{version}"))
}
