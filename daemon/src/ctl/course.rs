//! The commands that let the daemon hold on, go on, or go on otherwise: `pause`, `drain`, `resume`, `reload`.

use std::time::{Duration, Instant};

use super::client::Client;
use super::draw::units::counted;
use super::flags::{Drain, Output};
use super::screen::Screen;
use crate::api::types::{ChangedSetting, DrainAnswer, PauseAnswer, ReloadAnswer, Status};
use crate::edge::failure::{Exit, Failure};
use crate::ledger::tree::VersionState;

/// Between two looks at what still runs.
const LOOK: Duration = Duration::from_millis(500);
/// A daemon that was reloaded answers again within this time: it may be copying a model just then.
const BACK: Duration = Duration::from_secs(300);

pub fn pause(client: &Client, output: Output, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let answer: PauseAnswer = client.post("/v1/pause", &())?;
    screen.answer(output, &answer, |answer, _| match answer.changed {
        true => "paused: nothing new is started, running jobs save and stop\n".to_owned(),
        false => "it was paused already\n".to_owned(),
    })
}

pub fn resume(client: &Client, output: Output, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let answer: PauseAnswer = client.post("/v1/resume", &())?;
    screen.answer(output, &answer, |answer, _| match answer.changed {
        true => "resumed\n".to_owned(),
        false => "it was neither paused nor drained\n".to_owned(),
    })
}

pub fn drain(client: &Client, asked: &Drain, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut answer: DrainAnswer = client.post("/v1/drain", &())?;
    if !asked.no_wait {
        loop {
            let status: Status = client.get("/v1/status")?;
            if !status.draining {
                let failure = Failure::new("somebody resumed it before everything had come to its end");
                return Err(failure.exit(Exit::Refused).hint("`lrpathctl drain` begins again"));
            }
            answer.running = status.jobs.iter().map(|job| job.job).collect();
            let mut versions = status.paradigms.values().flat_map(|known| &known.versions);
            if answer.running.is_empty() && !versions.any(|version| version.state == VersionState::Publishing)
            {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    screen.answer(asked.output, &answer, |answer, _| match answer.running.len() as u64 {
        0 => "drained: nothing runs, and nothing new is started; `lrpathctl resume` goes on\n".to_owned(),
        jobs => format!(
            "nothing new is started; {} still on the way to the end\n",
            counted(jobs, "job is", "jobs are")
        ),
    })
}

pub fn reload(client: &Client, output: Output, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let answer: ReloadAnswer = client.post("/v1/reload", &())?;
    // Whoever asks next shall find the daemon there, and the configuration in force.
    let since = Instant::now();
    loop {
        match client.get::<Status>("/v1/status") {
            Ok(status) if status.shift >= answer.shift => break,
            Err(failure) if failure.exit != Exit::NoDaemon || since.elapsed() > BACK => return Err(failure),
            Ok(_) if since.elapsed() > BACK => {
                let failure = Failure::new("the configuration was taken, and does not hold yet");
                return Err(failure.hint("`lrpathctl status` says what the daemon is busy with"));
            }
            _ => std::thread::sleep(LOOK / 10),
        }
    }
    screen.answer(output, &answer, |answer, _| match answer.changed.as_slice() {
        [] => "reloaded: nothing is otherwise than before\n".to_owned(),
        changed => {
            let lines: String = changed.iter().map(line).collect();
            format!("reloaded\n{lines}")
        }
    })
}

fn line(ChangedSetting { key, before, now }: &ChangedSetting) -> String {
    let word = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
    format!("  {key} is {} now, and was {}\n", word(now), word(before))
}
