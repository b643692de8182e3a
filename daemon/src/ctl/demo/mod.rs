//! `lrpathctl demo`: a first look at everything, with real text and the real daemon.
//!
//! Four eras of speeches are dropped into a fresh state, one increment each; the daemon does the rest. What is printed at
//! the end is asked of the daemon, counted from the trainers' events, or measured on the published folders: nothing is
//! known beforehand.

mod era;
mod machine;
mod measure;
mod progress;
mod recount;
mod report;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use paradigm::Paradigm;
use schemars::JsonSchema;
use serde::Serialize;

use super::client::Client;
use super::draw::tree;
use super::flags::{self, Init, Output};
use super::init;
use super::screen::Screen;
use crate::api::types::{Shards, Status, TreeView};
use crate::config::{Config, FILE};
use crate::edge::failure::{Failure, last_told};
use crate::ledger::tree::VersionState;
use era::Era;
use machine::{CONFIG, Machine};
use progress::Progress;
use report::Report;

const MODEL: &str = include_str!("model.json");
/// Time between two looks at the status.
const LOOK: Duration = Duration::from_millis(100);
/// Nothing that the demo waits for takes longer.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Time that a device has to be there.
const FOR_A_DEVICE: Duration = Duration::from_secs(10);
/// Time that the daemon has to answer for the first time, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the demo has shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Shown {
    /// The state, which stays.
    pub state: PathBuf,
    /// Everything that is printed.
    #[serde(flatten)]
    pub report: Report,
}

/// Runs the demo from its first line to its last.
///
/// # Errors
/// The speeches, the programs or the folder cannot be used; the daemon gives up.
pub fn run(asked: &flags::Demo, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let began = Instant::now();
    let eras = era::eras(&asked.corpus).map_err(Failure::new)?;
    let machine = Machine::new(asked)?;
    let state = state_folder(asked)?;
    prepare(&state, &machine)?;
    let mut progress = Progress::new(asked.output.json);
    progress.say(&format!(
        "Four eras of State of the Union addresses, one version each.\nstate: {}\n",
        state.display()
    ));
    let daemon = Daemon::start(&state)?;
    let client = Client::new(&state.join(crate::config::SOCKET))?;
    let mut dropped = 0;
    for (number, era) in (1..).zip(&eras) {
        dropped = feed(&client, &state, number, era, dropped, &mut progress)?;
    }
    let last = u32::try_from(eras.len()).unwrap_or(u32::MAX);
    wait(&client, &mut progress, last, |versions| versions.released >= eras.len())?;
    progress.done();
    let view: TreeView = client.get("/v1/tree")?;
    daemon.stop()?;
    let report = report::make(&state, &machine, &eras, &view, began)?;
    if asked.output.json {
        return screen.json(&Shown { state, report });
    }
    let text = format!("{}\n{}", tree::draw(&view, &screen.look), report.draw(&screen.look));
    screen.text(&text)?;
    screen.text(&format!(
        "\nLook around:  {} --state {} tree   (start the daemon again with lrpathd --state {})\n",
        program("lrpathctl")?.display(),
        state.display(),
        state.display()
    ))
}

/// The state folder: what was asked for, or a new one among the temporary files.
fn state_folder(asked: &flags::Demo) -> Result<PathBuf, Failure> {
    if let Some(state) = &asked.keep {
        return Ok(state.clone());
    }
    let folder = tempfile::Builder::new().prefix("lrpath-demo-").tempdir();
    let folder =
        folder.map_err(|error| Failure::new("no folder can be made for the demo's state").because(error))?;
    Ok(folder.keep().join("state"))
}

fn prepare(state: &Path, machine: &Machine) -> Result<(), Failure> {
    let given = tempfile::tempdir()
        .map_err(|error| Failure::new("no temporary folder can be made").because(error))?;
    let write = |name: &str, text: &str| {
        std::fs::write(given.path().join(name), text)
            .map_err(|error| Failure::new(format!("{name} cannot be written")).because(error))
    };
    write("model.json", MODEL)?;
    write(FILE, &machine.configuration()?)?;
    let config = Some(given.path().join(FILE));
    let asked = Init { config, model: None, tokenizer: None, output: Output { json: false } };
    init::run(state, &asked).map(drop)
}

/// Drops an era's speeches, one after the other, until its increment is cut; says how many files were dropped by then.
fn feed(
    client: &Client,
    state: &Path,
    number: u32,
    era: &Era,
    mut dropped: u64,
    progress: &mut Progress,
) -> Result<u64, Failure> {
    let data = state.join("data");
    for speech in &era.speeches {
        let name = speech.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hidden = data.join(format!(".{name}"));
        let done = std::fs::copy(speech, &hidden).and_then(|_| std::fs::rename(&hidden, data.join(&name)));
        done.map_err(|error| {
            Failure::new(format!("{name} cannot be dropped into the folder")).because(error)
        })?;
        dropped += 1;
        wait(client, progress, number, |versions| versions.settled >= dropped)?;
        if is_full(client, number)? {
            wait(client, progress, number, |versions| versions.cut >= number as usize)?;
            return Ok(dropped);
        }
    }
    Err(Failure::new(format!("the speeches of {} have too little text for an increment", era.years)))
}

/// Whether the accepted speeches fill the first `number` increments. Their tokens are known once the tokenizer is
/// trained, which begins when there is enough text for it.
fn is_full(client: &Client, number: u32) -> Result<bool, Failure> {
    let began = Instant::now();
    let (tokens_of_increment, bytes_of_tokenizer) = thresholds()?;
    loop {
        let accepted = client.get::<Shards>("/v1/shards")?.accepted;
        let known: Option<u64> = accepted.iter().map(|shard| Some(shard.tokens?.stream)).sum();
        match known {
            Some(tokens) => return Ok(tokens > u64::from(number) * tokens_of_increment),
            None if accepted.iter().map(|shard| shard.bytes).sum::<u64>() < bytes_of_tokenizer => {
                return Ok(false);
            }
            None if began.elapsed() > LONGEST => {
                return Err(Failure::new("no tokenizer was trained within an hour"));
            }
            None => std::thread::sleep(LOOK),
        }
    }
}

/// How far the versions are.
struct Versions {
    cut: usize,
    released: usize,
    /// Files that are accepted or rejected.
    settled: u64,
}

fn count(status: &Status) -> Versions {
    let all = status.paradigms.get(&Paradigm::PathSwitching).map_or(&[][..], |own| &own.versions);
    Versions {
        cut: all.iter().filter(|version| version.state != VersionState::Open).count(),
        released: all.iter().filter(|version| version.state == VersionState::Released).count(),
        settled: status.shards.accepted + status.shards.rejected,
    }
}

fn wait(
    client: &Client,
    progress: &mut Progress,
    era: u32,
    is_enough: impl Fn(&Versions) -> bool,
) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let status: Status = client.get("/v1/status")?;
        progress.show(&status, era);
        let own = status.paradigms.get(&Paradigm::PathSwitching);
        if let Some(failed) =
            own.and_then(|own| own.versions.iter().find(|v| v.state == VersionState::Failed))
        {
            return Err(Failure::new(format!("version {} has failed", failed.number))
                .hint("`lrpathctl jobs` and `lrpathctl logs` on the demo's state say why"));
        }
        if is_enough(&count(&status)) {
            return Ok(());
        }
        // There is one slot; a device that is there is free in a moment.
        if let Some(why) = status.slots.iter().find_map(|slot| slot.missing.as_ref())
            && began.elapsed() > FOR_A_DEVICE
        {
            return Err(Failure::new("the demo cannot train on that device")
                .because(why)
                .hint("`nvidia-smi -L` lists the GPUs; without --device it trains on the CPU"));
        }
        if began.elapsed() > LONGEST {
            return Err(Failure::new("what the demo waits for did not come within an hour"));
        }
        std::thread::sleep(LOOK);
    }
}

/// A program of the project: beside this one.
fn program(name: &str) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|own| own.parent().map(|folder| folder.join(name)));
    beside.filter(|path| path.is_file()).ok_or_else(|| {
        Failure::new(format!("{name} is not beside lrpathctl")).hint("build all programs with `make build`")
    })
}

/// The demo's daemon; it ends with this value.
struct Daemon {
    process: Child,
}

impl Daemon {
    fn start(state: &Path) -> Result<Self, Failure> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| Failure::new(what).because(error)
        };
        let log = std::fs::File::create(state.join("../daemon.log"))
            .map_err(failed("the daemon's log cannot be made"))?;
        let process = Command::new(program("lrpathd")?)
            .arg("--state")
            .arg(state)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed("lrpathd cannot be started"))?;
        let mut daemon = Self { process };
        let client = Client::new(&state.join(crate::config::SOCKET))?;
        let began = Instant::now();
        while let Err(error) = client.get::<Status>("/v1/status") {
            let is_gone = daemon.process.try_wait().is_ok_and(|ended| ended.is_some());
            if is_gone || began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(state.join("../daemon.log")).unwrap_or_default();
                let why = last_told(&log).map_or_else(|| error.to_string(), str::to_owned);
                return Err(Failure::new("the daemon does not run").because(why));
            }
            std::thread::sleep(LOOK);
        }
        Ok(daemon)
    }

    /// Asks it to stop, and waits for that.
    fn stop(mut self) -> Result<(), Failure> {
        let failed = |error: String| Failure::new("the daemon could not be stopped").because(error);
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|error| failed(error.to_string()))?;
        }
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.process.try_wait().map_err(|error| failed(error.to_string()))?.is_some() {
                return Ok(());
            }
            std::thread::sleep(LOOK / 10);
        }
        Err(failed("it did not end within a minute".to_owned()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failure; one that has stopped is not there any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The demo's configuration, for what hangs on its numbers.
fn configuration() -> Result<Config, Failure> {
    toml::from_str(CONFIG)
        .map_err(|error| Failure::new("the demo's configuration cannot be read").because(error))
}

/// Tokens of an increment, and bytes that the tokenizer is trained on.
fn thresholds() -> Result<(u64, u64), Failure> {
    let config = configuration()?;
    Ok((config.cut.every_tokens.unwrap_or(u64::MAX), config.tokenizer.train_bytes))
}

/// Steps of an increment.
fn steps_of_an_increment() -> Option<u64> {
    let config = configuration().ok()?;
    let step = u64::from(config.data.sequence_length) * u64::from(config.data.sequences_per_step);
    config.cut.every_tokens?.checked_div(step)
}
