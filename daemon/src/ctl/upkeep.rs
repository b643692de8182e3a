//! The commands that keep a state in order: `retry`, `cancel`, `withdraw`, `evaluate`, `gc`, `alias`.

use super::client::Client;
use super::draw::upkeep as draw;
use super::flags::{Alias, Cancel, Evaluate, Gc, Retry, Withdraw};
use super::screen::Screen;
use crate::api::types::{
    AliasAnswer, AliasAsked, AliasLine, CancelAnswer, CancelAsked, EvaluationAnswer, EvaluationAsked,
    GcAnswer, GcAsked, RetryAnswer, RetryAsked, VersionDetail, WithdrawAnswer, WithdrawAsked,
};
use crate::config::nearest;
use crate::edge::failure::{Exit, Failure};
use crate::ledger::path::Version;

/// The number of a version that is named by its number, as `3` or `v3`, or by its name.
///
/// # Errors
/// No version has the name.
pub fn version(client: &Client, asked: &str) -> Result<Version, Failure> {
    if let Ok(number) = asked.strip_prefix('v').unwrap_or(asked).parse() {
        return Ok(number);
    }
    let versions: Vec<VersionDetail> = client.get("/v1/versions")?;
    let found = versions.iter().find(|version| version.name == asked).map(|version| version.number);
    found.ok_or_else(|| {
        let meant = nearest(asked, versions.iter().map(|version| version.name.as_str()));
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`? `lrpathctl versions` lists them"),
            None => "`lrpathctl versions` lists them".to_owned(),
        };
        Failure::new(format!("there is no version {asked}")).exit(Exit::Refused).hint(hint)
    })
}

pub fn retry(client: &Client, asked: &Retry, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let version = match asked.version.as_str() {
        "main" => None,
        name => Some(version(client, name)?),
    };
    let answer: RetryAnswer = client.post("/v1/retry", &RetryAsked { paradigm: asked.paradigm, version })?;
    screen.answer(asked.output, &answer, |answer, _| format!("{} is tried again\n", answer.path))
}

pub fn cancel(client: &Client, asked: &Cancel, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let version = match asked.what.as_str() {
        "cut" => None,
        name => Some(version(client, name)?),
    };
    let answer: CancelAnswer =
        client.post("/v1/cancel", &CancelAsked { paradigm: asked.paradigm, version })?;
    screen.answer(asked.output, &answer, |answer, _| draw::cancelled(answer))
}

pub fn withdraw(client: &Client, asked: Withdraw, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let question = WithdrawAsked { shard: asked.shard, rewind: asked.rewind };
    let answer: WithdrawAnswer = client.post("/v1/withdraw", &question)?;
    screen.answer(asked.output, &answer, |answer, _| draw::withdrawn(answer))
}

/// Seconds that one question about an evaluation waits.
const WAIT: u64 = 20;

pub fn evaluate(client: &Client, asked: &Evaluate, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let version = self::version(client, &asked.version)?;
    let on = asked.on.iter().map(|name| self::version(client, name)).collect::<Result<Vec<_>, _>>()?;
    let question = EvaluationAsked { paradigm: asked.paradigm, version, on: on.clone() };
    let mut answer: EvaluationAnswer = client.post("/v1/evaluations", &question)?;
    let is_waited_for = |answer: &EvaluationAnswer| {
        answer.pending.iter().any(|increment| on.is_empty() || on.contains(increment))
    };
    if is_waited_for(&answer) && !asked.no_wait && !asked.output.json {
        screen.sentences(&draw::evaluation_waits(&answer))?;
    }
    let mut missing = if on.is_empty() { answer.pending.clone() } else { on.clone() };
    while is_waited_for(&answer) && !asked.no_wait {
        answer = client.get(&format!("/v1/evaluations/{}/{version}?wait={WAIT}", answer.paradigm))?;
    }
    answer.evaluations.retain(|evaluation| on.is_empty() || on.contains(&evaluation.increment));
    let is_measured = |increment: &Version| answer.evaluations.iter().any(|one| one.increment == *increment);
    missing.retain(|increment| !is_measured(increment) && !answer.pending.contains(increment));
    // An earlier failure says nothing of what is known now.
    let failed = answer.failed.clone().filter(|_| !missing.is_empty());
    let nothing_on = if failed.is_some() { &[][..] } else { &missing };
    screen.answer(asked.output, &answer, |answer, look| draw::evaluated(answer, nothing_on, look))?;
    match failed {
        None => Ok(()),
        Some(why) => Err(Failure::new(format!("version {version} could not be evaluated"))
            .because(why)
            .hint("mend that, and ask again")),
    }
}

pub fn gc(client: &Client, asked: &Gc, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let answer: GcAnswer = client.post("/v1/gc", &GcAsked { dry_run: asked.dry_run })?;
    screen.answer(asked.output, &answer, draw::collected)?;
    match answer.left.is_empty() {
        true => Ok(()),
        false => Err(Failure::new("not everything that goes could be removed")
            .because(answer.left.join("\n"))
            .hint("mend that, and ask again: the journal knows what is to go")),
    }
}

pub fn alias(client: &Client, asked: &Alias, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Some(name) = asked.name.clone().filter(|_| asked.version.is_some() || asked.remove) else {
        return aliases(client, asked, screen);
    };
    let version = asked.version.as_ref().map(|asked| version(client, asked)).transpose()?;
    let question = AliasAsked { paradigm: asked.paradigm, name, version };
    let answer: AliasAnswer = client.post("/v1/alias", &question)?;
    screen.answer(asked.output, &answer, |answer, _| draw::moved(answer))
}

fn aliases(client: &Client, asked: &Alias, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut lines: Vec<AliasLine> = client.get("/v1/alias")?;
    lines.retain(|line| asked.paradigm.is_none_or(|paradigm| line.paradigm == paradigm));
    if let Some(name) = &asked.name {
        let meant = nearest(name, lines.iter().map(|line| line.name.as_str())).map(str::to_owned);
        lines.retain(|line| line.name == *name);
        if lines.is_empty() {
            let failure = Failure::new(format!("no version is called `{name}`")).exit(Exit::Refused);
            return Err(match meant {
                Some(meant) => failure.hint(format!("did you mean `{meant}`?")),
                None => failure.hint("`lrpathctl alias` lists the names"),
            });
        }
        return screen.answer(asked.output, &lines, |lines, look| draw::history(lines, look));
    }
    screen.answer(asked.output, &lines, |lines, look| draw::aliases(lines, look))
}
