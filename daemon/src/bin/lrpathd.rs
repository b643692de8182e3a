//! `lrpathd`: the daemon.
//!
//! It runs for months, and answers and commits leave holes between what stays. jemalloc keeps like sizes together and gives
//! whole pages back, where the C library's heap only shrinks at its end.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use daemon::edge::failure::Failure;
use daemon::edge::log;
use daemon::edge::look::{Colours, Look};
use daemon::edge::lrpathd::{Child, Cli};
use daemon::{inbox, ledger, service};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static HEAP: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.child {
        Some(Child::ReadShard) => return inbox::reader::child(),
        Some(Child::Probe { view }) => return ledger::probe::child(&view),
        Some(Child::Sweep) => {
            service::sweep::run();
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    let look = Look::of_stderr(Colours::Auto);
    log::begin(cli.log, &look);
    match service::run(&cli.state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = Failure::from(error);
            // What cannot be printed cannot be helped; the number says it too.
            let _ = io::stderr().write_all(failure.render(&look).as_bytes());
            failure.exit.into()
        }
    }
}
