//! The command line: what `lrpathctl` does.
//!
//! `flags` says what can be asked, `commands` asks it, of the daemon through `client` or of the state itself through
//! `offline`, `init` and `plan`, and `draw` turns the answer into text. A failure is a sentence with a number.

mod backup;
mod check;
mod client;
mod commands;
mod configuration;
mod course;
mod demo;
pub mod draw;
mod export;
pub mod flags;
pub mod init;
mod layout;
mod manual;
mod offline;
mod place;
mod plan;
mod screen;
mod shapes;
mod upkeep;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::edge::failure::Exit;
use crate::edge::look::Look;
use flags::Cli;
use screen::Screen;

/// Runs the command line of this process.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // What cannot be printed cannot be helped.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    let mut out = Quiet { inner: io::stdout().lock(), gone: false };
    let mut screen = Screen { out: &mut out, look: Look::of_stdout(cli.color) };
    match commands::run(&cli.place, cli.command, &mut screen) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the answer has gone, as `head` does; that is no failure.
        Err(_) if out.gone => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = io::stderr().write_all(failure.render(&Look::of_stderr(cli.color)).as_bytes());
            failure.exit.into()
        }
    }
}

/// Standard output, which remembers that nobody reads it any more.
struct Quiet<W> {
    inner: W,
    gone: bool,
}

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.gone |= written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.gone |= flushed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        flushed
    }
}

#[cfg(test)]
mod tests;
