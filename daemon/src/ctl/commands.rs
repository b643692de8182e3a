//! What each command does: asks, and hands the answer to whoever draws it.

use std::os::unix::process::CommandExt;
use std::process::Command as Process;

use super::check::{self, Depth};
use super::client::Client;
use super::draw::explain::draw as draw_explained;
use super::draw::units::{bytes, count, counted};
use super::draw::{events, lists, plan, status, tree};
use super::flags::{Check, Command, ConfigCommand, Cut, Events, Explain, Export, Generate, Logs, Place};
use super::screen::Screen;
use super::{backup, configuration, course, export, init, manual, offline, shapes, upkeep, watch};
use crate::api::types::{CutAnswer, CutAsked, Explained, JobDetail, Shards, Status, TreeView, VersionDetail};
use crate::config::{Config, FILE, Machine};
use crate::edge::failure::{Exit, Failure};
use crate::edge::look::{Look, Paint};
use crate::ledger::transition::Record;
use crate::ledger::tree::CutOutcome;

/// Seconds that one question about a cut waits.
const WAIT: u64 = 20;
/// Records that a follower sees of what was before.
const LAST: u64 = 10;
/// Records of one answer.
const PAGE: u64 = 1000;

/// Runs a command.
///
/// # Errors
/// What went wrong.
pub fn run(place: &Place, command: Command, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let client = || Client::new(&place.socket());
    match command {
        Command::Init(asked) => {
            let made = init::run(&place.state(), &asked)?;
            screen.answer(asked.output, &made, made_text)
        }
        Command::Config(ConfigCommand::Check(asked)) => {
            let state = asked.file.is_none().then(|| place.state());
            let file = asked.file.unwrap_or_else(|| place.config());
            let checked = configuration::check(&file, state.as_deref())?;
            match asked.output.json {
                true => screen.json(&checked),
                false => screen.text(&configuration::draw(&checked, &screen.look)?),
            }
        }
        Command::Status(asked) if asked.follow => watch::follow(&client()?, asked.output, screen),
        Command::Status(asked) => {
            screen.answer(asked.output, &client()?.get::<Status>("/v1/status")?, status::draw)
        }
        Command::Tree(output) => screen.answer(output, &client()?.get::<TreeView>("/v1/tree")?, tree::draw),
        Command::Versions(output) => {
            let versions: Vec<VersionDetail> = client()?.get("/v1/versions")?;
            screen.answer(output, &versions, |versions, look| lists::versions(versions, look))
        }
        Command::Shards(output) => {
            screen.answer(output, &client()?.get::<Shards>("/v1/shards")?, lists::shards)
        }
        Command::Jobs(output) => {
            let jobs: Vec<JobDetail> = client()?.get("/v1/jobs")?;
            screen.answer(output, &jobs, |jobs, look| lists::jobs(jobs, look))
        }
        Command::Explain(asked) => explain(&client()?, &asked, screen),
        Command::Logs(asked) => logs(&client()?, &asked, screen),
        Command::Events(asked) => journal(&client()?, &asked, screen),
        Command::Cut(asked) => cut(&client()?, asked, screen),
        Command::Pause(output) => course::pause(&client()?, output, screen),
        Command::Resume(output) => course::resume(&client()?, output, screen),
        Command::Drain(asked) => course::drain(&client()?, &asked, screen),
        Command::Reload(output) => course::reload(&client()?, output, screen),
        Command::Retry(asked) => upkeep::retry(&client()?, &asked, screen),
        Command::Cancel(asked) => upkeep::cancel(&client()?, &asked, screen),
        Command::Withdraw(asked) => upkeep::withdraw(&client()?, asked, screen),
        Command::Evaluate(asked) => upkeep::evaluate(&client()?, &asked, screen),
        Command::Alias(asked) => upkeep::alias(&client()?, &asked, screen),
        Command::Gc(asked) => upkeep::gc(&client()?, &asked, screen),
        Command::Plan(asked) => screen.answer(asked.output, &super::plan::run(&asked)?, plan::draw),
        Command::Export(asked) => export(place, &asked, screen),
        Command::Check(asked) => check(place, &asked, screen),
        Command::Rebuild(output) => {
            let report = offline::rebuild(&place.state())?;
            screen.answer(output, &report, |report, _| {
                format!(
                    "the tree's copy in sled is made anew, from {} records: {}\n",
                    count(report.records),
                    report.tree.short()
                )
            })
        }
        Command::Backup(asked) => {
            let taken = backup::take(&place.state(), &asked.folder)?;
            screen.answer(asked.output, &taken, draw_taken)
        }
        Command::Restore(asked) => {
            let restored = backup::restore(&asked.folder, &place.state())?;
            screen.answer(asked.output, &restored, draw_restored)
        }
        Command::Generate(asked) => generate(place, &asked),
        Command::Completions(asked) => screen.text(&manual::completions(asked.shell)),
        Command::Man(asked) => manual::man(asked.folder.as_deref(), screen),
        Command::Schema(asked) => screen.json(&shapes::schema(&asked.command)?),
        Command::Demo(asked) => super::demo::run(&asked, screen),
    }
}

/// Standard output is for programs, with `--json` and without; a file is for people who open it in the planner.
fn export(place: &Place, asked: &Export, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let exported = export::of_state(&place.state(), &place.config())?;
    let Some(file) = &asked.file else { return screen.json(&exported) };
    export::write(&exported, file)?;
    screen.answer(asked.output, &exported, |exported, _| {
        format!(
            "{} holds {} and {} that were trained; the planner opens it\n",
            file.display(),
            counted(exported.increments.len() as u64, "increment", "increments"),
            counted(exported.spent.steps, "step", "steps")
        )
    })
}

fn check(place: &Place, asked: &Check, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let depth = match (asked.quick, asked.all) {
        (true, _) => Depth::Structure,
        (false, false) => Depth::Digests,
        (false, true) => Depth::Everything,
    };
    let findings = match asked.repair {
        true => check::repair(&place.state(), depth)?,
        false => check::check(&place.state(), depth)?,
    };
    screen.answer(asked.output, &findings, lists::findings)?;
    match findings.left() {
        0 => Ok(()),
        _ => Err(Failure::new("the state is damaged")
            .exit(Exit::Damaged)
            .hint("each line of damage says what to do")),
    }
}

fn draw_taken(taken: &backup::Taken, _: &Look) -> String {
    let mut text = format!(
        "{} is a backup of {} records, {} in {}\n",
        taken.backup.display(),
        count(taken.position),
        bytes(taken.bytes),
        counted(taken.files, "file", "files")
    );
    for outside in &taken.outside {
        text.push_str(&format!("not in it: {outside}\n"));
    }
    text
}

fn draw_restored(restored: &backup::Restored, _: &Look) -> String {
    let mut text = format!(
        "{} is a state now, of {} records and {}\n",
        restored.state.display(),
        count(restored.position),
        bytes(restored.bytes)
    );
    for outside in &restored.outside {
        text.push_str(&format!("not restored, since no backup holds it: {outside}\n"));
    }
    text.push_str(&format!("start it with  lrpathd --state {}\n", restored.state.display()));
    text
}

fn made_text(made: &init::Made, look: &Look) -> String {
    let fixed = &made.fixed;
    let paradigms: Vec<&str> = fixed.paradigms.iter().map(|paradigm| paradigm.name()).collect();
    format!(
        "{} is a state now, for {}\n\
         \n  configuration  {}\
         \n  drop shards in {}\
         \n  start it with  lrpathd --state {}\n",
        look.paint(Paint::Strong, &made.state.display().to_string()),
        paradigms.join(", "),
        made.config.display(),
        made.data.display(),
        made.state.display(),
    )
}

fn explain(client: &Client, asked: &Explain, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let paradigm = asked.paradigm.map(|paradigm| ("paradigm", paradigm.name()));
    let query: Vec<(&str, &str)> = std::iter::once(("what", asked.what.as_str())).chain(paradigm).collect();
    let query = serde_urlencoded::to_string(query)
        .map_err(|error| Failure::new(format!("`{}` cannot be asked for", asked.what)).because(error))?;
    let explained: Explained = client.get(&format!("/v1/explain?{query}"))?;
    screen.answer(asked.output, &explained, draw_explained)
}

fn logs(client: &Client, asked: &Logs, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let follow = if asked.follow { "follow=true" } else { "follow=false" };
    let attempt = asked.attempt.map_or_else(String::new, |attempt| format!("&attempt={attempt}"));
    client.stream(&format!("/v1/jobs/{}/log?{follow}{attempt}", asked.job), |bytes| {
        let written = screen.out.write_all(bytes).and_then(|()| screen.out.flush());
        written.map(|()| true).map_err(|error| Failure::new("the log cannot be printed").because(error))
    })
}

fn journal(client: &Client, asked: &Events, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut after = match (asked.after, asked.follow) {
        (Some(after), _) => after,
        (None, false) => 0,
        (None, true) => client.get::<Status>("/v1/status")?.position.saturating_sub(LAST),
    };
    let mut show = |line: &str| {
        let record: Record = serde_json::from_str(line).map_err(|error| {
            Failure::new("a record is not understood")
                .because(error)
                .hint("is the daemon of the same version?")
        })?;
        let position = record.position;
        match asked.output.json {
            true => screen.text(&format!("{line}\n"))?,
            false => screen.sentences(&events::line(&record, &screen.look))?,
        }
        Ok(position)
    };
    if asked.follow {
        return client
            .lines(&format!("/v1/events?after={after}&follow=true"), |line| show(line).map(|_| true));
    }
    loop {
        let before = after;
        client.lines(&format!("/v1/events?after={after}&limit={PAGE}"), |line| {
            after = show(line)?;
            Ok(true)
        })?;
        if after == before {
            return Ok(());
        }
    }
}

fn cut(client: &Client, asked: Cut, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut answer: CutAnswer = client.post("/v1/cut", &CutAsked { name: asked.name })?;
    let mut told = false;
    while answer.outcome == CutOutcome::Waiting && !asked.no_wait {
        if !told && !answer.waits_for.is_empty() && !asked.output.json {
            let files = answer.waits_for.join(", ");
            screen.sentences(&format!("waits for {files}\n"))?;
            told = true;
        }
        answer = client.get(&format!("/v1/cuts/{}?wait={WAIT}", answer.cut))?;
    }
    let version = match &answer.outcome {
        CutOutcome::Made { version } => Some(*version),
        CutOutcome::Waiting | CutOutcome::Refused { .. } => None,
    };
    let versions: Vec<VersionDetail> = match version {
        Some(number) => {
            let all: Vec<VersionDetail> = client.get("/v1/versions")?;
            all.into_iter().filter(|version| version.number == number).collect()
        }
        None => Vec::new(),
    };
    if let CutOutcome::Refused { reason, .. } = &answer.outcome {
        if asked.output.json {
            screen.json(&answer)?;
        }
        let what = answer
            .name
            .as_ref()
            .map_or_else(|| "no version".to_owned(), |name| format!("no version `{name}`"));
        return Err(Failure::new(format!("{what} was cut, and the increment stays open")).because(reason));
    }
    screen.answer(asked.output, &answer, |answer, look| cut_text(answer, &versions, look))
}

fn cut_text(answer: &CutAnswer, versions: &[VersionDetail], look: &Look) -> String {
    let Some(first) = versions.first() else {
        return format!("cut {} is asked for; `lrpathctl status` shows when it is made\n", answer.cut);
    };
    let mut text = format!(
        "version {} ({}): {} steps, up to step {}\n",
        first.number,
        look.paint(Paint::Strong, &first.name),
        count(first.steps),
        count(first.end)
    );
    for version in versions {
        let alpha = version.alpha.map_or_else(String::new, |alpha| format!(", alpha {alpha}"));
        text.push_str(&format!(
            "  {}: trains steps {} to {}{alpha}, {} from {} to {}\n",
            version.paradigm,
            count(version.branch_point),
            count(version.end),
            version.decay,
            version.peak,
            version.min
        ));
    }
    text
}

/// Becomes the trainer, on a release's folder. Needs no daemon.
fn generate(place: &Place, asked: &Generate) -> Result<(), Failure> {
    let state = place.state();
    let config = Config::load(&state.join(FILE))?;
    let first = config.paradigm.list().first().copied().unwrap_or_default();
    let other = asked.paradigm.filter(|paradigm| *paradigm != first);
    let version =
        asked.version.map_or_else(|| artifacts::release::LATEST.to_owned(), |version| format!("v{version}"));
    let releases =
        other.map_or_else(|| state.join("releases"), |paradigm| state.join("releases").join(paradigm.name()));
    let folder = releases.join(version);
    if !folder.is_dir() {
        let failure = Failure::new(format!("there is no release at `{}`", folder.display()));
        return Err(failure.hint("`lrpathctl versions` lists what is released"));
    }
    let trainer = Machine::this().trainer()?;
    let mut process = Process::new(&trainer);
    process.arg("generate").arg("--model").arg(&folder).arg(format!("--prompt={}", asked.prompt));
    process.arg(format!("--tokens={}", asked.tokens)).arg(format!("--temperature={}", asked.temperature));
    process.arg(format!("--seed={}", asked.seed)).args(asked.top_k.map(|k| format!("--top-k={k}")));
    let error = process.exec();
    Err(Failure::new(format!("`{}` cannot be started", trainer.display())).because(error))
}
