//! `status --follow`: what a person sees, and what a pipe gets, while something goes on.
//!
//! A terminal shows the whole status as it changes. A pipe gets a line with its time when the daemon does something else,
//! and now and then while it does the same, so that a log stays readable.

use std::time::Duration;

use super::client::Client;
use super::draw::{status, units};
use super::flags::Output;
use super::screen::Screen;
use crate::api::types::Status;
use crate::edge::failure::Failure;
use crate::ledger::transition::Millis;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Between two lines of a pipe while the same is done, in milliseconds.
const STILL: Millis = 60_000;
/// What clears a terminal.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Shows the status until somebody ends it, or nobody reads it any more.
///
/// # Errors
/// The daemon does not answer, or the answer cannot be printed.
pub fn follow(client: &Client, output: Output, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut told: Option<Told> = None;
    loop {
        let status: Status = client.get("/v1/status")?;
        let now = Told::of(&status);
        if screen.look.terminal && !output.json {
            screen.text(&format!("{CLEAR}{}", status::draw(&status, &screen.look)))?;
        } else if told.as_ref().is_none_or(|told| now.is_news_after(told)) {
            match output.json {
                true => screen.json(&status)?,
                false => screen.text(&now.line)?,
            }
            told = Some(now);
        }
        std::thread::sleep(EVERY);
    }
}

/// A line of a pipe.
struct Told {
    at: Millis,
    /// What is done, without how far it is.
    what: String,
    line: String,
}

impl Told {
    fn of(status: &Status) -> Self {
        let waits =
            status.hindrances.iter().map(|waiting| format!("; {} waits: {}", waiting.what, waiting.why));
        let waits: String = waits.collect();
        let left = status::left(status.until, status.at);
        // Where jobs run, the sentence changes with each step.
        let what = match status.jobs.as_slice() {
            [] => status.doing.clone(),
            jobs => jobs.iter().map(|job| format!("job {} ", job.job)).collect(),
        };
        Self {
            at: status.at,
            what: what + &waits,
            line: format!("{}  {}{left}{waits}\n", units::moment(status.at), status.doing),
        }
    }

    fn is_news_after(&self, told: &Self) -> bool {
        self.what != told.what || self.at.saturating_sub(told.at) >= STILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(at: Millis, what: &str) -> Told {
        Told { at, what: what.to_owned(), line: String::new() }
    }

    #[test]
    fn a_pipe_hears_what_is_new_and_now_and_then_that_it_goes_on() {
        let before = told(1_000, "trains the branch of version 1");
        assert!(!told(2_000, "trains the branch of version 1").is_news_after(&before));
        assert!(told(61_000, "trains the branch of version 1").is_news_after(&before));
        assert!(told(2_000, "publishes version 1").is_news_after(&before));
    }
}
